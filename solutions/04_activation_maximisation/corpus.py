"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports"]
EMPTY = {
    "1a": ("favourites()", "[[3.0, -1.0, 2.0], [3.0, -1.0, 2.0]]"),
    "1b": ("slopes()", "[[1.0, 1.0, 1.0], [0.5, 1.0, 1.0]]"),
    "2": ("linear_favourite(weight, target, l2, low, high)", "weight[target]"),
    "3": ("variation(x)", "x"),
    "4": ("maximise(model, x, target, l2=0.0, tv=0.0, steps=100, lr=0.1, low=0.0, high=1.0)", "x"),
    "5": ("largest_step(l2, tv, height, width)", "(l2 + tv)"),
}

FAVOURITE_LOOP = """
def linear_favourite(weight, target, l2, low, high):
    rows = []
    for c in target.tolist():
        rows.append(torch.clip(weight[c] / l2 / 2, min=low, max=high))
    return torch.stack(rows)
"""
FAVOURITE_WHERE = """
def linear_favourite(weight, target, l2, low, high):
    top = 0.5 * weight.index_select(0, target) / l2
    top = torch.where(top < low, torch.full_like(top, low), top)
    return torch.where(top > high, torch.full_like(top, high), top)
"""
FAVOURITE_SLOPES = """
def linear_favourite(weight, target, l2, low, high):
    w = torch.nn.functional.one_hot(target, len(weight)).to(weight) @ weight
    inside = w / (2 * l2)
    up, down = (w - 2 * l2 * high > 0).to(w), (w - 2 * l2 * low < 0).to(w)
    return high * up + low * down + inside * (1 - up - down)
"""
VARIATION_SLICES = """
def variation(x):
    down = x[:, :, 1:] - x[:, :, :-1]
    right = x[..., 1:] - x[..., :-1]
    return (down**2).flatten(1).sum(dim=1) + (right**2).flatten(1).sum(dim=1)
"""
VARIATION_EACH = """
def variation(x):
    def one(picture):
        return torch.diff(picture, dim=1).pow(2).sum() + torch.diff(picture, dim=2).pow(2).sum()
    return torch.stack([one(picture) for picture in x])
"""
VARIATION_NORM = """
def variation(x):
    up, left = x.diff(dim=-2).reshape(len(x), -1), x.diff(dim=-1).reshape(len(x), -1)
    both = torch.cat([up, left], 1)
    return torch.einsum("ij,ij->i", both, both)
"""
ASCENT_ROWS = """
def maximise(model, x, target, l2=0.0, tv=0.0, steps=100, lr=0.1, low=0.0, high=1.0):
    before = {m: m.training for m in model.modules()}
    model.eval()
    results = []
    for row, c in zip(x.detach().split(1), target.tolist()):
        now = row.clone()
        for _ in range(steps):
            now.requires_grad_(True)
            objective = model(now)[0, c] - l2 * (now**2).sum() - tv * variation(now)[0]
            now = torch.clamp(now + lr * torch.autograd.grad(objective, now)[0], low, high).detach()
        results.append(now)
    for m, mode in before.items():
        m.training = mode
    return torch.cat(results)
"""
ASCENT_BY_HAND = """
class climbing:
    def __init__(self, model): self.modes = [(m, m.training) for m in model.modules()]
    def __enter__(self): [setattr(m, "training", False) for m, _ in self.modes]
    def __exit__(self, *error): [setattr(m, "training", t) for m, t in self.modes]

def maximise(model, x, target, l2=0.0, tv=0.0, steps=100, lr=0.1, low=0.0, high=1.0):
    point = x.detach().clone()
    with climbing(model):
        for _ in range(steps):
            leaf = point.clone().requires_grad_()
            logits = model(leaf)
            start = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits)
            slope = torch.autograd.grad(logits, leaf, start)[0] - 2 * l2 * point
            for axis in (2, 3):
                step = point.diff(dim=axis)
                edge = torch.zeros_like(point.narrow(axis, 0, 1))
                slope = slope + 2 * tv * (torch.cat([step, edge], axis) - torch.cat([edge, step], axis))
            point = torch.minimum(torch.maximum(point + lr * slope, torch.full_like(point, low)), torch.full_like(point, high))
    return point
"""
ASCENT_COPY = """
import copy as copies
def maximise(model, x, target, l2=0.0, tv=0.0, steps=100, lr=0.1, low=0.0, high=1.0):
    twin = copies.deepcopy(model).eval()
    picture = x.detach().clone().requires_grad_()
    for _ in range(steps):
        picture.grad = None
        score = twin(picture).gather(1, target.unsqueeze(1)).squeeze(1)
        loss = -score + l2 * picture.flatten(1).square().sum(1) + tv * variation(picture)
        loss.sum().backward()
        with torch.no_grad():
            picture -= lr * picture.grad
            picture.clamp_(low, high)
    return picture.detach()
"""
STEP_MATRIX = """
def largest_step(l2, tv, height, width):
    def largest(n):
        matrix = torch.zeros(n, n, dtype=torch.float64)
        for i in range(n - 1):
            matrix[i, i] += 1
            matrix[i + 1, i + 1] += 1
            matrix[i, i + 1] -= 1
            matrix[i + 1, i] -= 1
        return torch.linalg.eigvalsh(matrix)[-1].item()
    return 2 / (2 * l2 + 2 * tv * (largest(height) + largest(width)))
"""
STEP_SINES = """
def largest_step(l2, tv, height, width):
    steep = sum(4 * math.sin(math.pi * (n - 1) / (2 * n)) ** 2 for n in (height, width))
    return float(1 / (l2 + tv * steep))
"""
STEP_DIFFERENCES = """
import torch as t
def largest_step(l2, tv, height, width):
    steep = 0.0
    for n in (height, width):
        d = t.eye(n, dtype=t.float64).diff(dim=0)
        steep += t.linalg.matrix_norm(d, 2).item() ** 2 if n > 1 else 0.0
    return 1.0 / (l2 + tv * steep)
"""
RIGHT = [
    ("1a", "fractions", "def favourites(): return (3 / 4, -1 / 4, 1 / 2), (3 / 4, 0, 1 / 2)"),
    ("1a", "computed", "def favourites():\n    best = torch.tensor([3.0, -1.0, 2.0]) / 4\n"
           "    return [best.tolist(), best.clamp(0, 1).tolist()]"),
    ("1a", "comprehension", "def favourites():\n    free = [w / (2 * 2) for w in (3, -1, 2)]\n"
           "    return [free, [min(1.0, max(0.0, v)) for v in free]]"),
    ("1b", "tuples", "def slopes(): return (0, 1 / 4, 0), (1, 1 / 2, 0)"),
    ("1b", "from p", "def slopes():\n    p = [0.0, 0.5, 1.0]\n    return [[q * (1 - q) for q in p], [1 - q for q in p]]"),
    ("1b", "limits", "def slopes():\n    p = torch.sigmoid(torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64))\n"
           "    return [(p - p * p).tolist(), (1 - p).tolist()]"),
    ("2", "loop", FAVOURITE_LOOP),
    ("2", "where", FAVOURITE_WHERE),
    ("2", "slopes at the bounds", FAVOURITE_SLOPES),
    ("3", "slices", VARIATION_SLICES),
    ("3", "picture by picture", VARIATION_EACH),
    ("3", "einsum", VARIATION_NORM),
    ("4", "row by row", ASCENT_ROWS),
    ("4", "penalties by hand", ASCENT_BY_HAND),
    ("4", "copy, descent", ASCENT_COPY),
    ("5", "matrix", STEP_MATRIX),
    ("5", "sines", STEP_SINES),
    ("5", "differences", STEP_DIFFERENCES),
]  # fmt: skip

