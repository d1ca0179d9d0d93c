// The two plots, and the same figures as tables for screen readers.
import { element, lasting, moment, number, rows, write } from "./writing.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600; // of the drawing, in units of its own
const HEIGHT = 100;
const BARS = 100;
const SPANS_S = [60, 120, 300];
const GAP_S = 3; // no line across a longer pause

export function drawRates(rates) {
  const now = rates.at(-1)?.at ?? 0;
  const age = now - (rates[0]?.at ?? now);
  const span = SPANS_S.find((each) => each >= age) ?? SPANS_S.at(-1);
  const seen = rates.map((rate) => Math.max(rate.calls, rate.requests, rate.errors));
  const most = rounded(Math.max(1, ...seen));
  const line = (name) => shape("path", { class: name, d: path(rates, name, now, span, most) });
  element("rates").replaceChildren(line("requests"), line("calls"), line("errors"));
  scale("rates-scale", most);
  write("rates-from", `${lasting(span)} ago`);
  describeRates(rates, now);
}

function path(rates, name, now, span, most) {
  const points = rates.map((rate, at) => {
    const isFirst = at === 0 || rate.at - rates[at - 1].at > GAP_S;
    const x = WIDTH - ((now - rate.at) / span) * WIDTH;
    const y = HEIGHT - (rate[name] / most) * HEIGHT;
    return `${isFirst ? "M" : "L"}${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return points.join("");
}

function describeRates(rates, now) {
  const lately = (span) => rates.filter((rate) => rate.at >= now - span);
  const mean = (span, name) => {
    const values = lately(span).map((rate) => rate[name]);
    return number(values.reduce((sum, each) => sum + each, 0) / (values.length || 1));
  };
  write("rates-text", `: ${mean(10, "calls")} calls and ${mean(10, "requests")} requests a second on average in the last 10 s`);
  if (!element("rates-more").open) return;
  rows("rates-rows", [10, 60, 300].map((span) => [
    lasting(span),
    ...["calls", "items", "requests", "errors"].map((name) => mean(span, name)),
  ]));
}

const REASONS = {
  full: "full",
  free: "slot free",
  timer: "wait passed",
  drain: "abproxy stops",
  suspect: "quarantined",
};

export function drawSizes(batches, cap) {
  const shown = batches.slice(-BARS);
  const largest = Math.max(0, ...shown.map((batch) => batch.items));
  // A full batch fills the height, unless all are so small that nothing is seen.
  const most = largest > cap / 4 || !largest ? Math.max(cap, largest) : rounded(largest);
  const width = WIDTH / BARS;
  const bars = shown.map((batch, at) => {
    const height = (batch.items / most) * HEIGHT;
    return shape("rect", {
      class: ["full", "free", "timer"].includes(batch.reason) ? batch.reason : "other",
      x: WIDTH - (shown.length - at) * width,
      y: HEIGHT - height,
      width: width * 0.8,
      height,
    });
  });
  element("sizes").replaceChildren(...bars);
  scale("sizes-scale", most);
  describeSizes(shown, largest);
}

function describeSizes(batches, largest) {
  const mean = batches.reduce((sum, batch) => sum + batch.items, 0) / (batches.length || 1);
  write("sizes-text", batches.length ? `: ${number(mean)} on average, at most ${largest}` : ": none yet");
  if (!element("sizes-more").open) return;
  rows("sizes-rows", batches.slice(-10).reverse().map((batch) => [
    moment(batch.at),
    batch.route,
    REASONS[batch.reason] ?? batch.reason,
    number(batch.calls),
    number(batch.items),
    number(batch.wait_ms),
    batch.upstream_ms === null ? "no answer" : number(batch.upstream_ms),
  ]), "None yet.");
}

// The next round number, as the end of an axis.
function rounded(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((times) => times * unit).find((each) => each >= value);
}

function scale(id, most) {
  const marks = element(id);
  if (!marks.children.length) marks.append(...[1, 2, 3].map(() => document.createElement("span")));
  [most, most / 2, 0].forEach((value, at) => write(marks.children[at], number(value)));
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}
