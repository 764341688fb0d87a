// The views, and what goes between them: a policy that is tried, and a filter that all of them follow.
import { $, against, ask, basename, complain, count, counted, drawn, el, fill, hours, number, state } from "./page.js";
import { chart } from "./chart.js";
import { look } from "./clip.js";
import { bars, brush, placeOf, valueAt } from "./histogram.js";
import { map } from "./map.js";
import { news } from "./news.js";
import { FORMS, asTried, difference, keep, kept, menus, opening, policiesOf, saving, truly, unsaid } from "./tried.js";

const STEPS = 400;
const SETTLE_MS = 200;

if (location.hash.startsWith("#token=")) {
  sessionStorage.setItem("token", location.hash.slice(7));
  history.replaceState(null, "", location.pathname);
}

// ------------------------------------------------------------------------------------------------------ the policy
const measureOf = (name) => state.info.measures.find((one) => one.name === name) || { name, title: name, unit: "", form: "number" };

let timer = 0;
function moved() {
  clearTimeout(timer);
  unsaid();
  keep();
  attempt(false);
  timer = setTimeout(() => attempt(true), SETTLE_MS);
}
let busy = false;
let waiting = null;
async function attempt(settled) {
  if (busy) { waiting = { settled: settled || Boolean(waiting && waiting.settled) }; return; }
  busy = true;
  const begun = performance.now();
  try {
    const found = await ask("/api/try", { policy: asTried(), settled });
    found.wait = performance.now() - begun;
    complain(null);
    show(found);
  } catch (error) { complain(error); }
  busy = false;
  if (waiting) { const next = waiting.settled; waiting = null; attempt(next); }
}

function show(found) {
  state.outcome = found;
  $("kept").textContent = `${count(found.kept.clips)} of ${counted(found.found.clips, "clip")}, ${hours(found.kept.hours)}`;
  $("kept").dataset.clips = found.kept.clips;
  $("kept").dataset.settled = String(found.settled);
  const most = Math.max(1, ...found.rules.map((row) => row.clips), found.duplicates.clips);
  const line = (name, row) => {
    const bar = el("span", { className: "bar drops" });
    bar.style.width = `${(100 * row.clips) / most}%`;
    return el("tr", {}, el("td", {}, name, bar), el("td", { className: "n" }, count(row.clips)), el("td", { className: "n" }, hours(row.hours)));
  };
  const rows = found.rules.map((row) => line(row.rule, row));
  if (found.duplicates.sought) rows.push(line(found.settled ? "duplicate" : "duplicate (when the limits rest)", found.duplicates));
  $("funnel").tBodies[0].replaceChildren(...rows);
  $("opened").textContent = difference();
  $("timing").textContent = `${found.ms} ms in the server, ${Math.round(found.wait)} ms in all${found.settled ? "" : "; duplicates are still to come"}`;
  for (const card of $("rules").children) update(card, found);
  if (found.settled) document.dispatchEvent(new Event("tried"));
  const other = found.against;
  $("against").textContent = other ? other.selection : "nothing selected yet";
  if (!other) return;
  $("new-title").textContent = `Comes in: ${counted(other.newly_kept.clips, "clip")}, ${hours(other.newly_kept.hours)}`;
  $("lost-title").textContent = `Goes out: ${counted(other.newly_dropped.clips, "clip")}, ${hours(other.newly_dropped.hours)}`;
  if (found.settled) { examples("new"); examples("lost"); }
}
async function examples(fate) {
  const policy = asTried();
  const found = await ask("/api/clips", { policy, fate, count: 6 }).catch(() => ({ clips: [] }));
  fill(fate, ...found.clips.map((clip) => card(clip, "small")));
}

function update(holder, found) {
  const row = found.rules.find((one) => one.rule === holder.rule.name);
  holder.querySelector(".count").textContent = row ? `drops ${count(row.clips)}` : "left out";
  holder.querySelector(".about").textContent = about(holder.rule);
  const spread = found.spread[holder.rule.measure];
  if (!spread) return;
  const first = !holder.spread;
  holder.spread = spread;
  if (spread.labels) { if (first) labels(holder); return; }
  if (first) limits(holder);
  redraw(holder);
  if (row && row.threshold !== undefined && row.threshold !== null) {
    holder.querySelector(".came").textContent = `came to ${number(row.threshold)}: ${count(row.kept_of[0])} of ${count(row.kept_of[1])}`;
  }
}

