// The controls and pictures around live.js: an input that the reader draws, erases or chooses, and every map of it.
"use strict";

function liveLaboratory(root) {
  if (typeof Worker === "undefined" || typeof DecompressionStream === "undefined") return;  // the still picture stays
  const part = name => root.querySelector(`[data-part="${name}"]`);
  const { shape, classes, methods, inputs, drawing, mean } = JSON.parse(part("facts").textContent);
  const [channels, height, width] = shape, pixels = height * width;
  const engine = liveEngine(), COLOURS = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"]
    .map(c => [0, 2, 4].map(i => parseInt(c.slice(i, i + 2), 16)));  // RdBu, as in the book's pictures
  const worker = new Worker(URL.createObjectURL(new Blob([`"use strict";(${liveEngine})().serve(self)`], { type: "text/javascript" })));
  worker.postMessage({ packed: part("network").textContent.trim() });

  const element = (tag, properties = {}, ...children) => { const e = Object.assign(document.createElement(tag), properties); e.append(...children); return e; };
  const canvas = (w, h) => element("canvas", { width: w, height: h });
  function paint(to, colour) {
    const context = to.getContext("2d"), image = context.createImageData(to.width, to.height);
    for (let i = 0; i < to.width * to.height; i++) { const [r, g, b] = colour(i); image.data.set([r, g, b, 255], 4 * i); }
    context.putImageData(image, 0, 0);
  }
  const pixel = (x, i) => channels === 1 ? Array(3).fill(255 * x[i]) : [0, 1, 2].map(c => 255 * x[c * pixels + i]);

  // ---- The input.
  const pad = part("pad"), seen = part("seen"), form = part("form"), shown = part("answer"), blank = new Float32Array(channels * pixels);
  let drawn = blank.slice(), byHand = true, x = blank.slice(), tool = drawing ? "pen" : "eraser", cursor = [height >> 1, width >> 1], keyDown = false, said = "";
  const images = [], masks = [];
  function asTrained(d) {  // the ink's box, as 8 x 8 means, and these bilinearly enlarged: how the digits were made that the network learned
    let top = height, bottom = -1, left = width, right = -1;
    d.forEach((v, i) => { if (v > 0.2) { const r = Math.floor(i / width), c = i % width; top = Math.min(top, r); bottom = Math.max(bottom, r); left = Math.min(left, c); right = Math.max(right, c); } });
    if (bottom < 0) return blank.slice();
    const side = Math.max(bottom - top, right - left) + 1, step = side / 8, y0 = (top + bottom + 1 - side) / 2, x0 = (left + right + 1 - side) / 2, small = new Float32Array(64);
    for (let i = 0; i < 8; i++) for (let j = 0; j < 8; j++) for (let u = 0; u < 8; u++) for (let v = 0; v < 8; v++) {
      const r = Math.floor(y0 + (i + (u + 0.5) / 8) * step), c = Math.floor(x0 + (j + (v + 0.5) / 8) * step);
      if (r >= 0 && r < height && c >= 0 && c < width) small[8 * i + j] += d[r * width + c] / 64; }
    const large = engine.bilinear([1, 1, height, width], engine.tensor([1, 1, 8, 8], small)).d, most = Math.max(...large, 1e-6);
    return large.map(v => v / most);
  }
  function refresh() {
    x = byHand && form?.checked ? asTrained(drawn) : drawn.slice();
    paint(pad, i => pixel(drawn, i)); if (seen) paint(seen, i => pixel(x, i));
    const context = pad.getContext("2d");
    if (document.activeElement === pad && said) { context.strokeStyle = "#e69f00"; context.strokeRect(cursor[1] - 0.5, cursor[0] - 0.5, 2, 2); }
    ask();
  }
  function dab(row, column) {
    const radius = tool === "pen" ? 2.2 : width / 14;
    for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) {
      const ink = Math.min(1, Math.max(0, radius - Math.hypot(i + 0.5 - row, j + 0.5 - column)));
      for (let c = 0; c < channels; c++) { const at = c * pixels + i * width + j; drawn[at] = tool === "pen" ? Math.max(drawn[at], ink) : drawn[at] + ink * (mean[c] - drawn[at]); }
    }
    refresh();
  }
  let last = null;
  const place = e => { const r = pad.getBoundingClientRect(); return [(e.clientY - r.top) / r.height * height, (e.clientX - r.left) / r.width * width]; };
  function stroke(to) {  // no gaps where the hand is fast
    const from = last ?? to, n = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let k = 1; k <= n; k++) dab(from[0] + (to[0] - from[0]) * k / n, from[1] + (to[1] - from[1]) * k / n);
    last = to;
  }
  pad.addEventListener("pointerdown", e => { pad.setPointerCapture(e.pointerId); last = null; stroke(place(e)); });
  pad.addEventListener("pointermove", e => { if (last) stroke(place(e)); });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { last = null; });
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  pad.addEventListener("keydown", e => {
    const by = ARROWS[e.key], step = Math.max(1, Math.round(width / 28));
    if (by) cursor = cursor.map((v, k) => Math.min([height, width][k] - 1, Math.max(0, v + by[k] * step)));
    else if (e.key === " ") keyDown = !keyDown;
    else if (e.key === "Delete" || e.key === "Backspace") { clear(); e.preventDefault(); return; }
    else return;
    e.preventDefault();
    said = `${tool} ${keyDown ? "down" : "up"} at row ${cursor[0] + 1}, column ${cursor[1] + 1}`; part("cursor").textContent = said;
    if (keyDown) dab(cursor[0] + 0.5, cursor[1] + 0.5); else refresh();
  });
  function clear() { drawn = drawing ? blank.slice() : images[chosenInput()].slice(); byHand = drawing; if (drawing) for (const r of radios()) r.checked = false; refresh(); }
  const radios = () => [...root.querySelectorAll("input[type=radio][data-input]")], chosenInput = () => Math.max(0, radios().findIndex(r => r.checked));
  part("clear").addEventListener("click", clear);
  for (const button of root.querySelectorAll("[data-tool]")) button.addEventListener("click", () => {
    tool = button.dataset.tool;
    for (const b of root.querySelectorAll("[data-tool]")) b.setAttribute("aria-pressed", String(b === button));
  });
  form?.addEventListener("change", refresh);

  // ---- The questions: which class, and the options of the methods.
  const target = part("target");
  target.append(element("option", { value: "", textContent: "the one it reads" }), ...classes.map((c, i) => element("option", { value: i, textContent: c })));
  const options = [...root.querySelectorAll("select[data-option]")], setting = name => options.find(s => s.dataset.option === name)?.value;
  for (const control of [target, ...options]) control.addEventListener("change", ask);
  const tiles = methods.map(({ key, label }) => {
    const map = canvas(width, height), state = element("span", { className: "state" }), numbers = element("tr");
    map.setAttribute("role", "img"); map.setAttribute("aria-label", `${label}: not computed yet`); part("maps").append(element("div", { className: "tile" }, map, element("div", { className: "name" }, label, " ", state)));
    part("numbers").append(numbers);
    return { key, label, map, state, numbers };
  });
  function task({ key, method, rules }) {
    return { key, method: rules ? setting("rule") : method, n: +setting("samples"), noise: +setting("noise"), alpha: +setting("alpha"), steps: +setting("steps") };
  }
  let run = 0, waiting = false, asked = 0;
  function ask() { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; send(); }); } }
  function send() { root.dataset.state = "busy"; asked = performance.now(); worker.postMessage({ run: ++run, x, target: target.value === "" ? null : +target.value, tasks: methods.map(task) }); }

  // ---- The answers.
  function show(tile, map) {
    const sums = Float32Array.from({ length: pixels }, (_, i) => { let s = 0; for (let c = 0; c < channels; c++) s += map[c * pixels + i]; return s; });
    const sorted = Float32Array.from(sums, Math.abs).sort(), clip = sorted[Math.floor(0.995 * (pixels - 1))] || sorted[pixels - 1] || 1;
    paint(tile.map, i => {
      const at = 5 + 5 * Math.max(-1, Math.min(1, sums[i] / clip)), low = Math.min(9, Math.floor(at)), share = at - low;
      return [0, 1, 2].map(c => (1 - share) * COLOURS[low][c] + share * COLOURS[low + 1][c]); });
    let total = 0, positive = 0, best = 0; sums.forEach((v, i) => { total += v; if (v > 0) positive += v; if (Math.abs(v) > Math.abs(sums[best])) best = i; });
    tile.zero = sorted[pixels - 1] === 0;
    const where = `row ${Math.floor(best / width) + 1}, column ${best % width + 1}`;
    tile.facts = [total.toPrecision(3), (positive - total).toPrecision(3), tile.zero ? "none" : `${sums[best].toPrecision(2)} at ${where}`];
    tile.map.setAttribute("aria-label", tile.zero ? `${tile.label}: zero everywhere` : `${tile.label}: sum ${tile.facts[0]}, strongest ${tile.facts[2]}`);
    tile.numbers.replaceChildren(element("th", { scope: "row", textContent: tile.label }), ...[positive.toPrecision(3), tile.facts[1], tile.facts[0], tile.facts[2]].map(textContent => element("td", { textContent })));
  }
  worker.onmessage = ({ data }) => {
    if (data.run !== run) return;
    if (data.logits) {
      root.querySelector(".live-still").classList.add("replaced"); part("panel").hidden = false;
      const { logits, top, chosen } = data, most = Math.max(...logits), sum = logits.reduce((a, v) => a + Math.exp(v - most), 0);
      const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
      const text = x.every(v => v === x[0]) ? "There is nothing to see yet: draw, or choose an input." :
        `The network reads ${classes[top]} (logit ${logits[top].toFixed(1)}), then ${classes[order[1]]} (${logits[order[1]].toFixed(1)}). The maps explain the logit of ${classes[chosen]}, ${logits[chosen].toFixed(1)}.`;
      if (shown.textContent !== text) shown.textContent = text;
      part("logits").replaceChildren(...classes.map((c, i) => {
        const row = element("tr", { className: i === top ? "top" : "" }, element("th", { scope: "row", textContent: c }), element("td", { textContent: logits[i].toFixed(2) }), element("td", { textContent: `${(100 * Math.exp(logits[i] - most) / sum).toFixed(0)} %` }));
        return row; }));
    } else if (data.key) {
      const tile = tiles.find(t => t.key === data.key);
      if (data.map) show(tile, data.map);
      if (data.refused) { paint(tile.map, () => [255, 255, 255]); tile.map.setAttribute("aria-label", `${tile.label}: no map. ${data.refused}`); tile.numbers.replaceChildren(element("th", { scope: "row", textContent: tile.label }), element("td", { colSpan: 4, textContent: data.refused })); }
      tile.state.textContent = data.refused ? "(no map for this input)" : tile.zero ? "(zero everywhere)" : data.pass > 1 ? `(${data.pass} points)` : "";
      tile.state.title = data.refused ?? "";
    } else if (data.milliseconds !== undefined) {
      root.dataset.milliseconds = data.milliseconds; root.dataset.wait = performance.now() - asked;
      part("time").textContent = `All but the averages took ${data.milliseconds.toFixed(0)} ms.`;
    } else if (data.settled) root.dataset.state = "settled";
  };

  // ---- The ready inputs: pictures in the page, lossless.
  async function begin() {
    async function decoded(source) {
      const picture = new Image(); picture.src = source; await picture.decode();
      const small = canvas(width, height), context = small.getContext("2d", { willReadFrequently: true }); context.drawImage(picture, 0, 0);
      return [small, context.getImageData(0, 0, width, height).data];
    }
    const evidence = inputs[0].truth && canvas(width, height);
    if (evidence) part("maps").append(element("div", { className: "tile" }, evidence, element("div", { className: "name" }, "true evidence")));
    function choose(i) {
      drawn = images[i].slice(); byHand = false;
      if (evidence) {
        paint(evidence, k => masks[i][4 * k] ? COLOURS[9] : COLOURS[5]); evidence.setAttribute("role", "img");
        evidence.setAttribute("aria-label", `true evidence of ${inputs[i].label}: ${masks[i].filter((v, k) => v && k % 4 === 0).length} of ${pixels} pixels`);
      }
      refresh();
    }
    for (const [i, { label, source, truth }] of inputs.entries()) {
      const [small, data] = await decoded(source);
      if (truth) masks.push((await decoded(truth))[1]);
      images.push(Float32Array.from({ length: channels * pixels }, (_, k) => data[4 * (k % pixels) + Math.floor(k / pixels)] / 255));
      const radio = element("input", { type: "radio", name: root.id, value: i }); radio.dataset.input = i;
      radio.addEventListener("change", () => choose(i));
      part("inputs").append(element("label", {}, radio, small, element("span", { textContent: label })));
    }
    radios()[0].checked = true; choose(0);
  }
  begin();
}
document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".live").forEach(liveLaboratory));
