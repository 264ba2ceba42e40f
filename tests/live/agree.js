// node agree.js live.js FOLDER [plain | double | unbroken]: errors of every graph on every input, and the operations that nothing noticed when broken.
const fs = require("fs"), engine = fs.realpathSync(process.argv[2]), folder = process.argv[3], mode = process.argv[4];
function inDouble(source) {  // the same engine on numbers of 64 bits
  const module = {}; new Function("module", source.replaceAll("Float32Array", "Float64Array").replaceAll("Math.fround(", "Number("))(module); return module.exports;
}
const live = mode === "double" ? inDouble(fs.readFileSync(engine, "utf8")) : require(engine), withoutWasm = mode === "plain" || mode === "double";
if (withoutWasm) live.withoutWasm();
const floats = name => { const b = fs.readFileSync(`${folder}/${name}`); return new (mode === "double" ? Float64Array : Float32Array)(b.buffer.slice(b.byteOffset, b.byteOffset + b.length)); };
const { network, targets, kept, numbers, random } = JSON.parse(fs.readFileSync(`${folder}/cases.json`)), inputs = floats("inputs.bin");
const input = i => inputs.slice(i * numbers, (i + 1) * numbers);
const wants = Object.fromEntries(Object.keys(kept).map(name => [name, floats(`${name}.bin`)]));

const shares = {};  // of each map, by the sum of all differences
function errorOf(name, row, maps) {  // largest difference in units of the largest value; or why the graph was refused
  const n = wants[name].length / kept[name].length, want = wants[name].subarray(row * n, (row + 1) * n);
  let map; try { map = maps.map(name); } catch (error) { return error.message; }
  let error = 0, top = 0, off = 0, mass = 0;
  want.forEach((w, k) => { const d = Math.abs(w - map[k]), a = Math.abs(w); error = Math.max(error, d); top = Math.max(top, a); off += d; mass += a; });
  (shares[name] ??= [])[row] = off / (mass || 1);
  return error / (top || 1);
}
const made = () => random ? new live.Network(network).randomised(...random) : new live.Network(network);
const net = made(), found = Object.fromEntries(Object.keys(kept).map(name => [name, []]));
targets.forEach((target, i) => {  // as in the page, the maps of an input share what they have in common
  const maps = net.at(input(i), target);
  for (const name in kept) { const row = kept[name].indexOf(i); if (row >= 0) found[name][row] = errorOf(name, row, maps); }
});

// Negative controls: an operation that is a little wrong must be noticed; one that only checks read, when it gives NaN.
const slightly = t => ({ s: t.s, d: t.d.every(v => v === 0 || v === 1) ? t.d.map(v => 1 - v) : t.d.map(v => v * 1.001 + 0.001) });
const nan = t => ({ s: t.s, d: t.d.map(() => NaN) });
function noticed(op, wrong) {
  const right = live.OPS[op];
  live.OPS[op] = (...args) => { const out = right(...args); return Array.isArray(out) ? out.map(wrong) : wrong(out); };
  const mutant = made(), names = Object.keys(kept).filter(name => mutant.plan(name).some(i => mutant.steps[i][0].split(".")[0] === op));
  const seen = names.some(name => kept[name].slice(0, 3).some((i, row) => !(errorOf(name, row, mutant.at(input(i), targets[i])) <= 1e-5)));
  live.OPS[op] = right;
  return seen;
}
const used = [...new Set(net.steps.map(([op]) => op.split(".")[0]))].filter(op => live.OPS[op]);
const unnoticed = mode ? [] : used.filter(op => !noticed(op, slightly) && !noticed(op, nan));
// Processor time of all maps of one input, the least of five.
const input0 = input(0), times = [];
for (let k = 0; k < 8 && !mode; k++) {
  const start = process.cpuUsage(), values = net.at(input0, targets[0]);
  for (const name of Object.keys(kept)) try { values.map(name); } catch { /* refused */ }
  const { user, system } = process.cpuUsage(start); times.push((user + system) / 1000);
}
console.log(JSON.stringify({ milliseconds: Math.min(...times.slice(3)), found, shares, unnoticed, operations: Object.keys(live.OPS), wasm: live.hasWasm }));
