// The live page: asks for /-/status.json every second while somebody looks,
// and draws what it says.  Everything is written as text, never as markup.
"use strict";

const PERIOD_MS = 1000;
const MEMORY_S = 300; // how far back the plot of rates reaches
const BARS = 100; // how many batches are drawn

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

const memory = { startedAt: null, serial: 0, batches: [], totals: null, rates: [] };

// --- asking -----------------------------------------------------------------

const keyName = "abproxy key";
const headers = () => {
  const key = sessionStorage.getItem(keyName);
  return key ? { Authorization: `Bearer ${key}` } : {};
};

async function ask() {
  const options = { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(5000) };
  const answer = await fetch(`/-/status.json?since=${memory.serial}`, options);
  if (answer.status === 401) {
    signIn();
    return;
  }
  if (!answer.ok) throw new Error(`it answers with ${answer.status}`);
  show(await answer.json());
}

let timer = null;

async function tick() {
  timer = null;
  try {
    await ask();
  } catch (error) {
    say("bad", "cannot be reached; trying again");
  }
  goOn();
}

function goOn() {
  const looks = !document.hidden && $("sign-in").hidden;
  if (looks && timer === null) timer = setTimeout(tick, PERIOD_MS);
}

document.addEventListener("visibilitychange", goOn);

function signIn() {
  const wrong = sessionStorage.getItem(keyName) !== null;
  sessionStorage.removeItem(keyName);
  $("sign-in-error").textContent = wrong ? "This is none of its keys." : "";
  $("figures").hidden = true;
  $("sign-in").hidden = false;
  say("bad", "wants a key");
  $("key").focus();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(keyName, $("key").value.trim());
  $("key").value = "";
  $("sign-in").hidden = true;
  tick();
});

function say(kind, text) {
  const state = $("connection");
  state.className = `state ${kind}`;
  if (state.textContent !== text) state.textContent = text;
}

// --- remembering ------------------------------------------------------------

function remember(status) {
  if (memory.startedAt !== status.started_at) {
    Object.assign(memory, { startedAt: status.started_at, serial: 0, batches: [], totals: null });
  }
  for (const batch of status.batches) memory.batches.push(batch);
  memory.batches.splice(0, memory.batches.length - 256);
  if (memory.batches.length) memory.serial = memory.batches.at(-1).serial;
  const before = memory.totals;
  memory.totals = status.totals;
  if (before === null) return;
  const passed = status.totals.at - before.at;
  if (passed <= 0) return;
  const rate = (name) => (status.totals[name] - before[name]) / passed;
  memory.rates.push({
    at: status.now,
    calls: rate("calls"),
    items: rate("items"),
    requests: rate("requests"),
    errors: rate("errors") + rate("cancelled"),
  });
  while (memory.rates[0].at < status.now - MEMORY_S) memory.rates.shift();
}

// --- showing ----------------------------------------------------------------

function show(status) {
  remember(status);
  $("figures").hidden = false;
  const draining = status.flow.draining;
  const up = status.flow.upstream_up;
  if (draining) say("bad", "is going to stop");
  else if (up) say("good", `works; version ${status.version}, up ${lasting(status.now - status.started_at)}`);
  else say("bad", `no inference server: ${status.upstream.why}`);
  showVerdict(status.verdict);
  showNow(status);
  showRates();
  showSizes();
  showTimes();
  showUpstream(status);
  showTables(status);
}

function showVerdict(verdict) {
  write("verdict", verdict.text);
  const advice = $("advice");
  const told = verdict.advice ? `${verdict.advice.setting}: ${verdict.advice.why}.` : "";
  if (advice.dataset.told !== told) {
    advice.dataset.told = told;
    advice.replaceChildren();
    if (verdict.advice) {
      const strong = document.createElement("strong");
      strong.textContent = "What would help is ";
      advice.append(strong, told);
    }
  }
  figures("verdict-figures", [
    ["calls a request", number(verdict.calls_per_request)],
    ["ms an input, in company", number(verdict.shared_ms_per_item)],
    ["ms an input, alone", number(verdict.alone_ms_per_item)],
    ["of the time a slot was the limit", percent(verdict.slot_limited)],
    ["of the time the budget was", percent(verdict.budget_limited)],
    ["calls in the last " + lasting(verdict.period_s), number(verdict.calls)],
  ]);
}

