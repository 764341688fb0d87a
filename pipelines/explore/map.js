// The map: a dot for each place of the screen with clips, coloured by any column; a lasso chooses what all views show.
import { $, ask, complain, counted, el, number, state } from "./page.js";

const SCALES = { // viridis, without the end that the paper swallows
  light: ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151"],
  dark: ["#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"],
};
const NAMED = {
  light: ["#14788f", "#93540a", "#6b4fb3", "#b8324a", "#3f7d20", "#b0418f", "#2f5fc4", "#8a7a00", "#00806a", "#c75000", "#0b3d91", "#5d4037"],
  dark: ["#4db3c8", "#e3a44b", "#a894f0", "#f07f92", "#8fcf6a", "#e58bc8", "#7fa8ff", "#d6c64a", "#3fc9ad", "#ff9e66", "#b3c7ff", "#c9a08a"],
};
const [NEAR_PX, SPACING_PX, ASK_MS, MAKING_MS] = [10, 4, 120, 500];

const scheme = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Of a share from 0 to 1, between the stops of a scale.
function blend(stops, share) {
  const x = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const at = Math.min(stops.length - 2, Math.floor(x));
  const part = (stop, place) => parseInt(stops[stop].slice(1 + 2 * place, 3 + 2 * place), 16);
  return `rgb(${[0, 1, 2].map((place) => Math.round(part(at, place) + (x - at) * (part(at + 1, place) - part(at, place)))).join(" ")})`;
}

