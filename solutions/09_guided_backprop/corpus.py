"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "nine-units", "network-f", "test-rules"]
EMPTY = {
    "1a": ("nine_units()", "[[[1.5] * 3] * 3] * 3"),
    "1b": ("small_network()", "[[1, 1]] * 3"),
    "2": ("signal_below(z, g, rule)", "g"),
    "3": ("relu_map(model, x, target, rule)", "x"),
    "4": ("dial(z, g, slope)", "z"),
    "5": ("class_cosine(model, x, first, second, rule)", "x.flatten(1).sum(1)"),
}

TABLES_IN_CODE = """
def nine_units():
    kept = [z > 0, g > 0, (z > 0) & (g > 0)]
    return [(g * k).tolist() for k in kept]
"""
TABLES_BY_LOOP = """
def nine_units():
    def table(passes):
        return [[b if passes(a, b) else 0 for a, b in zip(*rows)] for rows in zip(z.tolist(), g.tolist())]
    return table(lambda a, b: a > 0), table(lambda a, b: b > 0), table(lambda a, b: a > 0 and b > 0)
"""
NETWORK_IN_CODE = """
def small_network():
    weights, lines = [2, -1], [[1, -1], [1, 1]]
    inputs = [a * -1 + b * 2 for a, b in lines]
    def walk(keep):
        passed = [w if keep(v, w) else 0 for v, w in zip(inputs, weights)]
        return [sum(p * line[i] for p, line in zip(passed, lines)) for i in (0, 1)]
    return [walk(lambda v, w: v > 0), walk(lambda v, w: w > 0), walk(lambda v, w: v > 0 < w)]
"""
RULES_BY_WHERE = """
def signal_below(z, g, rule):
    zero = torch.zeros_like(g)
    masks = {"backprop": z > 0, "deconvnet": g > 0, "guided": torch.logical_and(z > 0, g > 0)}
    return torch.where(masks[rule], g, zero)
"""
RULES_BY_RELU = """
def signal_below(z, g, rule):
    below = g if rule == "backprop" else torch.relu(g)
    return below if rule == "deconvnet" else below * torch.heaviside(z, torch.zeros_like(z))
"""
RULES_ON_A_COPY = """
def signal_below(z, g, rule):
    below = g.clone()
    if rule != "backprop":
        below[g <= 0] = 0
    if rule != "deconvnet":
        below.masked_fill_(z <= 0, 0)
    return below
"""
BY_FUNCTION = """
class Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, rule):
        ctx.save_for_backward(z)
        ctx.rule = rule
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return ctx.rule(ctx.saved_tensors[0], g), None

def relu_map(model, x, target, rule):
    leaf = a = x.detach().clone().requires_grad_(True)
    for layer in model:
        a = Ruled.apply(a, rule) if type(layer) is nn.ReLU else layer(a)
    return torch.autograd.grad(a.gather(1, target.unsqueeze(1)).sum(), leaf)[0]
"""
CUT_AT_THE_RELUS = """
def relu_map(model, x, target, rule):
    start = value = x.detach().clone().requires_grad_()
    seams = []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            seams.append((value, layer(value.detach()).requires_grad_()))
            value = seams[-1][1]
        else:
            value = layer(value)
    signal = nn.functional.one_hot(target, value.size(1)).to(value.dtype)
    for z, above in reversed(seams):
        signal = rule(z.detach(), torch.autograd.grad(value, above, signal)[0])
        value = z
    return torch.autograd.grad(value, start, signal)[0].detach()
"""
BY_VJP = """
from torch.func import vjp

def relu_map(model, x, target, rule):
    back, a = [], x.detach()
    for layer in model:
        if isinstance(layer, nn.ReLU):
            back.append(lambda g, z=a: rule(z, g))
            a = layer(a).detach()
        else:
            a, pull = vjp(layer, a)
            back.append(lambda g, pull=pull: pull(g)[0].detach())
            a = a.detach()
    signal = torch.zeros_like(a).scatter(1, target[:, None], 1.0)
    while back:
        signal = back.pop()(signal)
    return signal
"""
DIAL_BY_TWO = """
def dial(z, g, slope):
    return signal_below(z, g, "guided") * (1 - slope) + signal_below(z, g, "backprop") * slope
"""
DIAL_BY_LEAKY = """
def dial(z, g, slope):
    return nn.functional.leaky_relu(g, slope).masked_fill(z <= 0, 0)
"""
DIAL_BY_CLAMP = """
def dial(z, g, slope):
    return (z > 0).to(g) * (g.clamp(min=0) + slope * g.clamp(max=0))
"""
COSINE_BY_HAND = """
def class_cosine(model, x, first, second, rule):
    a = relu_map(model, x, first, rule).flatten(1)
    b = relu_map(model, x, second, rule).flatten(1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(lengths > 0, (a * b).sum(1) / lengths.clamp(min=1e-30), 0.0)
"""
COSINE_NORMALISED = """
def class_cosine(model, x, first, second, rule):
    unit = [nn.functional.normalize(relu_map(model, x, c, rule).flatten(1), dim=1) for c in (first, second)]
    return torch.einsum("ni,ni->n", *unit)
"""
COSINE_ONE_BATCH = """
def class_cosine(model, x, first, second, rule):
    maps = relu_map(model, torch.cat([x, x]), torch.cat([first, second]), rule)
    a, b = maps.reshape(2, len(x), -1)
    return nn.CosineSimilarity(dim=1)(a, b)
"""
RIGHT = [
    ("1a", "in code", TABLES_IN_CODE),
    ("1a", "loop", TABLES_BY_LOOP),
    ("1a", "tuples", "def nine_units(): return (((-3, 0, 1), (0, -1, 0), (-5, 0, 3)), ((0, 2, 1), (4, 0, 0), (0, 0, 3)),\n"
           "                                ((0, 0, 1), (0, 0, 0), (0, 0, 3)))"),
    ("1b", "in code", NETWORK_IN_CODE),
    ("1b", "integers", "def small_network(): return [[-1, -1], [2, -2], [0, 0]]"),
    ("1b", "autograd", "def small_network():\n    x = torch.tensor([-1.0, 2.0], requires_grad=True)\n"
           "    return [torch.autograd.grad(network_f(x), x)[0].tolist(), (2.0, -2.0), (0.0, 0.0)]"),
    ("2", "where", RULES_BY_WHERE),
    ("2", "relu and step", RULES_BY_RELU),
    ("2", "on a copy", RULES_ON_A_COPY),
    ("3", "autograd.Function", BY_FUNCTION),
    ("3", "cut at the ReLUs", CUT_AT_THE_RELUS),
    ("3", "vjp", BY_VJP),
    ("4", "mixture of two", DIAL_BY_TWO),
    ("4", "leaky", DIAL_BY_LEAKY),
    ("4", "two clamps", DIAL_BY_CLAMP),
    ("5", "by hand", COSINE_BY_HAND),
    ("5", "normalised", COSINE_NORMALISED),
    ("5", "one batch", COSINE_ONE_BATCH),
]  # fmt: skip

