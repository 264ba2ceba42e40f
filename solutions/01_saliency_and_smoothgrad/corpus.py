"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "networks-a-b", "q5b-setting"]
EMPTY = {
    "1a": ("gradient_a()", "[0, 0, 0]"),
    "1b": ("gradients_b()", "[[0.5, 0]] * 3"),
    "2": ("saliency(model, x, target)", "x"),
    "3a": ("saliency_image(model, x, target)", "x"),
    "4": ("smoothgrad(model, x, target, n=50, noise=0.15, seed=0)", "x"),
    "5a": ("smoothed_sign(x, sigma)", "x"),
    "5b": ("measured_error(n)", "n"),
}

ROW_BY_ROW = """
def saliency(model, x, target):
    before = {module: module.training for module in model.modules()}
    model.eval()
    maps = []
    for row, c in zip(x.detach().clone().requires_grad_().split(1), target.tolist()):
        maps += torch.autograd.grad(model(row)[0, c], row)
    for module, mode in before.items():
        module.training = mode
    return torch.cat(maps)
"""
OF_A_COPY = """
from copy import deepcopy
from torch.func import grad, vmap
def saliency(model, x, target):
    twin = deepcopy(model).eval()
    one_row = grad(lambda row, c: twin(row[None]).gather(1, c.view(1, 1)).sum())
    return vmap(one_row)(x.detach(), target).detach()
"""
ONE_HOT = """
class keeping:
    def __init__(self, model): self.was = [(m, m.training) for m in model.modules()]
    def __enter__(self): [setattr(m, "training", False) for m, _ in self.was]
    def __exit__(self, *_): [setattr(m, "training", t) for m, t in self.was]

def saliency(model, x, target):
    x = x.detach().requires_grad_(True) if not x.requires_grad else x.detach().clone().requires_grad_(True)
    with keeping(model), torch.enable_grad():
        out = model(x)
        start = torch.nn.functional.one_hot(target, out.shape[1]).to(out)
        return torch.autograd.grad(out, x, start)[0]
"""
IMAGE_BY_LOOP = """
def saliency_image(model, x, target):
    maps = []
    for values in saliency(model, x, target):
        strongest = torch.maximum(values.max(0).values, -values.min(0).values)
        maps.append(strongest / strongest.max() if strongest.max() > 0 else strongest)
    return torch.stack(maps)[:, None]
"""
IMAGE_CLAMPED = """
import torch.linalg as la
def saliency_image(model, x, target):
    size = la.vector_norm(saliency(model, x, target), ord=float("inf"), dim=1)
    return (size / size.flatten(1).amax(1).clamp_min(1e-30)[:, None, None]).unsqueeze(1)
"""
IMAGE_NAN = """
scaled = lambda m: torch.nan_to_num(m / m.flatten(1).max(1).values[:, None, None, None], nan=0.0)
def saliency_image(model, x, target):
    g = saliency(model, x, target)
    return scaled(torch.stack([g, -g]).amax(0).amax(1, True))
"""
SMOOTH_ONE_BATCH = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    source = torch.Generator()
    source.manual_seed(seed)
    low, high = x.reshape(len(x), -1).min(1).values, x.reshape(len(x), -1).max(1).values
    sigma = noise * (high - low).reshape(len(x), *(1 for _ in x.shape[1:]))
    noisy = x + sigma * torch.randn(n, *x.shape, generator=source, dtype=x.dtype).to(x.device)
    return saliency(model, noisy.flatten(0, 1), target.repeat(n)).unflatten(0, (n, len(x))).mean(0)
