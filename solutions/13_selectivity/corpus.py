"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "linear"]
EMPTY = {
    "1a": ("best_order()", "[1, 3, 2, 0]"),
    "1b": ("gradient_curve()", "[1.0, 2.0, 3.0, 4.0, 5.0]"),
    "2": ("removal_order(maps, seed=0)", "torch.arange(maps[0, 0].numel()).expand(len(maps), -1).to(maps.device)"),
    "3": ("remove(x, order, k, fill=None)", "x + 1"),
    "4": ("removal_curve(model, x, order, target, steps, fill=None)", "torch.ones(len(x), steps + 1).to(x)"),
    "5a": ("aopc(curves)", "curves.mean(1) + 2"),
    "5b": ("random_curve(model, x, target, steps, draws=10, seed=0, fill=None)", "torch.ones(len(x), steps + 1).to(x)"),
}

ORDER_BY_NOISE = """
def removal_order(maps, seed=0):
    generator = torch.Generator()
    generator.manual_seed(seed)
    orders = []
    for map_ in maps.sum(1).flatten(1):
        _, level = torch.unique(map_, return_inverse=True)
        jitter = torch.rand(len(map_), generator=generator, dtype=torch.float64).to(map_.device)
        orders.append((level.double() + 0.9 * jitter).argsort(descending=True))
    return torch.stack(orders)
"""
ORDER_BY_LISTS = """
import random
def removal_order(maps, seed=0):
    draw = random.Random(seed)
    rows = []
    for row in maps.sum(1).flatten(1).tolist():
        pixels = list(range(len(row)))
        draw.shuffle(pixels)
        rows.append(sorted(pixels, key=lambda p: -row[p]))
    return torch.tensor(rows, device=maps.device)
"""
ORDER_SHARED = """
def removal_order(maps, seed=0):
    relevance = maps.sum(1).reshape(len(maps), -1)
    shuffle = torch.randperm(relevance.shape[1], generator=torch.Generator().manual_seed(seed)).to(maps.device)
    ranked = torch.sort(-relevance[:, shuffle], dim=1, stable=True).indices
    return shuffle[ranked]
"""
REMOVE_ROW_BY_ROW = """
def remove(x, order, k, fill=None):
    copies = x.clone()
    for copy, row in zip(copies, order):
        value = copy.flatten(1).mean(1, keepdim=True) if fill is None else fill
        copy.flatten(1)[:, row[:k]] = value
    return copies
"""
REMOVE_BY_RANK = """
def remove(x, order, k, fill=None):
    place = order.argsort(dim=1).view(len(x), 1, *x.shape[2:])
    keep = (place >= k).to(x.dtype)
    value = x.flatten(2).mean(2)[:, :, None, None] if fill is None else fill
    return keep * x + (1 - keep) * value
"""
REMOVE_SCATTERED = """
def remove(x, order, k, fill=None):
    flat = x.flatten(2)
    index = order[:, None, :k].expand(-1, x.shape[1], -1)
    value = flat.mean(2, keepdim=True) if fill is None else torch.full_like(flat[:, :, :1], fill)
    return flat.scatter(2, index, value.expand(-1, -1, index.shape[2])).view(x.shape)
"""
CURVE_ONE_BATCH = """
def removal_curve(model, x, order, target, steps, fill=None):
    was = [(m, m.training) for m in model.modules()]
    model.eval()
    stack = torch.cat([remove(x, order, s * order.shape[1] // steps, fill) for s in range(steps + 1)])
    with torch.no_grad():
        p = torch.softmax(model(stack), 1).gather(1, target.repeat(steps + 1)[:, None])
    for m, mode in was:
        m.training = mode
    return p.view(steps + 1, len(x)).T
"""
CURVE_OF_A_COPY = """
from copy import deepcopy

@torch.no_grad()
def removal_curve(model, x, order, target, steps, fill=None):
    twin, rows = deepcopy(model).eval(), []
    for row, way, c in zip(x.split(1), order.split(1), target.tolist()):
        counts = [int(step * way.shape[1] / steps + 1e-9) for step in range(steps + 1)]
        rows.append(torch.stack([torch.softmax(twin(remove(row, way, k, fill))[0], 0)[c] for k in counts]))
    return torch.stack(rows)
"""
CURVE_BY_LOG = """
def removal_curve(model, x, order, target, steps, fill=None):
    modes = [m.training for m in model.modules()]
    model.train(False)
    result = torch.zeros(len(x), steps + 1, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        for s in range(steps + 1):
            logits = model(remove(x, order, s * order.shape[1] // steps, fill))
            result[:, s] = (-nn.functional.cross_entropy(logits, target, reduction="none")).exp()
    for m, mode in zip(model.modules(), modes):
        m.training = mode
    return result
"""
AOPC_BY_SUM = """
def aopc(curves):
    return (curves[:, :1] - curves).sum(1) / curves.shape[1]
"""
AOPC_ROW_BY_ROW = """
def aopc(curves):
    result = []
    for curve in curves:
        result.append(sum(curve[0] - p for p in curve) / len(curve))
    return torch.stack(result)
"""
AOPC_BY_WEIGHTS = """
def aopc(curves):
    weights = torch.full_like(curves[0], -1 / curves.shape[1])
    weights[0] += 1
    return curves @ weights
"""
RANDOM_ONE_GENERATOR = """
def random_curve(model, x, target, steps, draws=10, seed=0, fill=None):
    generator, curves = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        order = torch.rand(len(x), x[0, 0].numel(), generator=generator).argsort(1).to(x.device)
        curves.append(removal_curve(model, x, order, target, steps, fill))
    return torch.stack(curves).mean(0)
"""
RANDOM_SEEDS = """
def random_curve(model, x, target, steps, draws=10, seed=0, fill=None):
    seeds = torch.randint(2**31, (draws,), generator=torch.Generator().manual_seed(seed)).tolist()
    orders = [removal_order(torch.zeros_like(x), s) for s in seeds]
    return sum(removal_curve(model, x, o, target, steps, fill) for o in orders) / draws
"""
RANDOM_ONE_BATCH = """
def random_curve(model, x, target, steps, draws=10, seed=0, fill=None):
    copies, targets = x.repeat(draws, 1, 1, 1), target.repeat(draws)
    noise = torch.rand(copies.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    many = removal_curve(model, copies, removal_order(noise), targets, steps, fill)
    return many.view(draws, len(x), -1).mean(0)
"""
RIGHT = [
    ("1a", "tuple", "def best_order(): return (0, 2, 3, 1)"),
    ("1a", "sorted", "def best_order():\n    return sorted(range(4), key=lambda i: -float(w[i] * x0[i]))"),
    ("1a", "argsort", "def best_order(): return (w * x0).argsort(descending=True).tolist()"),
    ("1b", "tuple", "def gradient_curve(): return (1.75, 1 / 4, -7 / 4, -2, 0)"),
    ("1b", "running sum", "def gradient_curve():\n    left = 1.75\n    scores = [left]\n    for fall in (1.5, 2, 0.25, -2):\n"
           "        left -= fall\n        scores.append(left)\n    return scores"),
    ("1b", "with the model", "def gradient_curve():\n    x, scores = x0.clone(), [(w * x0).sum().item()]\n"
           "    for i in w.argsort(descending=True):\n        x[i] = 0\n        scores.append((w * x).sum().item())\n"
           "    return scores"),
    ("2", "noise below the levels", ORDER_BY_NOISE),
    ("2", "lists", ORDER_BY_LISTS),
    ("2", "one shuffle for all", ORDER_SHARED),
    ("3", "row by row", REMOVE_ROW_BY_ROW),
    ("3", "by rank", REMOVE_BY_RANK),
    ("3", "scattered", REMOVE_SCATTERED),
    ("4", "one batch", CURVE_ONE_BATCH),
    ("4", "of a copy", CURVE_OF_A_COPY),
    ("4", "by the loss", CURVE_BY_LOG),
    ("5a", "sum", AOPC_BY_SUM),
    ("5a", "row by row", AOPC_ROW_BY_ROW),
    ("5a", "weights", AOPC_BY_WEIGHTS),
    ("5b", "one generator", RANDOM_ONE_GENERATOR),
    ("5b", "seeds of seeds", RANDOM_SEEDS),
    ("5b", "one batch", RANDOM_ONE_BATCH),
]  # fmt: skip

