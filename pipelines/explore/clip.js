// One clip: it plays, beside its duplicate; frames around its borders; labels by keyboard; all that is known of it.
import { $, against, ask, basename, complain, el, fill, number, state } from "./page.js";
import { verdict } from "./verdict.js";

const SHOWN_MS = 2000;
function player(key, found, label) {
  const part = found.encoded ? "" : `#t=${found.start_s},${found.end_s}`;
  const video = el("video", { controls: true, muted: true, loop: found.encoded, preload: "auto", playsInline: true, src: `/api/video/${encodeURIComponent(key)}${part}` });
  const figure = el("figure", {}, video, el("figcaption", { className: "soft" }, label));
  video.addEventListener("error", () => { video.replaceWith(el("p", { className: "soft" }, "The browser cannot play this file; its strip is below.")); });
  return figure;
}
// The server decodes frames for borders once the clip is seen, and not before.
const shown = (figure) => new Promise((done) => {
  const video = figure.querySelector("video");
  if (!video || video.readyState >= 2) done();
  else for (const name of ["loadeddata", "error"]) video.addEventListener(name, done);
  setTimeout(done, SHOWN_MS);
});
// A duplicate runs beside the clip that stands for it: time there is speed × time here + offset.
function inStep(one, other, copy) {
  const there = () => copy.speed * one.currentTime + copy.offset_s;
  one.addEventListener("play", () => { other.playbackRate = copy.speed || 1; other.currentTime = there(); other.play(); });
  one.addEventListener("pause", () => { other.pause(); other.currentTime = there(); });
  one.addEventListener("seeked", () => { if (Math.abs(other.currentTime - there()) > 0.1) other.currentTime = there(); });
}
function facts(title, rows, head) {
  if (!rows.length) return null;
  const made = el("table", {}, ...(head ? [el("thead", {}, el("tr", {}, ...head.map((text) => el("th", {}, text))))] : []),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", { className: typeof cell === "string" && /^[-0-9.e+]+$/.test(cell) ? "n" : "" }, cell))))));
  return el("div", {}, el("h3", {}, title), made);
}
// ---- the frames around its borders: those outside the clip are paler
async function borders(key, known) {
  fill("borders", el("p", { className: "soft" }, "Frames around its borders are on the way …"));
  try {
    const found = await ask(`/api/borders/${encodeURIComponent(key)}`);
    if (state.looked !== key) return;
    const rows = [["begins", known.opens_with], ["ends", known.closes_with]].map(([border, kind]) => {
      const frames = found.frames.flatMap((frame, at) => (frame.border !== border ? [] : [el("figure", { className: frame.is_inside ? "inside" : "outside" },
        el("img", { alt: `${frame.is_inside ? "in the clip" : "outside it"}, at ${number(frame.time_s)} s`, src: `/api/borders/${encodeURIComponent(key)}/${at}` }),
        el("figcaption", { className: "soft" }, `${frame.time_s.toFixed(3)} s${frame.is_inside ? "" : ", outside"}`))]));
      return el("div", {}, el("h3", {}, `It ${border} with: ${kind || "nothing known"}`), el("div", { className: "frames" }, ...frames));
    });
    fill("borders", ...rows, el("p", { className: "soft" }, `${found.told}.`));
  } catch (error) { if (state.looked === key) fill("borders", el("p", { className: "soft" }, error.message)); }
}
// ---- labels, by k d f m w; n goes to the next clip of the list
const LETTERS = { keep: "k", drop: "d", false_cut: "f", missed_cut: "m", wrong_caption: "w" };
function labelled(key, rows) {
  const { labels, who } = state.info;
  const mine = new Set(rows.filter((row) => row.who === who).map((row) => row.label));
  const others = rows.filter((row) => row.who !== who).map((row) => `${row.who}: ${row.label}`).join(", ");
  const made = Object.entries(labels).map(([name, about]) => el("button", {
    type: "button", title: about, "aria-pressed": String(mine.has(name)), "aria-keyshortcuts": LETTERS[name],
    onclick: async () => {
      try { labelled(key, (await ask("/api/label", { key, label: name, on: !mine.has(name) }, true)).labels); } catch (error) { complain(error); $("clip").close(); }
    },
  }, `${name.replace("_", " ")} (${LETTERS[name]})`));
  [...made].forEach((one, at) => { one.dataset.letter = Object.values(LETTERS)[at]; });
  const next = el("button", { type: "button", onclick: () => follow(key) }, "next (n)");
  next.dataset.letter = "n";
  fill("labels", ...made, next, others ? el("span", { className: "soft" }, others) : null);
}
function follow(key) {
  const cards = [...document.querySelectorAll("#grid .card")];
  const next = cards[cards.findIndex((one) => one.dataset.key === key) + 1];
  if (next) look(next.dataset.key);
}
$("clip").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const button = [...$("labels").querySelectorAll("button")].find((one) => one.dataset.letter === event.key);
  if (button) button.click();
});
export async function look(key) {
  state.looked = key;
  const path = encodeURIComponent(key);
  try {
    const knowing = ask(`/api/clip/${path}`);
    knowing.catch(() => {}); // told below, unless the clip cannot even be played
    const plays = await ask(`/api/plays/${path}`);
    if (state.looked !== key) return;
    $("clip-title").textContent = key;
    for (const id of ["clip-where", "labels", "verdict", "borders", "clip-facts"]) fill(id);
    const mine = player(key, plays, plays.encoded ? "from the run's encoded clips" : "the source, at this clip's time");
    fill("players", mine);
    $("clip-strip").src = `/api/strip/${path}`;
    if (!$("clip").open) $("clip").showModal();
    const found = await knowing;
    if (state.looked !== key) return;
    $("clip-title").textContent = basename(found.uri);
    $("clip-where").textContent = `${key} · ${number(found.start_s)} s to ${number(found.end_s)} s of ${found.uri}`;
    labelled(key, found.labels);
    verdict(key);
    shown(mine).then(() => { if (state.looked === key) borders(key, found.facts); });
    const copy = found.copies[0];
    if (copy) {
      const other = copy.key === key ? copy.kept_key : copy.key;
      const beside = await ask(`/api/plays/${encodeURIComponent(other)}`);
      if (state.looked !== key) return;
      const figure = player(other, beside, copy.key === key ? "the one that stands for it" : "its duplicate");
      $("players").append(figure);
      const [a, b] = [mine, figure].map((one) => one.querySelector("video"));
      if (a && b) inStep(...(copy.key === key ? [a, b] : [b, a]), copy); // one that cannot be played is gone
    }
    const bar = (share) => { const made = el("span", { className: "bar" }); made.style.width = `${100 * share}%`; return made; };
    fill("clip-facts",
      facts("Verdicts in the ledger", found.verdicts.map((v) => [v.policy, v.kept ? "kept" : `dropped by ${v.rule}`, [v.value === null ? "" : v.limit === null ? number(v.value) : against(v.value, v.limit), v.detail].filter(Boolean).join(", ")]), ["selection", "verdict", "value"]),
      found.caption && facts(`Caption, by ${found.caption.source}`, [[found.caption.long || found.caption.short], ...(found.caption.checks ? [[`checks: ${JSON.stringify(found.caption.checks)}`]] : [])]),
      facts("Duplicates", found.copies.map((copied) => {
        const other = copied.key === key ? copied.kept_key : copied.key;
        return [copied.level, el("button", { type: "button", title: other, onclick: () => look(other) }, "look at it"), `${Number(copied.distance.toPrecision(3))} ${copied.unit}`, copied.why || ""];
      }), ["level", "clip", "distance", "why"]),
      facts("Measures, and how many clips have less", found.measures.map((one) => [one.title, `${number(one.value)}`, one.unit, one.below === null ? "" : el("span", { title: `${Math.round(100 * one.below)} %` }, bar(one.below))])),
      facts("Models", found.scores.map((one) => [one.scorer, number(one.value), one.label || "", one.model]), ["scorer", "value", "label", "model"]));
  } catch (error) {
    if (state.looked !== key) return;
    if ($("clip").open) $("clip").close();
    complain(error);
  }
}
$("clip").addEventListener("close", () => { state.looked = null; fill("players"); fill("borders"); });
