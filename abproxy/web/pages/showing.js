// Shows a status on the page.
import { choose, past } from "./asking.js";
import { drawRates, drawSizes } from "./plots.js";
import { announce, element, facts, figures, lasting, meter, moment, number, percent, rows, write } from "./writing.js";

export function show(status) {
  write("about", `${status.version}, up for ${lasting(status.now - status.started_at)}${working(status.workers)}`);
  showModels(status);
  showVerdict(status.verdict, status.lately);
  showServers(status);
  showNow(status, status.verdict.helps !== null);
  drawRates(past.rates);
  drawSizes(past.batches, status.flow.batch_max_items);
  showTimes(past.batches);
  showUpstream(status);
  showLanes(status.lanes);
  showRefused(status.refused);
  showSharing(status.sharing);
  showErrors(status.errors);
  showSettings(status.settings);
}

function working(workers) {
  const silent = workers.filter((worker) => !worker.answers).length;
  const all = workers.length ? `, ${workers.length} workers` : "";
  return silent ? `${all}, of which ${silent} ${silent === 1 ? "does" : "do"} not answer` : all;
}

// --- where there are several models ------------------------------------------

function showModels({ model, models = [] }) {
  element("models-shown").hidden = models.length === 0;
  rows("models", models.map((each) => [
    each.name,
    each.names.slice(1).join(", ") || "none",
    each.url,
    each.state,
    number(each.calls),
    number(each.errors),
    number(each.waiting_items),
    number(each.items_in_flight),
  ]));
  const names = models.map(({ name }) => name);
  const chosen = element("chosen");
  const known = Array.from(chosen.options, (option) => option.value);
  if (names.join("\n") !== known.join("\n")) chosen.replaceChildren(...names.map((name) => new Option(name)));
  if (document.activeElement !== chosen && model) chosen.value = model;
}

element("chosen").addEventListener("change", () => choose(element("chosen").value));

// --- where there are several servers -----------------------------------------

const STATES = {
  up: "takes calls",
  growing: "takes a growing share of calls",
  full: "full: takes none for a moment",
  out: "out",
  drained: "drained by an operator",
  other_model: "left out",
  model_unknown: "has yet to say which model it has",
  leaving: "finishes what it has, and goes",
};

function showServers({ upstream: { servers = [] }, now }) {
  element("servers-shown").hidden = servers.length === 0;
  rows("servers", servers.map((each) => [
    each.address,
    told(each, now),
    number(each.inputs_in_flight),
    number(each.inputs_per_s),
    percent(each.share),
    number(each.ejections),
    each.last_error ? `${moment(each.last_error_at)}: ${each.last_error}` : "none",
  ]));
  servers.forEach((each, at) => element("servers").rows[at].classList.toggle("bad", each.state === "out"));
}

function told({ state, why, since }, now) {
  const lasts = ["out", "drained"].includes(state) ? ` for ${lasting(now - since)}` : "";
  return `${STATES[state]}${lasts}${why ? `: ${why}` : ""}`;
}

// --- the three questions ----------------------------------------------------

const UNKNOWN = "Not known yet";
const SETTLED = 10; // updates after which an answer is announced

const HELPS = new Map([
  [true, ["good", "Yes"]],
  [false, ["plain", "No"]],
  [null, ["plain", UNKNOWN]],
]);

const LIMITS = {
  nothing: ["plain", "Nothing much", "Batches are sent when they are ready."],
  slot: ["plain", "Slots", "While all are taken, calls wait and form larger batches."],
  budget: ["plain", "The server’s speed", "Full batches wait until it has answered earlier ones."],
  account: ["warm", "The account’s rate limit", "Calls wait for its requests or tokens a minute, and share them in larger batches."],
  upstream: ["bad", "The server’s health", "It is unreachable or overloaded, and calls wait."],
};

function showVerdict(verdict, lately) {
  const isTelling = verdict.helps !== null;
  const [tone, helps] = HELPS.get(verdict.helps);
  answer("helps", tone, helps);
  write("because", verdict.text);
  figures("gain", [
    ["calls in a request", number(verdict.calls_per_request), "Calls, or parts of large ones, for each request to the inference server"],
    ["ms an input, together", number(verdict.shared_ms_per_item), "The server’s time for an input in a batch of several calls"],
    ["ms an input, alone", number(verdict.alone_ms_per_item), "The server’s time for an input in a batch of one call"],
    ["of inputs known", percent(lately.reused / Math.max(1, lately.reused + lately.items)), "Inputs that were not computed, because an equal one was in flight or remembered"],
    ["s of the server saved", number((lately.reused * (verdict.shared_ms_per_item ?? verdict.alone_ms_per_item ?? 0)) / 1000), "What these inputs would have taken the server"],
  ]);
  const [kind, limit, meaning] = isTelling ? LIMITS[verdict.limited_by] : ["plain", UNKNOWN, ""];
  answer("limited-by", kind, limit);
  write("limit", meaning);
  share("by-slot", verdict.slot_limited);
  share("by-budget", verdict.budget_limited);
  share("by-account", verdict.account_limited);
  share("by-upstream", verdict.upstream_limited);
  const change = verdict.advice?.setting ?? "Nothing";
  showAdvice(verdict, change, isTelling);
  const told = `Is batching helping? ${helps}. What limits it? ${limit}. What to change? ${change}.`;
  announce("verdict-told", isTelling ? told : "", SETTLED);
}

function showAdvice({ advice, calls, period_s }, change, isTelling) {
  answer("advice", advice ? "warm" : "plain", change);
  if (advice) {
    write("why", `${advice.why}.`);
  } else {
    write("why", isTelling ? "No setting would have helped with these calls." : "Send some calls to get an answer.");
  }
  write("judged", `Judged by ${number(calls)} ${calls === 1 ? "call" : "calls"} in the last ${lasting(period_s)}.`);
}