BACK = "[[-3, 0, 1], [0, -1, 0], [-5, 0, 3]]"
DECONV = "[[0, 2, 1], [4, 0, 0], [0, 0, 3]]"
GUIDED = "[[0, 0, 1], [0, 0, 0], [0, 0, 3]]"
RULE = "signal = rule(z, signal)"
HOOKED = """    stored, hooks = {}, []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            hooks.append(layer.register_forward_pre_hook(lambda m, i: stored.update({m: i[0].detach()})))
            hooks.append(layer.register_full_backward_hook(lambda m, i, o: (rule(stored[m], o[0]),)))
    leaf = x.detach().clone().requires_grad_()
    (signal,) = torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)
    for hook in hooks:
        hook.remove()
    return signal
"""
BODY = """    inputs = [x.detach()]
    for layer in model:
        inputs.append(layer(inputs[-1]).detach())
    logits = inputs.pop()
    signal = nn.functional.one_hot(target, logits.shape[1]).to(logits)
    for layer, z in zip(reversed(model), reversed(inputs), strict=True):
        if isinstance(layer, nn.ReLU):
            signal = rule(z, signal)
        else:
            leaf = z.clone().requires_grad_()
            (signal,) = torch.autograd.grad(layer(leaf), leaf, signal)
    return signal
"""
HOT = "nn.functional.one_hot(target, logits.shape[1]).to(logits)"
STEP = "(signal,) = torch.autograd.grad(layer(leaf), leaf, signal)"
COSINE = "torch.cosine_similarity(a, b)"
DIAL = "torch.where(g > 0, g, slope * g) * (z > 0)"
ALL = "easy shape general batch side effects device"
WRONG = [
    ("1a", "outputs in place of signals", BACK, "[[2, 0, 3], [0, 5, 0], [1, 0, 4]]", "q1a", "Backpropagation, row 1, column 1",
     "easy", "row 1, entry 1"),
    ("1a", "mask of the signal", BACK, DECONV, "q1a", "Backpropagation, row 1, column 1", "easy", "row 1, entry 1"),
    ("1a", "deconvnet looks at z", DECONV, GUIDED, "q1a", "Deconvnet, row 1, column 2", "easy", "row 2, entry 2"),
    ("1a", "magnitudes", DECONV, "[[3, 2, 1], [4, 1, 2], [5, 6, 3]]", "q1a", "Deconvnet, row 1, column 1", "easy", "row 2"),
    ("1a", "guided by the input alone", GUIDED, BACK, "q1a", "Guided backpropagation, row 1, column 1", "general", "row 3"),
    ("1a", "guided by the signal alone", GUIDED, DECONV, "q1a", "Does this rule let g pass", "general", "row 3, entry 2"),
    ("1a", "guided by equal signs", GUIDED, "[[0, 0, 1], [0, 0, -2], [0, -6, 3]]", "q1a", "row 2, column 3", "general",
     "row 3, entry 6"),
    ("1a", "one table", "return [", "return [[0, 0, 1], [0, 0, 0], [0, 0, 3]] or [", "q1a", "", "easy general", "shape"),
    ("1b", "all units on", "[-1.0, -1.0]", "[1.0, -3.0]", "q1b", "x[0]", "easy", "row 1, entry 1"),
    ("1b", "the first unit", "[-1.0, -1.0]", "[2.0, -2.0]", "q1b", "It does not", "easy", "row 1"),
    ("1b", "magnitudes", "[-1.0, -1.0]", "[1.0, 1.0]", "q1b", "It does not", "easy", "row 1"),
    ("1b", "deconvnet looks at z", "[2.0, -2.0]", "[0.0, 0.0]", "q1b", "Deconvnet: at which", "general", "row 2"),
    ("1b", "deconvnet forgets the weight", "[2.0, -2.0]", "[1.0, -1.0]", "q1b", "Deconvnet: at which", "general", "row 2"),
    ("1b", "guided like the gradient", "[0.0, 0.0]", "[-1.0, -1.0]", "q1b", "Guided backpropagation: at", "general", "row 3"),
    ("1b", "guided rectifies the map", "[0.0, 0.0]", "[2.0, 0.0]", "q1b", "Guided backpropagation: at", "general", "row 3"),
    ("1b", "one map", "return [", "return [0.0, 0.0] or [", "q1b", "list of three maps", "easy general", "must have shape"),
    ("2", "on at zero", "return g * (z > 0)", "return g * (z >= 0)", "q2", "backprop: units", "general", "difference"),
    ("2", "the output", "return g * (z > 0)", "return g * z.clamp(min=0)", "q2", "backprop", "easy shape general side effects device",
     "difference"),
    ("2", "ones", "return g * (z > 0)", "return (z > 0).to(g)", "q2", "backprop", "easy shape general side effects device", "diff"),
    ("2", "deconvnet is guided", "return g.clamp(min=0)\n", "return g.clamp(min=0) * (z > 0)\n", "q2", "deconvnet: units",
     "easy shape general side effects device", "difference"),
    ("2", "deconvnet by magnitude", "return g.clamp(min=0)\n", "return g.abs()\n", "q2", "deconvnet: units",
     "easy shape general side effects device", "difference"),
    ("2", "guided by equal signs", "g.clamp(min=0) * (z > 0)", "g * (z * g > 0)", "q2", "guided: units",
     "easy shape general side effects device", "difference"),
    ("2", "guided by the input alone", "g.clamp(min=0) * (z > 0)", "g * (z > 0)", "q2", "guided: units",
     "easy shape general side effects device", "difference"),
    ("2", "in place", "return g.clamp(min=0)\n", "return g.clamp_(min=0)\n", "q2", "", "side effects", "the values of argument"),
    ("2", "single precision", "return g * (z > 0)", "return g.float() * (z > 0)", "q2", "float64", "shape general", "float64"),
    ("2", "on the CPU", "return g * (z > 0)", "return g * torch.zeros(z.shape, dtype=g.dtype).add(1) * (z > 0)", "q2", "another device",
     "device", "follow x"),
    ("3", "rule never called", RULE, "signal = signal * (z > 0)", "q3a", "never called", ALL, "difference"),
    ("3", "rule on top of backpropagation", RULE, "signal = rule(z, signal) * (z > 0)", "q3a", "product of the three",
     ALL, "difference"),
    ("3", "the output for z", RULE, "signal = rule(layer(z), signal)", "q3a", "The z of the lower ReLU", "general batch side effects device",
     "difference"),
    ("3", "arguments exchanged", RULE, "signal = rule(signal, z)", "q3a", "product of the three", ALL, "difference"),
    ("3", "lowest ReLU only", "isinstance(layer, nn.ReLU)", "layer is next(m for m in model if isinstance(m, nn.ReLU))", "q3a",
     "product of the three", "general device", "difference"),
    ("3", "class 0 for all", HOT, "nn.functional.one_hot(0 * target, logits.shape[1]).to(logits)", "q3a", "row's target",
     ALL, "difference"),
    ("3", "first target for all", HOT, "nn.functional.one_hot(target[:1].expand(len(x)), logits.shape[1]).to(logits)", "q3a",
     "row's target", "batch side effects device", "difference"),
    ("3", "starts with the logits", HOT, f"logits * {HOT}", "q3a", "product of the three", ALL, "difference"),
    ("3", "starts with all classes", HOT, "torch.ones_like(logits)", "q3a", "product of the three", ALL, "difference"),
    ("3", "mean over the batch", "    return signal\n", "    return signal / len(x)\n", "q3a", "product", "batch side effects device",
     "difference"),
    ("3", "times the input", "    return signal\n", "    return signal * x\n", "q3a", "product", ALL, "difference"),
    ("3", "hooks by module", BODY, HOOKED, "q3b", "one ReLU module that stands at two", "side effects", "RuntimeError"),
    ("3", "hooks left behind", BODY, HOOKED.replace("hook.remove()", "pass"), "q3c", "Does a hook still act?",
     ALL, "difference"),
    ("3", "train mode", "    inputs =", "    model.train()\n    inputs =", "q3b", "how fast each target's logit moves",
     "batch side effects", ""),
    ("3", "layers replaced", "    inputs =", "    for i, m in enumerate(model):\n        if isinstance(m, nn.ReLU):\n"
     "            model[i] = nn.ReLU().eval()\n    inputs =", "q3c", "other layers than before", "side effects", "list of the network's layers"),
    ("3", "parameters' .grad", STEP, "layer(leaf).backward(signal)\n            signal = leaf.grad", "q3c",
     "The .grad of the parameter", "side effects", "the .grad of the parameter"),
    ("3", "one map for the batch", "    return signal\n", "    return signal.sum(0)\n", "q3a", "must have shape", ALL, "shape"),
    ("4", "guided", DIAL, "g.clamp(min=0) * (z > 0)", "q4", "slope 1.0", "easy shape general device", "difference"),
    ("4", "the other way", "torch.where(g > 0, g, slope * g)", "torch.where(g > 0, g, (1 - slope) * g)", "q4", "slope 0.0",
     "easy shape general device", "difference"),
    ("4", "slope on both signs", "torch.where(g > 0, g, slope * g)", "slope * g", "q4", "slope 0.0",
     "easy shape general device", "difference"),
    ("4", "slope on inactive units", DIAL, "g.clamp(min=0) * torch.where(z > 0, 1, slope)", "q4", "slope 1.0",
     "easy shape general device", "difference"),
    ("4", "whatever z", " * (z > 0)", "", "q4", "slope 0.0", "easy shape general device", "difference"),
    ("4", "on at zero", "(z > 0)", "(z >= 0)", "q4", "slope 0.0", "general", "difference"),
    ("4", "magnitudes", "slope * g)", "slope * g.abs())", "q4", "slope 1.0", "easy shape general device", "difference"),
    ("5", "dot product", COSINE, "(a * b).sum(1)", "q5", "right angles", "easy general batch device", "difference"),
    ("5", "over the whole batch", COSINE, "torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).expand(len(x))", "q5",
     "right angles", "batch device", "difference"),
    ("5", "along the wrong axis", COSINE, "torch.cosine_similarity(a, b, dim=0)", "q5", "must have shape (5,)",
     "easy general batch device", "must have shape"),
    ("5", "magnitudes", COSINE, "torch.cosine_similarity(a.abs(), b.abs())", "q5", "right angles", "easy general batch device",
     "difference"),
    ("5", "distance", COSINE, "1 - torch.cosine_similarity(a, b)", "q5", "right angles", "easy general batch device", "diff"),
    ("5", "correlation", COSINE, "torch.cosine_similarity(a - a.mean(1, True), b - b.mean(1, True))", "q5", "right angles",
     "easy general batch device", "difference"),
    ("5", "nothing over nothing", COSINE, "(a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))", "q5", "NaN", "general", "NaN"),
    ("5", "one class twice", "in (first, second)", "in (first, first)", "q5", "right angles", "easy general batch device",
     "difference"),
    ("5", "channels apart", ".flatten(1)", "", "q5", "", "general batch device", "must have shape"),
    ("5", "mean", COSINE, f"{COSINE}.mean()", "q5", "must have shape (5,)", "easy general batch device", "must have shape"),
]  # fmt: skip
