"use strict";
(() => {
  const cards = [...document.querySelectorAll("#cards .card")];
  const buttons = [...document.querySelectorAll(".chips button")];
  const search = document.querySelector(".filters input");
  const empty = document.querySelector(".empty");
  const more = document.querySelector(".more");
  const page = 24;
  let group = "";
  let most = page;

  function show() {
    const wanted = search ? search.value.trim().toLowerCase() : "";
    let seen = 0;
    for (const card of cards) {
      const fits = (!group || card.dataset.group === group) &&
        (!wanted || card.textContent.toLowerCase().includes(wanted));
      card.hidden = !fits || seen >= most;
      seen += fits ? 1 : 0;
    }
    if (more) {
      more.hidden = seen <= most;
      more.textContent = `Show ${Math.min(page, seen - most)} more of ${seen - most}`;
    }
    if (empty) empty.hidden = seen > 0;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === group));
  }
  for (const button of buttons) button.addEventListener("click", () => { group = button.dataset.show; most = page; show(); });
  if (search) search.addEventListener("input", show);
  if (more) more.addEventListener("click", () => { most += page; show(); });

  // A timeline leads to a card that a filter may be hiding.
  for (const link of document.querySelectorAll(".timeline a")) {
    link.addEventListener("click", () => { group = ""; most = cards.length; if (search) search.value = ""; show(); });
  }
  show();

  const large = document.getElementById("large");
  for (const strip of document.querySelectorAll("button.strip")) {
    strip.addEventListener("click", () => {
      const picture = strip.querySelector("img");
      large.querySelector("img").src = picture.src;
      large.querySelector("img").alt = picture.alt;
      large.querySelector("p").textContent = picture.alt;
      large.showModal();
    });
  }
  large.addEventListener("click", () => large.close());
})();
