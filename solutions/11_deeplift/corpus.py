"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "saturated", "elementwise"]
EMPTY = {
    "1a": ("relu_by_hand()", "[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]"),
    "1b": ("contributions_by_hand()", "[[0.5, 0.6], [0.7, 0.8]]"),
    "2": ("multiplier(layer, z, z0)", "z"),
    "3": ("deeplift(model, x, target, baselines)", "x"),
    "4a": ("shortfall(contributions, model, x, target, baselines)", "contributions.flatten(1).sum(1)"),
    "4b": ("one_input(t, t0)", "torch.stack([t, t])"),
    "5": ("share_maximum(a, b, a0, b0)", "torch.stack([a, b])"),
}

MULTIPLIER_MASKED = """
def multiplier(layer, z, z0):
    with torch.no_grad():
        change = z - z0
        far = change.abs() > 1e-4
        m = (layer(z) - layer(z0)) / torch.where(far, change, torch.ones_like(change))
    leaf = (0.5 * z + 0.5 * z0).detach().requires_grad_(True)
    layer(leaf).backward(torch.ones_like(leaf))
    return torch.where(far, m, leaf.grad)
"""
MULTIPLIER_FILL = """
def multiplier(layer, z, z0):
    leaf = z.detach().clone().requires_grad_()
    m = torch.autograd.grad(layer(leaf), leaf, torch.ones_like(leaf))[0]
    far = torch.abs(z - z0) > 1e-4
    m[far] = ((layer(z) - layer(z0)) / (z - z0)).detach()[far]
    return m
"""
MULTIPLIER_VJP = """
from torch.func import vjp
def multiplier(layer, z, z0):
    before, now = z0.detach(), z.detach()
    (slope,) = vjp(layer, (before + now) / 2)[1](torch.ones_like(now))
    quotient = (layer(now) - layer(before)) / (now - before)
    close = (now - before).abs().le(1e-4)
    return torch.nan_to_num(quotient).masked_fill(close, 0) + slope * close
"""
DEEPLIFT_ONE_BATCH = """
def deeplift(model, x, target, baselines):
    n, k = len(x), len(baselines)
    a = x.detach().repeat_interleave(k, 0)
    a0 = baselines.detach().repeat(n, *[1] * (x.dim() - 1))
    difference, steps = a - a0, []
    for layer in model:
        steps.append((layer, a, a0))
        a, a0 = layer(a).detach(), layer(a0).detach()
    signal = torch.nn.functional.one_hot(target.repeat_interleave(k), a.shape[1]).to(a)
    for layer, a, a0 in steps[::-1]:
        if isinstance(layer, ELEMENTWISE):
            signal = signal * multiplier(layer, a, a0)
        else:
            leaf = a.requires_grad_()
            signal = torch.autograd.grad(layer(leaf), leaf, signal)[0]
    return (difference * signal).detach().unflatten(0, (n, k)).mean(1)
"""
DEEPLIFT_RECURSIVE = """
def back(layers, a, a0, target):
    if not layers:
        return torch.zeros_like(a).scatter(1, target[:, None], 1)
    layer = layers[0]
    above = back(layers[1:], layer(a).detach(), layer(a0).detach(), target)
    if type(layer) in ELEMENTWISE:
        return above * multiplier(layer, a, a0)
    return torch.func.vjp(layer, a)[1](above)[0].detach()

def deeplift(model, x, target, baselines):
    maps = [(x - one) * back(list(model), x.detach(), one.expand_as(x), target) for one in baselines]
    return (sum(maps) / len(maps)).detach()
"""
DEEPLIFT_FUNCTION = """
class Rescale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, m, layer):
        ctx.save_for_backward(m)
        return layer(a)

    @staticmethod
    def backward(ctx, signal):
        return signal * ctx.saved_tensors[0], None, None

def deeplift(model, x, target, baselines):
    result = 0
    for k in range(len(baselines)):
        start = torch.stack([baselines[k]] * len(x))
        leaf = x.detach().clone().requires_grad_()
        a, a0 = leaf, start
        for layer in model:
            if isinstance(layer, ELEMENTWISE):
                a, a0 = Rescale.apply(a, multiplier(layer, a.detach(), a0), layer), layer(a0)
            else:
                a, a0 = layer(a), layer(a0).detach()
        (m,) = torch.autograd.grad(a.gather(1, target.view(-1, 1)).sum(), leaf)
        result = result + (leaf.detach() - start) * m / len(baselines)
    return result
"""
RIGHT = [
    ("1a", "tuples", "def relu_by_hand(): return ((1, 0, 3 / 4, 1 / 2), (1, 0, 1, 0))"),
    ("1a", "formula", "def relu_by_hand():\n    pairs = [(1, 3), (-2, -1), (-1, 3), (2, -2)]\n"
           "    return [[(max(z, 0) - max(o, 0)) / (z - o) for o, z in pairs], [float(z > 0) for _, z in pairs]]"),
    ("1a", "torch", "def relu_by_hand():\n    o, z = torch.tensor([1.0, -2, -1, 2]), torch.tensor([3.0, -1, 3, -2])\n"
           "    return [((z.relu() - o.relu()) / (z - o)).tolist(), (z > 0).float().tolist()]"),
    ("1b", "tuples", "def contributions_by_hand(): return ((1, 2), (0, 0))"),
    ("1b", "paths", "def contributions_by_hand():\n    m = 6 / 6 - 3 / 6\n    return [[2 * 1 * m, 1 * 4 * m], [0, 0]]"),
    ("1b", "autograd", "def contributions_by_hand():\n    x = torch.tensor([2.0, 1.0], requires_grad=True)\n"
           "    g, = torch.autograd.grad(saturated(x), x)\n    parts = torch.tensor([2.0, 4.0])\n"
           "    return [(parts / 6 * saturated(x).item()).tolist(), (x * g).tolist()]"),
    ("2", "masked", MULTIPLIER_MASKED),
    ("2", "filled in", MULTIPLIER_FILL),
    ("2", "function transform", MULTIPLIER_VJP),
    ("3", "one batch", DEEPLIFT_ONE_BATCH),
    ("3", "recursive", DEEPLIFT_RECURSIVE),
    ("3", "own function", DEEPLIFT_FUNCTION),
    ("4a", "loop", "def shortfall(contributions, model, x, target, baselines):\n    with torch.no_grad():\n        rows = []\n"
           "        for r, row, c in zip(contributions, x, target.tolist()):\n            rise = model(row[None])[0, c] - "
           "model(baselines)[:, c].mean()\n            rows.append(r.sum() - rise)\n        return torch.stack(rows)"),
    ("4a", "one-hot", "def shortfall(contributions, model, x, target, baselines):\n    rise = (model(x) - "
           "model(baselines).mean(0)).detach()\n    pick = torch.nn.functional.one_hot(target, rise.shape[1])\n"
           "    return contributions.reshape(len(x), -1).sum(-1) - (rise * pick).sum(1)"),
    ("4a", "index", "@torch.no_grad()\ndef shortfall(contributions, model, x, target, baselines):\n"
           "    rise = model(x) - model(baselines).mean(0, keepdim=True)\n"
           "    return torch.einsum('n...->n', contributions) - rise[torch.arange(len(x)), target]"),
    ("4b", "ReLUs", "def one_input(t, t0):\n    f = lambda v: torch.relu(v) - torch.relu(v - 1)\n"
           "    slope = (t > 0).to(t.dtype) - (t > 1).to(t.dtype)\n    return torch.stack([(t - t0) * slope, f(t) - "
           "f(torch.full_like(t, t0))])"),
    ("4b", "where", "def one_input(t, t0):\n    gradient = torch.where((0 < t) * (t < 1), t - t0, 0.0)\n"
           "    start = 0 if t0 < 0 else 1 if t0 > 1 else t0\n    return torch.stack((gradient, torch.clip(t, 0, 1) - start))"),
    ("4b", "autograd", "def one_input(t, t0):\n    v = t.detach().clone().requires_grad_()\n"
           "    f = v.relu() - (v - 1).relu()\n    (g,) = torch.autograd.grad(f.sum(), v)\n"
           "    return torch.stack([(t - t0) * g, f.detach() - max(t0, 0) + max(t0 - 1, 0)])"),
    ("5", "ReLU", "def share_maximum(a, b, a0, b0):\n    now, before = a - b, a0 - b0\n    same = now == before\n"
          "    m = (now.relu() - before.relu()) / torch.where(same, 1, now - before)\n"
          "    m = torch.where(same, 0.5 * (now > 0) + 0.5 * (now >= 0), m)\n"
          "    return torch.stack([m * (a - a0), (b - b0) * (1 - m)])"),
    ("5", "the other way round", "def share_maximum(a, b, a0, b0):\n    d, d0 = b - a, b0 - a0\n"
          "    m = (torch.maximum(d, 0 * d) - torch.maximum(d0, 0 * d0)) / (d - d0)\n"
          "    m[d == d0] = ((d.sign() + 1) / 2)[d == d0]\n    to_a, to_b = (1 - m) * (a - a0), m * (b - b0)\n"
          "    return torch.stack([to_a, to_b])"),
    ("5", "heaviside", "def share_maximum(a, b, a0, b0):\n    d, d0 = a - b, a0 - b0\n"
          "    rise = (torch.maximum(a, b) - b) - (torch.maximum(a0, b0) - b0)\n    m = rise / (d - d0)\n"
          "    m = m.where(d != d0, torch.heaviside(d, torch.full_like(d[..., :1], 0.5)))\n"
          "    return torch.stack((m * (a - a0), (b - b0) - m * (b - b0)), dim=0)"),
]  # fmt: skip

