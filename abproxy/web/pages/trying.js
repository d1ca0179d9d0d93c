// The form that sends a call as a client would.
import { ask, below } from "./asking.js";
import { element, number, write } from "./writing.js";

const LONGEST = 4000; // characters of an answer that are shown

let isAsking = false;
let isTouched = false;

const wantsModel = () => element("route").value.endsWith("/embeddings");

// Preselect a route that this server has.
export function suggest(upstream) {
  if (isTouched || upstream.state === "unknown") return;
  isTouched = true;
  if (upstream.model) element("model").value = upstream.model;
  // Only text-embeddings-inference reports its version; others have OpenAI's API.
  else if (upstream.state === "up" && !upstream.version) element("route").value = "/v1/embeddings";
  element("model-field").hidden = !wantsModel();
}

element("route").addEventListener("change", () => {
  isTouched = true;
  element("model-field").hidden = !wantsModel();
});

element("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isAsking) return;
  isAsking = true;
  say("", "Sending …");
  element("answer").hidden = true;
  try {
    await askOnce();
  } catch {
    say("bad", "No answer: abproxy cannot be reached.");
  }
  isAsking = false;
});

async function askOnce() {
  const texts = element("texts").value.split("\n").filter((line) => line.trim());
  const body = wantsModel() ? { input: texts, model: element("model").value } : { inputs: texts };
  const began = performance.now();
  const answer = await ask(below(element("route").value), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const took = number(performance.now() - began);
  const told = answer.ok ? `${rowsIn(text)} ${aboutBatch(answer.headers.get("Server-Timing"))}` : "";
  say(answer.ok ? "good" : "bad", `Status ${answer.status} after ${took} ms. ${told}`);
  element("answer").hidden = !text;
  write("answer", text.length > LONGEST ? `${text.slice(0, LONGEST)} … (${number(text.length)} characters)` : text);
}

function say(kind, text) {
  element("answer-about").className = kind;
  write("answer-about", text.trim());
}

function rowsIn(text) {
  const answer = JSON.parse(text);
  const rows = answer.data ?? answer;
  const first = rows[0].embedding ?? rows[0];
  const isNumbers = Array.isArray(first) && typeof first[0] === "number";
  return `${rows.length} ${rows.length === 1 ? "row" : "rows"}${isNumbers ? ` of ${first.length} numbers` : ""}.`;
}

// Only an answer from a shared batch has Server-Timing.
function aboutBatch(timing) {
  const found = /queue;dur=([\d.]+), upstream;dur=([\d.]+), batch;desc="(\d+) calls"/.exec(timing ?? "");
  if (!found) return "Its batch had no other call.";
  const [, queue, upstream, calls] = found;
  return `${calls} calls shared its batch; it waited ${queue} ms, and the inference server took ${upstream} ms.`;
}
