// What is tried: kept while its tab is reloaded, begun with any policy that there is, and saved with texts that are true.
import { $, ask, counted, el, state } from "./page.js";

export const FORMS = { min: "at least", max: "at most", keep_highest: "keep the highest share", keep_lowest: "keep the lowest share" };
const LISTS = { in: "in", not_in: "not in" };
const limitsOf = (rule) => JSON.stringify(["measure", "missing", ...Object.keys(FORMS), ...Object.keys(LISTS)].map((name) => rule[name] ?? null));
const words = (rule) => [...Object.entries(FORMS), ...Object.entries(LISTS)].filter(([name]) => rule[name] !== undefined && rule[name] !== null).map(([name, text]) => `${text} ${[rule[name]].flat().join(", ")}`).join(" and ");

// A limit that was moved has no longer the source that the opened policy gives it.
export function truly(rule) {
  const old = (state.given.policy.rules || []).find((one) => one.name === rule.name);
  if (!old || limitsOf(old) === limitsOf(rule)) return rule;
  return { ...rule, basis: "ours", source: `set in rushes explore; ${state.given.policy.name} has ${words(old)}` };
}
export function asTried() {
  const rules = state.policy.rules.filter((rule) => !state.off.has(rule)).map(truly);
  const same = !changes(rules);
  return { ...state.policy, rules, ...(same ? {} : { about: `${state.given.policy.name}, changed in rushes explore` }) };
}
function changes(rules) {
  const [old, now] = [state.given.policy.rules || [], rules].map((list) => new Map(list.map((rule) => [rule.name, limitsOf(rule)])));
  const names = [...new Set([...old.keys(), ...now.keys()])];
  const dedup = ({ dedup: found }) => JSON.stringify({ enabled: true, ...found });
  return names.filter((name) => old.get(name) !== now.get(name)).length + (dedup(state.given.policy) === dedup(state.policy) ? 0 : 1);
}
export function difference() {
  const n = changes(asTried().rules);
  return n ? `${counted(n, "change")} against ${state.given.name}; Open begins anew.` : `As ${state.given.name} has it.`;
}

// ---- kept in this tab alone
const place = () => `tried ${state.info.run} ${state.info.selection}`;
export function keep() {
  sessionStorage.setItem(place(), JSON.stringify([state.given, state.policy, [...state.off].map((rule) => rule.name)]));
}
export const kept = () => JSON.parse(sessionStorage.getItem(place()));

// ---- menus of policies; those of Compare are filled when it is looked at
export function policiesOf({ selections, drafts, presets }) {
  const all = [...selections.map((name) => [name, `selection ${name}`]), ...drafts.map((name) => [`draft:${name}`, `draft ${name}`]), ...presets.map((name) => [name, `preset ${name}`])];
  return all.filter(([name], at) => all.findIndex(([other]) => other === name) === at); // a selection may bear a preset's name
}
export function menus() {
  const list = $("open").querySelector("select");
  const was = list.value || state.info.selection;
  list.replaceChildren(...policiesOf(state.info).map(([value, text]) => el("option", { value }, text)));
  if (was) list.value = was;
  for (const name of ["first", "second"]) $("pair")[name].replaceChildren();
}
export function opening(tryOut) {
  $("open").addEventListener("submit", async (event) => {
    event.preventDefault();
    const list = $("open").querySelector("select");
    try {
      const { policy } = await ask("/api/policy", { name: list.value });
      await ask("/api/try", { policy, settled: false }); // one that asks for what nobody measured is not begun with
      await tryOut({ policy, name: list.selectedOptions[0].textContent });
    } catch (error) { told(error.message, true); }
  });
}

// ---- saving; what was said of it goes with the next change
function told(text, refused = false) {
  $("saved").textContent = text;
  $("saved").className = refused ? "refused" : "soft";
  delete $("saved").dataset.path;
}
export const unsaid = () => told("");
export function saving() {
  $("save").addEventListener("input", unsaid);
  $("save").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const policy = { ...asTried(), name: $("save-name").value };
      const saved = await ask("/api/save", { policy, replace: $("save-replace").checked }, true);
      told(`Saved. ${saved.command}`);
      $("saved").dataset.path = saved.path;
      state.info.drafts = [...new Set([...state.info.drafts, policy.name])];
      menus();
    } catch (error) { told(error.message, true); }
  });
}
