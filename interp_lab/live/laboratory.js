// The controls and pictures around live.js: an input that the reader draws, erases or chooses, and every map of it.
"use strict";

function liveLaboratory(root) {
  const part = name => root.querySelector(`[data-part="${name}"]`);
  const { shape, classes, networks, methods, inputs, drawing, mean, truth, course, removal, layers, baseline, switches, attack, shapes } = JSON.parse(part("facts").textContent);
  const [channels, height, width] = shape, pixels = height * width;
  const engine = liveEngine(), COLOURS = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"]
    .map(c => [0, 2, 4].map(i => parseInt(c.slice(i, i + 2), 16)));  // RdBu, as in the book's pictures
  const LINES = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#9A6A00"];  // as there, yellow darkened
  const workers = [...root.querySelectorAll('[data-part="network"]')].map((packed, n) => {
    const begun = to => { to.postMessage({ packed: packed.textContent.trim() }); to.onmessage = ({ data }) => { if (data.run === run) receive(n, data); }; return to; };
    const worker = new Worker(URL.createObjectURL(new Blob([`"use strict";(${liveEngine})().serve(self)`], { type: "text/javascript" })));
    worker.onerror = () => {  // where the server of the page forbids such a Worker, the page computes by itself
      const { port1, port2 } = new MessageChannel(); engine.serve(port1);
      workers[n] = begun(port2); if (run) ask();
    };
    return begun(worker);
  });

  const element = (tag, properties = {}, ...children) => { const e = Object.assign(document.createElement(tag), properties); e.append(...children); return e; };
  const canvas = (w, h) => element("canvas", { width: w, height: h });
  function paint(to, colour) {
    const context = to.getContext("2d"), image = context.createImageData(to.width, to.height);
    for (let i = 0; i < to.width * to.height; i++) { const [r, g, b] = colour(i); image.data.set([r, g, b, 255], 4 * i); }
    context.putImageData(image, 0, 0);
  }
  const pixel = (x, i) => channels === 1 ? Array(3).fill(255 * x[i]) : [0, 1, 2].map(c => 255 * x[c * pixels + i]);
  const percent = p => `${(100 * p).toFixed(0)}\u00a0%`;

  // ---- The input.
  const pad = part("pad"), seen = part("seen"), form = part("form"), mark = part("switch"), shown = part("answer"), blank = new Float32Array(channels * pixels);
  let drawn = blank.slice(), byHand = true, x = blank.slice(), on = [], tool = drawing ? "pen" : "eraser", cursor = [height >> 1, width >> 1], keyDown = false, said = "", removed = [];
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
  function joined(a, b) { const both = new Float32Array(a.length + b.length); both.set(a); both.set(b, a.length); return both; }
  function refresh(again = true) {
    if (again) removed = [];
    const image = byHand && form?.checked ? asTrained(drawn) : drawn;
    x = attack ? joined(image, image) : baseline ? joined(ready(chosenInput()), drawn) : joined(image, on);
    paint(pad, i => removed.includes(patchAt(Math.floor(i / width), i % width)) ? pixel(fill(), i) : pixel(drawn, i)); if (seen) paint(seen, i => pixel(x, i));
    const context = pad.getContext("2d"), side = removal?.patch ?? 1, [row, column] = removal ? cursor.map(v => v - v % side) : cursor;
    if (document.activeElement === pad && said) { context.strokeStyle = "#e69f00"; context.strokeRect(column - 0.5, row - 0.5, side + 1, side + 1); }
    ask(again);
  }
  const patchAt = (row, column) => removal ? Math.floor(row / removal.patch) * Math.ceil(width / removal.patch) + Math.floor(column / removal.patch) : -1;
  const fill = () => Float32Array.from({ length: channels * pixels }, (_, i) => means[Math.floor(i / pixels)]);
  let means = mean;
  function dab(row, column) {
    if (removal) {
      const patch = patchAt(Math.floor(row), Math.floor(column));
      if (row >= 0 && column >= 0 && row < height && column < width && !removed.includes(patch)) { removed.push(patch); refresh(false); }
      return;
    }
    if (tool === "object") { put = [row, column]; paintObject(); return; }
    const radius = tool === "pen" ? 2.2 : width / 14;
    for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) {
      const ink = Math.min(1, Math.max(0, radius - Math.hypot(i + 0.5 - row, j + 0.5 - column)));
      for (let c = 0; c < channels; c++) { const at = c * pixels + i * width + j; drawn[at] = tool === "pen" ? Math.max(drawn[at], ink) : drawn[at] + ink * (mean[c] - drawn[at]); }
    }
    refresh();
  }
  let put = [height / 2, width / 2], own = null;  // the place of the reader's object, and its pixels
  function paintObject() {
    drawn = ready(chosenInput()).slice();
    liveScenes.clutter(drawn, width, +setting("clutter"), engine.mersenne(1));
    own = setting("shape") ? liveScenes.object(drawn, width, { shape: setting("shape"), hue: +setting("hue"), row: put[0], column: put[1] }) : null;
    showEvidence(); refresh();
  }
  let last = null;
  const place = e => { const r = pad.getBoundingClientRect(); return [(e.clientY - r.top) / r.height * height, (e.clientX - r.left) / r.width * width]; };
  function stroke(to) {  // no gaps where the hand is fast
    const from = last ?? to, n = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / (removal ? 1 : Math.max(1, width / 28))));
    for (let k = 1; k <= n; k++) dab(from[0] + (to[0] - from[0]) * k / n, from[1] + (to[1] - from[1]) * k / n);
    last = to;
  }
  let finger = null;  // the first on the pad draws
  pad.addEventListener("pointerdown", e => { if (finger !== null) return; finger = e.pointerId; pad.setPointerCapture(finger); stroke(place(e)); });
  pad.addEventListener("pointermove", e => { if (e.pointerId === finger) stroke(place(e)); });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, e => { if (e.pointerId === finger) finger = last = null; });
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  pad.addEventListener("keydown", e => {
    const by = ARROWS[e.key], step = removal?.patch ?? Math.max(1, Math.round(width / 28));
    if (by) cursor = cursor.map((v, k) => Math.min([height, width][k] - 1, Math.max(0, v + by[k] * step)));
    else if (e.key === " ") keyDown = !keyDown;
    else if (e.key === "Delete" || e.key === "Backspace") { clear(); e.preventDefault(); return; }
    else return;
    e.preventDefault();
    said = `${tool} ${keyDown ? "down" : "up"} at row ${cursor[0] + 1}, column ${cursor[1] + 1}`; part("cursor").textContent = said;
    if (keyDown) dab(cursor[0] + 0.5, cursor[1] + 0.5); else refresh(!removal);
  });
  for (const button of root.querySelectorAll("[data-start]")) button.addEventListener("click", () => { drawn = images[chosenInput()].baselines[button.dataset.start].slice(); refresh(); });
  const ready = i => mark?.checked ? images[i].switched : images[i].image;
  function clear() { if (baseline) { drawn = blank.slice(); refresh(); return; } drawn = drawing ? blank.slice() : ready(chosenInput()).slice(); byHand = drawing; if (shapes.length) { paintObject(); return; } if (drawing) for (const r of radios()) r.checked = false; refresh(); }
  const radios = () => [...root.querySelectorAll("input[type=radio][data-input]")], chosenInput = () => Math.max(0, radios().findIndex(r => r.checked));
  part("clear").addEventListener("click", clear);
  function take(name) {
    tool = name;
    for (const b of root.querySelectorAll("[data-tool]")) b.setAttribute("aria-pressed", String(b.dataset.tool === name));
  }
  for (const button of root.querySelectorAll("[data-tool]")) button.addEventListener("click", () => take(button.dataset.tool));
  form?.addEventListener("change", refresh);
  mark?.addEventListener("change", () => {  // on what the reader has left of the input
    const { image, switched } = images[chosenInput()], now = ready(chosenInput());
    drawn = drawn.map((v, i) => { const p = i % pixels; for (let c = 0; c < channels; c++) if (image[c * pixels + p] !== switched[c * pixels + p]) return now[i]; return v; });
    refresh();
  });

  // ---- The questions: which class, and the options of the methods.
  const target = part("target");
  target.append(element("option", { value: "", textContent: "the one it reads" }), ...classes.map((c, i) => element("option", { value: i, textContent: c })));
  const options = [...root.querySelectorAll("[data-option]")], choices = control => control.dataset.choices.split(" ");
  function setting(name) { const control = options.find(s => s.dataset.option === name); return control?.dataset.choices ? choices(control)[control.value] : control?.value; }
  function tell(control) {
    if (!control.dataset.choices) return;
    const value = choices(control)[control.value]; control.nextElementSibling.textContent = value; control.setAttribute("aria-valuetext", value);
  }
  options.forEach(tell);
  for (const control of [target, ...options]) control.addEventListener("input", () => {
    if (control !== target) tell(control);
    if (["shape", "hue", "clutter"].includes(control.dataset.option)) { take(setting("shape") ? "object" : "eraser"); paintObject(); } else ask();
  });
  const several = networks.length > 1;
  const tiles = networks.flatMap((network, n) => methods.map(({ key, label }) => {
    const name = several ? `${network}: ${label}` : label, tile = mapOf(n, key, name), parts = [tile.map, element("div", { className: "name" }, name, " ", tile.state)];
    if (layers) { tile.changed = mapOf(n, `random ${key}`, `${name}, random layers`); tile.changed.trained = tile; parts.push(tile.changed.map, element("div", { className: "name" }, "with random layers ", tile.changed.state)); }
    part("maps").append(element("div", { className: "tile" }, ...parts));
    return layers ? [tile, tile.changed] : tile;
  }).flat());
  function mapOf(n, key, label) {
    const map = canvas(width, height), numbers = element("tr"); part("numbers").append(numbers);
    map.setAttribute("role", "img"); map.setAttribute("aria-label", `${label}: not computed yet`);
    return { n, key, label, map, state: element("span", { className: "state" }), numbers };
  }
  function tileOf(text) { const picture = canvas(width, height); picture.setAttribute("role", "img"); picture.setAttribute("aria-label", text); part("maps").prepend(element("div", { className: "tile" }, picture, element("div", { className: "name" }, text))); return picture; }
  const asked = course && tileOf(course.label);
  const settings = () => ({ n: +setting("samples"), noise: +setting("noise"), alpha: +setting("alpha"), steps: +setting("steps"), l2: +setting("l2"), variation: +setting("variation"), k: attack, radius: setting("levels") / 255, course: course?.key === "interior_gradient", baseline: images[chosenInput()]?.baselines?.[setting("baseline")] });
  const methodOf = ({ method, variant }) => variant === null ? method : `${method} ${setting(`variant ${variant}`)}`;
  function tasks() {
    const maps = methods.map(m => ({ key: m.key, method: methodOf(m) }));
    if (baseline) return [...maps, { key: baseline, method: baseline }];
    if (switches) return [...maps, ...[switches.intact, ...switches.layers.map(l => l.key)].map(key => ({ key, method: key }))];
    if (layers) return [...maps, ...maps.map(m => ({ ...m, key: `random ${m.key}`, random: true }))];
    if (!removal) return maps;
    const orders = [{ key: "yours", order: removed }, { key: "random" }, ...methods.map(m => ({ key: `by ${m.key}`, by: methodOf(m) }))];
    return [...maps, ...orders.map(o => ({ ...o, ...removal, method: "removal" }))];
  }
  let run = 0, waiting = false, since = 0, answered = new Set(), sentences = [], settled = 0, walked = [];
  function ask(again = true) {  // not again: the input and the question are the same, and so is what was answered of them
    if (again) { answered = new Set(); walked = []; curves = {}; }
    root.dataset.state = "busy";
    if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; send(); }); }
  }
  function send() {
    since = performance.now(); run += 1; settled = 0; if (removal) answered.delete("0 yours");
    const common = settings(), random = layers ? { layers: randomLayers(), seed } : null;
    workers.forEach((worker, n) => worker.postMessage({ run, x, random, target: target.value === "" ? null : +target.value, tasks: tasks().filter(t => !answered.has(`${n} ${t.key}`)).map(t => ({ ...common, ...t })) }));
  }

  // ---- Layers that the reader randomises, as model_randomisation does.
  let lowest = -1, cascade = part("cascade"), seed = 0;
  const randomLayers = () => Array.from({ length: layers }, (_, k) => k).filter(k => cascade.checked ? k <= lowest : k === lowest);
  function randomise(k = lowest) {
    lowest = k;
    const random = randomLayers();
    for (const button of root.querySelectorAll("[data-layer]")) button.setAttribute("aria-pressed", String(random.includes(+button.dataset.layer)));
    for (const tile of tiles) if (tile.trained) answered.delete(`0 ${tile.key}`);
    ask(false);
  }
  for (const button of root.querySelectorAll("[data-layer]")) button.addEventListener("click", () => randomise(+button.dataset.layer === lowest ? -1 : +button.dataset.layer));
  cascade?.addEventListener("change", () => randomise());
  part("intact")?.addEventListener("click", () => randomise(-1));
  part("redraw")?.addEventListener("click", () => { seed += 1; randomise(); });
  function tellRandom() {
    const count = randomLayers().length, figures = tiles.filter(t => t.trained && t.alike).map(t => `${t.trained.label} ${t.alike[0]}, ${t.alike[1]}`);
    const text = count ? `${count} of ${layers} layers ${count === 1 ? "is" : "are"} random (draw ${seed + 1}), and the network reads ${classes[changedTo]}. Rank correlation with the trained network's map, signed and of the magnitudes: ${figures.join("; ")}.` : "All weights are those of the training. Randomise a layer.";
    if (part("told").textContent !== text) part("told").textContent = text;
  }
  let changedTo = 0;

  // ---- A baseline of the reader's: what the maps add up to, and what they should.
  let start = null, explained = [0, 0];
  const begun = baseline && tileOf("the input");
  function tellSums() {
    const [c, f] = explained, sums = tiles.filter(t => t.sums).map(t => `${t.label} ${t.total.toFixed(2)}`);
    part("told").textContent = start ? `The logit of ${classes[c]} is ${f.toFixed(2)} for the input and ${start[c].toFixed(2)} for the baseline, which is read as ${classes[start.indexOf(Math.max(...start))]}: a difference of ${(f - start[c]).toFixed(2)}. The maps sum to: ${sums.join(", ")}.` : "There is no answer for this baseline.";
  }

  // ---- Channels that the reader switches off, each with the patches that excite it most.
  const channelTiles = []; let whole = null, offGiven = 0;
  function switchOff(indices) {
    on = Array.from({ length: channelTiles.length }, (_, k) => indices.includes(k) ? 0 : 1);
    channelTiles.forEach(({ button, label }, k) => { button.setAttribute("aria-checked", String(!!on[k])); label.textContent = on[k] ? channelTiles[k].number : "off"; });
    refresh();
  }
  const offNow = () => [...on.keys()].filter(k => !on[k]);
  function lookAt(k) {
    const { layer, number, groups } = channelTiles[k], { each, size: [h, w], sheet } = layer, side = Math.ceil(Math.sqrt(each)), picture = part("patches");
    for (const tile of channelTiles) tile.button.tabIndex = tile === channelTiles[k] ? 0 : -1;  // one stop of the tab key
    picture.width = side * (w + 1) - 1; picture.height = Math.ceil(each / side) * (h + 1) - 1;
    for (let i = 0; i < each; i++) picture.getContext("2d").drawImage(sheet, i * w, number * h, w, h, i % side * (w + 1), Math.floor(i / side) * (h + 1), w, h);
    const text = `The ${each} patches that excite channel ${number} of layer ${layer.name} most${groups.length ? ` (${groups.join(", ")})` : ""}.`;
    picture.setAttribute("aria-label", text); part("channel").textContent = text;
  }
  async function makeSwitches() {
    for (const layer of switches.layers) {
      layer.sheet = new Image(); layer.sheet.src = layer.patches; await layer.sheet.decode();
      const all = element("fieldset", { className: "switches" }, element("legend", { textContent: `Layer ${layer.name}: what its ${layer.count} channels give; click to switch one off` }));
      for (let number = 0; number < layer.count; number++) {
        const k = channelTiles.length, map = canvas(1, 1), label = element("span", { textContent: number }), button = element("button", { type: "button", tabIndex: k ? -1 : 0 }, map, label);
        const groups = switches.groups.filter(([, off]) => off.includes(k)).map(([name]) => name);
        button.setAttribute("role", "switch"); button.setAttribute("aria-checked", "true"); button.setAttribute("aria-label", `channel ${number} of layer ${layer.name}${groups.length ? `, ${groups.join(", ")}` : ""}`);
        button.addEventListener("click", () => { lookAt(k); const off = offNow(); switchOff(off.includes(k) ? off.filter(i => i !== k) : [...off, k]); });
        button.addEventListener("focus", () => lookAt(k)); button.addEventListener("pointerenter", () => lookAt(k));
        button.addEventListener("keydown", e => {
          const columns = channelTiles.filter(t => t.layer === layer && t.button.offsetTop === all.querySelector("button").offsetTop).length;
          const to = k + ({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[e.key] ?? NaN);
          if (channelTiles[to]) { e.preventDefault(); channelTiles[to].button.focus(); }
        });
        all.append(button); channelTiles.push({ layer, number, button, label, map, groups });
      }
      part("channels").append(all);
    }
    const press = (textContent, act) => { const button = element("button", { type: "button", textContent }); button.addEventListener("click", act); part("groups").append(button); };
    for (const [name, off] of switches.groups) press(name, () => switchOff(off));
    press("as many at random", () => {  // of each layer
      const random = engine.mersenne(offGiven += 1), off = offNow();
      switchOff(switches.layers.flatMap(layer => {
        const own = [...channelTiles.keys()].filter(k => channelTiles[k].layer === layer), count = own.filter(k => off.includes(k)).length;
        return own.map(k => [random(), k]).sort((a, b) => a[0] - b[0]).slice(0, count).map(([, k]) => k);
      }));
    });
    press("all on", () => switchOff([]));
    on = Array(channelTiles.length).fill(1); lookAt(0);
  }
  function showChannels(key, data) {
    const own = channelTiles.filter(t => t.layer.key === key), n = data.length / own.length, most = Math.max(...data, 1e-9);
    own.forEach(({ map, layer }, k) => {
      [map.height, map.width] = layer.map;
      paint(map, i => { const at = 5 + 4.99 * Math.max(0, data[k * n + i]) / most, low = Math.floor(at); return [0, 1, 2].map(c => (low + 1 - at) * COLOURS[low][c] + (at - low) * COLOURS[low + 1][c]); });
    });
  }
  function tellSwitches() {
    const off = offNow().length, read = whole && whole.indexOf(Math.max(...whole)), now = switched?.indexOf(Math.max(...switched));
    part("told").textContent = !whole || !switched ? "There is no answer for this input." : !off ? `All ${on.length} channels are on: the network reads ${classes[read]} (logit ${whole[read].toFixed(1)}).`
      : `${off} of ${on.length} channels ${off === 1 ? "is" : "are"} off, held at the mean, and the network reads ${classes[now]}. With all on it reads ${classes[read]}, whose logit goes from ${whole[read].toFixed(1)} to ${switched[read].toFixed(1)}.`;
  }
  let switched = null;

  // ---- The answers.
  function show(tile, map) {
    const sums = Float64Array.from({ length: pixels }, (_, i) => { let s = 0; for (let c = 0; c < channels; c++) s += map[c * pixels + i]; return s; });
    const sorted = sums.map(Math.abs).sort(), clip = sorted[Math.floor(0.995 * (pixels - 1))] || sorted[pixels - 1] || 1;
    paint(tile.map, i => {
      const at = 5 + 5 * Math.max(-1, Math.min(1, sums[i] / clip)), low = Math.min(9, Math.floor(at)), share = at - low;
      return [0, 1, 2].map(c => (1 - share) * COLOURS[low][c] + share * COLOURS[low + 1][c]); });
    let total = 0, positive = 0, best = 0; sums.forEach((v, i) => { total += v; if (v > 0) positive += v; if (Math.abs(v) > Math.abs(sums[best])) best = i; });
    tile.zero = sorted[pixels - 1] === 0;
    const where = `row ${Math.floor(best / width) + 1}, column ${best % width + 1}`;
    tile.facts = [total.toPrecision(3), (positive - total).toPrecision(3), tile.zero ? "none" : `${sums[best].toPrecision(2)} at ${where}`];
    const cells = [positive.toPrecision(3), tile.facts[1], tile.facts[0], tile.facts[2]], inside = truth ? scores(sums) : [];
    tile.sums = sums; tile.total = total;
    tile.alike = null;
    if (tile.trained?.sums) { tile.alike = [v => v, Math.abs].map(f => engine.spearman(tile.trained.sums.map(f), sums.map(f))).map(v => Number.isNaN(v) ? "none" : v.toFixed(2)); inside.push(...tile.alike); }
    tile.found = tile.zero || !truth ? "" : `${inside[0]}, ${inside[1]} inside`;
    tile.map.setAttribute("aria-label", tile.zero ? `${tile.label}: zero everywhere` : `${tile.label}: sum ${tile.facts[0]}, strongest ${tile.facts[2]}${tile.found && `; ${tile.found}`}${tile.alike ? `; rank correlation with the trained network's ${tile.alike[0]}, of the magnitudes ${tile.alike[1]}` : ""}`);
    tile.numbers.replaceChildren(element("th", { scope: "row", textContent: tile.label }), ...[...cells, ...inside].map(textContent => element("td", { textContent })));
  }
  const evidence = truth && tileOf(truth), isEvidence = k => masks[chosenInput()][4 * k] || own?.[k];
  function showEvidence() {
    if (!evidence) return;
    let count = 0; paint(evidence, k => { const inside = isEvidence(k); count += inside ? 1 : 0; return inside ? COLOURS[9] : COLOURS[5]; });
    evidence.setAttribute("aria-label", `${truth} of ${inputs[chosenInput()].label}: ${count} of ${pixels} pixels`);
  }
  function scores(sums) {  // the pointing game, and the share of the magnitude inside the mask
    const most = Math.max(...sums); let hits = 0, tops = 0, inside = 0, all = 0;
    sums.forEach((v, i) => { const m = isEvidence(i) ? 1 : 0; if (v === most) { tops += 1; hits += m; } inside += m * Math.abs(v); all += Math.abs(v); });
    return [hits === tops ? "hit" : hits ? `${percent(hits / tops)} of a hit` : "miss", percent(inside / (all || 1))];
  }
  function tellAnswer() {
    const text = x.subarray(0, channels * pixels).every(v => v === x[0]) ? "There is nothing to see yet: draw, or choose an input." : sentences.join(" ");
    if (shown.textContent !== text) shown.textContent = text;
  }
  function refuse(tile, reason) {
    tile.alike = tile.sums = null; paint(tile.map, () => [255, 255, 255]); tile.map.setAttribute("aria-label", `${tile.label}: no map. ${reason}`);
    tile.numbers.replaceChildren(element("th", { scope: "row", textContent: tile.label }), element("td", { colSpan: 8, textContent: reason }));
    tile.state.textContent = "(no map for this input)"; tile.state.title = reason;
    if (course?.key === tile.key) { describe(`There is no course for this input: ${reason}`); figure.querySelector("svg").replaceChildren(); }
  }
  function answer(n, { logits, reads, chosen, changed }) {
    explained = [chosen, logits[chosen]]; switched = logits;
    if (changed) changedTo = changed.indexOf(Math.max(...changed));
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
    const said = c => `${classes[c]} (logit ${logits[c].toFixed(1)})`, read = `reads ${said(reads)}, then ${classes[order[1]]} (${logits[order[1]].toFixed(1)})`;
    sentences[n] = !several ? `The network ${read}. The maps explain the logit of ${classes[chosen]}, ${logits[chosen].toFixed(1)}.`
      : `${networks[n].replace(/^./, c => c.toUpperCase())} ${read}${chosen === reads ? "" : `; its maps explain ${said(chosen)}`}.`;
    tellAnswer();
    const most = Math.max(...logits), sum = logits.reduce((a, v) => a + Math.exp(v - most), 0);
    const many = classes.length > 50, listed = many ? [...new Set([...order.slice(0, 5), chosen])] : [...classes.keys()];  // the first five, which can be asked for
    while (part("logits").rows.length > listed.length) part("logits").deleteRow(-1);
    listed.forEach((i, k) => {
      const row = part("logits").rows[k] ?? part("logits").appendChild(element("tr", {}, element("th", { scope: "row" }, many ? element("button", { type: "button", onclick: e => { target.value = e.target.value; ask(); } }) : ""), ...networks.flatMap(() => [element("td"), element("td")])));
      const name = row.querySelector("button") ?? row.cells[0];
      name.textContent = classes[i]; if (many) { name.value = i; name.setAttribute("aria-pressed", String(i === chosen)); }
      row.classList.toggle("top", n === 0 ? i === reads : row.classList.contains("top"));
      [logits[i].toFixed(2), percent(Math.exp(logits[i] - most) / sum)].forEach((t, k) => { const cell = row.cells[1 + 2 * n + k]; cell.textContent = t; cell.classList.toggle("top", i === reads); });
    });
  }
  function receive(n, data) {
    if (data.done) answered.add(`${n} ${data.key}`);
    if (data.logits || data.outside) {
      root.querySelector(".live-still").classList.add("replaced"); part("panel").hidden = false;
      if (part("load")) { part("load").remove(); radios()[0].focus(); }
      if (data.logits) answer(n, data);
      else {
        sentences[n] = `${networks[n]} has no answer here: ${data.outside}.`; tellAnswer(); part("logits").replaceChildren();
        for (const tile of tiles) if (tile.n === n) refuse(tile, data.outside);
        if (removal) { describe(sentences[n]); figure.querySelector("svg").replaceChildren(); }
      }
    } else if (data.milliseconds !== undefined) {
      root.dataset.milliseconds = data.milliseconds; root.dataset.wait = performance.now() - since;
      if (!removal || removed.length === 0) part("time").textContent = `All but the averages took ${data.milliseconds.toFixed(0)} ms.`;
    } else if (data.settled) { settled += 1; if (settled === workers.length) { root.dataset.state = "settled"; if (layers) tellRandom(); if (baseline) tellSums(); if (switches) tellSwitches(); } }
    else if (data.key === baseline) { start = data.refused ? null : data.map; }
    else if (data.key === switches?.intact) whole = data.refused ? null : data.map;
    else if (switches?.layers.some(l => l.key === data.key)) { if (data.map) showChannels(data.key, data.map); }
    else if (removal && !methods.some(m => m.key === data.key)) drawCurves(data);
    else {
      const tile = tiles.find(t => t.key === data.key && t.n === n);
      if (data.map) { tile.points = data.points; show(tile, data.map); }
      if (data.refused) { refuse(tile, data.refused); return; }
      tile.state.textContent = tile.zero ? "(zero everywhere)" : [tile.points > 1 ? `(${tile.points} points)` : "", tile.found, baseline ? `sum ${tile.total.toFixed(2)}` : "", tile.alike ? `${tile.alike[0]} signed, ${tile.alike[1]} of magnitudes` : ""].filter(Boolean).join(" "); tile.state.title = "";
      if (course?.key === data.key && data.input) { paint(asked, i => pixel(data.input, i)); drawCourse(data); }
    }
  }

  // ---- The course of a loop, as curves.
  let curves = {};
  const SVG = "http://www.w3.org/2000/svg", figure = part("course");
  function chart(lines, { x: [x0, x1], y: [y0, y1], xlabel, ylabel, ticks, log }) {
    const svg = figure.querySelector("svg"), W = 380, H = 210, left = 52, right = 14, top = 8, bottom = 38, scale = log ? Math.log : v => v;
    const across = v => left + (scale(v) - scale(x0)) / (scale(x1) - scale(x0) || 1) * (W - left - right), up = v => H - bottom - (scale(v) - scale(y0)) / (scale(y1) - scale(y0) || 1) * (H - top - bottom);
    const node = (tag, attributes, text) => { const e = document.createElementNS(SVG, tag); for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); if (text !== undefined) e.textContent = text; return e; };
    const children = [node("path", { d: `M${left} ${top}V${H - bottom}H${W - right}`, class: "axis" })];
    for (const v of ticks.x.filter(v => v >= x0 && v <= x1)) children.push(node("text", { x: across(v), y: H - bottom + 14, "text-anchor": "middle" }, +v.toPrecision(3)));
    for (const v of ticks.y.filter(v => v >= y0 && v <= y1)) children.push(node("path", { d: `M${left} ${up(v)}H${W - right}`, class: "grid" }), node("text", { x: left - 5, y: up(v) + 4, "text-anchor": "end" }, +v.toPrecision(2)));
    children.push(node("text", { x: (W + left) / 2, y: H - 6, "text-anchor": "middle" }, xlabel), node("text", { transform: `translate(12 ${(H - bottom) / 2 + top}) rotate(-90)`, "text-anchor": "middle" }, ylabel));
    lines.forEach(({ points, colour, dashed, dots }) => {
      const inside = points.filter(p => p.every(Number.isFinite)), at = inside.map(([u, v]) => `${across(u).toFixed(1)} ${up(v).toFixed(1)}`);
      if (at.length > 1) children.push(node("path", { d: `M${at.join("L")}`, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashed ? "5 4" : "none" }));
      if (dots || at.length === 1) for (const [u, v] of inside) children.push(node("circle", { cx: across(u), cy: up(v), r: 3, fill: colour })); });
    svg.replaceChildren(...children);
    figure.querySelector(".legend").replaceChildren(...lines.filter(l => l.label).map(l => { const swatch = element("i"); swatch.style.borderTop = `3px ${l.dashed ? "dashed" : "solid"} ${l.colour}`; return element("span", {}, swatch, l.label); }));
  }
  function describe(text) { part("told").textContent = text; figure.querySelector("svg").setAttribute("aria-label", text); }
  function nice(low, high) {  // some five round numbers
    const step = 10 ** Math.floor(Math.log10((high - low) / 2 || 1)), by = [1, 2, 5].map(k => k * step).find(s => (high - low) / s <= 5) ?? 10 * step;
    return Array.from({ length: Math.floor(high / by) - Math.ceil(low / by) + 1 }, (_, k) => (Math.ceil(low / by) + k) * by);
  }
  function drawCourse(data) {
    if (data.pass === 1) walked = [];
    walked.push(data);
    if (course.key === "smoothgrad") {
      const points = walked.filter(d => d.error > 0).map(d => [d.pass, d.error]), n = Math.max(+setting("samples"), 4);
      describe(`After ${data.pass} ${data.pass === 1 ? "sample" : "samples"}${data.error === null ? "" : ` the error of the mean is about ${percent(data.error)} of its length`}; ${data.same} of ${data.pass} noisy copies are read as the input is.`);
      const law = data.error > 0 ? [2, n].map(k => [k, data.error * Math.sqrt(data.pass / k)]) : [], all = [...points, ...law].map(p => p[1]), range = all.length ? [Math.min(...all) / 1.2, Math.max(...all) * 1.2] : [0.1, 1];
      chart([{ label: "error of the mean", colour: LINES[1], points, dots: n < 20 }, { label: "1/√n", colour: LINES[0], dashed: true, points: law }],
        { x: [2, n], y: range, xlabel: "samples", ylabel: "error / length of the mean", log: true, ticks: { x: [2, 4, 16, 50, 200], y: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10] } });
    } else if (course.key === "ascent") {
      const points = walked.map((d, k) => [k, d.logit]), all = points.map(p => p[1]), range = [Math.min(...all), Math.max(...all) + 1e-6];
      if (data.over || data.pass === 1) describe(`${data.over ? "After" : "Before"} the ascent the logit is ${data.logit.toFixed(1)} and the probability ${data.probability.toFixed(2)}: the network reads the picture as ${classes[data.reads]}.`);
      chart([{ label: "logit of the class", colour: LINES[1], points }], { x: [0, 100], y: range, xlabel: "steps", ylabel: "logit", ticks: { x: [0, 25, 50, 75, 100], y: nice(...range) } });
    } else if (course.key === "attack") {
      const first = walked[0];
      describe(`After ${data.pass - 1} steps of the attack ${percent(data.overlap)} of the ${attack} strongest pixels are still among the strongest. The network reads ${classes[data.reads]}; the probability of the class was ${first.probability.toFixed(2)} and is ${data.probability.toFixed(2)}.`);
      chart([{ label: "strongest pixels kept", colour: LINES[1], points: walked.map((d, k) => [k, d.overlap]), dots: true }], { x: [0, 10], y: [0, 1], xlabel: "steps", ylabel: "share", ticks: { x: [0, 2, 4, 6, 8, 10], y: [0, 0.5, 1] } });
    } else if (course.key === "interior_gradient") {
      const path = data.path ?? [], all = [...path.map(p => p[1]), data.logit], range = [Math.min(...all), Math.max(...all)];
      describe(`At α = ${data.alpha} the network reads ${classes[data.reads]}; the logit that is explained is ${data.logit.toFixed(1)}.`);
      chart([{ label: "logit at αx", colour: LINES[1], points: path }, { label: "where the gradient is taken", colour: LINES[2], points: [[data.alpha, data.logit]] }],
        { x: [0, 1], y: range, xlabel: "α", ylabel: "logit", ticks: { x: [0, 0.25, 0.5, 0.75, 1], y: nice(...range) } });
    } else {
      const [f0, f1] = data.ends, rise = f1 - f0, over = data.pass === +setting("steps"), sums = [[0, 0], ...walked.map(d => [d.reached, d.sum])], way = [[0, 0], ...walked.map(d => [d.alpha, d.logit - f0]), ...(over ? [[1, rise]] : [])];
      const all = [...sums, ...way].map(p => p[1]).concat(rise), range = [Math.min(...all), Math.max(...all)];
      describe(`The logit is ${f0.toFixed(1)} at the baseline and ${f1.toFixed(1)} at the input, a rise of ${rise.toFixed(1)}. The map ${over ? `sums to ${data.sum.toFixed(1)}, ${Math.abs(data.sum - rise).toFixed(2)} off` : `so far sums to ${data.sum.toFixed(1)}`}.`);
      chart([{ label: "sum of the map so far", colour: LINES[1], points: sums, dots: true }, { label: "rise of the logit", colour: LINES[2], points: way }, { label: "f(x) − f(x₀)", colour: LINES[0], dashed: true, points: [[0, rise], [1, rise]] }],
        { x: [0, 1], y: range, xlabel: "α: 0 is the baseline, 1 the input", ylabel: "logit", ticks: { x: [0, 0.25, 0.5, 0.75, 1], y: nice(...range) } });
    }
  }
  function drawCurves(data) {
    curves[data.key] = data.refused ? { refused: data.refused } : data.curve ? data : curves[data.key];
    const of = key => curves[key]?.curve, k = removed.length, count = removal.ties.length, at = key => of(key)?.[k], name = { yours: "yours", random: "at random", ...Object.fromEntries(methods.map(m => [`by ${m.key}`, m.label])) };
    const keys = Object.keys(name), c = target.value === "" ? "the class" : classes[+target.value];
    chart(keys.map((key, i) => ({ label: name[key] + (curves[key]?.refused ? " (no order for this input)" : ""), colour: LINES[i % LINES.length], dashed: key === "random", dots: key === "yours", points: (of(key) ?? []).map((v, j) => [j, v]) })),
      { x: [0, count], y: [0, 1], xlabel: `patches removed, of ${count}`, ylabel: `probability of ${c}`, ticks: { x: nice(0, count), y: [0, 0.5, 1] } });
    const others = keys.slice(1).filter(key => at(key) !== undefined).map(key => `${name[key]} ${at(key).toFixed(2)}`).join(", ");
    if (curves.yours?.refused) describe(`There is no curve for this input: ${curves.yours.refused}.`);
    else if (of("yours")?.length === k + 1) describe(k ? `With the ${k} ${k === 1 ? "patch" : "patches"} of your choice gone the probability is ${at("yours").toFixed(2)}, and it reads ${classes[curves.yours.reads]}. With as many gone in other orders: ${others}.` : `Nothing is removed yet: the probability is ${at("yours").toFixed(2)}. Remove the patch that you think counts most.`);
  }

  // ---- The ready inputs: pictures in the page, lossless.
  async function begin() {
    async function decoded(source) {
      const picture = new Image(); picture.src = source; await picture.decode();
      const small = canvas(width, height), context = small.getContext("2d", { willReadFrequently: true }); context.drawImage(picture, 0, 0);
      return [small, context.getImageData(0, 0, width, height).data];
    }
    const numbers = data => Float32Array.from({ length: channels * pixels }, (_, k) => data[4 * (k % pixels) + Math.floor(k / pixels)] / 255);
    function choose(i) {
      drawn = (baseline ? images[i].baselines[0] : ready(i)).slice(); byHand = inputs[i].hand;
      if (removal) means = Array.from({ length: channels }, (_, c) => drawn.subarray(c * pixels, (c + 1) * pixels).reduce((a, v) => a + v, 0) / pixels);
      if (begun) paint(begun, k => pixel(images[i].image, k));
      if (shapes.length) { paintObject(); return; }
      showEvidence(); refresh();
    }
    function offer(small, image, others) {
      const i = images.push({ image, ...others }) - 1, radio = element("input", { type: "radio", name: root.id, value: i }); radio.dataset.input = i;
      radio.addEventListener("change", () => choose(i));
      part("inputs").append(element("label", {}, radio, small, element("span", { textContent: inputs[i].label })));
    }
    for (const input of inputs.slice()) {
      const [small, data] = await decoded(input.source);
      if (truth) masks.push((await decoded(input.truth))[1]);
      const image = numbers(data), over = input.switched && (await decoded(input.switched))[1], put = over && numbers(over);
      offer(small, image, { switched: put?.map((v, k) => over[4 * (k % pixels) + 3] ? v : image[k]), baselines: input.baselines && await Promise.all(input.baselines.map(async source => numbers((await decoded(source))[1]))) });
    }
    part("file")?.addEventListener("change", async ({ target: { files: [file] } }) => {  // the middle, as interp_lab.data.photos cuts it out
      if (!file) return;
      let picture; try { picture = await createImageBitmap(file); } catch { shown.textContent = `${file.name} is no picture that this browser can read.`; return; }
      const small = canvas(width, height), context = small.getContext("2d", { willReadFrequently: true }), side = Math.min(picture.width, picture.height) * 224 / 256;
      context.imageSmoothingQuality = "high"; context.fillStyle = "#fff"; context.fillRect(0, 0, width, height);  // white behind what is transparent
      context.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side, 0, 0, width, height);
      inputs.push({ label: "yours", hand: false }); offer(small, numbers(context.getImageData(0, 0, width, height).data), {});
      radios().at(-1).checked = true; choose(images.length - 1);
    });
    if (switches) await makeSwitches();
    radios()[0].checked = true; choose(0);
  }
  return begin();
}
async function liveStart(root) {
  try { await liveLaboratory(root); }
  catch {
    const told = "This figure cannot come alive here: the site that serves the page forbids what it needs. A copy of the page, saved and opened as a file, can.";
    root.append(Object.assign(document.createElement("p"), { role: "status", textContent: told }));
  }
}
// A large network waits until the reader asks for it, in the page or in a script beside it.
function liveOnRequest(root, load) {
  const packed = root.querySelector('[data-part="network"]'), button = load.querySelector("button"), told = load.querySelector("span");
  load.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true; told.textContent = "It is being read; the first answer takes some seconds.";
    if (packed.dataset.source) {
      const script = Object.assign(document.createElement("script"), { src: packed.dataset.source });
      const loaded = await new Promise(end => { script.onload = () => end(true); script.onerror = () => end(false); document.head.append(script); });
      if (!loaded || typeof liveNetwork === "undefined") { button.disabled = false; told.textContent = "The file of the network could not be read. Is it there, and are you online?"; return; }
      packed.textContent = liveNetwork;
    }
    liveStart(root);
  });
}
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Worker === "undefined" || typeof DecompressionStream === "undefined") return;  // the still pictures stay
  for (const root of document.querySelectorAll(".live")) {
    const load = root.querySelector('[data-part="load"]');
    if (load) liveOnRequest(root, load); else liveStart(root);
  }
});
