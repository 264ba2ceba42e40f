// A result stays covered until the reader has written down what it will be. A prediction is a paragraph with the bold word
// "Predict" before a cell; covered are the cell's output and the rest of the section. What was written is remembered by this browser alone.
document.addEventListener("DOMContentLoaded", () => {
  const KEY = "interp_lab predictions", ALWAYS = "show always";
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {} // nothing is kept, or nothing can be
  const keep = (name, value) => {
    kept[name] = value;
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {}
  };
  const asks = e => e.matches("p") && [...e.querySelectorAll("strong")].some(s => s.textContent.startsWith("Predict"));
  const element = (tag, text, options) => Object.assign(document.createElement(tag), { textContent: text }, options);

  for (const [number, question] of [...document.querySelectorAll("main p")].filter(asks).entries()) {
    let cell = question.nextElementSibling;
    while (cell && !cell.matches(".cell, section") && !asks(cell)) cell = cell.nextElementSibling;
    const output = cell?.matches(".cell") && cell.querySelector(":scope > .cell_output");
    if (!output || output.querySelector(".live")) continue; // there the reader acts, and sees what comes of it
    const covered = [output];
    for (let e = cell.nextElementSibling; e; e = e.nextElementSibling) covered.push(e);

    const name = question.textContent;
    const form = element("form", "", { className: "prediction" });
    const label = element("label", "Your prediction");
    const input = element("input", "", { type: "text", maxLength: 300, autocomplete: "off" });
    label.append(input);
    const always = element("button", "Show all results, on every page", { type: "button", className: "quiet" });
    form.append(label, element("button", "Show the result", { type: "submit" }), always);
    const told = element("p", "", { className: "prediction", tabIndex: -1, hidden: true });

    const cover = yes => {
      covered.forEach(e => e.classList.toggle(`unseen-${number}`, yes)); // it may be covered by two questions
      form.hidden = !yes;
      told.hidden = yes;
      if (yes) return;
      const again = element("button", "Cover it again", { type: "button", className: "quiet" });
      again.addEventListener("click", () => {
        keep(ALWAYS, false);
        keep(name, undefined);
        cover(true);
        input.focus();
      });
      told.replaceChildren(kept[name] ? `You predicted: “${kept[name]}” ` : "Shown without a prediction. ", again);
    };
    form.addEventListener("submit", event => {
      event.preventDefault();
      keep(name, input.value.trim());
      cover(false);
      told.focus();
    });
    always.addEventListener("click", () => {
      keep(ALWAYS, true);
      document.dispatchEvent(new Event("show-all"));
      told.focus();
    });
    document.addEventListener("show-all", () => cover(false));
    output.before(form, told);
    cover(kept[name] === undefined && !kept[ALWAYS]);
  }
  const follow = () => { // a link to something that is covered
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.closest('[class*="unseen-"]')) return;
    document.dispatchEvent(new Event("show-all"));
    target.scrollIntoView();
  };
  follow();
  addEventListener("hashchange", follow);
});
