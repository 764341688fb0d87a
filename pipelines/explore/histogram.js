// Histograms of a measure, all clips and those that stay, on which a range can be brushed.
import { drawn } from "./page.js";

export function placeOf(value, edges) {
  const last = edges.length - 1;
  if (value <= edges[0]) return 0;
  if (value >= edges[last]) return 1;
  const at = edges.findIndex((edge) => edge > value) - 1;
  return (at + (value - edges[at]) / (edges[at + 1] - edges[at])) / last;
}
export function valueAt(place, edges) {
  const x = place * (edges.length - 1);
  const at = Math.min(Math.floor(x), edges.length - 2);
  return Number((edges[at] + (x - at) * (edges[at + 1] - edges[at])).toPrecision(4));
}

// lines: values that are marked; range: [low, high], either of them null where it is open.
export function bars(picture, { edges, all, kept }, lines, range) {
  const wide = Math.max(10, all.length * 10);
  const most = Math.max(1, ...all);
  const shapes = [];
  all.forEach((n, at) => {
    const high = n ? Math.max(1.5, 60 * (n / most)) : 0;
    const stay = kept[at] ? Math.max(1, high * (kept[at] / n)) : 0;
    shapes.push(drawn("rect", { class: "all", x: at * 10 + 0.5, y: 62 - high, width: 9, height: high }));
    shapes.push(drawn("rect", { class: "stay", x: at * 10 + 0.5, y: 62 - stay, width: 9, height: stay }));
  });
  const place = (value, open) => (value === null ? open : wide * placeOf(value, edges));
  for (const value of edges.length ? lines : []) shapes.push(drawn("line", { x1: place(value), x2: place(value), y1: 0, y2: 64 }));
  if (range && edges.length) {
    const [low, high] = [place(range[0], 0), place(range[1], wide)];
    shapes.unshift(drawn("rect", { class: "brushed", x: low, y: 0, width: Math.max(1, high - low), height: 64 }));
  }
  picture.setAttribute("viewBox", `0 0 ${wide} 64`);
  picture.replaceChildren(...shapes);
}

// A range snaps to bins; one that reaches an end is open there, since the outermost bins hold what lies beyond.
export function brush(picture, edgesNow, show, done) {
  let from = null;
  const bin = (event) => {
    const box = picture.getBoundingClientRect();
    const bins = edgesNow().length - 1;
    return Math.min(bins - 1, Math.max(0, Math.floor((bins * (event.clientX - box.left)) / box.width)));
  };
  const range = (event) => {
    const edges = edgesNow();
    const [first, last] = [from, bin(event)].sort((a, b) => a - b);
    return [first === 0 ? null : edges[first], last === edges.length - 2 ? null : edges[last + 1]];
  };
  const isAll = ([low, high]) => low === null && high === null;
  picture.addEventListener("pointerdown", (event) => {
    if (edgesNow().length < 2 || event.button) return;
    from = bin(event);
    picture.setPointerCapture(event.pointerId);
    show(range(event));
  });
  picture.addEventListener("pointermove", (event) => { if (from !== null) show(range(event)); });
  picture.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const found = range(event);
    from = null;
    done(isAll(found) ? null : found);
  });
  picture.addEventListener("pointercancel", () => { from = null; done(null); });
}
