// What every view needs: elements, numbers as people read them, and questions to the server.
// What comes from the run (names, captions, labels) is put on the page by textContent alone.
export const $ = (id) => document.getElementById(id);

// given: the policy that was opened, and its name in the menu; policy: what became of it, without the rules that are off.
// ranges: of measures, [low, high] that clips lie between; lasso: corners on the map that they lie within.
export const state = { info: null, given: null, policy: null, off: new Set(), outcome: null, first: 0, turn: 0, view: "policy", ranges: new Map(), lasso: [], more: [] };

export function el(name, facts = {}, ...inner) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(facts)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inner.filter((one) => one !== null && one !== undefined));
  return made;
}
export function drawn(name, facts) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
  return made;
}
export const fill = (id, ...inner) => $(id).replaceChildren(...inner.filter(Boolean));
export const count = (n) => n.toLocaleString("en-GB");
export const counted = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;
export const number = (n) => (n === null || n === undefined ? "–" : Number(n.toPrecision(5)).toString());
// With as many digits as it takes to see which is larger.
export function against(value, limit) {
  let digits = 5;
  const short = (n) => Number(n.toPrecision(digits));
  while (digits < 17 && Math.sign(short(value) - short(limit)) !== Math.sign(value - limit)) digits += 1;
  return `${short(value)} against ${short(limit)}`;
}
export const hours = (h) => (h >= 1 ? `${h.toFixed(1)} h` : h >= 1 / 60 ? `${(h * 60).toFixed(1)} min` : `${(h * 3600).toFixed(1)} s`);
export const basename = (uri) => uri.split("/").pop();

export async function ask(path, body, token) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (token) headers["X-Rushes-Token"] = sessionStorage.getItem("token") || "";
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : {});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
}
export function complain(error) {
  $("error").hidden = !error;
  $("error").textContent = error ? error.message : "";
}