const redraw = (holder, range = state.ranges.get(holder.rule.measure)) =>
  bars(holder.querySelector("svg"), holder.spread, ["min", "max"].map((bound) => holder.rule[bound]).filter((value) => typeof value === "number"), range);

const isShare = (form) => form.startsWith("keep");

function limits(holder) {
  const rule = holder.rule;
  const inner = holder.querySelector(".limits");
  const forms = Object.keys(FORMS).filter((form) => typeof rule[form] === "number");
  inner.replaceChildren(...forms.map((form) => limit(holder, form)));
}
function limit(holder, form) {
  const rule = holder.rule;
  const edges = () => holder.spread.edges;
  const label = `${rule.name}: ${FORMS[form]}`;
  const exact = el("input", { type: "number", step: "any", value: rule[form], "aria-label": `${label}, number` });
  const slider = el("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": label });
  slider.classList.add("slide");
  const reset = () => { slider.value = Math.round(STEPS * (isShare(form) ? rule[form] : edges().length ? placeOf(rule[form], edges()) : 0)); };
  reset();
  slider.addEventListener("input", () => {
    const place = Number(slider.value) / STEPS;
    if (!isShare(form) && !edges().length) return;
    rule[form] = isShare(form) ? Math.max(0.0025, place) : valueAt(place, edges());
    exact.value = rule[form];
    redraw(holder);
    moved();
  });
  exact.addEventListener("input", () => {
    if (exact.value === "" || !Number.isFinite(Number(exact.value))) return;
    rule[form] = Number(exact.value);
    reset();
    redraw(holder);
    moved();
  });
  exact.addEventListener("change", () => { if (exact.value === "") exact.value = rule[form]; });
  const kind = el("select", { "aria-label": `${rule.name}: form of the limit`, onchange: () => reform(holder, form, kind.value) },
    ...Object.entries(FORMS).map(([name, text]) => el("option", { value: name, selected: name === form }, text)));
  const near = isShare(form) ? null : el("button", { type: "button", onclick: () => nearest(rule, rule[form]) }, "clips nearest to it");
  return el("div", {}, el("div", { className: "row" }, kind, exact, near), slider);
}
function reform(holder, old, form) {
  const rule = holder.rule;
  const kept = rule[old];
  if (isShare(old) || isShare(form)) for (const name of Object.keys(FORMS)) delete rule[name];
  delete rule[old];
  rule[form] = isShare(form) ? 0.5 : isShare(old) ? valueAt(0.5, holder.spread.edges.length ? holder.spread.edges : [0, 1]) : kept;
  limits(holder);
  moved();
}
function labels(holder) {
  const rule = holder.rule;
  const form = rule.in ? "in" : "not_in";
  const boolean = measureOf(rule.measure).form === "flag";
  const plain = (text) => (boolean ? text === "true" : text);
  const inner = holder.spread.labels.filter((row) => row.label !== null).map((row) => {
    const box = el("input", { type: "checkbox", checked: (rule[form] || []).includes(plain(row.label)) === (form === "in") });
    box.addEventListener("change", () => {
      const rest = (rule[form] || []).filter((value) => value !== plain(row.label));
      rule[form] = box.checked === (form === "in") ? [...rest, plain(row.label)] : rest;
      moved();
    });
    return el("label", {}, box, `${row.label} (${count(row.all)})`);
  });
  holder.querySelector(".limits").replaceChildren(el("div", { className: "labels" }, ...inner));
}

// A limit that the dialog of a clip found to keep it.
document.addEventListener("limit", ({ detail: { rule, form, value } }) => {
  const holder = [...$("rules").children].find((one) => one.rule.name === rule);
  if (!holder || !holder.spread) return;
  holder.rule[form] = value;
  limits(holder);
  redraw(holder);
  moved();
});