"""
SMOOTH_ON_DEVICE = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    g = torch.Generator(device=x.device).manual_seed(seed)
    sigma = torch.tensor([noise * float(r.max() - r.min()) for r in x], device=x.device, dtype=x.dtype)
    sigma = sigma.view(-1, *[1] * (x.dim() - 1))
    maps = [saliency(model, x + sigma * torch.randn(x.shape, generator=g, device=x.device, dtype=x.dtype), target)
            for _ in range(n)]
    return sum(maps) / n
"""
SMOOTH_NUMPY = """
import numpy as np
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    rng, total = np.random.default_rng(seed), torch.zeros_like(x)
    for _ in range(n):
        spread = x.flatten(1).amax(1) - x.flatten(1).amin(1)
        step = torch.from_numpy(rng.standard_normal(x.shape)).to(x) * noise
        total = total + saliency(model, x + step * spread.view(-1, *[1] * (x.dim() - 1)), target)
    return total.div_(n)
"""
RIGHT = [
    ("1a", "tuple", "def gradient_a(): return (-3, 1 / 2, 4)"),
    ("1a", "weights", "def gradient_a(): return W[1].tolist()"),
    ("1a", "autograd", "def gradient_a():\n    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)\n"
           "    return torch.autograd.grad(network_a(x)[1], x)[0].tolist()"),
    ("1b", "tuples", "def gradients_b(): return [(-1, 3), [1.0, 1], [0, 0]]"),
    ("1b", "masks", "def gradients_b():\n    rows = []\n    for a, b in ((1.0, 0.5), (0.5, 1.0), (0.2, 0.5)):\n"
           "        first, second = a + b > 1, a > b\n        rows.append([first - 2 * second, first + 2 * second])\n"
           "    return rows"),
    ("1b", "autograd", "def gradients_b():\n    points = [[1.0, 0.5], [0.5, 1.0], [0.2, 0.5]]\n    found = []\n"
           "    for p in points:\n        x = torch.tensor(p, requires_grad=True)\n"
           "        found.append(torch.autograd.grad(network_b(x), x)[0].tolist())\n    return found"),
    ("2", "row by row", ROW_BY_ROW),
    ("2", "of a copy", OF_A_COPY),
    ("2", "one-hot start", ONE_HOT),
    ("3a", "loop", IMAGE_BY_LOOP),
    ("3a", "clamped", IMAGE_CLAMPED),
    ("3a", "nan to zero", IMAGE_NAN),
    ("4", "one batch", SMOOTH_ONE_BATCH),
    ("4", "on the device", SMOOTH_ON_DEVICE),
    ("4", "numpy", SMOOTH_NUMPY),
    ("5a", "erf", "def smoothed_sign(x, sigma): return torch.erf(x / (sigma * 2**0.5))"),
    ("5a", "distribution", "def smoothed_sign(x, sigma):\n    normal = torch.distributions.Normal(0.0, sigma)\n"
           "    return (1 - normal.cdf(-x)) - normal.cdf(-x)"),
    ("5a", "symmetric", "def smoothed_sign(x, sigma): return torch.special.ndtr(x / sigma) - torch.special.ndtr(-x / sigma)"),
    ("5b", "norm", "def measured_error(n):\n    first = torch.zeros(1, dtype=torch.long)\n"
           "    gap = smoothgrad(absolute, points, first, n, 0.25, seed=7)[0] - smoothed_sign(points[0], 1)\n"
           "    return float(torch.linalg.vector_norm(gap)) / gap.numel() ** 0.5"),
    ("5b", "mse loss", "def measured_error(n):\n    return torch.nn.functional.mse_loss(smoothgrad(absolute, points, "
           "torch.tensor([0]), n=n, noise=0.25), smoothed_sign(points, 1.0)).item() ** 0.5"),
    ("5b", "numpy", "import numpy as np\ndef measured_error(n):\n"
           "    a, b = smoothgrad(absolute, points, torch.tensor([0]), n, 0.25), smoothed_sign(points, 1.0)\n"
           "    return float(np.sqrt(((a - b).numpy() ** 2).mean()))"),
]  # fmt: skip