MULTIPLIERS, DERIVATIVES = "[1.0, 0.0, 0.75, 0.5]", "[1.0, 0.0, 1.0, 0.0]"
CHOICE = "torch.where(near, derivative, (layer(z) - layer(z0)) / (z - z0))"
ALL = "easy shape general batch side effects device"
TOO = "easy shape general side effects device"
SHIFT = "t.clamp(0, 1) - min(max(t0, 0.0), 1.0)"
WRONG = [
    ("1a", "derivatives twice", MULTIPLIERS, DERIVATIVES, "q1a", "z from -1.0 to 3.0", "easy", "number for pair[2]"),
    ("1a", "mean of the derivatives", MULTIPLIERS, "[1.0, 0.0, 0.5, 0.5]", "q1a", "z from -1.0 to 3.0", "easy", "pair[2]."),
    ("1a", "sign of the change", MULTIPLIERS, "[1.0, 0.0, 0.75, -0.5]", "q1a", "z from 2.0 to -2.0", "easy", "pair[3]."),
    ("1a", "changes", MULTIPLIERS, "[2.0, 0.0, 3.0, -2.0]", "q1a", "With yours it is 4", "easy", "pair[0]"),
    ("1a", "multipliers twice", DERIVATIVES, MULTIPLIERS, "q1a", "Is the ReLU open?", "general", "Wrong: your number for pair[2]; your number for pair[3]."),
    ("1a", "derivative at the baseline", DERIVATIVES, "[1.0, 0.0, 0.0, 1.0]", "q1a", "z = 3.0", "general", "pair[2]"),
    ("1a", "one list", f"return [\n        {MULTIPLIERS},", "return [", "q1a", "Two lists of four numbers", "easy general",
     "must have shape (2, 4)"),
    ("1a", "multipliers alone", "return [", f"return {MULTIPLIERS} or [", "q1a", "Two lists of four numbers", "easy general",
     "must have shape (2, 4)"),
    ("1b", "second ReLU left out", "[1.0, 2.0]", "[2.0, 4.0]", "q1b", "yours add up to 6", "easy general", "contribution of x[0]"),
    ("1b", "equal parts", "[1.0, 2.0]", "[1.5, 1.5]", "q1b", "which part of its change is whose?", "easy general", "of x[1]."),
    ("1b", "by the weights", "[1.0, 2.0]", "[0.6, 2.4]", "q1b", "which part of its change", "easy general", "contribution of x[0]"),
    ("1b", "multipliers", "[1.0, 2.0]", "[0.5, 2.0]", "q1b", "yours add up to 2.5", "easy general", "Wrong: your contribution of x[0]."),
    ("1b", "gradient of one ReLU", "[0.0, 0.0]", "[2.0, 4.0]", "q1b", "slope of f at x", "general", "contribution of x[0]"),
    ("1b", "the same twice", "[0.0, 0.0]", "[1.0, 2.0]", "q1b", "slope of f at x", "general", "contribution of x[1]"),
    ("2", "derivative at z", CHOICE, "torch.autograd.grad(layer(leaf := z.clone().requires_grad_()).sum(), leaf)[0]", "q2",
     "the open part of the way", "easy shape general side effects device", "largest difference"),
    ("2", "derivative in the middle", CHOICE, "derivative", "q2", "the open part of the way", TOO, "difference"),
    ("2", "quotient alone", CHOICE, "(layer(z) - layer(z0)) / (z - z0)", "q2", "the limit of 0/0", "general", "NaN"),
    ("2", "zero where equal", "near, derivative", "near, 0 * derivative", "q2", "the limit of 0/0", "general", "difference"),
    ("2", "only where equal", "<= 1e-4", "== 0", "q2", "rounding spoils the quotient", "general", "largest difference"),
    ("2", "epsilon in the denominator", CHOICE, "(layer(z) - layer(z0)) / (z - z0 + 1e-6)", "q2", "the limit of 0/0",
     "general", "largest difference"),
    ("2", "positive denominator", "/ (z - z0)", "/ (z - z0).abs()", "q2", "the open part of the way", TOO, "difference"),
    ("2", "the wrong way round", "/ (z - z0)", "/ (z0 - z)", "q2", "the open part of the way", TOO, "difference"),
    ("2", "for a ReLU only", "derivative, (layer(z) - layer(z0))", "derivative, (z.relu() - z0.relu())", "q2", "Tanh()",
     "general side effects device", "largest difference"),
    ("2", "on the graph", "z, z0 = z.detach(), z0.detach()", "z = z.detach().requires_grad_()", "q2", "must be detached", TOO,
     "must be detached"),
    ("2", "z in use", "z, z0 = z.detach(), z0.detach()\n    middle = ((z + z0) / 2).requires_grad_()",
     "middle = z.requires_grad_()", "q2", "must be detached", TOO, "must be detached"),
    ("3", "derivatives", "multiplier(layer, a, a0)", "multiplier(layer, a, a)", "q3a", "derivative at x",
     "general batch side effects device", "largest difference"),
    ("3", "derivatives at the baseline", "multiplier(layer, a, a0)", "multiplier(layer, a0, a0)", "q3a", "counts 0.3",
     "general batch side effects device", "largest difference"),
    ("3", "a sum", "total / len(baselines)", "total", "q3a", "a sum in place of a mean", ALL, "largest difference"),
    ("3", "mean baseline", "for baseline in baselines:", "for baseline in [baselines.mean(0)] * len(baselines):", "q3a",
     "three baselines", "general batch side effects device", "largest difference"),
    ("3", "last baseline only", "total += ", "total = len(baselines) * ", "q3a", "times x minus the mean baseline", ALL,
     "largest difference"),
    ("3", "multiplier of x", "(x.detach() - baseline) * signal", "x.detach() * signal", "q3a", "minus the mean baseline", ALL,
     "largest difference"),
    ("3", "multipliers only", "(x.detach() - baseline) * signal", "signal", "q3a", "minus the mean baseline", ALL, "difference"),
    ("3", "starts with the logit", "scatter(1, target[:, None], 1.0)", "scatter(1, target[:, None], a)", "q3a",
     "weights of the target", ALL, "largest difference"),
    ("3", "all classes", "torch.zeros_like(a).scatter(1, target[:, None], 1.0)", "torch.ones_like(a)", "q3a",
     "weights of the target", ALL, "largest difference"),
    ("3", "nonlinearities passed over", "signal = signal * multiplier(layer, a, a0)", "pass", "q3a", "counts 0.3",
     "general batch side effects device", "largest difference"),
    ("3", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q3b", "of its own target",
     "batch side effects device", "largest difference"),
    ("3", "row with its own baseline", "for baseline in baselines:", "for baseline in [baselines[: len(x)]] * len(baselines):",
     "q3a", "minus the mean baseline", ALL, "largest difference"),
    ("3", "own .grad", "(signal,) = torch.autograd.grad(layer(leaf), leaf, signal)",
     "layer(leaf).backward(signal); signal = leaf.grad", "q3b", "The .grad of the parameter", "side effects", "the .grad of the"),
    ("4a", "the wrong way round", "now - before)).detach()", "before - now)).detach()", "q4a", "so 1, -3 and -3 are missing",
     "easy general batch device", "largest difference"),
    ("4a", "without the baseline", "(now - before)", "now", "q4a", "so 1, -3 and -3 are missing",
     "easy general batch device", "largest difference"),
    ("4a", "first baseline only", "model(baselines)[:, target].mean(0)", "model(baselines)[0, target]", "q4a",
     "mean over two baselines", "general batch device", "largest difference"),
    ("4a", "at the mean baseline", "model(baselines)[:, target].mean(0)", "model(baselines.mean(0, keepdim=True))[0, target]",
     "q4a", "mean over two baselines", "general batch device", "largest difference"),
    ("4a", "largest logit", ".gather(1, target[:, None])[:, 0]", ".amax(1)", "q4a", "Contributions of 0",
     "easy general batch device", "largest difference"),
    ("4a", "sum over the batch", "contributions.flatten(1).sum(1)", "contributions.sum()", "q4a", "nothing is missing",
     "batch device", "largest difference"),
    ("4a", "on the graph", ".detach()", "", "q4a", "must be detached", "easy general batch device", "must be detached"),
    ("4b", "without the baseline", "(t - t0) * inside", "t * inside", "q4b", "Gradient times difference, t0 = 0.6", "general",
     "largest difference"),
    ("4b", "gradient alone", "(t - t0) * inside", "1.0 * inside", "q4b", "Gradient times difference, t0 = 0", "easy shape "
     "general device", "largest difference"),
    ("4b", "no ceiling", "(t > 0) & (t < 1)", "t > 0", "q4b", "Gradient times difference, t0 = 0", "easy shape general device",
     "largest difference"),
    ("4b", "f of t alone", SHIFT, "t.clamp(0, 1)", "q4b", "DeepLIFT, t0 = 0.6", "general", "largest difference"),
    ("4b", "f of the difference", SHIFT, "(t - t0).clamp(0, 1)", "q4b", "DeepLIFT, t0 = 0.6", "general", "largest difference"),
    ("4b", "baseline not clamped", SHIFT, "t.clamp(0, 1) - t0", "q4b", "DeepLIFT, t0 = -1.0", "general", "largest difference"),
    ("4b", "swapped", "return torch.stack([(t - t0) * inside, ", "return torch.stack([t * 0, (t - t0) * inside, ", "q4b",
     "must have shape (2, 2, 3)", "easy shape general device", "must have shape (2, 5)"),
    ("4b", "made on the CPU", "t.clamp(0, 1) -", "t.clamp(0, 1) + torch.zeros(t.shape) -", "q4b", "another device", "device", "follow x"),
    ("5", "last winner", "(d.clamp(min=0) - d0.clamp(min=0)) / (d - d0)", "tie", "q5", "sees the last winner alone",
     "general device", "largest difference"),
    ("5", "first winner", "(d.clamp(min=0) - d0.clamp(min=0)) / (d - d0)", "(1 + torch.sign(d0)) / 2", "q5", "m = 1/2",
     "general device", "largest difference"),
    ("5", "zero over zero", "torch.where(d == d0, tie, (d.clamp(min=0) - d0.clamp(min=0)) / (d - d0))",
     "(d.clamp(min=0) - d0.clamp(min=0)) / (d - d0)", "q5", "from (0, 0) to (2, 2)", "general", "NaN"),
    ("5", "always a half", "tie = (1 + torch.sign(d)) / 2", "tie = torch.full_like(d, 0.5)", "q5", "0/0 means m = 1", "general",
     "largest difference"),
    ("5", "a wins a tie", "tie = (1 + torch.sign(d)) / 2", "tie = (d >= 0).to(d)", "q5", "A tie before and after", "general",
     "largest difference"),
    ("5", "half each", "m = torch.where(d == d0, tie, (d.clamp(min=0) - d0.clamp(min=0)) / (d - d0))", "m = 0.5 + 0 * d", "q5",
     "a is the maximum before and after", "easy shape general device", "largest difference"),
    ("5", "exchanged", "[m * (a - a0), (1 - m) * (b - b0)]", "[(1 - m) * (a - a0), m * (b - b0)]", "q5",
     "a is the maximum before and after", "easy shape general device", "largest difference"),
    ("5", "values for changes", "[m * (a - a0), (1 - m) * (b - b0)]", "[m * a, (1 - m) * b]", "q5", "a is the maximum",
     "easy shape general device", "largest difference"),
    ("5", "sum only", "torch.stack([m * (a - a0), (1 - m) * (b - b0)])", "m * (a - a0) + (1 - m) * (b - b0)", "q5", "must have shape (2, 1)",
     "easy shape general device", "must have shape (2, 6)"),
]  # fmt: skip