function about(rule) {
  const { title, unit } = measureOf(rule.measure);
  const source = truly(rule).source;
  const said = new Set(`${title} ${unit}`.toLowerCase().split(/\W+/));
  const isNew = source && source.toLowerCase().split(/\W+/).some((word) => !said.has(word));
  const words = `${title}${unit ? `, ${unit}` : ""}${isNew ? `; ${source}` : ""}`;
  return `${words}${/[.!?…]$/.test(words) ? "" : "."}${rule.missing === "keep" ? " Clips without it stay." : ""}`;
}
function ruleCard(rule) {
  const { form } = measureOf(rule.measure);
  const on = el("input", { type: "checkbox", checked: !state.off.has(rule), "aria-label": `use ${rule.name}` });
  const holder = el("div", { className: "rule" },
    el("h3", {}, on, rule.name, el("span", { className: "count" }, "")),
    el("p", { className: "about soft" }, about(rule)));
  on.addEventListener("change", () => {
    if (on.checked) state.off.delete(rule); else state.off.add(rule);
    holder.classList.toggle("off", !on.checked);
    moved();
  });
  if (form === "number") {
    const picture = drawn("svg", { class: "spread", preserveAspectRatio: "none", "aria-hidden": "true" });
    brush(picture, () => (holder.spread ? holder.spread.edges : []), (range) => redraw(holder, range), (range) => brushed(rule.measure, range));
    holder.append(picture);
  }
  holder.append(el("div", { className: "limits" }), el("p", { className: "came soft" }));
  const gone = el("button", { type: "button", className: "gone", "aria-label": `remove ${rule.name}` }, "remove");
  gone.addEventListener("click", () => {
    state.policy.rules = state.policy.rules.filter((one) => one !== rule);
    holder.remove();
    moved();
  });
  holder.querySelector("h3").append(gone);
  holder.rule = rule;
  return holder;
}
$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const about = measureOf($("add-measure").value);
  const taken = new Set(state.policy.rules.map((rule) => rule.name));
  let name = `my_${about.name}`.slice(0, 60);
  for (let n = 2; taken.has(name); n += 1) name = `my_${about.name}_${n}`;
  const rule = { name, measure: about.name, basis: "ours", source: "set in rushes explore", missing: "keep" };
  if (about.form === "number") rule.min = 0; else rule.not_in = [];
  try {
    if (about.form !== "number") {
      const some = await ask("/api/sql", { query: `select distinct "${about.name}" from clips_all where "${about.name}" is not null order by 1 limit 1` });
      rule.not_in = some.rows.length ? [some.rows[0][0]] : [""];
    } else {
      const low = await ask("/api/clips", { policy: asTried(), measure: about.name, order: "lowest", count: 1 });
      rule.min = low.clips.length ? low.clips[0].measured : 0;
    }
    state.policy.rules.push(rule);
    $("rules").append(ruleCard(rule));
    moved();
  } catch (error) { complain(error); }
});
$("dedup").addEventListener("change", () => {
  state.policy.dedup = { ...(state.policy.dedup || {}), enabled: $("dedup").checked };
  moved();
});
saving();
opening(tryOut);

