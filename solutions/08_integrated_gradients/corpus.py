"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "functions-a-b"]
EMPTY = {
    "1a": ("interior_by_hand()", "[[1, 1]] * 3"),
    "1b": ("integrated_by_hand()", "[[1, 1]] * 3"),
    "2": ("interior_gradients(model, x, target, baseline, alphas)", "x"),
    "3": ("integrated_gradients(model, x, target, baseline, steps=32)", "x"),
    "4a": ("completeness_gap(model, x, target, baseline, attribution)", "attribution.flatten(1).sum(1)"),
    "4b": ("enough_steps(model, x, target, baseline, tolerance)", "[3] * len(x)"),
    "5": ("detour(model, x, target, baseline, via, steps=32)", "x"),
}

BY_AUTOGRAD = """
def interior_by_hand():
    found = []
    for alpha in (1.0, 0.5, 0.25):
        x = torch.tensor([alpha, alpha], requires_grad=True)
        found.append(torch.autograd.grad(function_a(x), x)[0].tolist())
    return found
"""
BY_SUM = """
def integrated_by_hand():
    maps = []
    for f, start, end in ((function_a, [0, 0], [1, 1]), (function_b, [0, 0], [2, 3]), (function_b, [2, 0], [2, 3])):
        start, end = torch.tensor(start, dtype=torch.float64), torch.tensor(end, dtype=torch.float64)
        points = (start + (torch.arange(3000)[:, None] + 0.5) / 3000 * (end - start)).requires_grad_()
        maps.append((torch.autograd.grad(f(points).sum(), points)[0].mean(0) * (end - start)).tolist())
    return maps
"""
ONE_BATCH = """
def interior_gradients(model, x, target, baseline, alphas):
    scale = torch.tensor(alphas, dtype=x.dtype, device=x.device).view(-1, *[1] * x.dim())
    points = ((1 - scale) * baseline + scale * x).detach()
    batch = points.flatten(0, 1).requires_grad_(True)
    rows = torch.arange(len(batch), device=x.device)
    logits = model(batch)[rows, target.repeat(len(alphas))]
    return torch.autograd.grad(logits.sum(), batch)[0].view_as(points)
"""
BY_FUNC = """
from torch.func import grad, vmap

def interior_gradients(model, x, target, baseline, alphas):
    def logit(row, c):
        return model(row[None]).gather(1, c.view(1, 1)).sum()

    start = baseline.expand_as(x)
    return torch.stack([vmap(grad(logit))(torch.lerp(start, x, a), target) for a in alphas]).detach()
"""
CHAIN_RULE = """
def interior_gradients(model, x, target, baseline, alphas):
    maps = torch.zeros(len(alphas), *x.shape, dtype=x.dtype, device=x.device)
    for k, alpha in enumerate(alphas):
        shift = torch.zeros_like(x).requires_grad_()
        out = model(baseline + alpha * (x - baseline) + shift)
        start = nn.functional.one_hot(target, out.shape[1]).to(out)
        maps[k] = torch.autograd.grad(out, shift, start)[0]
    return maps
"""
RUNNING_SUM = """
def integrated_gradients(model, x, target, baseline, steps=32):
    total = torch.zeros_like(x)
    for k in range(1, steps + 1):
        total += interior_gradients(model, x, target, baseline, [(2 * k - 1) / (2 * steps)])[0]
    return total / steps * (x - baseline)
"""
ON_ITS_OWN = """
def integrated_gradients(model, x, target, baseline, steps=32):
    delta, result = (x - baseline).detach(), 0
    for k in range(steps):
        point = (x.detach() - delta * (k + 0.5) / steps).requires_grad_()
        picked = model(point)[torch.arange(len(x), device=x.device), target]
        (gradient,) = torch.autograd.grad(picked, point, torch.ones_like(picked))
        result = result + gradient * delta / steps
    return result
"""
BY_LINSPACE = """
def integrated_gradients(model, x, target, baseline, steps=32):
    ends = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    middles = ((ends[1:] + ends[:-1]) / 2).tolist()
    return torch.einsum("k...->...", interior_gradients(model, x, target, baseline, middles)) * (x - baseline) / steps
"""
GAP_TWO_LOGITS = """
def completeness_gap(model, x, target, baseline, attribution):
    start = torch.zeros_like(x) + baseline
    rows = torch.arange(len(x), device=x.device)
    rise = (model(x)[rows, target] - model(start)[rows, target]).detach()
    return torch.abs(attribution.sum(tuple(range(1, x.dim()))) / rise - 1)
"""
GAP_BY_ROWS = """
@torch.no_grad()
def completeness_gap(model, x, target, baseline, attribution):
    gaps = []
    for row, start, c, part in zip(x, baseline.broadcast_to(x.shape), target.tolist(), attribution):
        rise = model(row[None])[0, c] - model(start[None])[0, c]
        gaps.append(abs(part.sum() - rise) / abs(rise))
    return torch.stack(gaps)
"""
GAP_ONE_HOT = """
def completeness_gap(model, x, target, baseline, attribution):
    both = torch.cat([x, baseline.expand(x.shape)])
    logits = model(both).detach()
    picked = (logits * nn.functional.one_hot(target, logits.shape[1]).repeat(2, 1).to(logits)).sum(1)
    rise = picked[: len(x)] - picked[len(x) :]
    return ((rise - attribution.reshape(len(x), -1).sum(1)) / rise).abs()
"""
STEPS_ROW_BY_ROW = """
def enough_steps(model, x, target, baseline, tolerance):
    def of(row, c, start):
        steps = 1
        while completeness_gap(model, row, c, start, integrated_gradients(model, row, c, start, steps)) > tolerance:
            steps *= 2
        return steps

    return [of(x[i : i + 1], target[i : i + 1], baseline.expand_as(x)[i : i + 1]) for i in range(len(x))]
"""
STEPS_TABLE = """
def enough_steps(model, x, target, baseline, tolerance):
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    maps = [integrated_gradients(model, x, target, baseline, m) for m in counts]
    small = torch.stack([completeness_gap(model, x, target, baseline, r) <= tolerance for r in maps])
    return [counts[k] for k in small.int().argmax(0).tolist()]
"""
STEPS_BACKWARDS = """
def enough_steps(model, x, target, baseline, tolerance):
    enough = torch.zeros(len(x), dtype=torch.long)
    for k in range(8, -1, -1):
        maps = integrated_gradients(model, x, target, baseline, 2**k)
        enough = torch.where(completeness_gap(model, x, target, baseline, maps) <= tolerance, 2**k, enough)
    return tuple(enough.tolist())
"""
DETOUR_LOOP = """
def detour(model, x, target, baseline, via, steps=32):
    corners = [baseline, via, x]
    return sum(integrated_gradients(model, b, target, a, steps) for a, b in zip(corners, corners[1:]))
"""
DETOUR_FROM_THE_GRADIENTS = """
def detour(model, x, target, baseline, via, steps=32):
    middles = [(k + 0.5) / steps for k in range(steps)]
    to_via = interior_gradients(model, via, target, baseline, middles).sum(0) * (via - baseline)
    to_x = interior_gradients(model, x, target, via, middles).sum(0) * (x - via)
    return (to_via + to_x) / steps
"""
DETOUR_ONE_BATCH = """
def detour(model, x, target, baseline, via, steps=32):
    starts, ends = torch.cat([baseline.expand_as(x), via]), torch.cat([via, x])
    first, second = integrated_gradients(model, ends, target.repeat(2), starts, steps).split(len(x))
    return first + second
"""
RIGHT = [
    ("1a", "tuples", "def interior_by_hand(): return ((0, 0), (0, 0), (2, 1))"),
    ("1a", "autograd", BY_AUTOGRAD),
    ("1a", "mask", "def interior_by_hand(): return [[2 * (3 * a < 1), 1 * (3 * a < 1)] for a in (1, 0.5, 0.25)]"),
    ("1b", "rounded", "def integrated_by_hand(): return [(0.667, 0.333), (6, 12), (0, 18)]"),
    ("1b", "a sum", BY_SUM),
    ("1b", "formula", "def integrated_by_hand():\n    a, b = 2.0, 3.0\n"
           "    return [[2 / 3, 1 / 3], [a * b**2 / 3, 2 * a * b**2 / 3], [0.0, a * b**2]]"),
    ("2", "one batch", ONE_BATCH),
    ("2", "torch.func", BY_FUNC),
    ("2", "with respect to a shift", CHAIN_RULE),
    ("3", "running sum", RUNNING_SUM),
    ("3", "on its own", ON_ITS_OWN),
    ("3", "linspace", BY_LINSPACE),
    ("4a", "two logits", GAP_TWO_LOGITS),
    ("4a", "row by row", GAP_BY_ROWS),
    ("4a", "one-hot", GAP_ONE_HOT),
    ("4b", "row by row", STEPS_ROW_BY_ROW),
    ("4b", "table", STEPS_TABLE),
    ("4b", "backwards", STEPS_BACKWARDS),
    ("5", "loop", DETOUR_LOOP),
    ("5", "from the gradients", DETOUR_FROM_THE_GRADIENTS),
    ("5", "one batch", DETOUR_ONE_BATCH),
]  # fmt: skip