export function map({ filter, tried, changed, look, basename }) {
  const canvas = $("canvas");
  const own = { found: null, view: null, line: [], turn: 0, timer: 0, tap: null, wide: 0 };

  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const toScreen = ([x, y]) => { const [wide, high] = size(); const [l, b, r, t] = own.view; return [((x - l) / (r - l)) * wide, ((t - y) / (t - b)) * high]; };
  const toMap = ([x, y]) => { const [wide, high] = size(); const [l, b, r, t] = own.view; return [l + (x / wide) * (r - l), t - (y / high) * (t - b)]; };

  // ---- what is drawn
  async function load() {
    const turn = (own.turn += 1);
    const [width_px, height_px] = size();
    if (!width_px) return;
    try {
      const found = await ask("/api/map", { policy: tried(), ...filter(), colour: $("mapped").colour.value, view: own.view, width_px, height_px }, true);
      if (turn !== own.turn) return;
      complain(null);
      if (found.making !== undefined) {
        $("mapsaid").textContent = `The map is being made of the clips' embeddings, once for this run: ${Math.round(100 * found.making)} %`;
        setTimeout(() => { if (state.view === "map") load(); }, MAKING_MS);
        return;
      }
      own.found = found;
      own.view = found.view;
      canvas.dataset.dots = found.x.length;
      canvas.dataset.view = JSON.stringify(found.view);
      draw();
      tell();
    } catch (error) { if (turn === own.turn) complain(error); }
  }
  function soon() {
    draw();
    clearTimeout(own.timer);
    own.timer = setTimeout(load, ASK_MS);
  }
  const names = () => own.found.names.map((name) => (name === null ? "none" : $("mapped").colour.value === "uri" ? basename(name) : name));
  function colours() {
    const { values, ends, codes, names: labels } = own.found;
    const theme = scheme();
    if (values) return values.map((value) => (value === null ? ink("--idle") : blend(SCALES[theme], (value - ends[0]) / (ends[1] - ends[0] || 1))));
    const palette = labels.map((label, at) => (label === null ? ink("--idle") : label === "other" ? ink("--soft") : NAMED[theme][at % NAMED.light.length]));
    return codes.map((code) => palette[code]);
  }
  function draw() {
    const pen = canvas.getContext("2d");
    const [wide, high] = size();
    const sharp = window.devicePixelRatio || 1;
    canvas.width = Math.round(wide * sharp);
    canvas.height = Math.round(high * sharp);
    pen.scale(sharp, sharp);
    if (!own.found || !own.view) return;
    const { x, y, stands_for, meant, cell_px } = own.found;
    const paint = colours();
    const faint = ink("--idle");
    const least = Math.max(2, Math.min(5, 40 / Math.sqrt(x.length))); // a few dots are larger than many
    for (const isMeant of [false, true]) {
      for (let at = 0; at < x.length; at += 1) {
        if (meant[at] !== isMeant) continue;
        const [left, top] = toScreen([x[at], y[at]]);
        if (left < -9 || top < -9 || left > wide + 9 || top > high + 9) continue;
        pen.fillStyle = isMeant ? paint[at] : faint;
        pen.beginPath();
        pen.arc(left, top, least + Math.min(cell_px / 2, 0.5 * Math.log2(stands_for[at])), 0, 7);
        pen.fill();
      }
    }
    outline(pen, own.line.length ? own.line : state.lasso.map(toScreen));
    if (document.activeElement === canvas) cross(pen, wide / 2, high / 2);
  }
  function outline(pen, line) {
    if (line.length < 2) return;
    pen.beginPath();
    line.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.lineWidth = 2;
    pen.strokeStyle = ink("--ink");
    pen.stroke();
    pen.globalAlpha = 0.1;
    pen.fillStyle = ink("--ink");
    pen.fill();
    pen.globalAlpha = 1;
  }
  function cross(pen, x, y) {
    pen.strokeStyle = ink("--soft");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x - 8, y); pen.lineTo(x + 8, y); pen.moveTo(x, y - 8); pen.lineTo(x, y + 8);
    pen.stroke();
  }
  function tell() {
    const { x, clips, scorer, explained, without, meant } = own.found;
    const faint = meant.filter((is) => !is).length;
    $("mapsaid").textContent = `${counted(clips, "clip")} in view, as ${counted(x.length, "dot")}; a dot that stands for more is larger. ` +
      `${faint ? `${counted(faint, "grey dot")} without a clip that the filter of Clips means. ` : ""}Two principal components of ${scorer}, ` +
      `${Math.round(100 * explained)} % of its variance: clips far apart differ, clips close together may.${without ? ` Without an embedding: ${counted(without, "clip")}.` : ""}`;
    $("legend").replaceChildren(...(own.found.values ? scale() : named()));
  }
  function scale() {
    const made = el("span", { className: "scale" });
    made.style.background = `linear-gradient(to right, ${SCALES[scheme()].join(", ")})`;
    return [el("span", {}, `${number(own.found.ends[0])} and less`), made, el("span", {}, `${number(own.found.ends[1])} and more`)];
  }
  function named() {
    const used = new Set(own.found.codes);
    const paint = Object.fromEntries(own.found.codes.map((code, at) => [code, at]));
    const all = colours();
    return names().flatMap((name, code) => {
      if (!used.has(code)) return [];
      const swatch = el("span", { className: "swatch" });
      swatch.style.background = all[paint[code]];
      return [el("span", {}, swatch, name)];
    });
  }

  // ---- moving about
  function zoom(times, [x, y] = size().map((side) => side / 2)) {
    if (!own.view) return;
    const [mx, my] = toMap([x, y]);
    const [l, b, r, t] = own.view;
    own.view = [mx - (mx - l) * times, my - (my - b) * times, mx + (r - mx) * times, my + (t - my) * times];
    soon();
  }
  function pan(dx, dy) {
    if (!own.view) return;
    const [[x0, y0], [x1, y1]] = [toMap([0, 0]), toMap([dx, dy])];
    own.view = [own.view[0] - x1 + x0, own.view[1] - y1 + y0, own.view[2] - x1 + x0, own.view[3] - y1 + y0];
    soon();
  }
  function whole() { own.view = null; load(); }
  function choose(line) {
    own.line = [];
    state.lasso = line;
    draw();
    changed();
  }
  function inView() {
    if (!own.view) return;
    const [l, b, r, t] = own.view;
    choose([[l, b], [r, b], [r, t], [l, t]]);
  }
  function nearest([x, y], within) {
    let [best, least] = [null, within];
    own.found.x.forEach((_, at) => {
      const [left, top] = toScreen([own.found.x[at], own.found.y[at]]);
      const apart = Math.hypot(left - x, top - y);
      if (apart < least) [best, least] = [own.found.keys[at], apart];
    });
    if (best) look(best);
  }

  const placeOf = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    if (!own.found || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    own.tap = { from: placeOf(event), last: placeOf(event), moved: false, pans: ($("mapped").drag.value === "pan") !== event.shiftKey };
    own.line = own.tap.pans ? [] : [own.tap.from];
  });
  canvas.addEventListener("pointermove", (event) => {
    const tap = own.tap;
    if (!tap) return;
    const at = placeOf(event);
    if (!tap.moved && Math.hypot(at[0] - tap.from[0], at[1] - tap.from[1]) < SPACING_PX) return;
    tap.moved = true;
    if (tap.pans) pan(at[0] - tap.last[0], at[1] - tap.last[1]);
    else if (Math.hypot(at[0] - tap.last[0], at[1] - tap.last[1]) >= SPACING_PX && own.line.length < 1000) { own.line.push(at); draw(); } else return;
    tap.last = at;
  });
  canvas.addEventListener("pointerup", (event) => {
    const tap = own.tap;
    own.tap = null;
    if (!tap) return;
    const line = own.line;
    own.line = [];
    if (!tap.moved) nearest(placeOf(event), NEAR_PX);
    else if (!tap.pans) { if (line.length >= 3) choose(line.map(toMap)); else draw(); }
  });
  canvas.addEventListener("pointercancel", () => { own.tap = null; own.line = []; draw(); });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(1.0015 ** event.deltaY, placeOf(event)); }, { passive: false });
  const KEYS = {
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), 0: whole, l: inView, Escape: () => choose([]),
    Enter: () => { if (own.found) nearest(size().map((side) => side / 2), Infinity); },
  };
  canvas.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.altKey || event.metaKey ? null : KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, draw);
  for (const [id, act] of [["zoom-in", () => zoom(0.7)], ["zoom-out", () => zoom(1 / 0.7)], ["zoom-all", whole], ["lasso-view", inView]]) $(id).addEventListener("click", act);
  $("mapped").addEventListener("submit", (event) => event.preventDefault());
  $("mapped").colour.addEventListener("change", load);
  new ResizeObserver(() => {
    const [wide] = size();
    if (wide && own.found && wide !== own.wide) { own.view = null; soon(); }
    own.wide = wide || own.wide;
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (own.found) { draw(); tell(); } });
  return { load, draw };
}