// ------------------------------------------------------------------------------------------------------- the clips
function card(clip, kind) {
  const picture = el("img", { loading: "lazy", alt: "", src: `/api/strip/${encodeURIComponent(clip.key)}` });
  const why = clip.fate === "kept" ? "kept" : `${clip.rule}${clip.value === null ? "" : `: ${clip.limit === null ? number(clip.value) : against(clip.value, clip.limit)}`}${clip.detail ? `, ${clip.detail}` : ""}`;
  const made = el("button", { className: kind, type: "button", onclick: () => look(clip.key) }, picture,
    el("span", {}, el("b", {}, basename(clip.uri)), ` ${clip.duration_s.toFixed(2)} s `, el("span", { className: `fate-${clip.fate}` }, why),
      clip.measured === null || clip.measured === undefined ? null : ` · ${number(clip.measured)}`));
  made.dataset.key = clip.key;
  return made;
}
// ---- the filter: its form, ranges that were brushed on histograms, and a lasso on the map
function filter() {
  const form = $("filter");
  const ranges = [...state.ranges].map(([measure, [low, high]]) => ({ measure, low, high }));
  return { fate: form.fate.value, rule: form.rule.value, text: form.text.value, ranges, lasso: state.lasso };
}
function brushed(measure, range) {
  if (range) state.ranges.set(measure, range); else state.ranges.delete(measure);
  for (const holder of $("rules").children) if (holder.spread && holder.spread.edges) redraw(holder);
  refilter();
}
// Whatever shows clips shows those of the filter.
function refilter() {
  chips();
  if (state.view === "map") { charted.load(); within(); }
  if (state.view === "clips") list(false);
}
const said = ([low, high]) => (low === null ? `below ${number(high)}` : high === null ? `${number(low)} and more` : `${number(low)} to below ${number(high)}`);
function chips() {
  const chip = (text, gone) => el("button", { type: "button", className: "chip", "aria-label": `leave out: ${text}`, onclick: gone }, text, el("span", { "aria-hidden": "true" }, "×"));
  const all = [...state.ranges].map(([measure, range]) => chip(`${measureOf(measure).title} ${said(range)}`, () => brushed(measure, null)));
  if (state.lasso.length) all.push(chip("inside the lasso on the map", () => { state.lasso = []; charted.draw(); refilter(); }));
  for (const [place, leads] of [["chips", false], ["policy-chips", true], ["map-chips", true]]) {
    // a node stands in one place
    const own = all.map((one) => { const made = one.cloneNode(true); made.addEventListener("click", () => one.click()); return made; });
    fill(place, ...own, leads && all.length ? el("button", { type: "button", className: "show", onclick: () => view("clips") }, "show these clips") : null);
  }
}
async function within() {
  const found = await ask("/api/clips", { policy: asTried(), ...filter(), count: 1 }).catch(() => null);
  if (!found || !state.lasso.length) { $("chosen").textContent = ""; return; }
  $("chosen").textContent = `${counted(found.total, "clip")} of the filter ${found.total === 1 ? "lies" : "lie"} inside the lasso.`;
  $("chosen").dataset.clips = found.total;
}

