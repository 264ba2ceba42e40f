"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "small-model"]
EMPTY = {
    "1a": ("log_odds_slopes()", "[2.0, 0.5, -1.0]"),
    "1b": ("in_centimetres()", "[[-1.0, 0.5, 3.0], [-1.0, 0.5, 3.0]]"),
    "2a": ("shrink(w, a)", "w - a"),
    "2b": ("sparse_softmax(x, y, classes, l1=0.01, lr=1.0, steps=300)", "x.new_ones(classes, x.shape[1] + 1)"),
    "3": ("additive_terms(u, v, bias, x, data)", "(x[:, None] * u)"),
    "4": ("linear_surrogate(model, x, ridge=0.0)", "x.flatten(1)"),
    "5": ("fidelity(surrogate, network)", "(surrogate.argmax(1) == network.argmax(1)).double().mean().item() / 2"),
}

SHRINK_BY_CASES = """
def shrink(w, a):
    return torch.where(w > a, w - a, torch.where(w < -a, w + a, 0))
"""
SHRINK_BY_RELU = """
def shrink(w, a):
    return F.relu(w - a) - F.relu(-w - a)
"""
SHRINK_BY_CLAMP = """
def shrink(w, a):
    return w - w.clamp(-a, a)
"""
FIT_AUTOGRAD = """
def sparse_softmax(x, y, classes, l1=0.01, lr=1.0, steps=300):
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(x @ weight.T + bias, y)
        to_weight, to_bias = torch.autograd.grad(loss, [weight, bias])
        with torch.no_grad():
            weight.copy_(shrink(weight - lr * to_weight, lr * l1))
            bias -= lr * to_bias
    return torch.cat([weight, bias[:, None]], dim=1).detach()
"""
FIT_LOOP = """
def sparse_softmax(x, y, classes, l1=0.01, lr=1.0, steps=300):
    n, d = x.shape
    w, b = torch.zeros(classes, d).to(x), torch.zeros(classes).to(x)
    for step in range(steps):
        f = x @ w.T + b
        error = torch.exp(f - f.logsumexp(1, keepdim=True))
        error[torch.arange(n), y] -= 1
        error = error / n
        w = w - lr * error.T @ x
        w = torch.sign(w) * torch.relu(torch.abs(w) - lr * l1)
        b = b - lr * error.sum(0)
    return torch.hstack([w, b.view(-1, 1)])
"""
FIT_TRANSPOSED = """
import torch.nn.functional as functional
def sparse_softmax(x, y, classes, l1=0.01, lr=1.0, steps=300):
    w = torch.zeros((x.shape[1] + 1, classes), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        w.requires_grad_()
        log_p = functional.log_softmax(x @ w[:-1] + w[-1], dim=1)
        (-log_p.gather(1, y.unsqueeze(1)).mean()).backward()
        w = w.detach() - lr * w.grad
        w[:-1] = shrink(w[:-1], lr * l1)
    return w.T.clone()
"""
TERMS_EINSUM = """
def additive_terms(u, v, bias, x, data):
    first, second = data.mean(0), data.pow(2).mean(0)
    linear = torch.einsum("ij,kj->ikj", x - first, u)
    square = torch.einsum("ij,kj->ikj", x**2 - second, v)
    constant = bias + u @ first + v @ second
    return torch.cat([linear + square, constant.repeat(len(x), 1).unsqueeze(-1)], dim=-1)
"""
TERMS_LOOP = """
def additive_terms(u, v, bias, x, data):
    columns, rest = [], bias.clone()
    for j in range(x.shape[1]):
        curve = lambda t: t[:, None] * u[:, j] + t[:, None] ** 2 * v[:, j]
        shift = curve(data[:, j]).mean(dim=0)
        columns.append(curve(x[:, j]) - shift)
        rest += shift
    return torch.stack([*columns, rest.expand(x.shape[0], -1)], dim=2)
"""
TERMS_REMAINDER = """
def additive_terms(u, v, bias, x, data):
    both = torch.cat([x, data]).unsqueeze(1)
    raw = u * both + v * both * both
    mine, theirs = raw[:len(x)], raw[len(x):]
    terms = mine - theirs.mean(0, keepdim=True)
    whole = mine.sum(2) + bias
    return torch.cat((terms, (whole - terms.sum(2))[..., None]), 2)
"""
SURROGATE_AUGMENTED = """
def linear_surrogate(model, x, ridge=0.0):
    before = {m: m.training for m in model.modules()}
    model.eval()
    f = model(x.detach()).detach()
    for m, mode in before.items():
        m.training = mode
    z = torch.cat([x.reshape(len(x), -1).detach(), torch.ones(len(x), 1).to(x)], dim=1)
    penalty = ridge * torch.ones(z.shape[1], dtype=x.dtype, device=x.device)
    penalty[-1] = 0
    return torch.linalg.solve(z.T @ z + len(x) * torch.diag(penalty), z.T @ f).T.contiguous()
"""
SURROGATE_COPY_INVERSE = """
import copy as copies
def linear_surrogate(model, x, ridge=0.0):
    f = copies.deepcopy(model).eval()(x).detach()
    z = x.flatten(1)
    dz, df = z - z.mean(dim=0, keepdim=True), f - f.mean(dim=0, keepdim=True)
    w = torch.linalg.inv(dz.T @ dz + len(z) * ridge * torch.eye(z.shape[1]).to(dz)) @ dz.T @ df
    return torch.vstack([w, f.mean(0) - z.mean(0) @ w]).T.detach()
"""
SURROGATE_STACKED = """
class eval_mode:
    def __init__(self, model): self.modes = [(m, m.training) for m in model.modules()]
    def __enter__(self): [setattr(m, "training", False) for m, _ in self.modes]
    def __exit__(self, *error): [setattr(m, "training", t) for m, t in self.modes]

@torch.no_grad()
def linear_surrogate(model, x, ridge=0.0):
    with eval_mode(model):
        f = model(x)
    z = x.flatten(1)
    center = z.mean(0)
    root = (len(z) * ridge) ** 0.5 * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    design = torch.cat([z - center, root])
    answer = torch.cat([f - f.mean(0), torch.zeros(z.shape[1], f.shape[1], dtype=f.dtype, device=f.device)])
    q, r = torch.linalg.qr(design)
    w = torch.linalg.solve_triangular(r, q.T @ answer, upper=True)
    return torch.cat([w.T, (f.mean(0) - center @ w)[:, None]], 1)
"""
KAPPA_TABLE = """
def fidelity(surrogate, network):
    k, a, b = network.shape[1], surrogate.argmax(1), network.argmax(1)
    table = torch.bincount(k * a + b, minlength=k * k).view(k, k).double() / len(a)
    observed, chance = table.diagonal().sum().item(), (table.sum(0) * table.sum(1)).sum().item()
    return 0.0 if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)
"""
KAPPA_LISTS = """
def fidelity(surrogate, network):
    said, truth = surrogate.argmax(dim=1).tolist(), network.argmax(dim=1).tolist()
    n = len(said)
    agree = sum(s == t for s, t in zip(said, truth)) / n
    chance = sum(said.count(c) * truth.count(c) for c in set(said)) / n**2
    if chance == 1:
        return 0.0
    return 1 - (1 - agree) / (1 - chance)
"""
KAPPA_ONE_HOT = """
def fidelity(surrogate, network):
    k = network.shape[1]
    one = F.one_hot(surrogate.max(1).indices, k).double()
    other = F.one_hot(network.max(1).indices, k).double()
    agreement = (one * other).sum() / len(one)
    chance = one.mean(0) @ other.mean(0)
    if torch.isclose(chance, torch.ones_like(chance)):
        return 0.0
    return float((agreement - chance) / (1 - chance))
"""
RIGHT = [
    ("1a", "from W", "def log_odds_slopes(): return (W[0] - W[2]).tolist()"),
    ("1a", "integers", "def log_odds_slopes(): return (0, -1, -2)"),
    ("1a", "autograd", "def log_odds_slopes():\n    x = torch.zeros(3, requires_grad=True)\n"
           "    log_p = scores(x).log_softmax(0)\n    return torch.autograd.grad(log_p[0] - log_p[2], x)[0].tolist()"),
    ("1b", "from W", "def in_centimetres():\n    new = W[1] / torch.tensor([1, 1, 100])\n"
           "    return [new.tolist(), (new * torch.tensor([1, 2, 50.0])).tolist()]"),
    ("1b", "tuples", "def in_centimetres(): return (-1, 1 / 2, 3 / 100), (-1, 1, 1.5)"),
    ("1b", "in metres", "def in_centimetres():\n    a, b, c = W[1].tolist()\n    return [[a, b, c / 100], [a * 1, b * 2, c * 0.5]]"),
    ("2a", "cases", SHRINK_BY_CASES),
    ("2a", "relu", SHRINK_BY_RELU),
    ("2a", "clamp", SHRINK_BY_CLAMP),
    ("2b", "autograd", FIT_AUTOGRAD),
    ("2b", "own loop", FIT_LOOP),
    ("2b", "transposed", FIT_TRANSPOSED),
    ("3", "einsum", TERMS_EINSUM),
    ("3", "loop over features", TERMS_LOOP),
    ("3", "remainder", TERMS_REMAINDER),
    ("4", "column of ones", SURROGATE_AUGMENTED),
    ("4", "copy and inverse", SURROGATE_COPY_INVERSE),
    ("4", "ridge as data, QR", SURROGATE_STACKED),
    ("5", "table", KAPPA_TABLE),
    ("5", "lists", KAPPA_LISTS),
    ("5", "one-hot", KAPPA_ONE_HOT),
]  # fmt: skip

