// Selections that were made while the page is open: they are told, and the page is loaded again where that is wanted.
import { $, ask, complain, el, fill } from "./page.js";

const EVERY_MS = 15000;
async function look() {
  if (document.hidden) return;
  const found = await ask("/api/news").catch(() => ({ selections: [] })); // a server that is gone is told by what is asked of it
  $("news").hidden = !found.selections.length;
  if (!found.selections.length) return;
  const again = async () => {
    try { await ask("/api/reload", {}, true); location.reload(); } catch (error) { complain(error); }
  };
  fill("news", el("span", {}, `Meanwhile another selection was made here: ${found.selections.join(", ")}.`),
    el("button", { type: "button", onclick: again }, "look at the run as it is now"));
}
export function news() {
  setInterval(look, EVERY_MS);
  window.addEventListener("focus", look);
  document.addEventListener("visibilitychange", look);
}
