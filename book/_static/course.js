// The sidebar's logo lies outside the theme's landmarks: make the whole sidebar one.
document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.getElementById("pst-primary-sidebar");
  if (sidebar) {
    sidebar.setAttribute("role", "region");
    sidebar.setAttribute("aria-label", "Contents");
    for (const summary of sidebar.querySelectorAll("li > details > summary"))
      summary.setAttribute("aria-label", `Pages of ${summary.closest("li").querySelector("a").textContent.trim()}`);
  }
});

// The head of a column of a data frame is a button: it sorts by it, largest number or first word first; then in reverse; then as it was.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.dataframe")) {
    const heads = [...table.querySelectorAll("thead th")];
    const rows = [...table.tBodies[0].rows];
    for (const head of heads) {
      const text = row => row.cells[head.cellIndex].textContent.replaceAll(",", "");
      const number = row => (text(row) ? parseFloat(text(row)) : -Infinity);
      const words = rows.some(row => Number.isNaN(number(row)));
      const compare = words
        ? (a, b) => text(a).localeCompare(text(b), "en", { numeric: true })
        : (a, b) => number(a) - number(b) || 0; // two empty cells: -Infinity twice
      const orders = words ? ["none", "ascending", "descending"] : ["none", "descending", "ascending"];
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const order = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
        heads.forEach(other => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        table.tBodies[0].append(...(order === "none" ? rows : rows.toSorted((a, b) => sign * compare(a, b))));
      });
    }
  }
});

// The questions at the end of a page: options become radio buttons, and a button tells why the chosen one is right or wrong.
document.addEventListener("DOMContentLoaded", () => {
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  document.querySelectorAll(".quiz-question").forEach((question, number) => {
    const [asked, options, details] = question.children;
    const legend = make("legend"), fieldset = make("fieldset");
    const button = make("button", { type: "button", textContent: "Check" });
    const answer = make("p");
    answer.setAttribute("aria-live", "polite");
    legend.append(...asked.childNodes);
    for (const option of options.children) {
      const radio = make("input", { type: "radio", name: `quiz-${number}` });
      const label = make("label");
      label.append(radio, ...option.firstElementChild.childNodes);
      option.replaceChildren(label);
      radio.addEventListener("change", () => answer.replaceChildren());
    }
    button.addEventListener("click", () => {
      const chosen = [...options.querySelectorAll("input")].findIndex(radio => radio.checked);
      const sentence = details.querySelectorAll("li > p")[chosen]?.cloneNode(true);
      answer.replaceChildren(...(sentence?.childNodes ?? ["Choose an answer first."]));
    });
    details.open = true; // hidden on the screen, there on paper
    fieldset.append(legend, options, button, answer);
    asked.replaceWith(fieldset);
  });
});

// A picture is a button that shows it as large as the window allows. Its own width is known to the style sheet, which keeps its letters legible on a phone.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".cell_output > img, .cell_output .frames img")) {
    const box = document.createElement("div"), button = document.createElement("button");
    box.className = "picture";
    button.type = "button";
    button.setAttribute("aria-haspopup", "dialog");
    image.replaceWith(box);
    box.append(button);
    button.append(image);
    const measure = () => box.style.setProperty("--width", `${image.naturalWidth}px`);
    image.complete ? measure() : image.addEventListener("load", measure);
    button.addEventListener("click", () => {
      const dialog = document.createElement("dialog"), close = document.createElement("button");
      dialog.className = "enlarged";
      close.textContent = "Close";
      dialog.append(close, image.cloneNode());
      dialog.addEventListener("click", () => dialog.close());
      dialog.addEventListener("close", () => dialog.remove());
      document.body.append(dialog);
      dialog.showModal();
    });
  }
});