ALL, REST = "easy shape general batch side effects device", "easy shape general batch device"
BEST, CURVE = "[0, 2, 3, 1]", "[1.75, 0.25, -1.75, -2.0, 0.0]"
PLACES = "relevance.gather(1, mixed).argsort(dim=1, descending=True, stable=True)"
LAST = "mixed.gather(1, places)"
GONE = "gone = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :k], True)"
COUNT = "step * pixels // steps"
SOFT = "logits.softmax(dim=1).gather(1, target[:, None])"
AREA = "curves[:, 0] - curves.mean(dim=1)"
SEED = "seed=draws * seed + draw"
WRONG = [
    ("1a", "gradient", BEST, "[2, 0, 3, 1]", "q1a", "After removal 1", "easy", "Wrong: number 1; number 2."),
    ("1a", "brightness", BEST, "[1, 0, 2, 3]", "q1a", "After removal 1", "easy", "Wrong: number 1; number 2; number 3; number 4."),
    ("1a", "magnitude of the effect", BEST, "[0, 1, 2, 3]", "q1a", "After removal 2", "easy", "Wrong: number 2; number 3; number 4."),
    ("1a", "worst first", BEST, "[1, 3, 2, 0]", "q1a", "another choice of 1 pixels", "easy", "Wrong: number "),
    ("1a", "from 1", BEST, "[1, 3, 4, 2]", "q1a", "names each of the pixels 0, 1, 2, 3 once", "easy", "Wrong: number "),
    ("1a", "positive effects only", BEST, "[0, 2, 3]", "q1a", "once, got", "easy", "must have shape (4,)"),
    ("1b", "best order", CURVE, "[1.75, -0.25, -1.75, -2.0, 0.0]", "q1b", "Which pixel goes there", "easy",
     "Wrong: number 2."),
    ("1b", "the falls", CURVE, "[1.5, 2.0, 0.25, -2.0, 0.0]", "q1b", "score of the whole picture", "easy",
     "Wrong: number "),
    ("1b", "weights taken away", CURVE, "[1.75, -1.25, -3.25, -4.25, -3.25]", "q1b", "score of a black picture",
     "easy", "Wrong: number 2; number 3; number 4; number 5."),
    ("1b", "never below zero", CURVE, "[1.75, 0.25, 0.0, 0.0, 0.0]", "q1b", "in step 2", "easy", "Wrong: number 3; number 4."),
    ("1b", "without the start", CURVE, "[0.25, -1.75, -2.0, 0.0]", "q1b", "has five scores", "easy",
     "must have shape (5,)"),
    ("1b", "magnitude at the end", CURVE, "[1.75, 0.25, -1.75, -1.5, 0.0]", "q1b", "in step 3", "easy",
     "Wrong: number 4."),
    ("2", "magnitude", "maps.sum(dim=1)", "maps.sum(dim=1).abs()", "q2a", "sort magnitudes", REST, "largest difference"),
    ("2", "magnitude of the channels", "maps.sum(dim=1)", "maps.abs().sum(dim=1)", "q2a",
     "add up to the relevances", REST, "largest difference"),
    ("2", "first channel", "maps.sum(dim=1)", "maps[:, 0]", "q2a", "add up to the relevances",
     "general batch device", "largest difference"),
    ("2", "least relevant first", "descending=True", "descending=False", "q2a", "least relevant goes first", ALL,
     "largest difference"),
    ("2", "ranks", LAST, LAST + ".argsort(dim=1)", "q2a", "add up to the relevances", ALL, "largest difference"),
    ("2", "places in the shuffle", LAST, "places", "q2a", "add up to the relevances", ALL, "largest difference"),
    ("2", "reading order", LAST, "relevance.argsort(dim=1, descending=True, stable=True)", "q2b",
     "the pixel beside the last", "side effects", "not depend on the seed"),
    ("2", "global seed", "torch.Generator().manual_seed(seed)", "torch.manual_seed(seed)", "q2b",
     "global random state", "side effects", "had changed"),
    ("2", "unseeded", "generator=torch.Generator().manual_seed(seed)", "generator=None", "q2b",
     "global random state", "side effects", "had changed"),
    ("2", "seed ignored", "manual_seed(seed)", "manual_seed(0)", "q2b", "Two seeds gave the same order", "side effects", "not depend on the seed"),
    ("2", "order of the first map", LAST, "mixed.gather(1, places)[:1].expand(len(maps), -1)", "q2a", "its own map",
     "batch device", "largest difference"),
    ("2", "small numbers", LAST, "mixed.gather(1, places).int()", "q2a", "dtype torch.int64", ALL, "dtype"),
    ("2", "noise on all", "relevance.gather(1, mixed)", "(relevance + 1e-6 * draw).gather(1, mixed)", "q2a",
     "they are not equal", "general", "largest difference"),
    ("2", "draw on the CPU", ".to(maps.device)", "", "q2a", "another device", "device", "follow x"),
    ("3", "the last k", "order[:, :k]", "order[:, -k:]", "q3", "its last and its first pixel", REST,
     "largest difference"),
    ("3", "one too many", "order[:, :k]", "order[:, : k + 1]", "q3", "its last and its first pixel", REST,
     "largest difference"),
    ("3", "keeps the first k", "torch.where(gone, colour, x)", "torch.where(gone, x, colour)", "q3", "A picture 1",
     REST, "largest difference"),
    ("3", "order of the first image", "order[:, :k]", "order[:1, :k].expand(len(x), -1)", "q3", "Image 1 of two",
     "batch device", "largest difference"),
    ("3", "order for ranks", "gone = gone.view(len(x), 1, *x.shape[2:])",
     "gone = (order < k).view(len(x), 1, *x.shape[2:])", "q3", "A picture 1", REST, "largest difference"),
    ("3", "mean of the batch", "x.mean(dim=(2, 3), keepdim=True)", "x.mean()", "q3", "at its own mean",
     "general batch device", "largest difference"),
    ("3", "mean of the channels", "x.mean(dim=(2, 3), keepdim=True)", "x.mean(dim=(1, 2, 3), keepdim=True)", "q3",
     "at its own mean", "general batch device", "largest difference"),
    ("3", "zero is no fill", "if fill is None", "if not fill", "q3", "a fill of zero", "general", "largest difference"),
    ("3", "always black", "x.mean(dim=(2, 3), keepdim=True)", "0 * x", "q3", "A picture 1", REST, "largest difference"),
    ("3", "in place", "return torch.where(gone, colour, x)", "x[:] = torch.where(gone, colour, x)\n    return x + 0",
     "q3", "values of x itself", "batch", "had changed"),
    ("3", "colour on the CPU", "torch.full_like(x, fill)", "torch.full(x.shape, fill, dtype=x.dtype)", "q3", "another device",
     "device", "follow x"),
    ("4", "logit", "logits.softmax(dim=1)", "logits", "q4a", "probabilities", ALL, "largest difference"),
    ("4", "predicted class", "target[:, None]", "logits.argmax(1, keepdim=True)", "q4a", "targets 0 and 1", ALL,
     "largest difference"),
    ("4", "without the start", "range(steps + 1)", "range(1, steps + 1)", "q4a", "must have shape (2, 5)", ALL,
     "dtype"),
    ("4", "fixed size of steps", COUNT, "step * (pixels // steps)", "q4a", "Four pixels in three steps",
     "general batch device", "largest difference"),
    ("4", "rounded up", COUNT, "-(-step * pixels // steps)", "q4a", "Four pixels in three steps",
     "general batch device", "largest difference"),
    ("4", "one pixel a step", COUNT, "step", "q4a", "Four pixels in three steps", ALL, "largest difference"),
    ("4", "fill forgotten", ", fill))", "))", "q4a", "black pixels", "easy shape general device", "largest difference"),
    ("4", "mean over the batch", SOFT, SOFT + ".mean(dim=0, keepdim=True)", "q4a", "must have shape (2, 5)",
     "shape batch side effects device", "dtype"),
    ("4", "relative to the start", "torch.cat(columns, dim=1)", "torch.cat(columns, dim=1) / columns[0]", "q4a",
     "Logits 1", ALL, "largest difference"),
    ("4", "train mode", "model.eval()", "pass", "q4b", "The global random state of torch ", "side effects",
     "largest difference"),
    ("4", "left in eval mode", "module.training = training", "pass", "q4b", "train/eval mode", "side effects",
     "had changed"),
    ("4", "on the graph", ".detach()", "", "q4a", "detached", ALL, "still hangs"),
    ("4", "on the CPU", "columns.append(", "columns.append(torch.zeros(len(x), 1, dtype=x.dtype) + ", "q4a", "another device",
     "device", "follow x"),
    ("5a", "mean of the curve", AREA, "curves.mean(dim=1)", "q5a", "0.4, 0.4, 0.4", REST, "largest difference"),
    ("5a", "mean over S", AREA, "(curves[:, :1] - curves).sum(dim=1) / (curves.shape[1] - 1)", "q5a",
     "S entries in place of S + 1", REST, "largest difference"),
    ("5a", "sum", AREA, "(curves[:, :1] - curves).sum(dim=1)", "q5a", "The curves 0", REST, "largest difference"),
    ("5a", "trapezoids", AREA, "curves[:, 0] - torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1), dim=1)", "q5a",
     "The curves 0", REST, "largest difference"),
    ("5a", "rise", AREA, "curves.mean(dim=1) - curves[:, 0]", "q5a", "The curves 0", REST, "largest difference"),
    ("5a", "from 1", AREA, "1 - curves.mean(dim=1)", "q5a", "The curves 0", REST, "largest difference"),
    ("5a", "last fall", AREA, "curves[:, 0] - curves[:, -1]", "q5a", "The curves 0", REST, "largest difference"),
    ("5a", "of the batch", "curves.mean(dim=1)", "curves.mean()", "q5a", "The curves 0", "batch device",
     "largest difference"),
    ("5a", "magnitude", AREA, f"({AREA}).abs()", "q5a", "The curves 0", "easy shape general batch",
     "largest difference"),
    ("5b", "sum", "total / draws", "total", "q5b", "200 draws", "easy shape side effects device", "Measured"),
    ("5b", "one order for all draws", SEED, "seed=seed", "q5b", "200 draws", "easy shape side effects device", "Measured"),
    ("5b", "seed ignored", SEED, "seed=draw", "q5b", "do not depend on the seed", "side effects", "not depend on the seed"),
    ("5b", "by brightness", "torch.zeros_like(x)",
     "x + torch.linspace(0, 1e-3, x[0, 0].numel()).view(1, 1, *x.shape[2:])", "q5b", "200 draws",
     "easy shape side effects device", "follow x"),
    ("5b", "global seed", "order = removal_order(torch.zeros_like(x), seed=draws * seed + draw)",
     "torch.manual_seed(seed + draw)\n        order = torch.rand(len(x), x[0, 0].numel()).argsort(1)", "q5b",
     "global random state", "side effects device", "had changed"),
    ("5b", "one draw", "range(draws)", "range(1)", "q5b", "200 draws", "easy shape side effects device", "Measured"),
    ("5b", "fill forgotten", "steps, fill)", "steps)", "q5b", "200 draws", "easy shape side effects device", "Measured"),
    ("5b", "last draw only", "total = total + removal_curve", "total = draws * removal_curve", "q5b", "200 draws",
     "easy shape side effects device", "Measured"),
]  # fmt: skip
