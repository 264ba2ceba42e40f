"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "unit", "small-network"]
EMPTY = {
    "1a": ("payments()", "[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]"),
    "1b": ("through_two_layers()", "[[2.0, 1.0], [2.0, 1.0]]"),
    "2a": ("epsilon_step(a, weight, bias, relevance, epsilon)", "a"),
    "2b": ("z_plus_step(a, weight, relevance)", "a"),
    "3": ("propagate(model, x, target, rules, epsilon=1e-6)", "x"),
    "4": ("kept_by_biases(model, x, target)", "x"),
    "5": ("composite(model, x, target, epsilon=1e-6)", "x"),
}

EPSILON_LOOP = """
def epsilon_step(a, weight, bias, relevance, epsilon):
    result = torch.zeros_like(a)
    for n in range(len(a)):
        for j in range(len(weight)):
            contributions = a[n] * weight[j]
            z = contributions.sum() + (0 if bias is None else bias[j])
            z = z + epsilon if z >= 0 else z - epsilon
            result[n] += contributions / z * relevance[n, j]
    return result
"""
EPSILON_CUBE = """
def epsilon_step(a, weight, bias, relevance, epsilon):
    contributions = a.unsqueeze(1) * weight.unsqueeze(0)
    z = contributions.sum(-1)
    if bias is not None:
        z = z + bias
    sign = torch.sign(z) + (z == 0).to(z.dtype)
    return torch.einsum("nji,nj->ni", contributions, relevance / (z + epsilon * sign))
"""
EPSILON_BACKWARD = """
def epsilon_step(a, weight, bias, relevance, epsilon):
    leaf = a.detach().clone().requires_grad_()
    z = torch.nn.functional.linear(leaf, weight, bias)
    share = relevance / (z + torch.where(z < 0, -epsilon, epsilon)).detach()
    return a * torch.autograd.grad(z, leaf, share)[0]
"""
Z_PLUS_FOUR_PARTS = """
def z_plus_step(a, weight, relevance):
    up, down, plus, minus = a.clamp(min=0), a.clamp(max=0), weight.clamp(min=0), weight.clamp(max=0)
    total = up @ plus.T + down @ minus.T
    share = torch.where(total == 0, torch.zeros_like(total), relevance / total)
    return up * (share @ plus) + down * (share @ minus)
"""
Z_PLUS_LOOP = """
def z_plus_step(a, weight, relevance):
    rows = []
    for row, held in zip(a, relevance):
        paid = 0 * row
        for w, r in zip(weight, held):
            counts = torch.relu(row * w)
            if counts.sum() > 0:
                paid = paid + counts / counts.sum() * r
        rows.append(paid)
    return torch.stack(rows)
"""
Z_PLUS_NAN = """
def z_plus_step(a, weight, relevance):
    counts = torch.einsum("ni,ji->nji", a, weight).clamp(min=0)
    shares = torch.nan_to_num(counts / counts.sum(-1, keepdim=True), nan=0.0)
    return torch.einsum("nji,nj->ni", shares, relevance)
"""
PROPAGATE_FLAT = """
def propagate(model, x, target, rules, epsilon=1e-6):
    dense = [layer for layer in model if isinstance(layer, nn.Linear)]
    values = [x.detach().flatten(1)]
    for layer in dense[:-1]:
        values.append(torch.relu(layer(values[-1])).detach())
    logits = dense[-1](values[-1]).detach()
    relevance = logits * torch.nn.functional.one_hot(target, logits.shape[1]).to(logits)
    for layer, a, rule in list(zip(dense, values, rules))[::-1]:
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        relevance = (
            epsilon_step(a, weight, bias, relevance, epsilon) if rule == "epsilon" else z_plus_step(a, weight, relevance)
        )
    return relevance.reshape(x.shape)
"""
PROPAGATE_RECURSIVE = """
def back(layers, a, target, rules, epsilon):
    if not layers:
        return torch.where(torch.arange(a.shape[1], device=a.device) == target[:, None], a, 0 * a)
    first, rest = layers[0], layers[1:]
    dense = isinstance(first, nn.Linear)
    above = back(rest, first(a), target, rules[1:] if dense else rules, epsilon)
    if not dense:
        return above.reshape(a.shape)
    if rules[0] == "z_plus":
        return z_plus_step(a, first.weight, above)
    return epsilon_step(a, first.weight, first.bias, above, epsilon)

@torch.no_grad()
def propagate(model, x, target, rules, epsilon=1e-6):
    return back(list(model), x, target, list(rules), epsilon)
"""
PROPAGATE_ROWS = """
def propagate(model, x, target, rules, epsilon=1e-6):
    maps = []
    for row, c in zip(x.split(1), target.tolist()):
        reads = [row]
        for layer in model.children():
            reads.append(layer(reads[-1]).detach())
        relevance = torch.zeros_like(reads[-1])
        relevance[0, c] = reads[-1][0, c]
        k = len(rules)
        for i in reversed(range(len(model))):
            if type(model[i]) is nn.Linear:
                k -= 1
                w, b = model[i].weight.data, model[i].bias
                step = {"epsilon": lambda: epsilon_step(reads[i], w, b if b is None else b.data, relevance, epsilon),
                        "z_plus": lambda: z_plus_step(reads[i], w, relevance)}[rules[k]]
                relevance = step()
        maps.append(relevance.view(row.shape))
    return torch.cat(maps)
"""
KEPT_BY_DIVISION = """
def kept_by_biases(model, x, target):
    with torch.no_grad():
        reads, a = [], x
        for layer in model:
            reads.append(a)
            a = layer(a)
        chosen = target[:, None]
        relevance, kept = torch.zeros_like(a).scatter(1, chosen, a.gather(1, chosen)), []
        for layer, a in list(zip(model, reads))[::-1]:
            if isinstance(layer, nn.Linear):
                z = layer(a)
                share = torch.where(relevance == 0, relevance, relevance / z)
                kept.append(0 * share[:, 0] if layer.bias is None else (share * layer.bias).sum(1))
                relevance = a * (share @ layer.weight)
        return torch.stack(kept[::-1], dim=1)
"""
KEPT_BY_SCALING = """
def kept_by_biases(model, x, target):
    scales, a = [], x.detach()
    for layer in model:
        if isinstance(layer, nn.Linear):
            scale = torch.ones(len(x), 1, dtype=x.dtype, device=x.device, requires_grad=True)
            a = a @ layer.weight.T + (0 * scale if layer.bias is None else scale * layer.bias)
            scales.append(scale)
        else:
            a = layer(a)
    return torch.cat(torch.autograd.grad(a.gather(1, target[:, None]).sum(), scales), 1)
"""
KEPT_BY_MASKS = """
def kept_by_biases(model, x, target):
    with torch.no_grad():
        dense, a, open_ = [m for m in model if isinstance(m, nn.Linear)], x.flatten(1), []
        for layer in dense[:-1]:
            a = layer(a)
            open_.append(a > 0)
            a = a.relu()
        signal, kept = None, []
        for k in range(len(dense) - 1, -1, -1):
            signal = torch.eye(len(dense[-1].weight)).to(x)[target] if signal is None else (signal @ dense[k + 1].weight) * open_[k]
            bias = dense[k].bias
            kept.insert(0, signal.sum(1) * 0 if bias is None else signal @ bias)
        return torch.stack(kept).T
"""
COMPOSITE_TRANSPOSED = """
def composite(model, x, target, epsilon=1e-6):
    with torch.no_grad():
        reads, a = [], x
        for layer in model:
            reads.append(a)
            a = layer(a)
        chosen = target.unsqueeze(1)
        relevance = torch.zeros_like(a).scatter_(1, chosen, a.gather(1, chosen))
    for layer, a in zip(list(model)[::-1], reads[::-1]):
        if isinstance(layer, nn.Linear):
            relevance = epsilon_step(a, layer.weight, layer.bias, relevance, epsilon)
        elif isinstance(layer, nn.Conv2d):
            w = layer.weight.detach().clamp(min=0)
            total = torch.nn.functional.conv2d(a, w, stride=layer.stride, padding=layer.padding)
            share = torch.nan_to_num(relevance / total, nan=0.0, posinf=0.0, neginf=0.0)
            relevance = a * torch.nn.grad.conv2d_input(a.shape, w, share, layer.stride, layer.padding)
        else:
            leaf = a.clone().requires_grad_()
            relevance = torch.autograd.grad(layer(leaf), leaf, relevance)[0]
        relevance = relevance.detach()
    return relevance
"""
COMPOSITE_SIGNALS = """
def composite(model, x, target, epsilon=1e-6):
    reads, a = [], x.detach()
    for layer in model:
        reads.append(a.detach().requires_grad_(True))
        a = layer(reads[-1])
    signal = torch.zeros_like(a).scatter(1, target[:, None], 1.0).detach()  # relevance = value * signal
    for layer, a in zip(list(model)[::-1], reads[::-1]):
        z = layer(a)
        if isinstance(layer, nn.Linear):
            signal = signal * (z / (z + epsilon * torch.where(z < 0, -1, 1))).detach()
        elif isinstance(layer, nn.Conv2d):
            y = torch.nn.functional.conv2d(a, layer.weight.relu(), None, layer.stride, layer.padding)
            signal = signal * torch.where(y > 0, z / y, 0).detach()
            z = y
        signal = torch.autograd.grad(z, a, signal)[0]
    return x.detach() * signal
"""
COMPOSITE_FUNCTIONS = """
from torch.func import vjp

def share_out(layer, a, relevance, epsilon):
    if isinstance(layer, nn.ReLU):
        return relevance
    if isinstance(layer, nn.Linear):
        return epsilon_step(a, layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), relevance, epsilon)
    if isinstance(layer, nn.Conv2d):
        y, back = vjp(lambda v: torch.conv2d(v, layer.weight.detach().clamp_min(0), None, layer.stride, layer.padding), a)
        return a * back(relevance / y.where(y > 0, torch.inf))[0]
    return vjp(layer, a)[1](relevance)[0]

def composite(model, x, target, epsilon=1e-6):
    a, path = x.detach(), []
    for layer in model:
        path.append((layer, a))
        a = layer(a).detach()
    relevance = a * torch.nn.functional.one_hot(target, a.shape[1]).to(a.dtype)
    while path:
        relevance = share_out(*path.pop(), relevance, epsilon)
    return relevance
"""
RIGHT = [
    ("1a", "tuples", "def payments(): return [(18, -12, 6), (9, 0, 3)]"),
    ("1a", "from the unit", "def payments():\n    z, p = a * w, (a * w).clamp(min=0)\n"
           "    return [(z / z.sum() * 12).tolist(), (p / p.sum() * 12).tolist()]"),
    ("1a", "arithmetic", "def payments():\n    return [[6 / 4 * 12, -4 / 4 * 12, 2 / 4 * 12], [6 / 8 * 12, 0.0, 2 / 8 * 12]]"),
    ("1b", "tuples", "def through_two_layers(): return ((8, 1), (7, 2))"),
    ("1b", "unit by unit", "def through_two_layers():\n    first, second = (4, -1), (4, 2)\n    epsilon = [p + q for p, q in "
           "zip(first, second)]\n    return [epsilon, [3 + second[0], 0 + second[1]]]"),
    ("1b", "autograd", "def through_two_layers():\n    x = torch.tensor([2.0, 1.0], requires_grad=True)\n"
           "    (slope,) = torch.autograd.grad(small_network(x), x)\n    return [(x * slope).tolist(), [7.0, 2.0]]"),
    ("2a", "loop", EPSILON_LOOP),
    ("2a", "all contributions", EPSILON_CUBE),
    ("2a", "backward", EPSILON_BACKWARD),
    ("2b", "four parts", Z_PLUS_FOUR_PARTS),
    ("2b", "loop", Z_PLUS_LOOP),
    ("2b", "nan to zero", Z_PLUS_NAN),
    ("3", "dense layers only", PROPAGATE_FLAT),
    ("3", "recursive", PROPAGATE_RECURSIVE),
    ("3", "row by row", PROPAGATE_ROWS),
    ("4", "division", KEPT_BY_DIVISION),
    ("4", "scaled biases", KEPT_BY_SCALING),
    ("4", "masks", KEPT_BY_MASKS),
    ("5", "transposed convolution", COMPOSITE_TRANSPOSED),
    ("5", "signals", COMPOSITE_SIGNALS),
    ("5", "functions", COMPOSITE_FUNCTIONS),
]  # fmt: skip