ALL_2, ALL_3 = "easy shape general batch device", "easy general batch device"
ALL_4 = "easy shape general batch side effects device"
FREE, BOX = "[0.75, -0.25, 0.5]", "[0.75, 0.0, 0.5]"
OF_P, OF_LOG_P = "[0.0, 0.25, 0.0]", "[1.0, 0.5, 0.0]"
CLIPPED, DOWN, RIGHTWARDS = (
    ".clamp(low, high)",
    "x.diff(dim=2).square().sum((1, 2, 3))",
    "x.diff(dim=3).square().sum((1, 2, 3))",
)
STEP = "(leaf + lr * slope).detach().clamp(low, high)"
WRONG = [
    ("1a", "the weights", FREE, "[3.0, -1.0, 2.0]", "q1a", "among all inputs", "easy", "Wrong: x[0]; x[1]; x[2]."),
    ("1a", "without the factor 2", FREE, "[1.5, -0.5, 1.0]", "q1a", "still rises when x[0] falls", "easy", "x[0]"),
    ("1a", "magnitudes", FREE, "[0.75, 0.25, 0.5]", "q1a", "still rises when x[1] falls", "easy", "Wrong: x[1]."),
    ("1a", "outside the box", BOX, "[0.75, -0.25, 0.5]", "q1a", "is outside", "general", "Wrong: x[1]."),
    ("1a", "white or black", BOX, "[1.0, 0.0, 1.0]", "q1a", "in the box: from your x the objective still rises when x[0] falls", "general", "x[0]; x[2]"),
    ("1a", "stretched into the box", BOX, "[1.0, 0.0, 0.75]", "q1a", "in the box", "general", "x[0]; x[2]"),
    ("1a", "one list", "[anywhere, in_the_box]", "anywhere", "q1a", "Two lists of three numbers are needed,", "easy general", "must have shape (2, 3)"),
    ("1b", "p itself", OF_P, "[0.0, 0.5, 1.0]", "q1b", "slope of p is", "easy", "Wrong: place 1; place 2."),
    ("1b", "factor 2", OF_P, "[0.0, 0.5, 0.0]", "q1b", "At f = 0 your slope of p", "easy", "Wrong: place 1."),
    ("1b", "log p as p", OF_LOG_P, "[0.0, 0.25, 0.0]", "q1b", "slope of log p", "general", "Wrong: place 0; place 1."),
    ("1b", "mirrored", OF_LOG_P, "[0.0, 0.5, 1.0]", "q1b", "At f = -40", "general", "Wrong: place 0; place 2."),
    ("1b", "always one", OF_LOG_P, "[1.0, 1.0, 1.0]", "q1b", "At f = 0", "general", "Wrong: place 1; place 2."),
    ("1b", "infinite", OF_LOG_P, "[1e9, 0.5, 0.0]", "q1b", "At f = -40", "general", "place 0"),
    ("1b", "exchanged", "[of_p, of_log_p]", "[of_log_p, of_p]", "q1b", "slope of p", "easy general", "Wrong: "),
    ("2", "without the factor 2", "(2 * l2)", "l2", "q2", "w - 2 * l2 * x must vanish", ALL_2, "difference"),
    ("2", "times l2", "/ (2 * l2)", "* (2 * l2)", "q2", "must vanish", ALL_2, "difference"),
    ("2", "no box", CLIPPED, "", "q2", "box from -0.5 to 0.3: yours reaches", "general batch device", "difference"),
    ("2", "lower bound only", CLIPPED, ".clamp(min=low)", "q2", "yours reaches", "general batch device", "difference"),
    ("2", "white or black", "(weight[target] / (2 * l2)).clamp(low, high)", "low + (high - low) * (weight[target] > 0).to(weight)", "q2", "must vanish", ALL_2, "difference"),
    ("2", "stretched into the box", CLIPPED, ".sigmoid() * (high - low) + low", "q2", "must vanish", ALL_2, "difference"),
    ("2", "class 0 for all", "weight[target]", "weight[:1].expand(len(target), -1)", "q2", "targets 1, 0, 1", "general batch device", "difference"),
    ("2", "all classes", "weight[target]", "weight", "q2", "must have shape", ALL_2, "must have shape"),
    ("2", "on the CPU", CLIPPED, f"{CLIPPED} + torch.zeros(1, weight.shape[1], dtype=weight.dtype)", "q2", "another device", "device", "follow x"),
    ("3", "absolute values", "square()", "abs()", "q3", "1 + 4 from left to right", ALL_3, "difference"),
    ("3", "mean", "sum((1, 2, 3))", "mean((1, 2, 3))", "q3", "1 + 4", ALL_3, ""),
    ("3", "one direction", f" + {RIGHTWARDS}", "", "q3", "from left to right", ALL_3, "difference"),
    ("3", "across the border", DOWN, "(x - x.roll(1, 2)).square().sum((1, 2, 3))", "q3", "from top to bottom", ALL_3, "difference"),
    ("3", "root", f"{DOWN} + {RIGHTWARDS}", f"({DOWN} + {RIGHTWARDS}).sqrt()", "q3", "1 + 4", ALL_3, "difference"),
    ("3", "one number for the batch", "sum((1, 2, 3))", "sum()[None]", "q3", "one number each", "batch device", "must have shape"),
    ("3", "channels are neighbours", f"+ {RIGHTWARDS}", f"+ {RIGHTWARDS} + x.diff(dim=1).square().sum((1, 2, 3))", "q3", "are no neighbours", "general batch", "difference"),
    ("3", "without a gradient", "x.diff(dim=2)", "x.detach().diff(dim=2)", "q3", "gradient of the roughness", "general", "but not the gradient"),
    ("3", "on the CPU", f"+ {RIGHTWARDS}", f"+ {RIGHTWARDS} + torch.zeros(len(x), dtype=x.dtype)", "q3", "another device", "device", "follow x"),
    ("4", "probability", "model(leaf)", "model(leaf).softmax(1)", "q4a", "the step must be 0.2", ALL_4, "difference"),
    ("4", "log probability", "model(leaf)", "model(leaf).log_softmax(1)", "q4a", "the step must be 0.2", ALL_4, "difference"),
    ("4", "downhill", "lr * slope", "-lr * slope", "q4a", "the step must be 0.2", ALL_4, "difference"),
    ("4", "penalty added", "- l2 *", "+ l2 *", "q4a", "the step must be 0.2", "easy shape general batch device", "difference"),
    ("4", "penalty on the mean", "leaf.square().sum()", "leaf.square().mean()", "q4a", "2 * l2 * x", "easy shape general batch device", "difference"),
    ("4", "norm, not squared", "leaf.square().sum()", "leaf.flatten(1).norm(dim=1).sum()", "q4a", "2 * l2 * x", "easy shape general batch device", "difference"),
    ("4", "no smoothness", " - tv * variation(leaf).sum()", "", "q4a", "l2=1, tv=1", "general device", "difference"),
    ("4", "clipped at the end", STEP, "(leaf + lr * slope).detach()\n    x = x.clamp(low, high)", "q4a", "Is every step clipped", "general batch device", "difference"),
    ("4", "no box", ".clamp(low, high)", "", "q4a", "Is every step clipped", "general batch side effects device", "difference"),
    ("4", "box of 0 and 1", ".clamp(low, high)", ".clamp(0, 1)", "q4a", "one step of 0.2", "easy shape general", "difference"),
    ("4", "one step short", "range(steps)", "range(steps - 1)", "q4a", "one step", ALL_4, "difference"),
    ("4", "normalised gradient", "lr * slope", "lr * slope / slope.norm()", "q4a", "the step must be", ALL_4, "difference"),
    ("4", "Adam", "lr * slope", "lr * slope.sign()", "q4a", "the step must be", ALL_4, "difference"),
    ("4", "predicted class", "target[:, None]", "model(leaf).argmax(1, True)", "q4a", "for each row's target", "general batch side effects device", "difference"),
    ("4", "mean over the batch", "target[:, None]).sum()", "target[:, None]).mean()", "q4a", "the step must be", "batch side effects device", "difference"),
    ("4", "train mode", "    model.eval()\n", "", "q4c", "must be climbed in eval mode", "side effects", "difference"),
    ("4", "left in eval mode", "module.training = training", "pass", "q4c", "train/eval mode", "side effects", "the train/eval mode of"),
    ("4", "own .grad", "(slope,) = torch.autograd.grad(score, leaf)", "score.backward()\n        slope = leaf.grad", "q4c", "The .grad of the parameter", "side effects", "the .grad of the parameter"),
    ("4", "x itself", "x = x.detach().clone()", "pass", "q4c", "requires_grad flag of the input x", "side effects", "requires_grad flag"),
    ("4", "on the graph", ".detach().clamp(low, high)", ".clamp(low, high)", "q4a", "detached", ALL_4, ""),
    ("4", "on the CPU", "- l2 *", "+ (leaf * torch.zeros(leaf.shape, dtype=leaf.dtype)).sum() - l2 *", "q4a", "another device", "device", "follow x"),
    ("5", "half of it", "1 / (l2", "0.5 / (l2", "q5", "It is too small", "easy general", "difference"),
    ("5", "twice of it", "1 / (l2", "2 / (l2", "q5", "It is too large", "easy general", "difference"),
    ("5", "eight neighbours' bound", "(steepest(height) + steepest(width))", "8", "q5", "It is too small", "general", "difference"),
    ("5", "one direction", "(steepest(height) + steepest(width))", "steepest(height)", "q5", "", "general", "difference"),
    ("5", "largest of the two", "(steepest(height) + steepest(width))", "max(steepest(height), steepest(width))", "q5", "It is too large", "general", "difference"),
    ("5", "square pictures", "steepest(height) + steepest(width)", "2 * steepest(width)", "q5", "", "general", "difference"),
    ("5", "ring of pixels", "math.pi * (n - 1) / n", "math.pi", "q5", "It is too small", "general", "difference"),
    ("5", "without l2", "1 / (l2 + tv", "1 / (1e-9 + tv", "q5", "It is too large", "easy general", "difference"),
    ("5", "a tensor", "return 1 / (l2 + tv * (steepest(height) + steepest(width)))", "return torch.tensor(1 / (l2 + tv * (steepest(height) + steepest(width))))", "q5", "must be a float", "easy general", "must be a float, got Tensor"),
]  # fmt: skip
