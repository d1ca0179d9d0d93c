// Fetches from abproxy, with the key if there is one, and keeps the figures over time.

const KEY = "abproxy key"; // in the storage of this tab, and never in an address
const PATIENCE_MS = 5000;
const MEMORY_S = 300; // how far back rates are remembered
const SAME_START_S = 1; // within which two dates are those of one start
const BATCHES = 256; // as many as abproxy itself remembers

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const takeKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

// All paths of abproxy are below the one where this page is, under whatever prefix.
const ROOT = new URL("..", document.baseURI);

export function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (hasKey()) headers.Authorization = `Bearer ${inBytes(sessionStorage.getItem(KEY))}`;
  return fetch(new URL(`.${path}`, ROOT), { cache: "no-store", ...options, headers });
}

// A header takes bytes only, one for each character; a key that was mistyped may
// have others.
const inBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

// The model whose figures are shown, where there are several.
const MODEL = new URLSearchParams(location.search).get("model");

export function choose(model) {
  location.search = new URLSearchParams({ model });
}

// Where to call the model that is shown.
export const below = (route) => MODEL === null ? route : `/models/${encodeURIComponent(MODEL)}${route}`;

// The last batches, and rates over time.
export const past = { startedAt: null, serial: 0, totals: null, batches: [], rates: [] };

// Load the status, and add it to the past.
export async function look() {
  let status;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const model = MODEL === null ? "" : `&model=${encodeURIComponent(MODEL)}`;
    const answer = await ask(`/-/status.json?since=${past.serial}${model}`, { signal });
    if (answer.status === 401) return { refused: true };
    if (!answer.ok) return { trouble: `abproxy answers with ${answer.status}` };
    status = await answer.json();
  } catch {
    return { trouble: "abproxy cannot be reached" };
  }
  // The same moment is another date once the clock is corrected.
  const isAnother = Math.abs(past.startedAt - status.started_at) > SAME_START_S;
  const missesSome = isAnother && past.serial > 0;
  if (isAnother) Object.assign(past, { startedAt: status.started_at, serial: 0, totals: null, batches: [] });
  if (missesSome) return look();
  remember(status);
  return { status };
}

function remember(status) {
  past.batches.push(...status.batches);
  past.batches.splice(0, past.batches.length - BATCHES);
  past.serial = past.batches.at(-1)?.serial ?? 0;
  const before = past.totals;
  past.totals = status.totals;
  if (before === null || status.totals.at <= before.at) return;
  past.rates.push(rates(before, status.totals));
  while (past.rates[0].at < status.totals.at - MEMORY_S) past.rates.shift();
}

function rates(before, now) {
  const rate = (name) => (now[name] - before[name]) / (now.at - before.at);
  return {
    at: now.at,
    calls: rate("calls"),
    items: rate("items"),
    requests: rate("requests"),
    errors: rate("errors"),
    cancelled: rate("cancelled"),
  };
}
