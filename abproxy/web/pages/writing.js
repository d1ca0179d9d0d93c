// Writes into the page: text only, never markup, and only what has changed, so
// that a selection or a screen reader's position is not lost every second.

export const element = (id) => document.getElementById(id);

export function write(target, text) {
  const found = typeof target === "string" ? element(target) : target;
  if (found.textContent !== String(text)) found.textContent = text;
}

const shown = new Map();

// Announce a text to screen readers once it has come so many times in a row: one
// that changes all the time would interrupt their users.
export function announce(id, text, times) {
  const [before, count] = shown.get(id) ?? [];
  shown.set(id, [text, before === text ? count + 1 : 1]);
  if (shown.get(id)[1] >= times) write(id, text);
}

// --- numbers and times ------------------------------------------------------

export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

export const percent = (part) => `${Math.round(part * 100)} %`;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

export function lasting(seconds) {
  const [unit, size] = UNITS.find((each) => seconds >= each[1]) ?? UNITS.at(-1);
  return `${Math.floor(seconds / size)} ${unit}`;
}

// A moment as a clock shows it, with the day if that is not today.
export function moment(at) {
  const spelled = (date) => date.toLocaleString("sv").split(" "); // 2026-11-25 13:05:00
  const [day, time] = spelled(new Date(at * 1000));
  return day === spelled(new Date())[0] ? time : `${day} ${time}`;
}

// --- lists, tables and meters -----------------------------------------------

// Numbers with what they count: [name, value, more about it, whether it is bad].
export function figures(id, entries) {
  const list = element(id);
  while (list.children.length < entries.length) list.append(group());
  entries.forEach(([name, value, about, isBad = false], at) => {
    const [term, told] = list.children[at].children;
    list.children[at].title = about;
    list.children[at].classList.toggle("bad", isBad);
    write(term, name);
    write(told, value);
  });
}

function group() {
  const made = document.createElement("div");
  made.append(document.createElement("dt"), document.createElement("dd"));
  return made;
}

// Names and what there is to say: [name, text].
export function facts(id, entries) {
  const list = element(id);
  while (list.children.length < 2 * entries.length) list.append(...group().children);
  entries.flat().forEach((text, at) => write(list.children[at], text));
}

export function rows(id, lines, empty = "") {
  const body = element(id);
  const wanted = lines.length ? lines : [[empty]];
  const columns = body.parentElement.tHead.rows[0].cells.length;
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((texts, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length > texts.length) row.deleteCell(-1);
    while (row.cells.length < texts.length) row.insertCell();
    row.cells[0].colSpan = lines.length ? 1 : columns;
    row.className = lines.length ? "" : "empty";
    texts.forEach((text, place) => write(row.cells[place], text));
  });
}

export function meter(id, value, most, text) {
  const found = element(id);
  found.max = Math.max(1, most); // 0 of 0 must not show a full meter
  found.value = value;
  write(`${id}-text`, text);
}
