"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports"]
EMPTY = {
    "1a": ("accuracies()", "[0.98, 0.98, 0.98, 0.98, 0.98]"),
    "1b": ("granted_at()", "[2.0, 3.0, 2.0]"),
    "1c": ("map_and_changes()", "[0.0, 1.0, 2.0, 3.0]"),
    "2": ("paste(x, patch, row, column)", "x + 1"),
    "3": ("effect(model, x, changed, target)", "torch.full((2,), 2.0).to(x)"),
    "4": ("recurring_spot(maps, size)", "[0, 0, 0.0]"),
    "5a": ("turning_values(w, b, x, low, high)", "x + 1"),
    "5b": ("true_sentences(model, x, feature, value)", "torch.full_like(feature, 2)"),
}

PASTE_BY_MASK = """
def paste(x, patch, row, column):
    laid = torch.zeros_like(x[0])
    there = torch.zeros_like(x[0], dtype=torch.bool)
    for c in range(len(patch)):
        for i in range(patch.shape[1]):
            for j in range(patch.shape[2]):
                laid[c, row + i, column + j], there[c, row + i, column + j] = patch[c, i, j], True
    return torch.where(there, laid, x)
"""
PASTE_BY_PADDING = """
def paste(x, patch, row, column):
    (h, w), (height, width) = patch.shape[-2:], x.shape[-2:]
    edges = (column, width - w - column, row, height - h - row)
    hole = nn.functional.pad(torch.ones_like(patch), edges)
    return x * (1 - hole) + nn.functional.pad(patch, edges)
"""
PASTE_BY_INDEX = """
def paste(x, patch, row, column):
    rows = torch.arange(patch.shape[-2], device=x.device)[:, None] + row
    columns = torch.arange(patch.shape[-1], device=x.device) + column
    one = []
    for picture in x:
        copy = picture.detach().clone()
        copy[:, rows, columns] = patch
        one.append(copy)
    return torch.stack(one)
"""
EFFECT_BY_SUMS = """
@torch.no_grad()
def effect(model, x, changed, target):
    was = {module: module.training for module in model.modules()}
    model.train(False)
    p, q = torch.softmax(model(x), -1), torch.softmax(model(changed), -1)
    for module, training in was.items():
        module.training = training
    d = (q - p)[:, target]
    mean = d.sum() / len(d)
    return torch.stack([mean, ((d - mean).square().sum() / (len(d) - 1) / len(d)).sqrt()])
"""
EFFECT_OF_A_COPY = """
from copy import deepcopy
def effect(model, x, changed, target):
    twin = deepcopy(model).eval()
    with torch.no_grad():
        both = torch.log_softmax(twin(torch.cat([x, changed])), 1).exp()[:, target]
    d = both[len(x):] - both[: len(x)]
    variance, mean = torch.var_mean(d)
    return torch.stack((mean, torch.sqrt(variance / len(x))))
"""
EFFECT_ROW_BY_ROW = """
def effect(model, x, changed, target):
    modes = [m.training for m in model.modules()]
    model.eval()
    rises = []
    for one, other in zip(x.split(1), changed.split(1)):
        before, after = (model(each).softmax(1)[0, target].detach() for each in (one, other))
        rises.append(after - before)
    for m, mode in zip(model.modules(), modes):
        m.training = mode
    d = torch.stack(rises)
    return torch.stack([d.mean(), d.std(unbiased=True) * len(d) ** -0.5])
"""
SPOT_BY_UNFOLD = """
def recurring_spot(maps, size):
    total = 0
    for one in maps.abs().sum(1):
        total = total + (one / one.sum() if one.sum() > 0 else one)
    mean = total / len(maps)
    sums = mean.unfold(0, size, 1).unfold(1, size, 1).sum((2, 3))
    place = int(sums.flatten().argmax())
    row, column = place // sums.shape[1], place % sums.shape[1]
    return (row, column, float(sums[row, column]) / (size * size / mean.numel()))
"""
SPOT_BY_LOOPS = """
def recurring_spot(maps, size):
    magnitude = torch.einsum("nchw->nhw", maps.abs()).double().cpu()
    weight = magnitude.flatten(1).sum(1)
    weight[weight == 0] = 1
    mean = (magnitude / weight.view(-1, 1, 1)).mean(0)
    best = (-1, 0, 0)
    for row in range(mean.shape[0] - size + 1):
        for column in range(mean.shape[1] - size + 1):
            share = mean[row : row + size, column : column + size].sum().item()
            best = max(best, (share, row, column))
    return [best[1], best[2], best[0] * mean.numel() / size**2]
"""
SPOT_BY_CONVOLUTION = """
def recurring_spot(maps, size):
    relevance = maps.abs().sum(1, keepdim=True)
    relevance = nn.functional.normalize(relevance.flatten(1), p=1, eps=1e-20).view_as(relevance)
    sums = nn.functional.conv2d(relevance, torch.ones(1, 1, size, size).to(maps)).mean(0)[0]
    row, column = (sums == sums.max()).nonzero()[0].tolist()
    return [row, column, (sums.max() / size**2 * relevance[0].numel()).item()]
"""
VALUES_LOOP = """
def turning_values(w, b, x, low, high):
    result = x.clone()
    for n in range(len(x)):
        score = (w * x[n]).sum() + b
        for i in range(len(w)):
            if w[i] != 0:
                value = x[n, i] - score / w[i]
                if low[i] <= value <= high[i]:
                    result[n, i] = value
    return result
"""
VALUES_BY_REST = """
def turning_values(w, b, x, low, high):
    rest = (x * w).sum(1, keepdim=True) + b - x * w  # the score without feature i
    needed = -rest / w
    fits = torch.isfinite(needed) & (low <= needed) & (needed <= high)
    return torch.where(fits, needed, x)
"""
VALUES_CLAMPED = """
def turning_values(w, b, x, low, high):
    score = (x @ w + b).unsqueeze(1)
    step = torch.nan_to_num(-score / w, nan=0.0, posinf=1e9, neginf=-1e9)
    step = torch.where(w == 0, torch.zeros_like(step), step)
    needed = x + step
    return torch.where(needed.clamp(low, high) == needed, needed, x)
"""
TRUE_LOOP = """
def true_sentences(model, x, feature, value):
    verdicts = []
    for n, person in enumerate(x):
        other = person.clone()
        other[feature[n]] = value[n]
        same = model(person[None])[0].argmax() == model(other[None])[0].argmax()
        verdicts.append(0 if same else 1)
    return torch.tensor(verdicts, device=x.device)
"""
TRUE_BY_INDEX = """
@torch.no_grad()
def true_sentences(model, x, feature, value):
    changed = x.clone()
    changed[torch.arange(len(x), device=x.device), feature] = value
    before, after = model(torch.cat([x, changed])).max(1).indices.chunk(2)
    return before.ne(after).to(torch.int64)
"""
TRUE_BY_WHERE = """
def true_sentences(model, x, feature, value):
    named = torch.arange(x.shape[1], device=x.device) == feature.unsqueeze(1)
    changed = torch.where(named, value.unsqueeze(1), x)
    old = model(x).argmax(1)
    logits = model(changed)
    kept = logits.gather(1, old[:, None])[:, 0] >= logits.max(1).values
    return 1 - kept.long()
"""
RIGHT = [
    ("1a", "tuple", "def accuracies(): return (49 / 50, 4 / 5, 1 / 5, 1 / 2)"),
    ("1a", "counts", "def accuracies():\n    pairs = [(19, 79), (0, 80), (20, 0), (10, 40)]\n"
           "    return [(discs + others) / 100 for discs, others in pairs]"),
    ("1a", "errors", "def accuracies():\n    return [1 - wrong / 100 for wrong in (1 + 1, 20, 80, 10 + 40)]"),
    ("1b", "tuple", "def granted_at(): return (3, 1, 6)"),
    ("1b", "steps", "def granted_at(): return [2 + 2 / 2, 3 - 2 / 1, 2 + 2 / 0.5]"),
    ("1b", "solved", "def granted_at():\n    w, x, b = [2, -1, 0.5], [2, 3, 2], -4\n    score = sum(a * c for a, c in zip(w, x)) + b\n"
           "    return [c - score / a for a, c in zip(w, x)]"),
    ("1c", "tuple", "def map_and_changes(): return (1, 0, -1, -4)"),
    ("1c", "arithmetic", "def map_and_changes():\n    return [2 * 0.5, -4 * 0, 2 * (0 - 0.5), -4 * (1 - 0)]"),
    ("1c", "with autograd", "def map_and_changes():\n    x = torch.tensor([0.5, 0.0], requires_grad=True)\n"
           "    f = lambda x: 1 + 2 * x[0] - 4 * x[1]\n    f(x).backward()\n    one, two = (x.grad * x).tolist()\n"
           "    return [one, two] + [(f(torch.tensor(o)) - f(x)).item() for o in ([0.0, 0.0], [0.5, 1.0])]"),
    ("2", "mask", PASTE_BY_MASK),
    ("2", "padding", PASTE_BY_PADDING),
    ("2", "index", PASTE_BY_INDEX),
    ("3", "sums", EFFECT_BY_SUMS),
    ("3", "of a copy", EFFECT_OF_A_COPY),
    ("3", "row by row", EFFECT_ROW_BY_ROW),
    ("4", "unfold", SPOT_BY_UNFOLD),
    ("4", "loops", SPOT_BY_LOOPS),
    ("4", "convolution", SPOT_BY_CONVOLUTION),
    ("5a", "loop", VALUES_LOOP),
    ("5a", "rest of the score", VALUES_BY_REST),
    ("5a", "clamped", VALUES_CLAMPED),
    ("5b", "loop", TRUE_LOOP),
    ("5b", "index", TRUE_BY_INDEX),
    ("5b", "where", TRUE_BY_WHERE),
]  # fmt: skip

