// An answer as a chart: a line over time or a number that grows, points of two numbers, else bars in its table.
import { $, drawn, number } from "./page.js";

const [WIDE, HIGH] = [560, 260];
const [LEFT, RIGHT, TOP, BELOW] = [70, 24, 26, 44];
const SERIES = 4;
const DATE = /^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

const isNumber = (value) => typeof value === "number";
const timeOf = (value) => Date.parse(value.includes("T") || value.includes(" ") ? value.replace(" ", "T") : `${value}T00:00Z`);
const column = (rows, at) => rows.map((row) => row[at]);
const some = (values, is) => values.some((value) => value !== null) && values.every((value) => value === null || is(value));

// Returns { kind, x, ys, isTime } of what suits rows, or null.
export function suits(columns, rows) {
  if (rows.length < 3) return null;
  const numeric = columns.map((_, at) => some(column(rows, at), isNumber));
  const numbers = numeric.flatMap((is, at) => (is ? [at] : []));
  const first = column(rows, 0);
  const isTime = first.every((value) => typeof value === "string" && DATE.test(value));
  const along = isTime ? first.map(timeOf) : numeric[0] && !first.includes(null) ? first : null;
  const ys = numbers.filter((at) => at > 0).slice(0, SERIES);
  if (along && ys.length && along.every((value, at) => at === 0 || value > along[at - 1])) return { kind: "line", x: 0, ys, isTime };
  const pair = numbers.slice(0, 2);
  return pair.length === 2 && rows.length >= 8 ? { kind: "scatter", x: pair[0], ys: [pair[1]], isTime: false } : null;
}

// Round steps of 1, 2 or 5 times a power of ten that cut a range in four to ten.
export function ticks(low, high) {
  if (!(high > low)) return [low];
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5].map((times) => times * power).find((one) => (high - low) / one <= 10) || 10 * power;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + 1e-9 * step; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

const text = (facts, words) => { const made = drawn("text", facts); made.textContent = words; return made; };

// Shows what suits an answer, a picture for each of its columns, since these may count different things; returns whether any does.
export function chart(columns, rows) {
  const what = suits(columns, rows);
  $("chart").hidden = !what;
  $("chart").replaceChildren(...(what ? what.ys.map((y) => picture(columns, rows, what, y)) : []));
  return Boolean(what);
}
function picture(columns, rows, what, y) {
  const value = (row) => (what.isTime ? timeOf(row[what.x]) : row[what.x]);
  const points = rows.filter((row) => row[what.x] !== null && row[y] !== null).map((row) => [value(row), row[y], row]);
  const ends = (at) => [Math.min(...points.map((one) => one[at])), Math.max(...points.map((one) => one[at]))];
  const [[x0, x1], [y0, y1]] = [ends(0), ends(1)];
  const across = (x) => LEFT + ((WIDE - LEFT - RIGHT) * (x - x0)) / (x1 - x0 || 1);
  const up = (at) => TOP + (HIGH - BELOW - TOP) * (1 - (at - y0) / (y1 - y0 || 1));
  const day = (x) => new Date(x).toISOString().slice(0, x1 - x0 > 4 * 86400e3 ? 10 : 16).replace("T", " ");
  const shapes = [text({ class: "name", x: 4, y: 14 }, columns[y]), text({ x: (LEFT + WIDE) / 2, y: HIGH - 6, "text-anchor": "middle" }, columns[what.x])];
  for (const at of ticks(y0, y1)) shapes.push(drawn("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: up(at), y2: up(at) }), text({ x: LEFT - 8, y: up(at) + 4, "text-anchor": "end" }, number(at)));
  for (const x of what.isTime ? [0, 1, 2, 3].map((at) => x0 + (at * (x1 - x0)) / 3) : ticks(x0, x1)) {
    shapes.push(drawn("line", { class: "grid", x1: across(x), x2: across(x), y1: TOP, y2: HIGH - BELOW }), text({ x: across(x), y: HIGH - BELOW + 18, "text-anchor": "middle" }, what.isTime ? day(x) : number(x)));
  }
  if (what.kind === "line") shapes.push(drawn("path", { d: points.map(([x, at], step) => `${step ? "L" : "M"}${across(x)} ${up(at)}`).join("") }));
  else shapes.push(...points.map((point) => dot(across(point[0]), up(point[1]), point[2])));
  const made = drawn("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${columns[y]} by ${columns[what.x]}: ${what.kind === "line" ? "a line" : "points"}; the table has the numbers` });
  made.append(...shapes);
  return made;
}
function dot(cx, cy, row) {
  const [made, title] = [drawn("circle", { class: "dot", cx, cy, r: 3 }), drawn("title", {})];
  title.textContent = row.map((cell) => String(cell)).join(", ").slice(0, 300);
  made.append(title);
  return made;
}