POINT = "point = (baseline + alpha * (x - baseline)).detach().requires_grad_()"
OF_X = "x = x.detach().requires_grad_(); point = baseline + alpha * (x - baseline)"
GRADIENT = "torch.autograd.grad(score, point)[0]"
BACKWARD = "(score.backward(), point.grad)[1]"
MIDDLES = "(k + 0.5) / steps for k in range(steps)"
RISE = "(model(x) - model(baseline.expand_as(x)))"
FOUND = "(attribution.flatten(1).sum(1) - rise).abs() / rise.abs()"
SECOND = "first + integrated_gradients(model, x, target, via, steps)"
MAP = "(x - baseline) * interior_gradients(model, x, target, baseline, middles).mean(0)"
ALL = "easy shape general batch side effects device"
WRONG = [
    ("1a", "slope on the plateau", "[0.0, 0.0],  # 2", "[2.0, 1.0],  # 2", "q1a", "At x = (1.0, 1.0)", "easy", "row 1, entry 1"),
    ("1a", "on the plateau too late", "[0.0, 0.0],  # 1", "[2.0, 1.0],  # 1", "q1a", "x = (0.5, 0.5)", "easy", "row 2"),
    ("1a", "factor alpha", "[2.0, 1.0]", "[0.5, 0.25]", "q1a", "x[0]", "easy general", "row 3, entry 1; row 3, entry 2"),
    ("1a", "gradient x input", "[2.0, 1.0]", "[0.5, 1.0]", "q1a", "x[0]", "easy general", "row 3, entry 1."),
    ("1a", "still flat", "[2.0, 1.0]", "[0.0, 0.0]", "q1a", "It does not", "easy general", "row 3"),
    ("1a", "the score", "[2.0, 1.0]", "0.75", "q1a", "one number per input", "easy general", ""),
    ("1a", "one gradient", "return [", "return [[2.0, 1.0]] or [", "q1a", "three gradients", "easy general", "shape (3, 2)"),
    ("1b", "half and half", "[2 / 3, 1 / 3]", "[0.5, 0.5]", "q1b", "sum is right, but x_1", "easy", "row 1, entry 1"),
    ("1b", "no plateau", "[2 / 3, 1 / 3]", "[2.0, 1.0]", "q1b", "Map 1: completeness", "easy", "row 1"),
    ("1b", "gradient x input", "[6.0, 12.0]", "[18.0, 36.0]", "q1b", "Map 2: completeness", "general", "row 2"),
    ("1b", "equal shares", "[6.0, 12.0]", "[9.0, 9.0]", "q1b", "Map 2: the sum is right", "general", "row 2, entry 1"),
    ("1b", "alpha not squared", "[6.0, 12.0]", "[9.0, 18.0]", "q1b", "Map 2: completeness", "general", "row 2"),
    ("1b", "one baseline for both", "[0.0, 18.0]", "[6.0, 12.0]", "q1b", "Map 3: the sum is right, but x_1", "general", "row 3"),
    ("1b", "mean gradient", "[6.0, 12.0]", "[3.0, 4.0]", "q1b", "Map 2: completeness", "general", "row 2, entry 2"),
    ("1b", "no map", "return [", "return 18.0 or [", "q1b", "list of three maps", "easy general", "must be a list"),
    ("2", "derivative with respect to x", f"{POINT}\n        score = model(point).gather(1, target[:, None]).sum()\n"
     f"        gradients.append({GRADIENT})",
     f"{OF_X}\n        score = model(point).gather(1, target[:, None]).sum()\n"
     "        gradients.append(torch.autograd.grad(score, x)[0])",
     "q2a", "with respect to x in place of the point", ALL, "difference"),
    ("2", "other end", "baseline + alpha * (x - baseline)", "x + alpha * (baseline - x)", "q2a", "1 - alpha",
     "general batch side effects device", "difference"),
    ("2", "baseline zero", "baseline + alpha * (x - baseline)", "alpha * x", "q2a", "forgotten baseline",
     "general batch side effects device", "difference"),
    ("2", "baseline added", "alpha * (x - baseline)", "alpha * x", "q2a", "they must be (0, 6)",
     "general batch side effects device", "difference"),
    ("2", "probability", "model(point)", "model(point).softmax(1)", "q2a", "probabilities", ALL, "difference"),
    ("2", "mean over the batch", ".sum()", ".mean()", "q2a", "a mean over the batch", "batch side effects device", "difference"),
    ("2", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q2a", "row's target",
     "batch side effects device", "difference"),
    ("2", "times the difference", GRADIENT, f"{GRADIENT} * (x - baseline)", "q2a", "weights of that row's", ALL, "difference"),
    ("2", "magnitude", GRADIENT, f"{GRADIENT}.abs()", "q2a", "weights of that row's", ALL, "difference"),
    ("2", "rows first", "torch.stack(gradients)", "torch.stack(gradients, 1)", "q2a", "must have shape (2, 3, 4)", ALL,
     "must have shape"),
    ("2", "summed", "torch.stack(gradients)", "torch.stack(gradients).sum(0)", "q2a", "must have shape", ALL, "must have shape"),
    ("2", "on the graph", GRADIENT, "torch.autograd.grad(score, point, create_graph=True)[0]", "q2a", "detached", ALL,
     "detached"),
    ("2", "single precision", GRADIENT, f"{GRADIENT}.float()", "q2b", "dtype torch.float64", "shape general side effects",
     "float64"),
    ("2", "parameters' .grad", GRADIENT, BACKWARD, "q2b", "The .grad of the parameter", "side effects", "the .grad of the"),
    ("2", "moves x", "    gradients = []", "    x *= 1 + 1e-9; gradients = []", "q2b",
     "values of the input x changed", "side effects", "the values of argument"),
    ("2", "to the CPU", GRADIENT, f"{GRADIENT}.cpu()", "q2a", "another device", "device", "make it follow x"),
    ("3", "no difference", "(x - baseline) * ", "", "q3a", "missing factor", ALL, "difference"),
    ("3", "times x", "(x - baseline) * ", "x * ", "q3a", "weights of the target", ALL, "difference"),
    ("3", "sum", ".mean(0)", ".sum(0)", "q3a", "a sum in place of a mean", ALL, "difference"),
    ("3", "start of each piece", MIDDLES, "k / steps for k in range(steps)", "q3a", "start of each piece",
     ALL, "difference"),
    ("3", "end of each piece", MIDDLES, "(k + 1) / steps for k in range(steps)", "q3a", "to its end",
     ALL, "difference"),
    ("3", "trapezoid", f"[{MIDDLES}]", "torch.linspace(0, 1, steps + 1).tolist()", "q3b", "midpoint rule",
     "general batch side effects device", "difference"),
    ("3", "one piece short", "in range(steps)", "in range(steps - 1 or 1)", "q3a", "2 step(s)",
     "general batch side effects device", "difference"),
    ("3", "fixed steps", "middles =", "steps = 50; middles =", "q3b", "1 step(s)", "general batch side effects device", "difference"),
    ("3", "Gauss-Legendre", f"middles = [{MIDDLES}]\n    return {MAP}",
     "import numpy as np\n    nodes, weights = np.polynomial.legendre.leggauss(steps)\n"
     "    parts = interior_gradients(model, x, target, baseline, ((nodes + 1) / 2).tolist())\n"
     "    return (x - baseline) * torch.einsum('k,k...->...', torch.tensor(weights / 2).to(x), parts)",
     "q3b", "2 step(s)", "general batch side effects device", "difference"),
    ("3", "magnitude", f"return {MAP}", f"return ({MAP}).abs()", "q3a", "weights of the target", ALL, "difference"),
    ("3", "normalised", f"return {MAP}", f"return ({MAP}) / ({MAP}).sum()", "q3a", "difference", ALL, "difference"),
    ("4a", "signed", FOUND, "(rise - attribution.flatten(1).sum(1)) / rise", "q4a", "1/4 and 1/3", "", ""),
    ("4a", "absolute gap", " / rise.abs()", "", "q4a", "missing magnitude or division", "easy general batch device", "difference"),
    ("4a", "relative to the sum", "rise.abs()", "attribution.flatten(1).sum(1).abs()", "q4a", "1/4 and 1/3",
     "easy general batch device", "difference"),
    ("4a", "baseline not expanded", "baseline.expand_as(x)", "baseline", "q4a", "as large as x", "general batch device",
     "RuntimeError"),
    ("4a", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q4a", "other row's target",
     "batch device", "difference"),
    ("4a", "rise from zero", RISE, "model(x)", "q4a", "as large as x", "general batch device", "difference"),
    ("4a", "probabilities", RISE, "(model(x).softmax(1) - model(baseline.expand_as(x)).softmax(1))", "q4a", "1/4 and 1/3",
     "easy general batch device", ""),
    ("4a", "one number for the batch", f"return {FOUND}", f"return ({FOUND}).mean()", "q4a", "must have shape (2,)",
     "easy general batch device", "must have shape"),
    ("4a", "sum of magnitudes", "attribution.flatten", "attribution.abs().flatten", "q4a", "1/4 and 1/3",
     "easy general batch device", "difference"),
    ("4a", "on the graph", ".detach()", "", "q4a", "A network with weights of its own.", "easy general batch device", "detached"),
    ("4b", "the last one", "enough[i] == 0 and ", "", "q4b", "1 step is enough", "batch", "difference"),
    ("4b", "strictest row for all", "return enough", "return [max(enough)] * len(x)", "q4b", "1 step is enough", "batch", "diff"),
    ("4b", "the first row for all", "return enough", "return enough[:1] * len(x)", "q4b", "that is too much", "batch", "diff"),
    ("4b", "one more doubling", "= steps", "= 2 * steps", "q4b", "1 step is enough", "easy general batch", "difference"),
    ("4b", "the exponent", "= steps", "= steps.bit_length()", "q4b", "that is too much", "easy general batch", "difference"),
    ("4b", "every number", "(1, 2, 4, 8, 16, 32, 64, 128, 256)", "range(1, 257)", "q4b", "Yours says 6 steps", "easy general batch", ""),
    ("4b", "from 4 steps on", "(1, 2, 4,", "(4,", "q4b", "1 step is enough", "easy", "difference"),
    ("4b", "fixed tolerance", "gap <= tolerance", "gap <= 0.1", "q4b", "Yours says", "easy general batch", "difference"),
    ("4b", "one number", "return enough", "return max(enough)", "q4b", "a list of two numbers", "easy general batch",
     "must be a list"),
    ("5", "straight path", SECOND, "integrated_gradients(model, x, target, baseline, steps)", "q5", "the shares are not",
     "general batch device", "difference"),
    ("5", "second leg only", SECOND, "integrated_gradients(model, x, target, via, steps)", "q5", "sum of your map",
     "easy general batch device", "difference"),
    ("5", "first leg only", SECOND, "first", "q5", "sum of your map", "easy general batch device", "difference"),
    ("5", "mean of the legs", SECOND, f"({SECOND}) / 2", "q5", "sum of your map", "easy general batch device", "difference"),
    ("5", "second leg from the baseline", "x, target, via, steps", "x, target, baseline, steps", "q5", "the shares are not",
     "easy general batch device", "difference"),
    ("5", "backwards", "model, x, target, via, steps", "model, via, target, x, steps", "q5", "sum of your map",
     "easy general batch device", "difference"),
    ("5", "steps divided", "    first =", "    steps = (steps + 1) // 2\n    first =", "q5", "x_1^3 + x_2^3 via (1, 0), steps=2: with", "general batch device", "difference"),
    ("5", "default steps", "baseline, steps)", "baseline)", "q5", "x_1^3 + x_2^3 via (1, 0), steps=2: with", "general batch device", "difference"),
    ("5", "side by side", SECOND, "torch.cat([first, integrated_gradients(model, x, target, via, steps)])", "q5",
     "must have shape (1, 2)", "easy general batch device", "must have shape"),
]  # fmt: skip
