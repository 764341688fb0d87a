"use strict";
// What comes from the run (names, captions, labels) is put on the page by textContent alone.
(() => {
  const $ = (id) => document.getElementById(id);
  const STEPS = 400;
  const SETTLE_MS = 200;
  const state = { info: null, policy: null, off: new Set(), outcome: null, first: 0, turn: 0, view: "policy" };

  if (location.hash.startsWith("#token=")) {
    sessionStorage.setItem("token", location.hash.slice(7));
    history.replaceState(null, "", location.pathname);
  }

  function el(name, facts = {}, ...inner) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(facts)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...inner.filter((one) => one !== null && one !== undefined));
    return made;
  }
  function drawn(name, facts) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    return made;
  }
  const fill = (id, ...inner) => $(id).replaceChildren(...inner.filter(Boolean));
  const count = (n) => n.toLocaleString("en-GB");
  const number = (n) => (n === null || n === undefined ? "–" : Number(n.toPrecision(5)).toString());
  const hours = (h) => (h >= 1 ? `${h.toFixed(1)} h` : h >= 1 / 60 ? `${(h * 60).toFixed(1)} min` : `${(h * 3600).toFixed(1)} s`);
  const basename = (uri) => uri.split("/").pop();

  async function ask(path, body, token) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (token) headers["X-Rushes-Token"] = sessionStorage.getItem("token") || "";
    const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : {});
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || answer.statusText);
    return found;
  }
  function complain(error) {
    $("error").hidden = !error;
    $("error").textContent = error ? error.message : "";
  }

  // ------------------------------------------------------------------------------------------------------ the policy
  const measureOf = (name) => state.info.measures.find((one) => one.name === name) || { name, title: name, unit: "", form: "number" };
  const asTried = () => ({ ...state.policy, rules: state.policy.rules.filter((rule) => !state.off.has(rule)) });

  let timer = 0;
  function moved() {
    clearTimeout(timer);
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
    $("kept").textContent = `${count(found.kept.clips)} of ${count(found.found.clips)} clips, ${hours(found.kept.hours)}`;
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
    $("timing").textContent = `${found.ms} ms in the server, ${Math.round(found.wait)} ms in all${found.settled ? "" : "; duplicates are still to come"}`;
    for (const card of $("rules").children) update(card, found);
    const against = found.against;
    $("against").textContent = against ? against.selection : "nothing selected yet";
    if (!against) return;
    $("new-title").textContent = `Comes in: ${count(against.newly_kept.clips)} clips, ${hours(against.newly_kept.hours)}`;
    $("lost-title").textContent = `Goes out: ${count(against.newly_dropped.clips)} clips, ${hours(against.newly_dropped.hours)}`;
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
    const spread = found.spread[holder.rule.measure];
    if (!spread) return;
    const first = !holder.spread;
    holder.spread = spread;
    if (spread.labels) { if (first) labels(holder); return; }
    if (first) limits(holder);
    bars(holder);
    if (row && row.threshold !== undefined && row.threshold !== null) {
      holder.querySelector(".came").textContent = `came to ${number(row.threshold)}: ${count(row.kept_of[0])} of ${count(row.kept_of[1])}`;
    }
  }

  function bars(holder) {
    const { edges, all, kept } = holder.spread;
    const picture = holder.querySelector("svg");
    const most = Math.max(1, ...all);
    const shapes = [];
    all.forEach((n, at) => {
      const high = n ? Math.max(1.5, 60 * (n / most)) : 0;
      const stay = kept[at] ? Math.max(1, high * (kept[at] / n)) : 0;
      shapes.push(drawn("rect", { class: "all", x: at * 10 + 0.5, y: 62 - high, width: 9, height: high }));
      shapes.push(drawn("rect", { class: "stay", x: at * 10 + 0.5, y: 62 - stay, width: 9, height: stay }));
    });
    for (const bound of ["min", "max"]) {
      if (typeof holder.rule[bound] === "number" && edges.length) {
        const x = 10 * all.length * placeOf(holder.rule[bound], edges);
        shapes.push(drawn("line", { x1: x, x2: x, y1: 0, y2: 64 }));
      }
    }
    picture.setAttribute("viewBox", `0 0 ${Math.max(10, all.length * 10)} 64`);
    picture.replaceChildren(...shapes);
  }
  function placeOf(value, edges) {
    const last = edges.length - 1;
    if (value <= edges[0]) return 0;
    if (value >= edges[last]) return 1;
    const at = edges.findIndex((edge) => edge > value) - 1;
    return (at + (value - edges[at]) / (edges[at + 1] - edges[at])) / last;
  }
  function valueAt(place, edges) {
    const x = place * (edges.length - 1);
    const at = Math.min(Math.floor(x), edges.length - 2);
    return Number((edges[at] + (x - at) * (edges[at + 1] - edges[at])).toPrecision(4));
  }

  const FORMS = { min: "at least", max: "at most", keep_highest: "keep the highest share", keep_lowest: "keep the lowest share" };
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
      bars(holder);
      moved();
    });
    exact.addEventListener("input", () => {
      if (exact.value === "" || !Number.isFinite(Number(exact.value))) return;
      rule[form] = Number(exact.value);
      reset();
      bars(holder);
      moved();
    });
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

  function ruleCard(rule) {
    const about = measureOf(rule.measure);
    const on = el("input", { type: "checkbox", checked: !state.off.has(rule), "aria-label": `use ${rule.name}` });
    const holder = el("div", { className: "rule" },
      el("h3", {}, on, rule.name, el("span", { className: "count" }, "")),
      el("p", { className: "soft" }, `${about.title}${about.unit ? `, ${about.unit}` : ""}. ${rule.source || ""} ${rule.missing === "keep" ? "Clips without it stay." : ""}`));
    on.addEventListener("change", () => {
      if (on.checked) state.off.delete(rule); else state.off.add(rule);
      holder.classList.toggle("off", !on.checked);
      moved();
    });
    if (about.form === "number") holder.append(drawn("svg", { class: "spread", preserveAspectRatio: "none", "aria-hidden": "true" }));
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
  $("save").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const policy = { ...asTried(), name: $("save-name").value };
      const saved = await ask("/api/save", { policy, replace: $("save-replace").checked }, true);
      $("saved").textContent = `Saved. ${saved.command}`;
      $("saved").dataset.path = saved.path;
      state.info.drafts = [...new Set([...state.info.drafts, policy.name])];
      for (const name of ["first", "second"]) $("pair")[name].replaceChildren();
      complain(null);
    } catch (error) { complain(error); }
  });

  // ------------------------------------------------------------------------------------------------------- the clips
  function card(clip, kind) {
    const picture = el("img", { loading: "lazy", alt: "", src: `/api/strip/${encodeURIComponent(clip.key)}` });
    const why = clip.fate === "kept" ? "kept" : `${clip.rule}${clip.value === null ? "" : `: ${number(clip.value)}${clip.limit === null ? "" : ` against ${number(clip.limit)}`}`}${clip.detail ? `, ${clip.detail}` : ""}`;
    const made = el("button", { className: kind, type: "button", onclick: () => look(clip.key) }, picture,
      el("span", {}, el("b", {}, basename(clip.uri)), ` ${clip.duration_s.toFixed(2)} s `, el("span", { className: `fate-${clip.fate}` }, why),
        clip.measured === null || clip.measured === undefined ? null : ` · ${number(clip.measured)}`));
    made.dataset.key = clip.key;
    return made;
  }
  async function list(more) {
    const form = $("filter");
    state.first = more ? state.first + 60 : 0;
    const turn = (state.turn += 1);
    const begun = performance.now();
    try {
      const found = await ask("/api/clips", {
        policy: asTried(), fate: form.fate.value, rule: form.rule.value, measure: form.measure.value,
        order: form.order.value, limit: Number(form.limit.value) || 0, text: form.text.value, first: state.first,
      });
      if (turn !== state.turn) return;
      complain(null);
      const cards = found.clips.map((clip) => card(clip, "card"));
      if (more) $("grid").append(...cards); else $("grid").replaceChildren(...cards);
      $("total").textContent = `${count(found.total)} clips, ${Math.round(performance.now() - begun)} ms`;
      $("more").hidden = form.order.value === "spread" || state.first + 60 >= found.total;
    } catch (error) { complain(error); }
  }
  function nearest(rule, value) {
    const form = $("filter");
    form.reset();
    form.measure.value = rule.measure;
    form.order.value = "nearest";
    form.limit.value = value;
    view("clips");
  }
  $("filter").addEventListener("input", () => list(false));
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => list(true));

  // --------------------------------------------------------------------------------------------------------- one clip
  function player(key, found, label) {
    const part = found.encoded ? "" : `#t=${found.start_s},${found.end_s}`;
    const video = el("video", { controls: true, muted: true, loop: found.encoded, preload: "auto", playsInline: true, src: `/api/video/${encodeURIComponent(key)}${part}` });
    const figure = el("figure", {}, video, el("figcaption", { className: "soft" }, label));
    video.addEventListener("error", () => { video.replaceWith(el("p", { className: "soft" }, "The browser cannot play this file; its strip is below.")); });
    return figure;
  }
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
  async function look(key) {
    try {
      const found = await ask(`/api/clip/${encodeURIComponent(key)}`);
      $("clip-title").textContent = basename(found.uri);
      $("clip-where").textContent = `${key} · ${number(found.start_s)} s to ${number(found.end_s)} s of ${found.uri}`;
      const mine = player(key, found, found.encoded ? "from the run's encoded clips" : "the source, at this clip's time");
      fill("players", mine);
      labelled(key, found.labels);
      const copy = found.copies[0];
      if (copy) {
        const other = copy.key === key ? copy.kept_key : copy.key;
        const beside = await ask(`/api/clip/${encodeURIComponent(other)}`);
        const figure = player(other, beside, copy.key === key ? "the one that stands for it" : "its duplicate");
        $("players").append(figure);
        const [a, b] = [mine, figure].map((one) => one.querySelector("video"));
        if (a && b) inStep(...(copy.key === key ? [a, b] : [b, a]), copy); // one that cannot be played is gone
      }
      $("clip-strip").src = `/api/strip/${encodeURIComponent(key)}`;
      const bar = (share) => { const made = el("span", { className: "bar" }); made.style.width = `${100 * share}%`; return made; };
      fill("clip-facts",
        facts("Verdicts", found.verdicts.map((v) => [v.policy, v.kept ? "kept" : `dropped by ${v.rule}`, v.value === null ? v.detail || "" : `${number(v.value)} against ${number(v.limit)}${v.detail ? `, ${v.detail}` : ""}`]), ["policy", "verdict", "value"]),
        found.caption && facts(`Caption, by ${found.caption.source}`, [[found.caption.long || found.caption.short], ...(found.caption.checks ? [[`checks: ${JSON.stringify(found.caption.checks)}`]] : [])]),
        facts("Duplicates", found.copies.map((copied) => {
          const other = copied.key === key ? copied.kept_key : copied.key;
          return [copied.level, el("button", { type: "button", onclick: () => look(other) }, other), `${number(copied.distance)} ${copied.unit}`, copied.why || ""];
        }), ["level", "clip", "distance", "why"]),
        facts("Measures, and how many clips have less", found.measures.map((one) => [one.title, `${number(one.value)}`, one.unit, one.below === null ? "" : el("span", { title: `${Math.round(100 * one.below)} %` }, bar(one.below))])),
        facts("Models", found.scores.map((one) => [one.scorer, number(one.value), one.label || "", one.model]), ["scorer", "value", "label", "model"]));
      if (!$("clip").open) $("clip").showModal();
    } catch (error) { complain(error); }
  }
  $("clip").addEventListener("close", () => fill("players"));

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
      $("sourced").textContent = `${count(found.rows.length)} sources${found.rows.length === 500 ? ", the first 500; ask by SQL for others" : ""}`;
    } catch (error) { complain(error); }
  }
  function of(uri) {
    $("filter").reset();
    $("filter").text.value = uri;
    view("clips");
  }
  $("by").addEventListener("input", sources);
  $("by").addEventListener("submit", (event) => event.preventDefault());

  // ---------------------------------------------------------------------------------------------------------- compare
  function pairs() {
    const own = [["", "what is tried here"], ...state.info.selections.map((name) => [name, `selection ${name}`]),
      ...state.info.drafts.map((name) => [name, `draft ${name}`]), ...state.info.presets.map((name) => [name, `preset ${name}`])];
    const known = (list) => list.filter(([name], at) => list.findIndex(([other]) => other === name) === at);
    const other = state.info.other;
    const second = other.is_same ? own : [...other.selections.map((name) => [name, `${basename(other.run)}: selection ${name}`]), ...state.info.presets.map((name) => [name, `${basename(other.run)}: preset ${name}`])];
    for (const [name, list, chosen] of [["first", own, ""], ["second", second, state.info.selection || "default"]]) {
      if ($("pair")[name].options.length) continue;
      $("pair")[name].replaceChildren(...known(list).map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
    }
  }
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
      const apart = found.clips_of_first_alone || found.clips_of_second_alone ? `; ${count(found.clips_of_first_alone)} clips are in the first run alone, ${count(found.clips_of_second_alone)} in the second` : "";
      $("compared").textContent = `${count(found.both)} clips are kept by both${apart}`;
      for (const [side, part] of [["first", found.only_first], ["second", found.only_second]]) {
        $(`${side}-title`).textContent = `Only the ${side} keeps ${count(part.clips)} clips, ${hours(part.hours)}`;
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
      const drawnBy = found.columns.findIndex((_, at) => found.rows.some((row) => typeof row[at] === "number") && found.rows.every((row) => row[at] === null || (typeof row[at] === "number" && row[at] >= 0)));
      const most = Math.max(1e-12, ...found.rows.map((row) => row[drawnBy] || 0));
      const cell = (value, at) => {
        const isNumber = typeof value === "number";
        const made = el("td", { className: isNumber ? "n" : "" }, value === null ? "" : isNumber ? number(value) : typeof value === "object" ? JSON.stringify(value) : String(value));
        if (at === drawnBy && isNumber) { const bar = el("span", { className: "bar" }); bar.style.width = `${(100 * value) / most}%`; made.append(bar); }
        return made;
      };
      fill("answer", el("thead", {}, el("tr", {}, ...found.columns.map((name, at) => el("th", { className: found.rows.some((row) => typeof row[at] === "number") ? "n" : "" }, name)))),
        el("tbody", {}, ...found.rows.map((row) => el("tr", {}, ...row.map(cell)))));
      $("answered").textContent = `${count(found.rows.length)} rows${found.more ? ", and more: add a limit, or use rushes sql --csv" : ""}, ${Math.round(performance.now() - begun)} ms`;
    } catch (error) { complain(error); }
  });

  // ------------------------------------------------------------------------------------------------------------ views
  function view(name) {
    state.view = name;
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
    for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", String(button.dataset.view === name));
    if (name === "sources") sources();
    if (name === "compare") pairs();
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
    state.policy = { ...info.policy, rules: (info.policy.rules || []).map((rule) => ({ ...rule })) };
    document.title = `${basename(info.run)} · Rushes explore`;
    $("run").textContent = basename(info.run);
    $("about").textContent = `${info.selection ? `selection ${info.selection}${info.stale ? ", made of an older ledger" : ""}` : "nothing selected yet"}; policy ${state.policy.name}${state.policy.about ? `: ${state.policy.about}` : ""}`;
    $("dedup").checked = !(state.policy.dedup && state.policy.dedup.enabled === false);
    $("save-name").value = `${state.policy.name}-2`.slice(0, 64);
    const options = info.measures.map((one) => el("option", { value: one.name }, `${one.title} (${one.name})`));
    $("add-measure").replaceChildren(...options);
    $("filter").measure.replaceChildren(el("option", { value: "" }, "none"), ...info.measures.filter((one) => one.form === "number").map((one) => el("option", { value: one.name }, `${one.title} (${one.name})`)));
    $("queries").replaceChildren(el("option", { value: "" }, "choose one"), ...info.queries.map((one) => el("option", { value: one.name }, one.question)));
    $("rules").replaceChildren(...state.policy.rules.map(ruleCard));
    await attempt(true);
  }
  begin().catch(complain);
})();