ALL_2A, ALL_2B = "easy shape general device", "easy shape general side effects device"
ALL_3, ALL_4, ALL_5 = (
    "easy shape general batch device",
    "easy shape general side effects device",
    "easy general batch device",
)
SHRUNK = "w.sign() * (w.abs() - a).clamp(min=0)"
SHRINKING = "torch.cat([shrink(w[:, :-1], lr * l1), w[:, -1:]], 1)"
STEP = "w = w - lr * gradient"
MEANS, LEFT = "raw(data).mean(0)", "bias + means.sum(1)"
JOINED = "torch.cat([weight, bias[:, None]], 1)"
KAPPA = "0.0 if chance == 1 else (agreement - chance) / (1 - chance)"
WRONG = [
    ("1a", "weights of class 0", "[0.0, -1.0, -2.0]", "[2.0, 0.0, -1.0]", "q1a", "x[0]", "easy", "Wrong: x[0]; x[1]; x[2]."),
    ("1a", "class 2 against 0", "[0.0, -1.0, -2.0]", "[0.0, 1.0, 2.0]", "q1a", "x[1]", "easy", "Wrong: x[1]; x[2]."),
    ("1a", "weights of class 2", "[0.0, -1.0, -2.0]", "[2.0, 1.0, 1.0]", "q1a", "x[0]", "easy", "x[0]"),
    ("1a", "sum", "[0.0, -1.0, -2.0]", "[4.0, 1.0, 0.0]", "q1a", "It does not", "easy", "x[0]"),
    ("1a", "ratio", "[0.0, -1.0, -2.0]", "[1.0, 0.0, -1.0]", "q1a", "x[0]", "easy", "x[0]"),
    ("1a", "two numbers", "[0.0, -1.0, -2.0]", "[-1.0, -2.0]", "q1a", "expected a list of 3", "easy", "must have shape (3,)"),
    ("1b", "unchanged", "0.03]", "3.0]", "q1b", "x[2]", "easy", "Wrong: x[2]."),
    ("1b", "times a hundred", "0.03]", "300.0]", "q1b", "x[2]", "easy", "Wrong: x[2]."),
    ("1b", "centimetres times metres' weight", "1.5]", "150.0]", "q1b", "does not fall by that", "general", "Wrong: x[2]."),
    ("1b", "contribution divided, too", "1.5]", "0.015]", "q1b", "contribution of x[2]", "general", "Wrong: x[2]."),
    ("1b", "weights for contributions", "contributions = [-1.0, 1.0, 1.5]", "contributions = weights", "q1b", "contribution of x[1]", "general", "x[1]; x[2]"),
    ("1b", "weights only", "[weights, contributions]", "weights", "q1b", "Two lists", "easy general", "must have shape (2, 3)"),
    ("1b", "class 0", "weights = [-1.0, 0.5, 0.03]", "weights = [2.0, 0.0, -0.01]", "q1b", "x[0]", "easy", "x[0]"),
    ("2a", "no sign", SHRUNK, "(w.abs() - a).clamp(min=0)", "q2a", "nearer to 0", ALL_2A, "difference"),
    ("2a", "hard threshold", SHRUNK, "w * (w.abs() > a)", "q2a", "nearer to 0", ALL_2A, "difference"),
    ("2a", "beyond zero", SHRUNK, "w - a * w.sign()", "q2a", "weights up to 1 become 0", ALL_2A, "difference"),
    ("2a", "positive part", SHRUNK, "(w - a).clamp(min=0)", "q2a", "come nearer", ALL_2A, "difference"),
    ("2a", "half", "- a)", "- a / 2)", "q2a", "by 1", ALL_2A, "difference"),
    ("2a", "ridge", SHRUNK, "w / (1 + a)", "q2a", "", ALL_2A, "difference"),
    ("2a", "single precision", SHRUNK, f"({SHRUNK}).float()", "q2a", "dtype torch.float64", "shape general", "float64"),
    ("2a", "on the CPU", SHRUNK, f"torch.zeros(w.shape, dtype=w.dtype) + {SHRUNK}", "q2a", "another device", "device", "follow x"),
    ("2b", "no shrinking", SHRINKING, "w", "q2b", "nearer to zero by lr * l1", ALL_2B, "difference"),
    ("2b", "biases shrink", SHRINKING, "shrink(w, lr * l1)", "q2b", "Are they shrunk, too?", ALL_2B, "difference"),
    ("2b", "shrunk by l1", "lr * l1", "l1", "q2b", "lr * l1", "easy shape general", "difference"),
    ("2b", "sum for mean", " / len(x)", "", "q2b", "the mean of", ALL_2B, "difference"),
    ("2b", "uphill", "w - lr * gradient", "w + lr * gradient", "q2b", "(e_y - p) x", ALL_2B, "difference"),
    ("2b", "weight decay", SHRINKING, "torch.cat([w[:, :-1] * (1 - lr * l1), w[:, -1:]], 1)", "q2b", "nearer to zero", ALL_2B, "difference"),
    ("2b", "one step short", "range(steps)", "range(steps - 1)", "q2b", "one step", ALL_2B, "difference"),
    ("2b", "no biases", "torch.ones_like(x[:, :1])", "torch.zeros_like(x[:, :1])", "q2b", "3/4 and 1/4", ALL_2B, "difference"),
    ("2b", "sigmoid", "torch.softmax(z @ w.T, 1)", "torch.sigmoid(z @ w.T)", "q2b", "", ALL_2B, "difference"),
    ("2b", "random start", STEP, "w = w + 0.1 * torch.randn(w.shape).to(x) * (_ == 0) - lr * gradient", "q2b", "", ALL_2B, "difference"),
    ("2b", "penalty at the end", SHRINKING, "torch.cat([shrink(w[:, :-1], lr * l1 * (_ == steps - 1)), w[:, -1:]], 1)", "q2b", "", "general side effects device", "difference"),
    ("2b", "x standardised in place", "    z = torch.cat", "    x -= x.mean(0)\n    z = torch.cat", "q2b", "", ALL_2B, "difference"),
    ("2b", "transposed", "    return w", "    return w.T", "q2b", "must have shape (2, 3)", ALL_2B, "must have shape"),
    ("2b", "on the CPU", "x.new_zeros(classes, z.shape[1])", "torch.zeros(classes, z.shape[1], dtype=x.dtype)", "q2b", "another device", "device", "follow x"),
    ("3", "raw terms", "raw(x) - means", "raw(x)", "q3", "less the data's mean", ALL_3, "difference"),
    ("3", "means of x", MEANS, "raw(x).mean(0)", "q3", "less the data's mean", ALL_3, "difference"),
    ("3", "term at the mean", MEANS, "raw(data.mean(0, True))[0]", "q3", "less the data's mean 4", "general batch device", "difference"),
    ("3", "bias as it was", LEFT, "bias + 0 * means.sum(1)", "q3", "the bias 1 + 4", ALL_3, "difference"),
    ("3", "bias less the means", LEFT, "bias - means.sum(1)", "q3", "the bias 1 + 4", ALL_3, "difference"),
    ("3", "no squares", " + v * values[:, None] ** 2", "", "q3", "f = 1 + 2 x + x^2", "general batch device", "difference"),
    ("3", "mean over the features", MEANS, "raw(data).mean((0, 2), True)[0]", "q3", "must sum to", ALL_3, "difference"),
    ("3", "without the bias", "torch.cat([raw(x) - means, left[:, :, None]], 2)", "raw(x) - means", "q3", "must have shape (1, 1, 2)", ALL_3, "must have shape"),
    ("3", "bias shared out", MEANS, "raw(data).mean(0) - bias[:, None] / len(u.T)", "q3", "less the data's mean", ALL_3, "difference"),
    ("3", "first example for all", "raw(x) - means", "raw(x[:1]).expand(len(x), -1, -1) - means", "q3", "must sum to", "batch device", "difference"),
    ("3", "on the CPU", "left[:, :, None]], 2)", "left[:, :, None]], 2) + torch.zeros(1, 1, 1, dtype=x.dtype)[:, :, [0] * (len(x.T) + 1)]", "q3", "another device", "device", "follow x"),
    ("4", "probabilities", "model(x)", "model(x).softmax(1)", "q4a", "the network itself", ALL_4, "difference"),
    ("4", "labels", "model(x)", "F.one_hot(model(x).argmax(1), model(x).shape[1]).to(x)", "q4a", "the network itself", ALL_4, "difference"),
    ("4", "through the origin", "z - z.mean(0)", "z", "q4a", "", "general side effects device easy shape", "difference"),
    ("4", "ridge not per input", "ridge * torch", "ridge / len(z) * torch", "q4a", "mean over the inputs", "general side effects device", "difference"),
    ("4", "no ridge", "ridge * torch", "0 * torch", "q4a", "variance / (variance + ridge)", "general side effects device", "difference"),
    ("4", "bias is the mean", "mean - weight @ z.mean(0)", "mean", "q4a", "the network itself", ALL_4, "difference"),
    ("4", "no bias", JOINED, "weight", "q4a", "must have shape (3, 7)", ALL_4, "must have shape"),
    ("4", "bias first", JOINED, "torch.cat([bias[:, None], weight], 1)", "q4a", "the network itself", ALL_4, "difference"),
    ("4", "standardised", "z - z.mean(0)", "(z - z.mean(0)) / z.std(0, correction=0)", "q4a", "", ALL_4, "difference"),
    ("4", "vectors only", "x.detach().flatten(1)", "x.detach()", "q4a", "make one vector", "shape", "RuntimeError"),
    ("4", "train mode", "    model.eval()\n", "", "q4b", "must be asked in eval mode", "side effects", "difference"),
    ("4", "left in eval mode", "module.training = training", "pass", "q4b", "train/eval mode", "side effects", "the train/eval mode of"),
    ("4", "all to train mode", "module.training = training", "module.train()", "q4b", "train/eval mode", "side effects", "the train/eval mode of"),
    ("4", "on the graph", "model(x).detach()", "model(x)", "q4a", "detached", ALL_4, "detached"),
    ("4", "zeroed .grad", "    z = x", "    model.zero_grad()\n    z = x", "q4b", "The .grad of the parameter", "side effects", "the .grad of the parameter"),
    ("4", "on the CPU", "torch.eye(z.shape[1]).to(z)", "torch.eye(z.shape[1], dtype=z.dtype)", "q4a", "another device", "device", "follow x"),
    ("5", "agreement", KAPPA, "agreement", "q5", "know nothing of each other", ALL_5, "difference"),
    ("5", "not rescaled", KAPPA, "agreement - chance", "q5", "agree on every input", ALL_5, "difference"),
    ("5", "uniform chance", "shares.sum().item() / count**2", "1 / classes", "q5", "9 of 10", "general batch device", "difference"),
    ("5", "chance by the network alone", "torch.bincount(said, minlength=classes) *", "torch.bincount(truth, minlength=classes) *", "q5", "9 of 10", "general batch device", "difference"),
    ("5", "nothing over nothing", KAPPA, "(agreement - chance) / (1 - chance)", "q5", "you divide by zero", "batch", "ZeroDivisionError"),
    ("5", "one where all agree", "0.0 if", "1.0 if", "q5", "nothing has been shown", "batch", "difference"),
    ("5", "a tensor", "double().mean().item()", "double().mean()", "q5", "must be a float", ALL_5, "must be a float, got Tensor"),
    ("5", "share of scores", "surrogate.argmax(1), network.argmax(1)", "surrogate.argmin(1), network.argmax(1)", "q5", "agree on every input", ALL_5, "difference"),
    ("5", "clamped at zero", KAPPA, f"max(0.0, {KAPPA})", "q5", "never agree", "easy", "difference"),
    ("5", "on the CPU", "agreement = ", "said = said + torch.zeros(len(said), dtype=said.dtype)\n    agreement = ", "q5", "another device", "device", "follow x"),
]  # fmt: skip
