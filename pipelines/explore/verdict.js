// What the selection's policy and the tried one say of a clip: every rule, exact values, and limits that keep it.
import { $, ask, counted, el, fill, state } from "./page.js";
import { FORMS, asTried } from "./tried.js";

export async function verdict(key) {
  try {
    const found = await ask(`/api/verdict/${encodeURIComponent(key)}`, { policy: asTried() });
    if (state.looked === key) show(found);
  } catch (error) { if (state.looked === key) fill("verdict", el("p", { className: "refused" }, error.message)); }
}
document.addEventListener("tried", () => { if (state.looked) verdict(state.looked); });

function show({ selection, tried }) {
  const sides = [selection, tried].filter(Boolean);
  const all = sides.flatMap((side) => side.rules);
  const id = (row) => `${row.rule} ${row.form}`;
  const rows = all.filter((row, at) => all.findIndex((other) => id(other) === id(row)) === at);
  const at = (side, row) => side.rules.find((one) => id(one) === id(row));
  const lines = rows.map((row) => el("tr", {}, el("td", {}, row.rule, el("span", { className: "soft" }, ` ${row.measure}`)),
    el("td", { className: "n" }, row.value === null ? "not measured" : String(row.value)), ...sides.map((side) => cell(at(side, row), side === tried))));
  const heads = [selection && `selection ${selection.policy}`, "tried"].filter(Boolean);
  fill("verdict", el("h3", {}, "Verdict, rule by rule"),
    el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Verdict, rule by rule" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", {}, "rule"), el("th", { className: "n" }, "value"), ...heads.map((text) => el("th", {}, text)))),
      el("tbody", {}, ...lines, el("tr", {}, el("td", {}, "all in all"), el("td", {}), ...sides.map(outcome))))),
    lets());
}
function cell(row, canMove) {
  if (!row) return el("td", {}, "–");
  const limit = row.form === "list" ? row.limit : `${FORMS[row.form]} ${row.limit}${row.said && row.form.startsWith("keep") ? ` (${row.said})` : ""}`;
  const said = row.fails === null ? "not tried, since it failed before" : row.fails ? "fails" : "passes";
  const mend = () => document.dispatchEvent(new CustomEvent("limit", { detail: { rule: row.rule, form: row.form, value: row.keeps } }));
  return el("td", {}, `${limit}: `, el("span", { className: row.fails ? "fate-dropped" : "" }, said), canMove && row.keeps !== null
    ? el("button", { type: "button", className: "gone", "aria-label": `${row.rule}: limit that keeps it`, onclick: mend }, `limit that keeps it: ${row.keeps}`) : null);
}
const outcome = (side) => el("td", { className: side.kept ? "fate-kept" : "fate-dropped" }, side.kept ? "kept" : `dropped by ${side.by}${side.detail ? `, ${side.detail}` : ""}`);

// What a limit that keeps this clip lets in besides it.
function lets() {
  const { against, kept } = state.outcome || {};
  if (!kept) return null;
  const changed = against ? `; against selection ${against.selection} ${counted(against.newly_kept.clips, "clip")} in, ${against.newly_dropped.clips} out` : "";
  return el("p", { className: "soft" }, `What is tried keeps ${counted(kept.clips, "clip")}${changed}.`);
}