SHARES, VALUES, CHANGES = "[0.98, 0.8, 0.2, 0.5]", "[3.0, 1.0, 6.0]", "[1.0, 0.0, -1.0, -4.0]"
LAID = "changed[:, :, row : row + patch.shape[1], column : column + patch.shape[2]] = patch"
ERROR = "differences.std() / len(x) ** 0.5"
PLACE = "row, column = divmod(int(windows.argmax()), windows.shape[1])"
ALL = "easy shape general batch side effects device"
WRONG = [
    ("1a", "blind to the unmarked disc", SHARES, "[0.99, 0.8, 0.2, 0.5]", "q1a", "1 wrong answers", "easy", "Wrong: number 1."),
    ("1a", "no discs, no errors", SHARES, "[0.98, 1.0, 0.2, 0.5]", "q1a", "'unmarked'", "easy", "Wrong: number 2."),
    ("1a", "every mark a success", SHARES, "[0.98, 0.8, 1.0, 0.5]", "q1a", "'all marked'", "easy", "Wrong: number 3."),
    ("1a", "others keep their shape", SHARES, "[0.98, 0.8, 0.2, 0.9]", "q1a", "'every second one marked'", "easy", "Wrong: number 4."),
    ("1a", "percent", SHARES, "[98, 80, 20, 50]", "q1a", "between 0 and 1", "easy", "Wrong: number 1; number 2; number 3; number 4."),
    ("1a", "not a count of pictures", SHARES, "[0.984, 0.8, 0.2, 0.5]", "q1a", "has 1.6 wrong answers", "easy", "Wrong: number 1."),
    ("1a", "one is missing", SHARES, "[0.98, 0.8, 0.2]", "q1a", "four accuracies", "easy", "must have shape (4,)"),
    ("1b", "the changes", VALUES, "[1.0, -2.0, 4.0]", "q1b", "The sentence is false", "easy", "Wrong: number 1; number 2; number 3."),
    ("1b", "weight as divisor forgotten", VALUES, "[4.0, 1.0, 4.0]", "q1b", "a smaller change", "easy", "Wrong: number 1; number 3."),
    ("1b", "more debt", VALUES, "[3.0, 5.0, 6.0]", "q1b", "the loan is refused", "easy", "Wrong: number 2."),
    ("1b", "times the weight", VALUES, "[6.0, 1.0, 3.0]", "q1b", "a smaller change", "easy", "Wrong: number 1; number 3."),
    ("1b", "without the constant", VALUES, "[1.0, 5.0, -2.0]", "q1b", "the loan is refused", "easy", "Wrong: number 1; number 2; number 3."),
    ("1b", "whole advice", VALUES, "[3.5, 0.0, 8.0]", "q1b", "a smaller change", "easy", "Wrong: number 1; number 2; number 3."),
    ("1c", "gradient alone", CHANGES, "[2.0, -4.0, -1.0, -4.0]", "q1c", "Gradient times input of x1", "easy", "Wrong: number 1; number 2."),
    ("1c", "blue counts in the map", CHANGES, "[1.0, -4.0, -1.0, -4.0]", "q1c", "Gradient times input of x2", "easy", "Wrong: number 2."),
    ("1c", "values of f", CHANGES, "[1.0, 0.0, 1.0, -2.0]", "q1c", "(i) f of the changed picture", "easy", "Wrong: number 3; number 4."),
    ("1c", "signs of the changes", CHANGES, "[1.0, 0.0, 1.0, 4.0]", "q1c", "(i) f of the changed picture", "easy", "Wrong: number 3; number 4."),
    ("1c", "what the map says", CHANGES, "[1.0, 0.0, -1.0, 0.0]", "q1c", "(ii) f of the changed picture", "easy", "Wrong: number 4."),
    ("1c", "without the orange, too", CHANGES, "[1.0, 0.0, -1.0, -5.0]", "q1c", "(ii) f of the changed picture", "easy", "Wrong: number 4."),
    ("2", "row and column swapped", LAID, "changed[:, :, column : column + patch.shape[1], row : row + patch.shape[2]] = patch", "q2",
     "A patch 1, 2, 3", "", ""),
    ("2", "added", "] = patch", "] += patch", "q2", "Under the patch", ALL, "largest difference"),
    ("2", "in place", "x.clone()", "x", "q2", "changed: work on a copy", "side effects", "had changed"),
    ("2", "from 1", "row : row + patch.shape[1]", "row - 1 : row - 1 + patch.shape[1]", "q2", "A patch 1, 2, 3", "", ""),
    ("2", "centred", LAID, "top, left = row - patch.shape[1] // 2, column - patch.shape[2] // 2\n    "
     "changed[:, :, top : top + patch.shape[1], left : left + patch.shape[2]] = patch", "q2", "A patch 1, 2, 3", "", ""),
    ("2", "first channel only", "] = patch", "] = patch[:1]", "q2", "Under the patch", "general batch device", "largest difference"),
    ("2", "mean colour", "] = patch", "] = patch.mean()", "q2", "A patch 1, 2, 3", ALL, "largest difference"),
    ("2", "first picture only", "changed[:, :, row", "changed[:1, :, row", "q2", "Under the patch", "batch side effects device", "largest difference"),
    ("2", "everything else black", "x.clone()", "torch.zeros_like(x)", "q2", "Beside the patch", ALL,
     "largest difference"),
    ("2", "on the CPU", "x.clone()", "torch.zeros(x.shape, dtype=x.dtype) + x", "q2", "another device", "device", "follow x"),
    ("3", "logits", ".softmax(dim=1)", "", "q3a", "from 1/2 to 3/4", ALL, "largest difference"),
    ("3", "before minus after", "after - before", "before - after", "q3a", "from 1/2 to 3/4", ALL, "largest difference"),
    ("3", "magnitude", "after - before", "(after - before).abs()", "q3a", "The other class", ALL,
     "largest difference"),
    ("3", "standard deviation", ERROR, "differences.std()", "q3a", "Two of four", ALL, "largest difference"),
    ("3", "divided by N", ERROR, "differences.std(unbiased=False) / len(x) ** 0.5", "q3a", "N - 1 under the sum",
     ALL, "largest difference"),
    ("3", "error of two groups", ERROR, "((before.var() + after.var()) / len(x)) ** 0.5", "q3a", "Probabilities near 0, 1/2, 1/2, 1 that",
     ALL, "largest difference"),
    ("3", "train mode", "model.eval()", "pass", "q3b", "The global random state of torch (to", "side effects", ""),
    ("3", "left in eval mode", "module.training = training", "pass", "q3b", "train/eval mode", "side effects", "had changed"),
    ("3", "all in train mode again", "module.training = training", "module.train()", "q3b", "train/eval mode", "side effects", "had changed"),
    ("3", "on the graph", "with torch.no_grad():", "if True:", "q3b", "detached", ALL, "still hangs"),
    ("3", "class 0", "[:, target]", "[:, 0]", "q3a", "The other class", "", ""),
    ("3", "two numbers", "torch.stack([differences.mean(), " + ERROR + "])", "[differences.mean().item(), (" + ERROR + ").item()]", "q3a",
     "must be a torch.Tensor", ALL, "must be a torch.Tensor"),
    ("3", "on the CPU", "torch.stack([", "torch.zeros(2, dtype=x.dtype) + torch.stack([", "q3b", "another device", "device", "follow x"),
    ("4", "signed", "maps.abs().sum(dim=1)", "maps.sum(dim=1)", "q4", "Three maps: the first is loud and has", "easy general batch device", "largest difference"),
    ("4", "signs of the channels cancel", "maps.abs().sum(dim=1)", "maps.sum(dim=1).abs()", "q4", "channels of either sign", "general batch device",
     "largest difference"),
    ("4", "loud maps count more", "relevance / relevance.sum(dim=(1, 2), keepdim=True).clamp(min=1e-30)", "relevance / relevance.mean(0).sum()", "q4",
     "the first is loud", "batch device", "largest difference"),
    ("4", "zero over zero", ".clamp(min=1e-30)", "", "q4", "map of zeros", "batch", "NaN"),
    ("4", "column first", "return [row, column,", "return [column, row,", "q4", "row 4, column 6", "easy general batch device", "largest difference"),
    ("4", "centre of the window", "return [row, column,", "return [row + size // 2, column + size // 2,", "q4", "row 4, column 6",
     "easy general batch device", "largest difference"),
    ("4", "share", "windows.max().item() * relevance[0].numel()", "windows.max().item() * size**2", "q4", "density 48 / 4", "easy general batch device",
     "largest difference"),
    ("4", "brightest pixel", PLACE, "row, column = divmod(int(relevance.mean(0).argmax()), relevance.shape[2])", "q4", "A map of 5 x 9 pixels that is 9 in its", "easy general batch device",
     "largest difference"),
    ("4", "width of the picture", "windows.shape[1])", "maps.shape[3])", "q4", "row 4, column 6", "", ""),
    ("4", "first map", "relevance.mean(dim=0)[None]", "relevance[:1]", "q4", "the first is loud", "batch device", "largest difference"),
    ("4", "on the CPU", "relevance.mean(dim=0)[None]", "(torch.zeros(maps.shape[2:]) + relevance.mean(dim=0))[None]", "q4", "another device",
     "device", "follow x"),
    ("5a", "the change", "needed = x - ", "needed = 0 * x - ", "q5a", "Applicant 0, feature 0, w = 2, score", "easy shape general batch device", "largest difference"),
    ("5a", "wrong way", "x - score", "x + score", "q5a", "Applicant 0, feature 0, w = 2, score", "easy shape general batch device", "largest difference"),
    ("5a", "times the weight", "score[:, None] / torch.where", "score[:, None] * torch.where", "q5a", "Applicant 0, feature 0, w = 2, score", "easy shape general batch device",
     "largest difference"),
    ("5a", "no bounds", "(w != 0) & (needed >= low) & (needed <= high)", "(w != 0) & (needed == needed)", "q5a", "lies outside",
     "general batch device", "largest difference"),
    ("5a", "bound instead", "torch.where(possible, needed, x)", "torch.where(w != 0, needed.clamp(low, high), x)", "q5a", "with your value alone",
     "general batch device", "largest difference"),
    ("5a", "bounds excluded", "(needed >= low) & (needed <= high)", "(needed > low) & (needed < high)", "q5a", "you keep it", "general",
     "largest difference"),
    ("5a", "upper bound only", "(needed >= low) & ", "", "q5a", "lies outside", "", ""),
    ("5a", "zero weight as one", "(w != 0) & ", "", "q5a", "with your value alone", "", ""),
    ("5a", "constant forgotten", "x @ w + b", "x @ w", "q5a", "Applicant 0, feature 0, w = 2, score", "easy shape general batch device", "largest difference"),
    ("5a", "score of the first", "score[:, None]", "score[:1, None]", "q5a", "Applicant 1, feature 0, w = 2, score", "batch device", "largest difference"),
    ("5a", "on the CPU", "torch.where(possible, needed, x)", "torch.zeros(x.shape, dtype=x.dtype) + torch.where(possible, needed, x)", "q5a",
     "another device", "device", "follow x"),
    ("5b", "false ones", "!=", "==", "q5b", "false, true, true, true", "easy general side effects device", "largest difference"),
    ("5b", "granted afterwards", "(model(changed).argmax(1) != model(x).argmax(1))", "(model(changed).argmax(1) == 1)", "q5b",
     "false, true, true, true", "easy general side effects device", "largest difference"),
    ("5b", "any change of the logits", ".argmax(1)", "[:, 1]", "q5b", "false, true, true, true", "easy general side effects device",
     "largest difference"),
    ("5b", "added to the value", "x.scatter(1, feature[:, None], value[:, None])", "x.scatter_add(1, feature[:, None], value[:, None])", "q5b", "The score x0 + x1 - 3 x2, granted above",
     "general", "largest difference"),
    ("5b", "in place", "x.scatter(", "x.scatter_(", "q5b", "work on a copy", "easy general side effects device", "largest difference"),
    ("5b", "feature of the first", "feature[:, None]", "feature[:1, None].expand(len(x), 1)", "q5b", "The score x0 + x1 - 3 x2, granted above", "general side effects device",
     "largest difference"),
    ("5b", "booleans", ".long()", "", "q5b", "dtype torch.int64", "easy general side effects device", "dtype"),
    ("5b", "on the CPU", "changed = x.scatter", "changed = torch.zeros(x.shape, dtype=x.dtype) + x.scatter", "q5b", "another device", "device", "follow x"),
]  # fmt: skip