async function list(more) {
  const form = $("filter");
  state.first = more ? state.first + 60 : 0;
  const turn = (state.turn += 1);
  const begun = performance.now();
  try {
    const found = await ask("/api/clips", {
      policy: asTried(), ...filter(), measure: form.measure.value, order: form.order.value, limit: Number(form.limit.value) || 0, first: state.first,
    });
    if (turn !== state.turn) return;
    complain(null);
    const cards = found.clips.map((clip) => card(clip, "card"));
    if (more) $("grid").append(...cards); else $("grid").replaceChildren(...cards);
    $("total").textContent = `${counted(found.total, "clip")}, ${Math.round(performance.now() - begun)} ms`;
    $("total").dataset.clips = found.total;
    $("more").hidden = form.order.value === "spread" || state.first + 60 >= found.total;
    if (!more) await histograms(turn);
  } catch (error) { if (turn === state.turn) complain(error); }
}
// ---- histograms of what the filter means, each without its own range, so that the range can be moved
function histogramsOf() {
  const limited = asTried().rules.map((rule) => rule.measure);
  const names = [...limited, $("filter").measure.value, ...state.more, ...state.ranges.keys()];
  return [...new Set(names)].filter((name) => name && measureOf(name).form === "number").slice(0, 24);
}
async function histograms(turn) {
  const names = histogramsOf();
  const found = names.length ? await ask("/api/spread", { policy: asTried(), ...filter(), measures: names }) : {};
  if (turn !== state.turn) return;
  const there = new Map([...$("histograms").children].map((one) => [one.dataset.measure, one]));
  $("histograms").replaceChildren(...names.filter((name) => found[name].edges.length).map((name) => {
    const holder = there.get(name) || histogram(name);
    holder.spread = found[name];
    holder.show(state.ranges.get(name));
    return holder;
  }));
}
function histogram(name) {
  const about = measureOf(name);
  const picture = drawn("svg", { class: "spread", preserveAspectRatio: "none", "aria-hidden": "true" });
  const end = (text, place) => {
    const box = el("input", { type: "number", step: "any", placeholder: text, "aria-label": `${about.title}: ${text}` });
    box.addEventListener("change", () => {
      const range = [...(state.ranges.get(name) || [null, null])];
      range[place] = box.value === "" ? null : Number(box.value);
      brushed(name, range[0] === null && range[1] === null ? null : range);
    });
    return box;
  };
  const ends = [end("from", 0), end("below", 1)];
  const holder = el("div", { className: "histogram", title: about.unit }, el("h2", {}, about.title), picture, el("div", { className: "ends" }, ...ends));
  holder.dataset.measure = name;
  holder.show = (range) => {
    bars(picture, holder.spread, [], range);
    ends.forEach((box, at) => { if (document.activeElement !== box) box.value = range && range[at] !== null ? Number(range[at].toPrecision(4)) : ""; });
  };
  brush(picture, () => holder.spread.edges, (range) => bars(picture, holder.spread, [], range), (range) => brushed(name, range));
  return holder;
}
$("add-histogram").addEventListener("change", (event) => {
  event.stopPropagation();
  if ($("add-histogram").value) state.more.push($("add-histogram").value);
  $("add-histogram").value = "";
  list(false);
});
function unfiltered() {
  $("filter").reset();
  state.ranges.clear();
  state.lasso = [];
  chips();
}
function nearest(rule, value) {
  const form = $("filter");
  unfiltered();
  form.measure.value = rule.measure;
  form.order.value = "nearest";
  form.limit.value = value;
  view("clips");
}
$("filter").addEventListener("input", () => list(false));
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => list(true));

// ---------------------------------------------------------------------------------------------------------- sources
const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { className: name.startsWith("#") ? "n" : "" }, name.replace("#", "")))));
const n = (text) => el("td", { className: "n" }, text);
async function sources() {
  try {
    const found = await ask("/api/sql", {
      query: `select uri, duration_s, clips, kept_clips, kept_s, dropped_s, trimmed_s, failed_s, kept_share, code, remedy from sources_all order by ${$("by").order.value}, uri limit 500`,
    });
    complain(null);
    const seconds = (value) => (value ? hours(value / 3600) : "–");
    fill("source-rows", head("source", "#length", "#clips", "#kept", "#kept for", "#dropped", "#trimmed", "#failed", "share kept", "what failed, and what helps"),
      el("tbody", {}, ...found.rows.map(([uri, length, clips, kept, ...rest]) => {
        const bar = el("span", { className: "bar" });
        bar.style.width = `${100 * (rest[4] || 0)}%`;
        return el("tr", {}, el("td", {}, el("button", { type: "button", onclick: () => of(uri) }, basename(uri))), n(seconds(length)), n(count(clips)), n(count(kept)),
          ...rest.slice(0, 4).map((value) => n(seconds(value))), el("td", {}, rest[4] === null ? "–" : `${Math.round(100 * rest[4])} %`, bar), el("td", {}, rest[5] ? `${rest[5]}: ${rest[6] || ""}` : ""));
      })));
    $("sourced").textContent = `${counted(found.rows.length, "source")}${found.rows.length === 500 ? ", the first 500; ask by SQL for others" : ""}`;
  } catch (error) { complain(error); }
}
function of(uri) {
  unfiltered();
  $("filter").text.value = uri;
  view("clips");
}
$("by").addEventListener("input", sources);
$("by").addEventListener("submit", (event) => event.preventDefault());

