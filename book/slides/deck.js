"use strict";
// Right and left, Page Down and Up, Space, Home and End move; n shows the notes, s opens a window with them that moves along.
(() => {
  const root = document.documentElement;
  const slides = [...document.querySelectorAll(".slide")];
  const wide = matchMedia("(min-width: 700px)");
  let now = 0;
  let other = window.opener; // the deck, for a window with notes; that window, for the deck

  const nav = document.createElement("nav");
  nav.setAttribute("aria-label", "Slides");
  nav.innerHTML =
    '<button type="button" aria-label="previous">←</button><span id="where" role="status"></span>' +
    '<button type="button" aria-label="next">→</button>';
  const notes = document.createElement("aside");
  notes.id = "notes";
  notes.tabIndex = 0;
  notes.setAttribute("aria-label", "Notes");
  document.body.append(notes, nav);

  // Smaller text until everything lies inside its column and above the foot. (Boxes, for a formula's scrollHeight is more than one sees.)
  const fit = slide => {
    const box = slide.querySelector(":scope > div") ?? slide;
    const sticksOut = column => {
      const [{ top, bottom }, { left, right }] = [box, column].map(e => e.getBoundingClientRect());
      return [...column.querySelectorAll(":scope > *, svg")].map(e => e.getBoundingClientRect()).some(
        e => e.left < left - 1 || e.right > right + 1 || e.top < top - 1 || e.bottom > bottom + 1);
    };
    const columns = [...slide.querySelectorAll(".shown, .visual, :scope > ol")];
    for (let size = 1; size > 0.4 && (slide.style.setProperty("--fit", size), columns.some(sticksOut)); size -= 0.05);
  };

  const zoom = () => {
    const height = innerHeight * (root.classList.contains("noted") ? 0.62 : 1);
    root.style.setProperty("--zoom", Math.min(innerWidth / 1280, height / 720));
  };

  const show = (k, tell = true) => {
    now = Math.max(0, Math.min(slides.length - 1, k));
    slides.forEach((slide, i) => {
      slide.classList.toggle("now", i === now);
      slide.inert = root.classList.contains("deck") && i !== now;
    });
    notes.replaceChildren(...[...(slides[now].querySelector("details")?.children ?? [])].slice(1).map(p => p.cloneNode(true)));
    document.getElementById("where").textContent = `${now + 1} / ${slides.length}`;
    history.replaceState(null, "", `#${now + 1}`);
    if (tell) other?.postMessage(now, "*");
  };

  const layout = paper => {
    const deck = wide.matches || paper === true;
    root.classList.toggle("deck", wide.matches);
    slides.forEach(slide => slide.classList.toggle("sheet", deck));
    if (deck) slides.forEach(fit);
    zoom();
    show(now, false);
  };

  const note = shown => {
    root.classList.toggle("noted", shown);
    zoom();
  };

  const keys = {
    ArrowRight: () => show(now + 1), PageDown: () => show(now + 1), " ": () => show(now + 1),
    ArrowLeft: () => show(now - 1), PageUp: () => show(now - 1),
    Home: () => show(0), End: () => show(slides.length - 1),
    n: () => note(!root.classList.contains("noted")),
    s: () => { other = window.open(`${location.href.split(/[?#]/)[0]}?notes#${now + 1}`, "notes", "width=1000,height=800"); },
  };
  addEventListener("keydown", event => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!act || !root.classList.contains("deck") || (event.key === " " && event.target.closest("button, a"))) return;
    event.preventDefault();
    act();
  });
  const [back, forth] = nav.querySelectorAll("button");
  back.addEventListener("click", () => show(now - 1));
  forth.addEventListener("click", () => show(now + 1));
  const go = () => show((parseInt(location.hash.slice(1)) || 1) - 1);
  addEventListener("hashchange", go);
  addEventListener("resize", zoom);
  addEventListener("beforeprint", () => layout(true));
  addEventListener("afterprint", layout);
  addEventListener("message", event => { if (other && event.source === other && Number.isInteger(event.data)) show(event.data, false); });
  wide.addEventListener("change", layout);
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    layout();
    go();
    note(location.search === "?notes");
    root.dataset.ready = "";
  });
})();
