// What each client gets through the proxy is what it gets directly.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { InferenceClient } from "@huggingface/inference";
import OpenAI from "openai";

import {
  KEY, TEXTS, TOO_LONG, failure, requests, slices, start, stop,
} from "./ways.js";

let ways;
let strict;

before(async () => {
  ways = await start("inference server has");
  strict = await start("wants a key", "--auto-truncate=false", `--api-key=${KEY}`);
});
after(stop);

const THOUSAND = Array.from({ length: 17 }, (_, number) =>
  TEXTS.map((text) => `${text} ${number}`),
).flat();

function huggingFace(url, key = KEY) {
  const client = new InferenceClient(key, { endpointUrl: url });
  return (inputs) => client.featureExtraction({ inputs });
}

function openai(url, key = KEY, options = {}) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  return async (input) => {
    const answer = await client.embeddings.create({
      model: "any", input, ...options,
    });
    return answer.data.map((row) => row.embedding);
  };
}

const openaiFloats = (url, key) => openai(url, key, { encoding_format: "float" });

for (const [name, client] of Object.entries({ huggingFace, openai, openaiFloats })) {
  describe(name, () => {
    test("a list of texts", async () => {
      const inputs = TEXTS.slice(0, 20);
      assert.deepEqual(
        await client(ways.proxied)(inputs), await client(ways.direct)(inputs),
      );
    });

    test("one text", async () => {
      assert.deepEqual(
        await client(ways.proxied)("text"), await client(ways.direct)("text"),
      );
    });

    test("a thousand texts in one call", async () => {
      const direct = [];
      for (const part of slices(THOUSAND)) {
        direct.push(...(await client(ways.direct)(part)));
      }
      assert.deepEqual(await client(ways.proxied)(THOUSAND), direct);
    });

    test("calls at once share batches", async () => {
      const direct = await Promise.all(TEXTS.map((text) => client(ways.direct)(text)));
      const count = await requests(ways);
      const proxied = await Promise.all(TEXTS.map((text) => client(ways.proxied)(text)));
      assert.deepEqual(proxied, direct);
      assert.ok((await requests(ways)) - count <= TEXTS.length / 2);
    });

    for (const inputs of ["", ["good", ""], []]) {
      test(`an empty input: ${JSON.stringify(inputs)}`, async () => {
        const ask = (url) => client(url)(inputs);
        assert.deepEqual(
          await failure(ask, ways.proxied), await failure(ask, ways.direct),
        );
      });
    }

    test("a text that is too long", async () => {
      const ask = (url) => client(url)(["good", TOO_LONG]);
      const proxied = await failure(ask, strict.proxied);
      assert.deepEqual(proxied, await failure(ask, strict.direct));
    });

    test("a wrong key", async () => {
      const ask = (url) => client(url, "wrong")("good");
      const proxied = await failure(ask, strict.proxied);
      assert.deepEqual(proxied, await failure(ask, strict.direct));
    });

    test("the right key", async () => {
      assert.deepEqual(
        await client(strict.proxied)("good"), await client(strict.direct)("good"),
      );
    });
  });
}