// ---------------------------------------------------------------------------------------------------------- compare
function pairs() {
  const own = [["", "what is tried here"], ...policiesOf(state.info)];
  const other = state.info.other;
  const second = other.is_same ? own : policiesOf({ ...state.info, drafts: [], selections: other.selections }).map(([name, text]) => [name, `${basename(other.run)}: ${text}`]);
  for (const [name, list, chosen] of [["first", own, ""], ["second", second, state.info.selection || "default"]]) {
    if ($("pair")[name].options.length) continue;
    $("pair")[name].replaceChildren(...list.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  }
}
const are = (clips) => `${counted(clips, "clip")} ${clips === 1 ? "is" : "are"}`;
$("pair").addEventListener("submit", async (event) => {
  event.preventDefault();
  const named = (value) => value || asTried();
  try {
    const found = await ask("/api/compare", { first: named($("pair").first.value), second: named($("pair").second.value) });
    complain(null);
    const [a, b] = found.sides;
    const names = [...new Set([...a.rules, ...b.rules].map((row) => row.rule))];
    const cells = (side, rule) => { const row = side.rules.find((one) => one.rule === rule); return row ? [el("td", {}, row.limit), n(count(row.clips)), n(hours(row.hours))] : [el("td", {}, "–"), n(""), n("")]; };
    const whole = (name, part) => el("tr", {}, el("td", {}, name), ...[a, b].flatMap((side) => [el("td", {}), n(count(side[part].clips)), n(hours(side[part].hours))]));
    fill("both", head("rule", `${a.policy}`, "#clips", "#time", `${b.policy}`, "#clips", "#time"),
      el("tbody", {}, whole("found", "found"), ...names.map((rule) => el("tr", {}, el("td", {}, `− ${rule}`), ...cells(a, rule), ...cells(b, rule))), whole("− duplicate", "duplicates"), whole("kept", "kept")));
    const apart = found.clips_of_first_alone || found.clips_of_second_alone ? `; ${are(found.clips_of_first_alone)} in the first run alone, ${count(found.clips_of_second_alone)} in the second` : "";
    $("compared").textContent = `${are(found.both)} kept by both${apart}.`;
    for (const [side, part] of [["first", found.only_first], ["second", found.only_second]]) {
      $(`${side}-title`).textContent = `Only the ${side} keeps ${counted(part.clips, "clip")}, ${hours(part.hours)}`;
      fill(`${side}-only`, ...part.keys.map((key) => el("button", { type: "button", className: "small", onclick: () => look(key), "aria-label": key }, el("img", { alt: "", loading: "lazy", src: `/api/strip/${encodeURIComponent(key)}` }))));
    }
    fill("moved", head("measure", "unit", "#median, first", "#median, second", "distance of the distributions, 0 to 1"), el("tbody", {}, ...found.moved.map((row) => {
      const bar = el("span", { className: "bar" });
      bar.style.width = `${100 * row.distance}%`;
      return el("tr", {}, el("td", {}, row.title), el("td", {}, row.unit), n(number(row.medians[0])), n(number(row.medians[1])), el("td", {}, number(row.distance), bar));
    })));
  } catch (error) { complain(error); }
});

// -------------------------------------------------------------------------------------------------------------- SQL
$("queries").addEventListener("change", () => {
  const query = state.info.queries.find((one) => one.name === $("queries").value);
  if (query) { $("query").value = query.sql; $("ask").requestSubmit(); }
});
$("query").addEventListener("keydown", (event) => { if (event.key === "Enter" && event.ctrlKey) $("ask").requestSubmit(); });
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const begun = performance.now();
  try {
    const found = await ask("/api/sql", { query: $("query").value });
    complain(null);
    const drawnBy = chart(found.columns, found.rows) ? -1 : found.columns.findIndex((_, at) => found.rows.some((row) => typeof row[at] === "number") && found.rows.every((row) => row[at] === null || (typeof row[at] === "number" && row[at] >= 0)));
    const most = Math.max(1e-12, ...found.rows.map((row) => row[drawnBy] || 0));
    const cell = (value, at) => {
      const isNumber = typeof value === "number";
      const made = el("td", { className: isNumber ? "n" : "" }, value === null ? "" : isNumber ? number(value) : typeof value === "object" ? JSON.stringify(value) : String(value));
      if (at === drawnBy && isNumber) { const bar = el("span", { className: "bar" }); bar.style.width = `${(100 * value) / most}%`; made.append(bar); }
      return made;
    };
    fill("answer", el("thead", {}, el("tr", {}, ...found.columns.map((name, at) => el("th", { className: found.rows.some((row) => typeof row[at] === "number") ? "n" : "" }, name)))),
      el("tbody", {}, ...found.rows.map((row) => el("tr", {}, ...row.map(cell)))));
    $("answered").textContent = `${counted(found.rows.length, "row")}${found.more ? ", and more: add a limit, or use rushes sql --csv" : ""}, ${Math.round(performance.now() - begun)} ms`;
  } catch (error) {
    chart([], []);
    fill("answer");
    $("answered").textContent = "";
    complain(error);
  }
});