EPSILON_ROW, Z_PLUS_ROW = "[18.0, -12.0, 6.0]", "[9.0, 0.0, 3.0]"
SIGN = "torch.where(z >= 0, 1, -1)"
STEPS = "easy shape general batch device"
ALL = "easy shape general batch side effects device"
WRONG = [
    ("1a", "contributions only", EPSILON_ROW, "[6.0, -4.0, 2.0]", "q1a", "your payments add up to 4", "easy", "your payment to x[0]"),
    ("1a", "magnitudes", EPSILON_ROW, "[6.0, 4.0, 2.0]", "q1a", "not in proportion", "easy", "x[0]; your payment to x[1]; your payment to x[2]."),
    ("1a", "by the weights", EPSILON_ROW, "[36.0, -48.0, 24.0]", "q1a", "not in proportion", "easy", "payment to x[0]"),
    ("1a", "equal parts", Z_PLUS_ROW, "[4.0, 4.0, 4.0]", "q1a", "does input 1 count?", "general", "x[0]; your payment to x[1]; your payment to x[2]."),
    ("1a", "cut off", Z_PLUS_ROW, "[18.0, 0.0, 6.0]", "q1a", "add up to 24", "general", "Wrong: your payment to x[0]; your payment to x[2]."),
    ("1a", "one rule", f"return [\n        {EPSILON_ROW},", "return [", "q1a", "Two lists of three numbers",
     "easy general", "must have shape (2, 3)"),
    ("1a", "epsilon alone", "return [", f"return {EPSILON_ROW} or [", "q1a", "Two lists of three numbers", "easy general",
     "must have shape (2, 3)"),
    ("1b", "swapped", "[8.0, 1.0]", "[1.0, 8.0]", "q1b", "how fast the score moves", "easy", "x[0]; your payment to x[1]."),
    ("1b", "closed unit counted", "[8.0, 1.0]", "[3.0, 6.0]", "q1b", "how fast the score moves", "easy", "x[0]; your payment to x[1]."),
    ("1b", "gradient", "[8.0, 1.0]", "[4.0, 1.0]", "q1b", "epsilon: your payments add up to 5", "easy", "Wrong: your payment to x[0]."),
    ("1b", "epsilon twice", "[7.0, 2.0]", "[8.0, 1.0]", "q1b", "which inputs speak for it", "general", "x[0]; your payment to x[1]."),
    ("1b", "weights left out", "[7.0, 2.0]", "[5.0, 1.0]", "q1b", "z+: your payments add up to 6", "general", "x[0]; your payment to x[1]."),
    ("1b", "both the same", "[7.0, 2.0]", "[6.0, 3.0]", "q1b", "which inputs speak for it", "general", "x[0]; your payment to x[1]."),
    ("2a", "without the bias", "weight, bias)", "weight)", "q2a", "Is the bias in your sum?", "general batch device", "diff"),
    ("2a", "no epsilon", f" + epsilon * {SIGN}", "", "q2a", "epsilon = 2 makes it 6", "general batch device", ""),
    ("2a", "no sign", SIGN, "1", "q2a", "with the sign of z", "general batch device", "largest difference"),
    ("2a", "sign of zero", SIGN, "z.sign()", "q2a", "the sign of 0 is 1", "general", "NaN"),
    ("2a", "sign twice", f"epsilon * {SIGN}", "epsilon * z", "q2a", "epsilon = 2 makes it 6", "general batch device", "diff"),
    ("2a", "magnitude of the sum", "share = relevance / (z", "share = relevance / (z.abs()", "q2a", "with the sign of z",
     "general batch device", "largest difference"),
    ("2a", "inputs forgotten", "return a * ", "return 1 * ", "q2a", "Is the bias in your sum?", STEPS, "largest difference"),
    ("2a", "relevance forgotten", "relevance / (", "1 / (", "q2a", "get 12 z_i / 6", STEPS, "largest difference"),
    ("2a", "single precision", "return a * (share @ weight)", "return (a * (share @ weight)).float()", "q2a", "rows in float64",
     "shape general batch", "float64"),
    ("2a", "made on the CPU", SIGN, "torch.where(torch.tensor(z.tolist()) >= 0, 1, -1)", "q2a", "another device", "device", "follow x"),
    ("2a", "first row's sum", "z = F.linear(a, weight, bias)", "z = F.linear(a[:1], weight, bias)", "q2a", "batch must give",
     "batch device", "largest difference"),
    ("2b", "no positive part", ".clamp(min=0)", "", "q2b", "only the first and the last speak", STEPS, "difference"),
    ("2b", "magnitudes", ".clamp(min=0)", ".abs()", "q2b", "only the first and the last speak", STEPS, "difference"),
    ("2b", "weights cut off", "(a[:, None, :] * weight).clamp(min=0)", "a[:, None, :] * weight.clamp(min=0)", "q2b",
     "the product counts", "general batch device", "difference"),
    ("2b", "both cut off", "(a[:, None, :] * weight).clamp(min=0)", "a[:, None, :].clamp(min=0) * weight.clamp(min=0)", "q2b",
     "the product counts", "general batch device", "largest difference"),
    ("2b", "zero over zero", "torch.where(total > 0, relevance / total, 0)", "relevance / total", "q2b",
     "Nothing speaks for the first of two units", "general", "NaN"),
    ("2b", "sum over the units", "total = contributions.sum(2)", "total = contributions.sum((1, 2))[:, None]", "q2b",
     "sum of its own relevance", "general batch device", "largest difference"),
    ("2b", "units averaged", "share[:, :, None]).sum(1)", "share[:, :, None]).mean(1)", "q2b", "its neighbour pays its 7",
     "general batch device", "largest difference"),
    ("2b", "relevance forgotten", "relevance / total", "1 / total", "q2b", "share its 10 as 4 to 1", STEPS, "difference"),
    ("2b", "only positive relevance", "relevance / total", "relevance.clamp(min=0) / total", "q2b", "sum of its own relevance",
     "general batch device", "largest difference"),
    ("2b", "on the CPU", "total = contributions.sum(2)", "total = torch.zeros(len(a), len(weight), dtype=a.dtype) + "
     "contributions.sum(2)", "q2b", "another device", "device", "follow x"),
    ("3", "starts with 1", "a.gather(1, chosen))", "torch.ones_like(a).gather(1, chosen))", "q3a", "not with a probability or",
     ALL, "largest difference"),
    ("3", "starts with the probability", "a.gather(1, chosen))", "a.softmax(1).gather(1, chosen))", "q3a", "the logit itself",
     ALL, "largest difference"),
    ("3", "all logits", "torch.zeros_like(a).scatter(1, chosen, a.gather(1, chosen))", "a", "q3a", "the target of each row",
     ALL, "largest difference"),
    ("3", "predicted class", "chosen = target[:, None]", "chosen = a.argmax(1, True)", "q3a", "target of each row", ALL,
     "largest difference"),
    ("3", "rules from the last", "remaining.pop()", "remaining.pop(0)", "q3a", "['z_plus', 'epsilon'] from the first",
     "general batch device", "largest difference"),
    ("3", "one rule for all", "remaining.pop()", "rules[-1]", "q3a", "['z_plus', 'epsilon']", "general batch side effects device",
     "largest difference"),
    ("3", "default epsilon", "relevance, epsilon)", "relevance, 1e-6)", "q3a", "epsilon = 1", "general batch side effects device", "difference"),
    ("3", "ReLU as a mask", "            relevance = relevance.view_as(a)\n", "            relevance = "
     "relevance.view_as(a)\n        elif isinstance(layer, nn.ReLU):\n            relevance = relevance * a\n", "q3a",
     "Two dense layers", "general batch side effects device", "largest difference"),
    ("3", "flat", "relevance.view_as(a)", "relevance", "q3a", "must have shape (3, 2, 2)", "shape general", "must have shape"),
    ("3", "on the graph", "relevance.detach()", "relevance", "q3a", "must be detached", ALL, "must be detached"),
    ("3", "uses up the rules", "list(rules)", "rules", "q3b", "list of rules was changed", "side effects", "list that is argument"),
    ("3", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q3a", "the target of each row",
     "batch side effects device", "largest difference"),
    ("4", "the biases themselves", "s @ d.bias for", "(0 * s + 1) @ d.bias for", "q4", "b itself", ALL, "difference"),
    ("4", "of all classes", ".gather(1, target[:, None])", "", "q4", "unit of the target", ALL, "largest difference"),
    ("4", "of the probability", "a.gather(1", "a.softmax(1).gather(1", "q4", "b itself", ALL, "largest difference"),
    ("4", "from the last", "return torch.stack(kept, 1)", "return torch.stack(kept, 1).flip(1)", "q4", "b itself", ALL, ""),
    ("4", "as a fraction", "kept, 1).detach()", "kept, 1).detach() / a.gather(1, target[:, None]).detach()", "q4", "b itself",
     ALL, "largest difference"),
    ("4", "per layer and not per row", "return torch.stack(kept, 1)", "return torch.stack(kept, 1).sum(0)", "q4",
     "must have shape (2, 2)", ALL, "must have shape (1, 2)"),
    ("4", "layer without bias", "torch.zeros_like(s[:, 0]) if d.bias is None else s @ d.bias for d, s in zip(dense, signals, "
     "strict=True)", "s @ d.bias for d, s in zip(dense, signals) if d.bias is not None", "q4", "must have shape (4, 4)",
     "shape general batch side effects device", "must have shape"),
    ("4", "magnitudes", "torch.autograd.grad(a.gather(1, target[:, None]).sum(), sums)",
     "[g.abs() for g in torch.autograd.grad(a.gather(1, target[:, None]).sum(), sums)]", "q4", "grow by 1 %",
     "general batch side effects device", "largest difference"),
    ("4", "on the graph", ".detach()", "", "q4", "must be detached", ALL, "must be detached"),
    ("4", "mean over the batch", "target[:, None]).sum()", "target[:, None]).mean()", "q4", "b itself", "batch side effects device",
     "largest difference"),
    ("4", "own .grad", "signals = torch.autograd.grad(a.gather(1, target[:, None]).sum(), sums)",
     "[s.retain_grad() for s in sums]; a.gather(1, target[:, None]).sum().backward(); signals = [s.grad for s in sums]", "q4",
     "The .grad of the parameter '1.weight' changed", "side effects", "the .grad of the parameter"),
    ("5", "epsilon everywhere", "layer.weight.clamp(min=0), None", "layer.weight, layer.bias", "q5a", "share the 8 as 1 : 2 : 3",
     ALL, "largest difference"),
    ("5", "share for the bias", "clamp(min=0), None", "clamp(min=0), layer.bias.clamp(min=0)", "q5a", "the bias gets no share",
     ALL, "largest difference"),
    ("5", "magnitudes of the weights", "layer.weight.clamp(min=0)", "layer.weight.abs()", "q5a", "Three speak for it",
     ALL, "largest difference"),
    ("5", "zero over zero", "torch.where(positive > 0, relevance / positive, 0)", "relevance / positive", "q5a",
     "A black picture", "general", "NaN"),
    ("5", "stride forgotten", ", layer.stride, layer.padding", ", 1, layer.padding", "q5a", "must move like the forward one",
     "shape general batch side effects device", "raised RuntimeError"),
    ("5", "inputs forgotten", "(a * torch.autograd", "(1 * torch.autograd", "q5a", "share the 8", ALL, "largest difference"),
    ("5", "relevance of x is the gradient", "a, relevance)\n    return", "a, torch.ones_like(relevance))\n    return", "q5a",
     "it gets all of it", ALL, "largest difference"),
    ("5", "starts with 1", "a.gather(1, chosen))", "torch.ones_like(a).gather(1, chosen))", "q5a", "it gets all of it",
     ALL, "largest difference"),
    ("5", "all logits", "torch.zeros_like(a).scatter(1, chosen, a.gather(1, chosen))", "a", "q5a", "its matrix",
     ALL, "largest difference"),
    ("5", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q5a", "its matrix",
     "batch side effects device", "largest difference"),
    ("5", "epsilon left out", "relevance, epsilon).detach()", "relevance, 0.0).detach()", "q5a", "its matrix", ALL, "difference"),
    ("5", "on the graph", "share.detach())[0]).detach()", "share.detach())[0])", "q5a", "must be detached", ALL,
     "must be detached"),
]  # fmt: skip