function answer(id, kind, text) {
  element(id).className = `answer ${kind}`;
  write(id, text);
}

const share = (id, part) => meter(id, part, 1, percent(part));

// --- now --------------------------------------------------------------------

const KEPT = {
  nothing: "No batch is delayed.",
  slot: "Calls wait until a slot is free.",
  callers: "Calls wait a moment for callers who were just answered and are about to call again.",
  budget: "Full batches wait for room in the budget.",
  account: "Calls wait for the requests or tokens a minute that the account at the inference server may have.",
  upstream: "The inference server is unreachable or overloaded: calls wait.",
};

function showNow({ flow, kept_by, cpu_us_per_call, verdict }, isTelling) {
  const rate = past.rates.at(-1) ?? {};
  figures("now", [
    ["calls/s", number(rate.calls), "Batched calls of clients that were answered"],
    ["inputs/s", number(rate.items), "Inputs sent in batches"],
    ["requests/s", number(rate.requests), "Requests to the inference server"],
    ["errors/s", number(rate.errors), "Calls answered with a status of 400 or more", rate.errors > 0],
    ["cancelled/s", number(rate.cancelled), "Calls whose clients disconnected before the answer"],
    ["ms longest wait", number(flow.oldest_wait_seconds * 1000), "Of the call that has waited longest"],
    ["connections", number(flow.connections), "Open connections of clients"],
    ["MB held", number((flow.arriving_bytes + flow.unread_bytes) / 1e6), `Of requests, and of answers that are collected or wait to be read; ${number(flow.memory_max_bytes / 1e6)} MB are allowed`],
    ["CPU µs a call", number(isTelling ? cpu_us_per_call : null), "CPU time of abproxy itself for a call, in the last hour"],
  ]);
  meter("in-flight", flow.items_in_flight, flow.budget_items, `${number(flow.items_in_flight)} of a budget of ${number(flow.budget_items)}`);
  meter("slots", flow.slots_taken, flow.slots, `${number(flow.slots_taken)} of ${number(flow.slots)}`);
  meter("waiting", flow.waiting_items, flow.waiting_max_items, `${number(flow.waiting_items)} of ${number(flow.waiting_max_items)}`);
  write("kept", KEPT[kept_by]);
  write("ladder", verdict.slots);
}

function showTimes(batches) {
  const answered = batches.filter((batch) => batch.upstream_ms !== null);
  rows("times", [
    ["Oldest call waited", ...quantiles(batches.map((batch) => batch.wait_ms))],
    ["Server took", ...quantiles(answered.map((batch) => batch.upstream_ms))],
  ]);
  write("times-about", `Of the last ${number(batches.length)} batches`);
}

function quantiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const last = sorted.length - 1;
  return [0.5, 0.9, 0.99, 1].map((part) => number(sorted[Math.min(last, Math.floor(sorted.length * part))]));
}

// --- tables ----------------------------------------------------------

function showUpstream({ upstream, flow, now }) {
  const unsaid = "not known";
  const why = upstream.why ? `: ${upstream.why}` : "";
  facts("upstream", [
    ["Address", upstream.url],
    ["State", `${upstream.state} for ${lasting(now - upstream.since)}${why}`],
    ["Model", upstream.model ?? unsaid],
    ["Task", upstream.task ?? unsaid],
    ["Version", upstream.version ?? unsaid],
    ["Accepts in a request", `${upstream.max_batch_inputs ?? unsaid}; a batch is full at ${flow.batch_max_items} inputs`],
    ["Accepts at once", `${upstream.max_inputs_in_flight ?? unsaid}; the budget is ${flow.budget_items} now`],
  ]);
}

function showLanes(lanes) {
  rows("lanes", lanes.map((lane) => [
    lane.route,
    [...lane.options, ...(lane.has_key ? ["own key"] : []), ...(lane.is_bulk ? ["bulk"] : [])].join(", ") || "none",
    number(lane.calls),
    number(lane.items),
    number(lane.oldest_wait_ms),
  ]), "No call waits.");
}

function showRefused(refused) {
  rows("refused", refused.map((lane) => [
    lane.route ? lane.route + (lane.has_key ? ", own key" : "") : "all",
    lane.model || "any",
    lane.why,
    number(lane.for_s),
  ]), "It takes all.");
}

function showSharing({ apart, alone, relayed }) {
  const row = (way) => ({ name, times, setting }) => [name, way, number(times), setting];
  rows("sharing", [...apart.map(row("apart")), ...alone.map(row("alone"))], "Nothing does.");
  const paths = relayed.map(({ path, times }) => `${path} (${number(times)})`);
  write("relayed", paths.length ? `Relayed without batching: ${paths.join(", ")}.` : "");
}

function showErrors(errors) {
  rows("errors", errors.slice(0, 10).map((error) => [
    moment(error.at),
    error.reason.replaceAll("_", " "),
    number(error.times),
    error.message,
  ]), "None since the start.");
}

function showSettings(settings) {
  const changed = settings.filter((setting) => setting.value !== setting.default);
  const told = changed.map((setting) => `${setting.name}=${setting.value}`).join(", ");
  write("settings-about", told ? `Changed from their defaults: ${told}.` : "All have their defaults.");
  rows("settings", settings.map((setting) => [setting.name, setting.value, setting.default, setting.unit, setting.meaning]));
  settings.forEach((setting, at) => {
    element("settings").rows[at].classList.toggle("changed", changed.includes(setting));
  });
}