// ------------------------------------------------------------------------------------------------------------ views
const charted = map({ filter, tried: asTried, changed: refilter, look, basename });
function view(name) {
  state.view = name;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", String(button.dataset.view === name));
  if (name === "sources") sources();
  if (name === "compare") pairs();
  if (name === "map") { charted.load(); within(); }
  if (name === "clips") {
    const form = $("filter");
    const had = form.rule.value;
    form.rule.replaceChildren(el("option", { value: "" }, "any rule"), ...[...asTried().rules.map((rule) => rule.name), "duplicate"].map((rule) => el("option", { value: rule, selected: rule === had }, rule)));
    list(false);
  }
}
for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => view(button.dataset.view));

async function begin() {
  const info = await ask("/api/run");
  state.info = info;
  document.title = `${basename(info.run)} · Rushes explore`;
  $("run").textContent = basename(info.run);
  const options = info.measures.map((one) => el("option", { value: one.name }, `${one.title} (${one.name})`));
  $("add-measure").replaceChildren(...options);
  $("filter").measure.replaceChildren(el("option", { value: "" }, "none"), ...info.measures.filter((one) => one.form === "number").map((one) => el("option", { value: one.name }, `${one.title} (${one.name})`)));
  $("add-histogram").replaceChildren(el("option", { value: "" }, "add one"), ...info.measures.filter((one) => one.form === "number").map((one) => el("option", { value: one.name }, `${one.title} (${one.name})`)));
  const categories = [["fate", "Verdict, as tried"], ["rule", "Rule that drops it"], ["uri", "Source"], ["tag", "Likeliest tag"]];
  $("mapped").colour.replaceChildren(...[...categories, ...info.measures.filter((one) => one.name !== "uri").map((one) => [one.name, `${one.title} (${one.name})`])].map(([value, text]) => el("option", { value }, text)));
  $("queries").replaceChildren(el("option", { value: "" }, "choose one"), ...info.queries.map((one) => el("option", { value: one.name }, one.question)));
  menus();
  const own = { policy: info.policy, name: info.selection ? `selection ${info.selection}` : `policy ${info.policy.name}` };
  const [given, ...moved] = kept() || [own];
  await tryOut(given.name === own.name ? own : given, ...moved); // what selected under that name may be another by now
}
// Tries a policy that was opened, and what of it was moved before.
async function tryOut(given, policy = given.policy, off = []) {
  const { info } = state;
  state.given = given;
  state.policy = { ...structuredClone(policy), rules: structuredClone(policy.rules || []) };
  state.off = new Set(state.policy.rules.filter((rule) => off.includes(rule.name)));
  const where = info.selection ? `selection ${info.selection}${info.stale ? ", made of an older ledger" : ""}` : "nothing selected yet";
  const words = [given.policy.name !== info.selection && `policy ${given.policy.name}`, given.policy.about].filter(Boolean).join(": ");
  $("about").textContent = [where, words].filter(Boolean).join("; ");
  $("dedup").checked = !(state.policy.dedup && state.policy.dedup.enabled === false);
  $("save-name").value = `${given.policy.name}-2`.slice(0, 64);
  $("rules").replaceChildren(...state.policy.rules.map(ruleCard));
  unsaid();
  keep();
  await attempt(false); // what the limits do is there before duplicates are told
  await attempt(true);
}
begin().then(news).catch(complain);