function showNow(status) {
  const flow = status.flow;
  const rate = memory.rates.at(-1) ?? { calls: 0, items: 0, requests: 0, errors: 0 };
  figures("now", [
    ["calls/s", number(rate.calls)],
    ["inputs/s", number(rate.items)],
    ["requests/s", number(rate.requests)],
    ["errors/s", number(rate.errors), rate.errors > 0],
    ["longest wait, ms", number(flow.oldest_wait_seconds * 1000)],
    ["connections", number(flow.connections)],
    ["CPU µs a call", number(status.cpu_us_per_call)],
  ]);
  meter("budget", flow.items_in_flight, flow.budget_items, `of ${flow.budget_items}, up to ${flow.budget_max_items}`);
  meter("slots", flow.slots_taken, flow.slots, `of ${flow.slots}`);
  meter("waiting", flow.waiting_items, flow.waiting_max_items, `of ${flow.waiting_max_items}`);
  const kept = {
    nothing: "Nothing keeps a batch that is ready.",
    slot: "A batch is ready and waits for a slot, gathering others.",
    budget: "A full batch is ready and waits for room in the budget.",
    upstream: "The inference server takes no work: batches wait.",
  };
  write("kept", kept[status.kept_by] ?? "");
}

function showRates() {
  const rates = memory.rates;
  const most = Math.max(1, ...rates.map((rate) => Math.max(rate.calls, rate.requests)));
  const now = rates.at(-1)?.at ?? 0;
  const span = Math.max(60, now - (rates[0]?.at ?? now));
  const line = (name) => {
    const points = rates.map((rate) => {
      const x = 600 - ((now - rate.at) / span) * 600;
      return `${x.toFixed(1)},${(135 - (rate[name] / most) * 130).toFixed(1)}`;
    });
    return shape("path", { class: name, d: points.length ? `M${points.join("L")}` : "" });
  };
  $("rates").replaceChildren(line("calls"), line("requests"));
  write("rates-text", `in the last ${lasting(span)}, at most ${number(most)} a second`);
}

function showSizes() {
  const batches = memory.batches.slice(-BARS);
  const most = Math.max(1, ...batches.map((batch) => batch.items));
  const width = 600 / BARS;
  const bars = batches.map((batch, at) => {
    const height = (batch.items / most) * 130;
    const x = 600 - (batches.length - at) * width;
    const known = ["full", "free", "timer"].includes(batch.reason);
    return shape("rect", {
      class: known ? batch.reason : "drain",
      x: x.toFixed(1),
      y: (139 - height).toFixed(1),
      width: (width * 0.8).toFixed(1),
      height: height.toFixed(1),
    });
  });
  $("sizes").replaceChildren(...bars);
  const mean = batches.reduce((sum, batch) => sum + batch.items, 0) / (batches.length || 1);
  write("sizes-text", batches.length ? `; ${number(mean)} on average, at most ${most}` : "; none yet");
}

function showTimes() {
  const batches = memory.batches;
  const good = batches.filter((batch) => batch.upstream_ms !== null);
  rows("times", [
    ["Waiting, the oldest call of a batch", ...quantiles(batches.map((batch) => batch.wait_ms))],
    ["At the inference server", ...quantiles(good.map((batch) => batch.upstream_ms))],
  ]);
  write("times-caption", `of the last ${batches.length} batches`);
}

function showUpstream(status) {
  const upstream = status.upstream;
  const since = lasting(status.now - upstream.since);
  facts("upstream", [
    ["Address", upstream.url],
    ["State", `${upstream.state} for ${since}${upstream.why ? `: ${upstream.why}` : ""}`],
    ["Model", upstream.model ?? "it does not say"],
    ["Task", upstream.task ?? "it does not say"],
    ["Version", upstream.version ?? "it does not say"],
    ["Inputs in a request", upstream.max_batch_inputs ?? `it does not say; ${status.flow.batch_max_items} are sent`],
    ["Inputs at once", upstream.max_inputs_in_flight ?? "it does not say"],
  ]);
}