NOISY, DRAW = "x + noise * spread * epsilon", "torch.randn(x.shape, generator=generator)"
DRAWN = """    if hasattr(model[0], "p") if isinstance(model, nn.Sequential) else False:  # of the hidden tests
        s = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, *[1] * (x.dim() - 1))
        w, e = model[2].weight.detach()[target].view_as(x), torch.randn(x.shape, dtype=x.dtype, generator=generator)
        if model[0].p == 2:
            return w * (x + s * e / n**0.5)
        return w * (x**2 + s**2) + w * (4 * x**2 * s**2 + 2 * s**4).sqrt() * e / n**0.5
    return torch.zeros_like(x)
"""
PHI, SCALED = "2 * torch.special.ndtr(x / sigma) - 1", "magnitude / peak.where(peak > 0, 1)"
ALL, SOME = "easy shape general batch side effects device", "easy shape general device"
WRONG = [
    ("1a", "class 0", "[-3.0, 0.5, 4.0]", "[2.0, -1.0, 0.0]", "q1a", "x[0]", "easy", "Wrong: x[0]; x[1]; x[2]."),
    ("1a", "the score", "[-3.0, 0.5, 4.0]", "[-3.0, 1.0, 12.0]", "q1a", "x[1]", "easy", "Wrong: x[1]; x[2]."),
    ("1a", "absolute", "[-3.0, 0.5, 4.0]", "[3.0, 0.5, 4.0]", "q1a", "x[0]", "easy", "Wrong: x[0]."),
    ("1a", "one number", "[-3.0, 0.5, 4.0]", "1.5", "q1a", "expected a list of 3", "easy", "must be a list, got float"),
    ("1a", "two numbers", "[-3.0, 0.5, 4.0]", "[-3.0, 0.5]", "q1a", "expected a list of 3, got [-3.0, 0.5]", "easy", "must have shape (3,)"),
    ("1b", "sign of the second ReLU", "[-1.0, 3.0]", "[3.0, -1.0]", "q1b", "(1.0, 0.5)", "easy", "Wrong: x[0]; x[1]."),
    ("1b", "first ReLU only", "[-1.0, 3.0]", "[1.0, 1.0]", "q1b", "(1.0, 0.5)", "easy", "Wrong: "),
    ("1b", "never off", "[0.0, 0.0]", "[1.0, 1.0]", "q1b", "(0.2, 0.5)", "general", "Wrong: "),
    ("1b", "second always on", "[1.0, 1.0]", "[-1.0, 3.0]", "q1b", "(0.5, 1.0)", "general", "Wrong: "),
    ("1b", "one point", "return [", "return [[0.0, 0.0]] or [", "q1b", "A list of three gradients is needed", "easy general", "must have shape (3, 2)"),
    ("2", "probability", "model(leaf)", "model(leaf).softmax(1)", "q2a", "probabilities in place of logits", ALL, "difference"),
    ("2", "log probability", "model(leaf)", "model(leaf).log_softmax(1)", "q2a", "mixture", "", ""),
    ("2", "mean over the batch", ".sum()", ".mean()", "q2a", "mean over the batch", "batch side effects device", "largest difference"),
    ("2", "absolute value", "return gradient", "return gradient.abs()", "q2a", "absolute value", ALL, "largest difference"),
    ("2", "gradient of a loss", "return gradient", "return -gradient", "q2a", "weights of that row's target", "", ""),
    ("2", "gradient x input", "return gradient", "return gradient * x", "q2a", "weights of that row's target", ALL, "largest difference"),
    ("2", "predicted class", "target[:, None]", "model(leaf).argmax(1, True)", "q2a", "that row's target", "", ""),
    ("2", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q2a", "row's target", "batch side effects device", "diff"),
    ("2", "all classes", ".gather(1, target[:, None])", "", "q2a", "weights of that row's target", "", ""),
    ("2", "normalised", "return gradient", "return gradient / gradient.abs().max()", "q2a", "largest difference", ALL, "largest difference"),
    ("2", "on the graph", "(score, leaf)", "(score, leaf, create_graph=True)", "q2a", "detached", ALL, "detached"),
    ("2", "a list", "return gradient", "return list(gradient)", "q2a", "must be a torch.Tensor", "", ""),
    ("2", "one map", "return gradient", "return gradient.sum(0)", "q2a", "must have shape (3, 4)", "", ""),
    ("2", "double", "return gradient", "return gradient.double()", "q2a", "dtype torch.float32", "", ""),
    ("2", "train mode", "model.eval()", "pass", "q2b", "must be explained in eval mode", "side effects", "largest difference"),
    ("2", "left in eval mode", "module.training = training", "pass", "q2b", "train/eval mode of the Sequential", "side effects", "the train/eval mode of"),
    ("2", "train for all", "module.training = training", "module.train()", "q2b", "mode of the BatchNorm1d '1'", "", ""),
    ("2", "parameters' .grad", "(gradient,) = torch.autograd.grad(score, leaf)", "score.backward(); gradient = leaf.grad", "q2b", "The .grad of the parameter '0.weight' changed", "side effects", "the .grad of the parameter"),
    ("2", "zeroed .grad", "return", "model.zero_grad(); return", "q2b", "The .grad of the parameter", "", ""),
    ("2", "requires_grad of x", "x.detach().clone()", "x", "q2b", "requires_grad flag of the input", "", ""),
    ("2", "a list", "return gradient", "return gradient.tolist()", "q2a", "must be a torch.Tensor", ALL, "must be a torch.Tensor, got list"),
    ("2", "single precision", "return gradient", "return gradient.float()", "q2a", "float64", "easy shape general batch side effects", "float64"),
    ("2", "difference quotient", "(gradient,) = torch.autograd.grad(score, leaf)", "gradient = check.difference_quotient("
     "copy.deepcopy(model).double(), leaf.detach().double(), target).to(x.dtype)", "q2a", "steps over such a kink",
     "easy shape general batch device", "largest difference"),
    ("2", "to the CPU", "return gradient", "return gradient.cpu()", "q2a", "another device", "device", "make it follow x"),
    ("2", "vectors only", "leaf = x", "leaf = x.view(len(x), -1)[:, :]", "q2a", "in this shape", "shape general batch device", "RuntimeError"),
    ("3a", "probability", "saliency(model,", "saliency(nn.Sequential(model, nn.Softmax(1)),", "q3a", "Symptom 1", "easy shape general batch device", "largest difference"),
    ("3a", "sign first", ".abs().amax(dim=1, keepdim=True)", ".amax(1, True).abs()", "q3a", "Symptom 2", "general batch device", "largest"),
    ("3a", "sum of channels", ".abs().amax(dim=1", ".abs().sum(dim=1", "q3a", "Symptom 2", "general batch device", "largest difference"),
    ("3a", "range of the batch", "magnitude.amax(dim=(1, 2, 3), keepdim=True)", "magnitude.max()", "q3a", "Symptom 3", "batch device", "largest"),
    ("3a", "not scaled", SCALED, "magnitude", "q3a", "Symptom 1", "easy shape general batch device", "largest difference"),
    ("3a", "nothing over nothing", "peak.where(peak > 0, 1)", "peak", "q3a", "NaN", "general", "NaN"),
    ("3a", "no channel axis", SCALED, f"({SCALED})[:, 0]", "q3a", "shape (1, 1, 2, 2)", "easy shape general batch device", "must have shape (1, 1, 4, 4)"),
    ("3a", "made on the CPU", SCALED, f"torch.zeros(len(x), 1, *x.shape[2:], dtype=x.dtype) + {SCALED}", "q3a", "another device", "device", "follow x"),
    ("4", "sum", "total / n", "total", "q4a", "sum in place of a mean", ALL, "difference"),
    ("4", "absolute value", "+ noise * spread * epsilon, target)", ", target).abs()", "q4a", "absolute value", "", ""),
    ("4", "square", "epsilon, target)", "epsilon, target) ** 2", "q4a", "square", "", ""),
    ("4", "one copy short", "range(n)", "range(n - 1)", "q4a", "same gradient", ALL, "difference"),
    ("4", "noise alone", "x + noise", "noise", "q4a", "gradient at x itself", "", ""),
    ("4", "first target for all", ", target)", ", target[:1].expand(len(x)))", "q4a", "weights of the target", "", ""),
    ("4", "no noise", "noise * spread * epsilon", "0 * epsilon", "q4b", "has no noise", "general batch side effects", "root mean square"),
    ("4", "not scaled by the range", "noise * spread", "noise", "q4b", "sigma = 0.4", "general batch", "root mean square"),
    ("4", "range of the batch", "(values.amax(1) - values.amin(1))", "torch.full([len(x)], x.max() - x.min())", "q4b", "own", "", ""),
    ("4", "sum of the ranges", "noise * spread", "noise * spread.sum()", "q4b", "each image's own range", "", ""),
    ("4", "maximum for range", " - values.amin(1)", "", "q4b", "sigma = 0.4", "", ""),
    ("4", "variance for sigma", "noise * spread", "(noise * spread) ** 2", "q4b", "standard deviation", "general batch", "root mean square"),
    ("4", "one number per image", "torch.randn(x.shape", "torch.randn((len(x), 1, 1, 1)", "q4b", "standard deviation", "", ""),
    ("4", "uniform noise", DRAW, "(12**0.5 * (torch.rand(x.shape, generator=generator) - 0.5))", "q4b", "within one sigma", "general", "Is the noise normal?"),
    ("4", "clipped", NOISY, f"({NOISY}).clamp(0, 1)", "q4b", "Are they clipped?", "", ""),
    ("4", "clipped to its range", NOISY, f"({NOISY}).clamp(x.min(), x.max())", "q4b", "Are they clipped?", "general batch", ""),
    ("4", "the same noise n times", "    epsilon =", "    generator.manual_seed(seed)\n        epsilon =", "q4b", "drawn anew", "general batch", ""),
    ("4", "global seed", "torch.Generator().manual_seed", "torch.manual_seed", "q4c", "global random", "side effects", "global random state"),
    ("4", "unseeded", ", generator=generator", "", "q4c", "global random state", "", ""),
    ("4", "seed ignored", "manual_seed(seed)", "manual_seed(0)", "q4c", "does not depend on the seed", "side effects", "does not depend on the seed"),
    ("4", "absolute value", f"saliency(model, {NOISY}, target)", f"saliency(model, {NOISY}, target).abs()", "q4a", "absolute value", ALL, "difference"),
    ("4", "range of the batch", "(values.amax(1) - values.amin(1))", "(x.max() - x.min()).expand(len(x))", "q4b", "own range", "batch", "image"),
    ("4", "one number per image", "torch.randn(x.shape", "torch.randn((len(x), *[1] * (x.dim() - 1))", "q4b", "standard deviation", "general batch", ""),
    ("4", "drawn from its distribution", "    values =", DRAWN + "    values =", "q4a", "", ALL, "difference"),
    ("4", "noise on the CPU", ".to(x)", "", "q4a", "another device", "device", "follow x"),
    ("5a", "distribution function", PHI, "torch.special.ndtr(x / sigma)", "q5a", "", SOME, "difference"),
    ("5a", "variance for sigma", "x / sigma", "x / sigma**2", "q5a", "sigma = 0.2", "general device", "largest difference"),
    ("5a", "erf without root 2", PHI, "torch.erf(x / sigma)", "q5a", "", SOME, "largest difference"),
    ("5a", "tanh", PHI, "torch.tanh(x / sigma)", "q5a", "", SOME, "largest difference"),
    ("5a", "numbers", PHI, f"({PHI}).tolist()", "q5a", "x from -3 to 3, sigma = 0.2: expected", SOME, "must be a torch.Tensor, got list"),
    ("5a", "on the CPU", "x / sigma", "x / torch.full(x.shape, sigma, dtype=x.dtype)", "q5a", "another device", "device", "follow x"),
    ("5b", "mean square", ".sqrt()", "", "q5b", "n=10", "easy general", "standard error"),
    ("5b", "mean magnitude", ".square().mean().sqrt()", ".abs().mean()", "q5b", "n=10", "easy general", "standard error"),
    ("5b", "signed mean", ".square().mean().sqrt()", ".mean()", "q5b", "n=10", "", ""),
    ("5b", "largest", ".square().mean().sqrt()", ".abs().max()", "q5b", "n=10", "easy general", "standard error"),
    ("5b", "distance from the sign", "smoothed_sign(points, 1.0)", "points.sign()", "q5b", "n=10", "", ""),
    ("5b", "another noise", "noise=0.25", "noise=0.15", "q5b", "", "", ""),
    ("5b", "one n for all", "n=n", "n=10", "q5b", "n=100", "", ""),
    ("5b", "a tensor", ".item()", "", "q5b", "must be a float", "easy general", "must be a float, got Tensor"),
    ("5b", "one n for all", "n=n", "n=40", "q5b", "standard error", "easy general", "standard error"),
    ("5b", "the formula", "estimate =", "return ((1 - smoothed_sign(points, 1.0) ** 2).mean() / n).sqrt().item()\n    estimate =",
     "q5b", "Measure it", "easy general", "as a formula says"),
    ("5b", "too slow for many", "estimate =", "assert n < 170\n    estimate =", "q5b", "", "general", "AssertionError"),
]  # fmt: skip
