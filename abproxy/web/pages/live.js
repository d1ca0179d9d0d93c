// The live page: loads the figures every second while it is visible, and asks for
// the key if one is needed.
import { forgetKey, hasKey, look, takeKey } from "./asking.js";
import { show } from "./showing.js";
import { suggest } from "./trying.js";
import { announce, element, moment, write } from "./writing.js";

const PERIOD_MS = 1000;
const LASTING = 3; // updates after which a state is announced

let isWatching = false;
let isPaused = false;
let shownAt = null;

const isWatched = () => !document.hidden && !isPaused && element("sign-in").hidden;

async function watch() {
  if (isWatching) return;
  isWatching = true;
  while (isWatched()) {
    await lookOnce();
    await new Promise((goOn) => setTimeout(goOn, PERIOD_MS));
  }
  isWatching = false;
}

async function lookOnce() {
  const { status, refused, trouble } = await look();
  if (isPaused) return;
  if (refused) signIn();
  else if (trouble) say("bad", `${trouble}; trying again every second. ${age()}`, LASTING);
  else showOrSayWhy(status);
}

function showOrSayWhy(status) {
  try {
    show(status);
    suggest(status.upstream);
  } catch (error) {
    // The proxy was replaced by another version while the page was open.
    say("bad", "This page is of another version of abproxy: reload it.");
    throw error;
  }
  shownAt = Date.now() / 1000;
  element("figures").hidden = false;
  element("pause").hidden = false;
  say(...condition(status), LASTING);
}

function condition({ flow, upstream, models = [] }) {
  if (flow.draining) return ["bad", "abproxy is stopping; it still answers accepted calls."];
  if (upstream.state === "full") return ["busy", `The inference server is overloaded: ${upstream.why}. Calls wait.`];
  const silent = models.filter(({ state }) => state === "unreachable" || state === "failing");
  if (flow.upstream_up && silent.length > 0) {
    return ["busy", `abproxy works, but no inference server answers for ${silent.map(({ name }) => name).join(", ")}.`];
  }
  const away = upstream.servers.filter(({ state }) => ["out", "other_model", "model_unknown"].includes(state));
  if (flow.upstream_up && away.length > 0) {
    return ["busy", `abproxy works, but ${away.length} of ${upstream.servers.length} inference servers get no calls.`];
  }
  if (flow.upstream_up) return ["good", "abproxy works, and so does the inference server."];
  return ["bad", `The inference server does not answer: ${upstream.why}.`];
}

// Shown at once, but announced only if it comes that many times in a row.
function say(kind, text, times = 1) {
  element("bar").className = `bar ${kind}`;
  write("state", text);
  announce("state-told", text, times);
}

const age = () => (shownAt ? `The figures are of ${moment(shownAt)}.` : "");

// --- signing in -------------------------------------------------------------

function signIn() {
  const isWrong = hasKey();
  forgetKey();
  write("key-error", isWrong ? "abproxy does not accept this key." : "");
  element("key").setAttribute("aria-invalid", isWrong);
  element("figures").hidden = true;
  element("pause").hidden = true;
  element("sign-in").hidden = false;
  say("", "abproxy works. To see its figures, enter a key.");
  element("key").focus();
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  takeKey(element("key").value.trim());
  element("key").value = "";
  element("sign-in").hidden = true;
  element("main").focus();
  say("", "Connecting …");
  watch();
});

// --- visible or not ---------------------------------------------------------

element("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  element("pause").setAttribute("aria-pressed", isPaused);
  if (isPaused) say("", `Paused. ${age()}`);
  watch();
});

document.addEventListener("visibilitychange", watch);

watch();
