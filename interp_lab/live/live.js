// Runs the graphs that interp_lab.live records: ATen operations on single precision, and the loops over a gradient.
// One function without anything from outside, so that its text alone can start a Worker, also in a page from file://.
"use strict";

function liveEngine() {
  const size = shape => shape.reduce((a, b) => a * b, 1);
  const tensor = (s, d) => ({ s, d });
  const zeros = s => tensor(s, new Float32Array(size(s)));
  const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);

  // ---- The matrix product, C += A B, by WebAssembly where the browser has it.
  // Assembled here from its instructions: two rows of A and sixteen columns of B at a time, sums in eight registers.
  function assemble() {
    const leb = n => { const out = []; for (;;) { const b = n & 127; n >>= 7;
      if ((n === 0 && !(b & 64)) || (n === -1 && b & 64)) return [...out, b]; out.push(b | 128); } };
    const I32 = 0x7f, V128 = 0x7b;
    const [m, n, k, A, ra, ca, B, C, i, j, p, row, a, b, c, u, v, w, sum] = Array.from({ length: 19 }, (_, x) => x);
    const get = x => [0x20, x], set = x => [0x21, x], constant = x => [0x41, ...leb(x)];
    const add = 0x6a, sub = 0x6b, mul = 0x6c, shl = 0x74, less = 0x48;
    const loop = (...body) => [0x03, 0x40, ...body.flat(), 0x0d, 0, 0x0b];  // again while the last value is not 0
    const raise = (x, y) => [...get(x), ...get(y), add, ...set(x)];
    const load = at => [0xfd, 0x00, 4, at], store = at => [0xfd, 0x0b, 4, at], splat = [0xfd, 0x09, 2, 0], zero = [0xfd, 0x0c, ...Array(16).fill(0)];
    const multiply = [0xfd, 0xe6, 1], plus = [0xfd, 0xe4, 1];
    const columns = [0, 1, 2, 3], all = [0, 1, 2, 3, 4, 5, 6, 7];
    const place = q => q < 4 ? get(c) : [...get(c), ...get(row), add];
    const body = [
      get(n), constant(2), shl, set(row),
      loop(constant(0), set(j),
        loop(get(C), get(i), get(row), mul, add, get(j), constant(2), shl, add, set(c),
          ...all.map(q => [...zero, ...set(sum + q)]),
          get(A), get(i), get(ra), mul, add, set(a), get(B), get(j), constant(2), shl, add, set(b), get(k), set(p),
          loop(get(a), splat, set(u), get(a), get(ra), add, splat, set(v),
            ...columns.map(q => [...get(b), ...load(16 * q), ...set(w),
              ...[[u, q], [v, q + 4]].flatMap(([x, r]) => [...get(x), ...get(w), ...multiply, ...get(sum + r), ...plus, ...set(sum + r)])]),
            raise(a, ca), raise(b, row), get(p), constant(1), sub, set(p), get(p)),
          ...all.map(q => [...place(q), ...place(q), ...load(16 * (q & 3)), ...get(sum + q), ...plus, ...store(16 * (q & 3))]),
          get(j), constant(16), add, set(j), get(j), get(n), less),
        get(i), constant(2), add, set(i), get(i), get(m), less),
    ].flat();
    const vector = parts => [...leb(parts.length), ...parts.flat()];
    const section = (id, content) => [id, ...leb(content.length), ...content];
    const text = s => vector([...s].map(x => x.charCodeAt(0)));
    const code = [...vector([[7, I32], [11, V128]]), ...body, 0x0b];  // i j p row a b c, then u v w and eight sums
    return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, vector([[0x60, ...vector(Array(8).fill(I32)), 0]])),
      ...section(3, vector([[0]])),
      ...section(5, vector([[0, 1]])),
      ...section(7, vector([[...text("product"), 0, 0], [...text("memory"), 2, 0]])),
      ...section(10, vector([[...leb(code.length), ...code]]))]);
  }
  let wasm = null;
  try { wasm = new WebAssembly.Instance(new WebAssembly.Module(assemble())).exports; } catch { /* the loops below */ }

  // rows of A lie ra, columns ca numbers apart
  function product(m, n, k, A, a0, ra, ca, B, b0, C, c0) {
    if (wasm && m * n * k > 4096) return wasmProduct(m, n, k, A, a0, ra, ca, B, b0, C, c0);
    for (let i = 0; i < m; i++) {
      const a = a0 + i * ra, c = c0 + i * n; let p = 0, b = b0;
      for (; p + 3 < k; p += 4, b += 4 * n) {  // four columns of A at a time, which takes half the time of one
        const u = A[a + p * ca], v = A[a + (p + 1) * ca], w = A[a + (p + 2) * ca], x = A[a + (p + 3) * ca];
        for (let j = 0; j < n; j++) C[c + j] += u * B[b + j] + v * B[b + n + j] + w * B[b + 2 * n + j] + x * B[b + 3 * n + j];
      }
      for (; p < k; p++, b += n) { const v = A[a + p * ca]; for (let j = 0; j < n; j++) C[c + j] += v * B[b + j]; }
    }
  }
  function wasmProduct(m, n, k, A, a0, ra, ca, B, b0, C, c0) {
    const wide = (n + 15) & ~15, rows = (m + 1) & ~1, ofA = (m - 1) * ra + (k - 1) * ca + 1;
    const b = (ofA + ra + 3) & ~3, c = b + k * wide, need = 4 * (c + rows * wide);  // A's odd last row reads on into B
    if (wasm.memory.buffer.byteLength < need)
      wasm.memory.grow(Math.ceil((need - wasm.memory.buffer.byteLength) / 65536));
    const M = new Float32Array(wasm.memory.buffer);
    M.set(A.subarray(a0, a0 + ofA), 0);
    const copy = (count, from, start, to) => { for (let r = 0; r < count; r++) M.set(from.subarray(start + r * n, start + (r + 1) * n), to + r * wide); };
    if (wide === n) { M.set(B.subarray(b0, b0 + k * n), b); M.set(C.subarray(c0, c0 + m * n), c); }
    else { copy(k, B, b0, b); copy(m, C, c0, c); }
    for (let p = 0; p < k; p += 64)  // a sum of sums loses fewer digits
      wasm.product(m, wide, Math.min(64, k - p), 4 * p * ca, 4 * ra, 4 * ca, 4 * (b + p * wide), 4 * c);
    for (let r = 0; r < m; r++) C.set(M.subarray(c + r * wide, c + r * wide + n), c0 + r * n);
  }

  // ---- Operations: each is called with the shape of its result, then its operands.
  const strides = s => { const out = new Array(s.length); let a = 1; for (let i = s.length - 1; i >= 0; i--) { out[i] = a; a *= s[i]; } return out; };
  function gatherStrided(s, d, steps) {  // the numbers of d at an offset that grows by steps[i] along axis i
    const out = new Float32Array(size(s)), last = s.length - 1, n = last < 0 ? 1 : s[last], by = last < 0 ? 0 : steps[last];
    const count = new Array(s.length).fill(0);
    for (let o = 0, at = 0; o < out.length;) {
      for (let j = 0, q = at; j < n; j++, q += by) out[o++] = d[q];
      for (let axis = last - 1; axis >= 0; axis--) {
        at += steps[axis]; if (++count[axis] < s[axis]) break; at -= steps[axis] * s[axis]; count[axis] = 0; }
    }
    return out;
  }
  function spread(t, s) {  // the numbers of t, or of a plain one, as of shape s
    if (typeof t === "number") return new Float32Array(size(s)).fill(t);
    if (same(t.s, s) || t.d.length === size(s)) return t.d;
    if (t.d.length === 1) return new Float32Array(size(s)).fill(t.d[0]);
    const own = strides(t.s), lead = s.length - t.s.length;
    return gatherStrided(s, t.d, s.map((_, i) => i < lead || t.s[i - lead] === 1 ? 0 : own[i - lead]));
  }
  // Each function of numbers has a loop of its own: through one loop for all the browser calls them number by number, five times as slow.
  // They are written out, since a page whose server forbids code from text (a content security policy) has no new Function.
  const unary = loop => (s, a) => { const out = zeros(s); loop(out.d, a.d); return out; };
  const binary = loop => (s, a, b) => {  // by: 0 where the second is one number
    const out = zeros(s), y = typeof b === "number" ? Float32Array.of(b) : b.d.length === 1 ? b.d : spread(b, s);
    loop(out.d, spread(a, s), y, y.length === 1 ? 0 : 1);
    return out;
  };
  const axisOf = (t, dim) => dim < 0 ? dim + t.s.length : dim;
  const around = (t, dim) => { const d = axisOf(t, dim); return [size(t.s.slice(0, d)), t.s[d] ?? 1, size(t.s.slice(d + 1))]; };
  const fold = (start, f) => (s, a, dims) => {  // over some axes, or all
    const axes = dims === undefined || dims === null || dims.length === 0 ? a.s.map((_, i) => i) : [].concat(dims).map(d => axisOf(a, d));
    const kept = a.s.map((v, i) => axes.includes(i) ? 1 : v), own = strides(kept), steps = kept.map((_, i) => axes.includes(i) ? 0 : own[i]);
    const sums = new Float64Array(size(kept)).fill(start), count = new Array(a.s.length).fill(0);
    for (let i = 0, at = 0; i < a.d.length; i++) {
      sums[at] = f(sums[at], a.d[i]);
      for (let axis = a.s.length - 1; axis >= 0; axis--) { at += steps[axis]; if (++count[axis] < a.s[axis]) break; at -= steps[axis] * a.s[axis]; count[axis] = 0; }
    }
    return tensor(s, Float32Array.from(sums));
  };
  const greater = (a, b) => a > b || a !== a ? a : b, smaller = (a, b) => a < b || a !== a ? a : b;  // NaN stays, as in torch
  const sum = fold(0, (a, b) => a + b), largest = fold(-Infinity, (a, b) => greater(b, a)), smallest = fold(Infinity, (a, b) => smaller(b, a));
  const whole = f => (s, a) => f(s, a);

  // For each place in the kernel, and each row of places in the image: where its numbers begin there and here, and how many lie inside.
  function rows({ image: [H, W], kernel: [kh, kw], places: [oh, ow], stride, padding, dilation }, channels, each) {
    for (let c = 0, k = 0; c < channels; c++) for (let y = 0; y < kh; y++) for (let z = 0; z < kw; z++, k++) {
      const left = z * dilation[1] - padding[1], j = Math.max(0, Math.ceil(-left / stride[1])), n = Math.min(ow, Math.ceil((W - left) / stride[1])) - j;
      for (let i = 0; i < oh; i++) {
        const v = i * stride[0] - padding[0] + y * dilation[0];
        if (v >= 0 && v < H) each(k, (c * H + v) * W + left + j * stride[1], i * ow + j, n);
      }
    }
  }
  // Patches of an image as columns, one row for each place in the kernel; or their sums back into the image.
  function patches(x, x0, channels, g, column, back) {
    const by = g.stride[1], P = size(g.places);
    rows(g, channels, (k, from, to, n) => {
      for (let q = x0 + from, r = k * P + to, end = r + n; r < end; r++, q += by) if (back) x[q] += column[r]; else column[r] = x[q];
    });
  }
  function depthwise(x, x0, w, g, y, y0, transposed) {  // a kernel of one channel, without the columns
    const by = g.stride[1];
    rows(g, 1, (k, from, to, n) => {
      const v = w[k];
      if (transposed) for (let q = y0 + from, r = x0 + to, end = r + n; r < end; r++, q += by) y[q] += v * x[r];
      else for (let q = x0 + from, r = y0 + to, end = r + n; r < end; r++, q += by) y[r] += v * x[q];
    });
  }
  function convolution(s, x, w, bias, stride, padding, dilation, transposed, _, groups) {
    const out = zeros(s), [N, inner] = x.s, outer = s[1], inGroup = inner / groups, outGroup = outer / groups;
    const small = transposed ? x : out, large = transposed ? out : x, P = size(small.s.slice(2)), pixels = size(large.s.slice(2));
    const g = { image: large.s.slice(2), places: small.s.slice(2), kernel: w.s.slice(2), stride, padding, dilation };
    const K = size(g.kernel) * (transposed ? outGroup : inGroup);
    for (let n = 0; n < N; n++) for (let q = 0; q < groups; q++) {
      const read = n * inner + q * inGroup, written = n * outer + q * outGroup;
      if (bias) for (let o = 0; o < outGroup; o++) out.d.fill(bias.d[q * outGroup + o], (written + o) * size(s.slice(2)), (written + o + 1) * size(s.slice(2)));
      if (inGroup === 1 && outGroup === 1) {
        depthwise(x.d, read * size(x.s.slice(2)), w.d.subarray(q * K, (q + 1) * K), g, out.d, written * size(s.slice(2)), transposed);
        continue;
      }
      const column = new Float32Array(K * P);
      if (transposed) {
        product(K, P, inGroup, w.d, q * inGroup * K, 1, K, x.d, read * P, column, 0);
        patches(out.d, written * pixels, outGroup, g, column, true);
      } else {
        patches(x.d, read * pixels, inGroup, g, column, false);
        product(outGroup, P, K, w.d, q * outGroup * K, K, 1, column, 0, out.d, written * P);
      }
    }
    return out;
  }
  function maxPool(s, x, kernel, stride, padding = [0, 0], dilation = [1, 1]) {
    const by = stride && stride.length ? stride : kernel, [N, C, oh, ow] = s, [H, W] = x.s.slice(2), out = zeros(s), at = zeros(s); let o = 0;
    for (let plane = 0; plane < N * C; plane++) for (let i = 0; i < oh; i++) for (let j = 0; j < ow; j++, o++) {
      let best = -Infinity;
      for (let y = 0; y < kernel[0]; y++) for (let z = 0; z < kernel[1]; z++) {
        const v = i * by[0] - padding[0] + y * dilation[0], h = j * by[1] - padding[1] + z * dilation[1];
        if (v < 0 || v >= H || h < 0 || h >= W) continue;
        const value = x.d[(plane * H + v) * W + h];
        if (value > best || value !== value) { best = value; at.d[o] = v * W + h; }
      }
      out.d[o] = best;
    }
    return [out, at];
  }
  function bilinear(s, x, _, align) {
    const [N, C, h, w] = s, [H, W] = x.s.slice(2), out = zeros(s);
    const source = (i, from, to) => align ? (to > 1 ? i * (from - 1) / (to - 1) : 0) : Math.max(0, (i + 0.5) * from / to - 0.5);
    for (let i = 0; i < h; i++) {
      const v = source(i, H, h), v0 = Math.floor(v), v1 = Math.min(v0 + 1, H - 1), a = v - v0;
      for (let j = 0; j < w; j++) {
        const u = source(j, W, w), u0 = Math.floor(u), u1 = Math.min(u0 + 1, W - 1), b = u - u0;
        for (let c = 0; c < N * C; c++) { const p = c * H * W;
          out.d[(c * h + i) * w + j] = (1 - a) * ((1 - b) * x.d[p + v0 * W + u0] + b * x.d[p + v0 * W + u1]) + a * ((1 - b) * x.d[p + v1 * W + u0] + b * x.d[p + v1 * W + u1]); }
      }
    }
    return out;
  }
  function permuted(s, x, dims) { const own = strides(x.s); return tensor(s, gatherStrided(s, x.d, dims.map(d => own[axisOf(x, d)]))); }
  function swapped(s, x, a, b) { const dims = x.s.map((_, i) => i), p = axisOf(x, a), q = axisOf(x, b); [dims[p], dims[q]] = [q, p]; return permuted(s, x, dims); }
  function slice(s, x, dim = 0, start = 0, _, by = 1) {
    const [outer, m, inner] = around(x, dim), k = s[axisOf(x, dim)], first = Math.min(start < 0 ? start + m : start ?? 0, m), out = zeros(s);
    for (let i = 0; i < outer; i++) for (let j = 0; j < k; j++) { const p = (i * m + first + j * by) * inner; out.d.set(x.d.subarray(p, p + inner), (i * k + j) * inner); }
    return out;
  }
  function each(index, dim, f) {  // the places of an index, and of the row of another tensor of m that it points to
    const [outer, k, inner] = around(index, dim);
    for (let i = 0; i < outer; i++) for (let j = 0; j < k; j++) for (let l = 0; l < inner; l++) { const at = (i * k + j) * inner + l; f(at, i, index.d[at], l, inner); }
  }
  const aligned = (x, dim, index) => { if (!x.s.every((v, i) => i === axisOf(x, dim) || v === index.s[i])) throw Error("an index of part of the rows"); };
  function gather(s, x, dim, index) { aligned(x, dim, index); const m = around(x, dim)[1], out = zeros(s); each(index, dim, (at, i, j, l, n) => { out.d[at] = x.d[(i * m + j) * n + l]; }); return out; }
  function scatterAdd(s, x, dim, index, source) { aligned(x, dim, index); const m = around(x, dim)[1], out = tensor(s, x.d.slice()); each(index, dim, (at, i, j, l, n) => { out.d[(i * m + j) * n + l] += source.d[at]; }); return out; }
  function index(s, x, indices) {  // tensors that stand side by side, each for one axis
    const first = indices.findIndex(i => i), used = indices.slice(first);
    if (used.some(i => !i)) throw Error("indices of axes that are not side by side");
    const lead = size(x.s.slice(0, first)), inner = size(x.s.slice(first + used.length)), block = size(x.s.slice(first)), own = strides(x.s).slice(first);
    const shape = s.slice(first, s.length - (x.s.length - first - used.length)), n = size(shape), at = used.map(i => spread(i, shape)), out = zeros(s);
    for (let a = 0; a < lead; a++) for (let i = 0; i < n; i++) {
      let p = a * block; at.forEach((d, k) => { p += (d[i] < 0 ? d[i] + x.s[first + k] : d[i]) * own[k]; });
      out.d.set(x.d.subarray(p, p + inner), (a * n + i) * inner); }
    return out;
  }
  function topk(s, x, k, dim = -1, large = true) {
    const [outer, m, inner] = around(x, dim), values = zeros(s), places = zeros(s);
    for (let i = 0; i < outer; i++) for (let l = 0; l < inner; l++) {
      const order = Array.from({ length: m }, (_, j) => j), value = j => x.d[(i * m + j) * inner + l];
      order.sort((a, b) => (large ? value(b) - value(a) : value(a) - value(b)) || a - b);
      for (let j = 0; j < k; j++) { values.d[(i * k + j) * inner + l] = value(order[j]); places.d[(i * k + j) * inner + l] = order[j]; }
    }
    return [values, places];
  }
  function padded(s, x, by, value = 0) {  // by: before and after, from the last axis on; negative takes away
    const axes = s.length, before = s.map((_, i) => by[2 * (axes - 1 - i)] ?? 0), own = strides(x.s), out = tensor(s, new Float32Array(size(s)).fill(value));
    const last = axes - 1, from = Math.max(0, before[last]), first = Math.max(0, -before[last]), n = Math.min(s[last] - from, x.s[last] - first), rows = s.slice(0, last);
    for (let row = 0; row < size(rows); row++) {
      let rest = row, at = first, inside = true;
      for (let i = last - 1; i >= 0; i--) { const j = rest % s[i] - before[i]; rest = Math.floor(rest / s[i]); if (j < 0 || j >= x.s[i]) inside = false; at += j * own[i]; }
      if (inside) out.d.set(x.d.subarray(at, at + n), row * s[last] + from);
    }
    return out;
  }
  function cat(s, parts, dim = 0) {
    const d = axisOf({ s }, dim), out = zeros(s), outer = size(s.slice(0, d)), block = size(s.slice(d)); let at = 0;
    for (const t of parts.filter(t => t.d.length)) { const n = size(t.s.slice(d)); for (let i = 0; i < outer; i++) out.d.set(t.d.subarray(i * n, (i + 1) * n), i * block + at); at += n; }
    return out;
  }
  function matrices(s, a, b) {
    const [m, k] = a.s.slice(-2), n = b.s[b.s.length - 1], out = zeros(s);
    for (let i = 0; i < out.d.length / (m * n); i++) product(m, n, k, a.d, i * m * k, k, 1, b.d, i * k * n, out.d, i * m * n);
    return out;
  }
  const maximum = binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = greater(x[i], y[j]); });
  const minimum = binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = smaller(x[i], y[j]); });
  const divided = binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] / y[j]; });
  const nonzero = unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = x[i] !== 0 ? 1 : 0; });
  const truncated = unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.trunc(x[i]); });
  const view = (s, a) => tensor(s, a.d), expand = (s, a) => tensor(s, spread(a, s));

  const OPS = {
    "abs": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.abs(x[i]); }),
    "add": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] + y[j]; }),
    "eq": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] === y[j] ? 1 : 0; }),
    "exp": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.exp(x[i]); }),
    "ge": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] >= y[j] ? 1 : 0; }),
    "gt": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] > y[j] ? 1 : 0; }),
    "isnan": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = x[i] !== x[i] ? 1 : 0; }),
    "le": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] <= y[j] ? 1 : 0; }),
    "log": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.log(x[i]); }),
    "logical_and": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] && y[j] ? 1 : 0; }),
    "logical_not": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = x[i] ? 0 : 1; }),
    "logical_or": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] || y[j] ? 1 : 0; }),
    "lt": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] < y[j] ? 1 : 0; }),
    "mul": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] * y[j]; }),
    "ne": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] !== y[j] ? 1 : 0; }),
    "neg": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = -x[i]; }),
    "pow": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] ** y[j]; }),
    "reciprocal": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = 1 / x[i]; }),
    "relu": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = x[i] > 0 || x[i] !== x[i] ? x[i] : 0; }),
    "rsqrt": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = 1 / Math.sqrt(x[i]); }),
    "sigmoid": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = 1 / (1 + Math.exp(-x[i])); }),
    "sqrt": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.sqrt(x[i]); }),
    "sub": binary((d, x, y, by) => { for (let i = 0, j = 0; i < d.length; i++, j += by) d[i] = x[i] - y[j]; }),
    "tanh": unary((d, x) => { for (let i = 0; i < d.length; i++) d[i] = Math.tanh(x[i]); }),
    "_to_copy": (s, a, kind) => kind.dtype === "bool" ? nonzero(s, a) : /int/.test(kind.dtype) ? truncated(s, a) : a,
    "_unsafe_view": view,
    "addmm": (s, bias, a, b) => { const out = matrices(s, a, b), d = spread(bias, s); for (let i = 0; i < d.length; i++) out.d[i] += d[i]; return out; },
    "alias": view, "all": fold(1, (a, b) => a && b ? 1 : 0), "amax": largest, "amin": smallest, "any": fold(0, (a, b) => a || b ? 1 : 0),
    "bmm": matrices, "cat": cat,
    "clamp": (s, a, low, high) => { const out = maximum(s, a, low ?? -Infinity); return high == null ? out : minimum(s, out, high); },
    "clone": view, "constant_pad_nd": padded, "convolution": convolution, "detach": view, "div": divided,
    "expand": expand, "full": (s, _, v) => tensor(s, new Float32Array(size(s)).fill(v)), "gather": gather,
    "getitem": (s, parts, i) => parts[i], "index": index,
    "max": whole(largest), "max_pool2d_with_indices": maxPool, "maximum": maximum,
    "mean": (s, a, dims) => { const out = sum(s, a, dims), n = a.d.length / out.d.length; return divided(s, out, n); },
    "min": whole(smallest), "minimum": minimum, "mm": matrices,
    "permute": permuted,
    "scatter_add": scatterAdd,
    "select": (s, x, dim, i) => view(s, slice(x.s.map((v, k) => k === axisOf(x, dim) ? 1 : v), x, dim, i)),
    "slice": slice, "squeeze": view,
    "sum": sum, "t": (s, a) => a.s.length < 2 ? a : permuted(s, a, [1, 0]), "topk": topk, "transpose": swapped, "unsqueeze": view,
    "upsample_bilinear2d": bilinear, "view": view,
    "where": (s, c, a, b) => { const m = spread(c, s), x = spread(a, s), y = spread(b, s), d = new Float32Array(m.length); for (let i = 0; i < d.length; i++) d[i] = m[i] ? x[i] : y[i]; return tensor(s, d); },
  };

  // ---- A network with its methods, and what it computes for one input and class.
  const half = h => { const e = (h >> 10) & 31, f = h & 1023, sign = h >> 15 ? -1 : 1; return e === 0 ? sign * f * 2 ** -24 : e === 31 ? (f ? NaN : sign * Infinity) : sign * (1 + f / 1024) * 2 ** (e - 15); };
  const halves = Float32Array.from({ length: 65536 }, (_, h) => half(h));  // looked up, since a network has millions
  const fromHalves = from => { const out = new Float32Array(from.length); for (let i = 0; i < out.length; i++) out[i] = halves[from[i]]; return out; };
  const refsIn = a => Array.isArray(a) ? a.flatMap(refsIn) : typeof a === "string" && a[0] === "#" ? [+a.slice(1)] : [];
  class Outside extends Error {}

  class Network {
    constructor({ shape, classes, methods, steps, layers, weights }) {
      Object.assign(this, { shape, classes, methods, steps, layers });
      const bytes = typeof weights === "string" ? Uint8Array.from(atob(weights), c => c.charCodeAt(0)).buffer : weights;
      this.refs = steps.map(([op, args]) => op === "weight" ? [] : refsIn(args));
      this.live = []; steps.forEach(([op], i) => { this.live[i] = op === "input" || this.refs[i].some(r => this.live[r]); });
      this.constants = steps.map(([op, args, s]) => op !== "weight" ? undefined : tensor(s, args[0] === "h" ? fromHalves(new Uint16Array(bytes, args[1], size(s))) : new Float32Array(bytes, args[1], size(s))));
      this.plans = {};
    }
    plan(name) {  // the steps that a map and its guards rest on, in order
      if (!(name in this.methods)) throw Error(`no method ${name}`);
      if (!this.plans[name]) {
        const { output, guards } = this.methods[name], found = new Set(), waiting = [output, ...guards.map(g => g[0])];
        while (waiting.length) { const i = waiting.pop(); if (!found.has(i)) { found.add(i); waiting.push(...this.refs[i]); } }
        this.plans[name] = [...found].sort((a, b) => a - b);
      }
      return this.plans[name];
    }
    get shared() {  // the steps that several methods need
      const count = new Map(); for (const name in this.methods) for (const i of this.plan(name)) count.set(i, (count.get(i) ?? 0) + 1);
      const shared = new Set([...count.keys()].filter(i => count.get(i) > 1)); Object.defineProperty(this, "shared", { value: shared });
      return shared;
    }
    randomised(chosen, seed) {  // a copy whose chosen layers have the weights that torch draws for them, from the upper to the lower
      const random = mersenne(seed), copy = Object.assign(Object.create(Network.prototype), this);
      copy.constants = this.constants.map((value, i) => this.steps[i][0] === "weight" ? value : undefined);
      this.layers.forEach(([, parameters], k) => parameters.forEach(([step, bound]) => {
        const s = this.steps[step][2], low = Math.fround(-bound), width = Math.fround(Math.fround(bound) - low);
        const d = Float32Array.from({ length: size(s) }, () => (random() & 0xffffff) / 2 ** 24 * width + low);
        if (chosen.includes(k)) copy.constants[step] = tensor(s, d);
      }));
      return copy;
    }
    at(x, target) {
      if (x.length !== size(this.shape) || !(Number.isInteger(target) && target >= 0 && target < this.classes.length)) throw new Outside(`an input of ${x.length} numbers, class ${target}`);
      return new Values(this, x, target);
    }
  }
  class Values {  // of the steps for one input; methods share what they have in common
    constructor(network, x, target) { Object.assign(this, { network, x, target, known: [] }); }
    get(i) { return this.network.live[i] ? this.known[i] : this.network.constants[i]; }
    compute(i) {
      const { steps, live, constants } = this.network, [op, args, s, kind] = steps[i];
      if (this.get(i) !== undefined) return;
      const decoded = a => Array.isArray(a) ? a.map(decoded) : typeof a !== "string" ? a
        : a[0] === "#" ? this.get(+a.slice(1)) : a === "inf" ? Infinity : a === "-inf" ? -Infinity : a;
      let value;
      if (op === "input") value = args[0] === 0 ? tensor(s, this.x) : tensor(s, Float32Array.of(this.target));
      else {
        const name = op.split(".")[0], f = OPS[name];
        if (!f) throw Error(`no operation ${op}`);
        value = name === "_to_copy" ? f(s, decoded(args[0]), kind ?? {}) : f(s, ...args.map(decoded));
      }
      const first = Array.isArray(value) ? value[0] : value;
      if (first.d.length !== size(s)) throw Error(`${op} gave ${first.d.length} numbers for the shape ${s}`);
      if (live[i]) this.known[i] = value; else constants[i] = value;
    }
    map(name) {
      const { refs, shared } = this.network, plan = this.network.plan(name), { output, guards } = this.network.methods[name], last = {};
      const kept = new Set([output, ...guards.map(g => g[0])]);
      for (const i of plan) for (const r of refs[i]) last[r] = i;
      if (![...kept].every(i => this.get(i))) for (const i of plan) {
        this.compute(i);
        for (const r of refs[i]) if (last[r] === i && !shared.has(r) && !kept.has(r)) this.known[r] = undefined;  // or a large network fills the memory
      }
      for (const [i, value] of guards) if (this.get(i).d[0] !== value) throw new Outside("this input takes another way through the method than the recording");
      const map = this.get(output).d;
      if (!map.every(Number.isFinite)) throw new Outside("the map is not finite for this input");
      return map;
    }
  }

  // ---- What a randomised network needs: torch's numbers, and how alike its maps are.
  function mersenne(seed) {  // MT19937 as torch.manual_seed(seed ^ 0x5DEECE66D) starts it, which takes the lower 32 bits
    const state = new Uint32Array(624); let at = 624; state[0] = seed ^ 0xdeece66d;
    for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    return () => {
      if (at === 624) {
        at = 0;
        for (let i = 0; i < 624; i++) { const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff); state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0); }
      }
      let y = state[at++]; y ^= y >>> 11; y ^= (y << 7) & 0x9d2c5680; y ^= (y << 15) & 0xefc60000;
      return (y ^ (y >>> 18)) >>> 0;
    };
  }
  function spearman(a, b) {  // equal values share the mean of their ranks; NaN where one is constant
    const ranks = values => {
      const order = Uint32Array.from(values.keys()).sort((i, j) => values[i] - values[j]), rank = new Float64Array(values.length);
      for (let i = 0, j; i < order.length; i = j) { for (j = i; j < order.length && values[order[j]] === values[order[i]]; j++); for (let k = i; k < j; k++) rank[order[k]] = (i + j - values.length) / 2; }
      return rank;
    };
    const p = ranks(a), q = ranks(b);
    return dot(p, q) / Math.sqrt(dot(p, p) * dot(q, q));
  }

  // ---- Loops over the network. Each gives its state after every pass, so that it can be watched, or left.
  function gaussian(seed) {  // mulberry32, then Box and Muller
    const uniform = () => { seed = (seed + 0x6d2b79f5) | 0; let t = Math.imul(seed ^ (seed >>> 15), 1 | seed); t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t; return ((t ^ (t >>> 14)) >>> 0) / 4294967296; };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  const top = logits => logits.indexOf(Math.max(...logits)), dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  function* smoothgrad(network, x, target, { n, noise }, normal = gaussian(0)) {
    let low = Infinity, high = -Infinity; for (const v of x) { low = Math.min(low, v); high = Math.max(high, v); }
    const total = new Float64Array(x.length), squares = new Float64Array(x.length), answer = top(network.at(x, target).map("logits")); let same = 0;
    for (let k = 1; k <= n; k++) {
      const copy = x.map(v => v + noise * (high - low) * normal()), at = network.at(copy, target), g = at.map("saliency");
      if (top(at.map("logits")) === answer) same += 1;
      let spread = 0; for (let i = 0; i < total.length; i++) { total[i] += g[i]; squares[i] += g[i] * g[i]; spread += squares[i] - total[i] * total[i] / k; }
      const error = Math.sqrt(Math.max(0, spread) / Math.max(1, k - 1) * k) / Math.sqrt(dot(total, total));  // standard error of the mean, in lengths of the mean
      yield { map: Float32Array.from(total, v => v / k), points: k, input: copy, same, error: k > 1 && Number.isFinite(error) ? error : null };
    }
  }
  function gauss(n) {  // Gauss-Legendre nodes and weights on [0, 1], by Newton's method on the Legendre polynomial
    return Array.from({ length: n }, (_, i) => {
      let z = Math.cos(Math.PI * (i + 0.75) / (n + 0.5)), slope = 0;
      for (let round = 0; round < 50; round++) {
        let p = 1, q = 0; for (let j = 0; j < n; j++) [p, q] = [((2 * j + 1) * z * p - j * q) / (j + 1), p];
        slope = n * (z * p - q) / (z * z - 1); z -= p / slope;
      }
      return [(1 - z) / 2, 1 / ((1 - z * z) * slope * slope)];
    });
  }
  function* integrated(network, x, target, { steps, baseline }) {
    const start = baseline ?? new Float32Array(x.length), way = x.map((v, i) => v - start[i]), total = new Float64Array(x.length); let reached = 0, points = 0;
    const ends = [start, x].map(end => network.at(end, target).map("logits")[target]);
    for (const [alpha, weight] of gauss(steps)) {
      const input = start.map((v, i) => v + alpha * way[i]), at = network.at(input, target), g = at.map("saliency");
      reached += weight; points += 1;
      for (let i = 0; i < total.length; i++) total[i] += weight * g[i];
      yield { map: Float32Array.from(total, (v, i) => way[i] * v / reached), points, input, ends, alpha, logit: at.map("logits")[target], reached, sum: dot(total, way) };
    }
  }
  function* interior(network, x, target, { alpha, course }) {
    const at = a => network.at(x.map(v => a * v), target), here = at(alpha), logits = here.map("logits"), path = [];
    const found = { map: here.map("saliency"), input: here.x, alpha, logit: logits[target], reads: top(logits) };
    yield found;
    if (course) for (let k = 0; k <= 20; k++) { path.push([k / 20, at(k / 20).map("logits")[target]]); yield { ...found, path: [...path] }; }
  }
  function* ascent(network, x, target, { l2, variation, rate = 0.05, rounds = 100 }) {  // of the logit less the priors, by Adam within [0, 1]
    const [height, width] = network.shape.slice(-2), picture = Float32Array.from(x), mean = new Float64Array(x.length), square = new Float64Array(x.length);
    for (let k = 0; k <= rounds; k++) {
      const at = network.at(picture.slice(), target), slope = at.map("saliency"), logits = at.map("logits"), most = Math.max(...logits);
      const probability = Math.exp(logits[target] - most) / logits.reduce((sum, v) => sum + Math.exp(v - most), 0);
      yield { map: slope, points: 1, input: at.x, logit: logits[target], probability, reads: top(logits), over: k === rounds };
      const step = rate * (1 + Math.cos(Math.PI * k / rounds)) / 2, before = at.x;
      const rises = (i, j, inside) => inside ? Math.sign(before[i] - before[j]) : 0;
      for (let i = 0; i < x.length; i++) {
        const column = i % width, row = Math.floor(i / width) % height;
        const rough = rises(i, i - 1, column > 0) + rises(i, i + 1, column < width - 1) + rises(i, i - width, row > 0) + rises(i, i + width, row < height - 1);
        const g = slope[i] - 2 * l2 * before[i] - variation * rough;
        mean[i] = 0.9 * mean[i] + 0.1 * g; square[i] = 0.95 * square[i] + 0.05 * g * g;
        picture[i] = Math.min(1, Math.max(0, before[i] + step * mean[i] / (1 - 0.9 ** (k + 1)) / (Math.sqrt(square[i] / (1 - 0.95 ** (k + 1))) + 1e-8)));
      }
    }
  }
  // Steps against the k strongest pixels of the map, along a smooth twin's gradient; the input is the picture and the one where it began.
  function* attack(network, both, target, { k, radius, rounds = 10 }) {
    const n = both.length / 2, pixels = n / (network.shape[1] / 2), began = both.slice(n), from = moved => network.at(Float32Array.from(both, (_, i) => i < n ? moved[i] : began[i - n]), target);
    const magnitude = map => Float32Array.from({ length: pixels }, (_, p) => { let s = 0; for (let i = p; i < n; i += pixels) s += Math.abs(map[i]); return s; });
    const largest = map => {  // 1 for the k largest; equal ones at the border share the places left
      const m = magnitude(map), border = m.slice().sort()[pixels - k], above = m.filter(v => v > border).length, equal = m.filter(v => v === border).length;
      return m.map(v => v > border ? 1 : v === border ? (k - above) / equal : 0);
    };
    const inside = largest(from(began).map("saliency")); let moved = began, at = from(began);
    for (let pass = 0; pass <= rounds; pass++) {
      if (pass) { const g = at.map("attack direction"); moved = moved.map((v, i) => Math.min(1, Math.max(0, Math.min(began[i] + radius, Math.max(began[i] - radius, v - 2.5 * radius / rounds * Math.sign(g[i])))))); at = from(moved); }
      const map = at.map("saliency"), logits = at.map("logits"), most = Math.max(...logits);
      yield { map, points: 1, input: moved, overlap: dot(inside, largest(map)) / k, reads: top(logits), probability: Math.exp(logits[target] - most) / logits.reduce((s, v) => s + Math.exp(v - most), 0), over: pass === rounds };
    }
  }
  // The probability of the class while patches give way to the image's mean colour, in an order of the reader's or by a map.
  function* removal(network, x, target, { order, by, patch, ties, ...options }) {
    const [channels, height, width] = network.shape.slice(1), across = Math.ceil(width / patch), pixels = height * width, relevance = new Float64Array(ties.length);
    const patchOf = p => Math.floor(Math.floor(p / width) / patch) * across + Math.floor(p % width / patch);
    let map = new Float32Array(x.length);  // at random, where no map is asked for
    if (LOOPS[by]) for (const step of LOOPS[by](network, x, target, options)) map = step.map; else if (by) map = network.at(x, target).map(by);
    map.forEach((v, i) => { relevance[patchOf(i % pixels)] += v; });
    const ranked = order ?? [...ties].sort((a, b) => Math.fround(relevance[b]) - Math.fround(relevance[a])), left = x.slice(), curve = [];
    const fill = Array.from({ length: channels }, (_, c) => x.subarray(c * pixels, (c + 1) * pixels).reduce((a, v) => a + v, 0) / pixels);
    for (let k = 0; k <= ranked.length; k++) {
      if (k) for (let i = 0; i < x.length; i++) if (patchOf(i % pixels) === ranked[k - 1]) left[i] = fill[Math.floor(i / pixels)];
      const logits = network.at(left, target).map("logits"), most = Math.max(...logits);
      curve.push(Math.exp(logits[target] - most) / logits.reduce((sum, v) => sum + Math.exp(v - most), 0));
      yield { curve: [...curve], reads: top(logits) };
    }
  }
  const LOOPS = { smoothgrad, integrated_gradients: integrated, interior_gradient: interior, ascent, attack, removal };

  // ---- In a Worker: a message with an input is answered map by map; a newer one ends it.
  const ALPHABET = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter(c => !'"<\\'.includes(c)).join("");
  function bytesOf(text) {  // two characters are 13 bits; one more at the end tells of a byte too many
    const bytes = new Uint8Array(Math.floor((text.length >> 1) * 13 / 8)); let held = 0, bits = 0, at = 0;
    const digit = []; [...ALPHABET].forEach((c, i) => { digit[c.charCodeAt(0)] = i; });
    for (let i = 0; i + 1 < text.length; i += 2) {
      held = (held << 13) | (digit[text.charCodeAt(i)] * 91 + digit[text.charCodeAt(i + 1)]); bits += 13;
      while (bits >= 8) { bits -= 8; bytes[at++] = held >> bits; } held &= (1 << bits) - 1;
    }
    return bytes.subarray(0, bytes.length - text.length % 2);
  }
  async function unpack(packed) {  // the length of the steps, these, and the weights with their lower and upper bytes apart
    const stream = new Blob([bytesOf(packed)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const all = await new Response(stream).arrayBuffer(), n = new DataView(all).getUint32(0, true), planes = new Uint8Array(all, 4 + n), half = planes.length / 2;
    return new Network({ ...JSON.parse(new TextDecoder().decode(new Uint8Array(all, 4, n))), weights: planes.map((_, i) => planes[(i & 1) * half + (i >> 1)]).buffer });
  }
  function serve(scope) {
    const channel = new MessageChannel(), waiting = [];
    channel.port1.onmessage = () => waiting.shift()();
    const breath = () => new Promise(go => { waiting.push(go); channel.port2.postMessage(0); });  // lets a newer message in
    let network = null, newest = 0;
    scope.onmessage = async ({ data }) => {
      if (data.packed) { network = unpack(data.packed); return; }
      const { run, x, target, tasks, random } = data; newest = run;
      const net = await network; await breath();
      if (run !== newest) return;
      const start = performance.now(); let busy = 0;
      let logits;
      try { logits = net.at(x, 0).map("logits"); } catch (error) { scope.postMessage({ run, outside: error.message }); scope.postMessage({ run, settled: true }); return; }
      const reads = top(logits), chosen = target ?? reads;
      const here = net.at(x, chosen), changed = random && net.randomised(random.layers, random.seed).at(x, chosen), loops = [];
      scope.postMessage({ run, logits, reads, chosen, changed: changed?.map("logits") });
      busy += performance.now() - start;
      for (const task of tasks) {
        if (LOOPS[task.method]) { loops.push(task); continue; }
        await breath(); if (run !== newest) return;
        const began = performance.now(); let message;
        try { message = { run, key: task.key, map: (task.random ? changed : here).map(task.method), done: true }; }
        catch (error) { message = { run, key: task.key, refused: error.message, done: true }; }
        busy += performance.now() - began; scope.postMessage(message);
      }
      const firstLook = busy, begun = loops.map(task => ({ task, loop: LOOPS[task.method](net, x, chosen, task), pass: 0 }));
      scope.postMessage({ run, milliseconds: firstLook });
      while (begun.length) for (const item of [...begun]) {
        await breath(); if (run !== newest) return;
        const { task, loop } = item; let step;
        try { step = loop.next(); } catch (error) { scope.postMessage({ run, key: task.key, refused: error.message, done: true }); begun.splice(begun.indexOf(item), 1); continue; }
        if (step.done) { begun.splice(begun.indexOf(item), 1); scope.postMessage({ run, key: task.key, pass: item.pass, done: true }); }
        else { item.pass += 1; scope.postMessage({ run, key: task.key, ...step.value, pass: item.pass }); }
      }
      scope.postMessage({ run, settled: true });
    };
  }
  return { Network, OPS, LOOPS, Outside, tensor, bilinear, bytesOf, unpack, serve, spearman, mersenne, hasWasm: wasm !== null, withoutWasm: () => { wasm = null; } };
}
if (typeof module !== "undefined") module.exports = liveEngine();