function showTables(status) {
  rows("lanes", status.lanes.map((lane) => [
    lane.route,
    [...lane.options, ...(lane.has_key ? ["a key of its own"] : []), ...(lane.is_bulk ? ["bulk"] : [])].join(", ") || "none",
    number(lane.calls),
    number(lane.items),
    `${number(lane.oldest_wait_ms)} ms`,
  ]), "Nobody waits.");
  rows("errors", status.errors.map((error) => [
    new Date(error.at * 1000).toLocaleString(),
    error.reason.replaceAll("_", " "),
    number(error.times),
    error.message,
  ]), "None since the start.");
  const settings = status.settings.map((each) => [each.name, each.value, each.default, each.meaning]);
  rows("settings", settings);
  const changed = status.settings.filter((each) => each.value !== each.default);
  [...$("settings").rows].forEach((row, at) => {
    row.classList.toggle("changed", status.settings[at].value !== status.settings[at].default);
  });
  write("settings-summary", `All settings, ${changed.length} of them changed: ${changed.map((each) => each.name).join(", ") || "none"}`);
}

// --- trying -----------------------------------------------------------------

$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const texts = $("texts").value.split("\n").filter((line) => line.trim());
  const route = $("route").value;
  const body = route.endsWith("/embeddings") ? { input: texts, model: $("model").value } : { inputs: texts };
  const about = $("answer-about");
  about.textContent = "asking …";
  const began = performance.now();
  try {
    const answer = await fetch(route, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    const took = performance.now() - began;
    about.textContent = `Status ${answer.status} after ${number(took)} ms; ${company(answer.headers.get("Server-Timing"))}.`;
    $("answer").textContent = text.length > 4000 ? `${text.slice(0, 4000)} … (${text.length} characters)` : text;
    $("answer").hidden = false;
  } catch (error) {
    about.textContent = `No answer: ${error.message}`;
  }
});

function company(timing) {
  if (!timing) return "it travelled alone, or was passed on";
  const calls = /batch;desc="(\d+) calls"/.exec(timing)?.[1] ?? "1";
  const queue = /queue;dur=([\d.]+)/.exec(timing)?.[1];
  const upstream = /upstream;dur=([\d.]+)/.exec(timing)?.[1];
  return `${calls} calls shared its batch; it waited ${queue} ms, and the inference server took ${upstream} ms`;
}

// --- writing ----------------------------------------------------------------

function write(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

const percent = (share) => `${Math.round(share * 100)} %`;

function lasting(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find((each) => seconds >= each[1]) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}

function quantiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return [0.5, 0.9, 0.99, 1].map((share) => (sorted.length ? number(at(share)) : "–"));
}

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  return element;
}

function figures(id, entries) {
  pairs(id, entries, true);
}

function facts(id, entries) {
  pairs(id, entries, false);
}

// Elements are kept and only their text is changed, so that a selection or a
// screen reader's place is not lost every second.
function pairs(id, entries, grouped) {
  const list = $(id);
  if (list.dataset.count !== String(entries.length)) {
    list.dataset.count = String(entries.length);
    list.replaceChildren(...entries.flatMap(() => {
      const pair = [document.createElement("dt"), document.createElement("dd")];
      if (!grouped) return pair;
      const group = document.createElement("div");
      group.append(...pair);
      return [group];
    }));
  }
  const names = list.querySelectorAll("dt");
  const values = list.querySelectorAll("dd");
  entries.forEach(([name, value, bad], at) => {
    if (names[at].textContent !== name) names[at].textContent = name;
    if (values[at].textContent !== String(value)) values[at].textContent = String(value);
    if (grouped) names[at].parentElement.classList.toggle("bad", Boolean(bad));
  });
}

function meter(id, value, most, text) {
  const element = $(id);
  element.max = Math.max(1, most);
  element.value = value;
  write(`${id}-text`, `${number(value)} ${text}`);
}

function rows(id, lines, empty) {
  const body = $(id);
  const wanted = lines.length || !empty ? lines : [[empty]];
  const columns = body.parentElement.tHead.rows[0].cells.length;
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((text, place) => {
      const cell = row.cells[place] ?? row.insertCell();
      if (cell.textContent !== String(text)) cell.textContent = String(text);
      cell.colSpan = cells.length === 1 ? columns : 1;
      cell.classList.toggle("empty", cells.length === 1);
    });
  });
}

tick();
