// Objects and clutter as interp_lab.data.scenes draws them, laid over an image (3, size, size) in the page.
"use strict";

const liveScenes = (() => {
  const { hypot, max, min, abs, PI, sqrt, sin, cos, atan2 } = Math;
  // Signed distances at natural size, and areas.
  const SHAPES = {
    disc: [(u, v) => hypot(u, v) - 1, PI],
    square: [(u, v) => max(abs(u), abs(v)) - 1, 4],
    triangle: [(u, v) => max(sqrt(0.75) * abs(u) + v / 2, -v) - 1, 3 * sqrt(3)],
    star: [(u, v) => {
      const fifth = 2 * PI / 5, angle = abs(((atan2(u, v) % fifth) + fifth) % fifth - PI / 5), r = hypot(u, v), x = cos(PI / 5) - 0.5, y = sin(PI / 5);
      return ((r * cos(angle) - 0.5) * y - r * sin(angle) * x) / hypot(x, y);
    }, 2.5 * sin(PI / 5)],
    cross: [(u, v) => min(max(abs(u) - 1, abs(v) - 0.36), max(abs(u) - 0.36, abs(v) - 1)), 8 * 0.36 - 4 * 0.36 ** 2],
    ring: [(u, v) => abs(hypot(u, v) - 1) - 0.3, 4 * PI * 0.3],
    crescent: [(u, v) => max(hypot(u, v) - 1, 1 - hypot(u - 0.8, v)), PI - (2 * Math.acos(0.4) - 0.4 * sqrt(4 - 0.8 ** 2))],
    heart: [(u, v) => min((abs(u) + abs(v + 0.25)) / Math.SQRT2 - 1, hypot(abs(u) - sqrt(0.5), v + 0.25 - sqrt(0.5)) - 1), 4 + PI],
  };
  const rgb = (hue, saturation, value) => [5, 3, 1].map(c => { const k = (c + 6 * hue) % 6; return value * (1 - saturation * max(0, min(k, 4 - k, 1))); });
  function lay(image, size, distance, colourAt) {  // and the pixels that change
    const mask = new Uint8Array(size * size);
    for (let row = 0; row < size; row++) for (let column = 0; column < size; column++) {
      const p = row * size + column, d = distance(column + 0.5, row + 0.5), alpha = max(0, min(1, 0.5 - d));
      if (alpha > 0) { const colour = colourAt(column + 0.5, row + 0.5); mask[p] = 1; for (let c = 0; c < 3; c++) image[c * size * size + p] += alpha * (max(0, min(1, colour[c])) - image[c * size * size + p]); }
    }
    return mask;
  }
  // Of scale s, an object covers s x s pixels; it is lit from the upper left.
  function object(image, size, { shape, hue, row, column, scale = 0.27 * size }) {
    const [distance, area] = SHAPES[shape], unit = scale / sqrt(area), mean = image.reduce((a, v) => a + v, 0) / image.length;
    const colour = rgb(hue, 0.8, mean < 0.45 ? mean + 0.35 : mean - 0.3);
    return lay(image, size, (x, y) => distance((x - column) / unit, (row - y) / unit) * unit,
      (x, y) => colour.map(v => v * (1 + 0.25 * (column - x + row - y) / Math.SQRT2 / (0.9 * scale))));
  }
  function clutter(image, size, count, random) {
    for (let k = 0; k < count; k++) {
      const [x0, y0, turn, length, width, kind, hue, saturation, value] = Array.from({ length: 9 }, () => random() / 2 ** 32);
      const a = turn * 2 * PI, long = (0.05 + 0.05 * length) * size, thin = (0.015 + 0.015 * width) * size, colour = rgb(hue, 0.2 + 0.7 * saturation, 0.1 + 0.85 * value);
      lay(image, size, (x, y) => {
        const u = cos(a) * (x - x0 * size) + sin(a) * (y0 * size - y), v = cos(a) * (y0 * size - y) - sin(a) * (x - x0 * size);
        return kind < 0.5 ? max(abs(u) - long, abs(v) - thin) : (hypot(u / long, v / thin) - 1) * thin;
      }, () => colour);
    }
  }
  return { SHAPES, rgb, object, clutter };
})();
if (typeof module !== "undefined") module.exports = liveScenes;
