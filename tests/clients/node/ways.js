// Two ways to one real server: directly, and through the proxy.
// `twistd` is taken from PATH, or from TWISTD.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TWISTD = process.env.TWISTD ?? "twistd";
const READY_MS = 30_000;
const started = [];

export const KEY = "sesame";
export const MOST = 32;
export const TEXTS = Array.from(
  { length: 60 },
  (_, number) => `text number ${number}, ${"and so on, ".repeat(number % 7)}`,
);
export const TOO_LONG = "a b c d ".repeat(300);

async function run(ready, ...options) {
  const cwd = await mkdtemp(join(tmpdir(), "abproxy-"));
  const child = spawn(TWISTD, ["--nodaemon", "--pidfile=", ...options], {
    cwd,
    env: { PATH: process.env.PATH },
    stdio: ["ignore", "pipe", "inherit"],
  });
  started.push(child);
  let log = "";
  const isReady = new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      log += data;
      if (log.includes(ready)) resolve();
    });
    child.once("error", reject);
    child.once("exit", () => reject(new Error(log)));
    setTimeout(() => reject(new Error(log)), READY_MS).unref();
  });
  await isReady;
  return `http://127.0.0.1:${log.match(/(?:http:\/\/127\.0\.0\.1:|port=)(\d+)/)[1]}`;
}

export async function start(ready, ...options) {
  const direct = await run(
    " serving ", "abproxy-model", "--model=static", "--port=0", ...options,
  );
  const proxied = await run(
    ready, "abproxy", "--port=0", "--max-wait-time=20",
    `--inference-service-url=${direct}`,
  );
  return { direct, proxied };
}

export async function stop() {
  for (const child of started.splice(0).reverse()) {
    const ended = child.exitCode ?? once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  }
}

export async function requests(ways) {
  const text = await (await fetch(`${ways.direct}/metrics`)).text();
  const counts = text.matchAll(/^te_request_count\S* (\S+)$/gm);
  return [...counts].reduce((sum, found) => sum + Number(found[1]), 0);
}

export async function failure(ask, url) {
  try {
    await ask(url);
  } catch (error) {
    const words = String(error.message).replaceAll(url, "URL");
    return { name: error.constructor.name, status: error.status, words };
  }
  throw new Error("no error");
}

export function slices(items) {
  const count = Math.ceil(items.length / MOST);
  return Array.from({ length: count }, (_, at) =>
    items.slice(at * MOST, (at + 1) * MOST),
  );
}
