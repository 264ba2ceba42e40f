"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "suspects"]
EMPTY = {
    "1a": ("many_hypotheses()", "[0.5, 0.5, 0.5]"),
    "1b": ("excesses()", "[0.5, 0.5, 0.5, 0.5]"),
    "2": ("rises(model, x, changed, labels)", "torch.full((2, len(changed), 3), 2.0).to(x)"),
    "3": ("strongest(own, healthy, z=3.4)", "[0, 0, 0.0, -9.0]"),
    "4": ("density(maps, masks)", "maps.sum((1, 2, 3)) + 9"),
    "5": ("verdict()", "[0, 0, 0, 0.0]"),
}

RISES_LOOP = """
def rises(model, x, changed, labels):
    was = {m: m.training for m in model.modules()}
    for m in was:
        m.training = False
    ask = lambda pictures: torch.softmax(model(pictures), -1).detach()
    before, rows = ask(x), []
    for pictures in changed:
        d = ask(pictures) - before
        row = []
        for c in range(d.shape[1]):
            own = d[labels.ne(c)][:, c]
            centred = own - own.mean()
            row.append(torch.stack([own.mean(), (centred.square().sum() / (len(own) - 1) / len(own)).sqrt()]))
        rows.append(torch.stack(row))
    for m, mode in was.items():
        m.training = mode
    return torch.stack(rows).permute(2, 0, 1)
"""
RISES_WEIGHTS = """
from copy import deepcopy
@torch.no_grad()
def rises(model, x, changed, labels):
    twin = deepcopy(model).eval()
    k, n = changed.shape[:2]
    p = twin(torch.cat([x, changed.flatten(0, 1)])).softmax(1).view(k + 1, n, -1)
    d = p[1:] - p[:1]
    counted = (labels[:, None] != torch.arange(d.shape[2], device=x.device)).to(x)
    m = counted.sum(0)
    mean = (d * counted).sum(1) / m
    variance = ((d - mean[:, None]).square() * counted).sum(1) / (m - 1)
    return torch.stack([mean, (variance / m).sqrt()])
"""
RISES_VAR_MEAN = """
def rises(model, x, changed, labels):
    training = [m.training for m in model.modules()]
    model.eval()
    with torch.no_grad():
        base = model(x).softmax(1)
        tables = []
        for each in changed.unbind(0):
            d = model(each).softmax(1) - base
            pairs = [torch.var_mean(d[labels != c, c]) for c in range(d.shape[1])]
            count = [int((labels != c).sum()) for c in range(d.shape[1])]
            tables.append((torch.stack([m for _, m in pairs]), torch.stack([(v / n) ** 0.5 for (v, _), n in zip(pairs, count)])))
    for m, mode in zip(model.modules(), training):
        m.training = mode
    return torch.stack([torch.stack(column) for column in zip(*tables)])
"""
STRONGEST_LOOP = """
def strongest(own, healthy, z=3.4):
    best = None
    for k in range(own.shape[1]):
        for c in range(own.shape[2]):
            excess = float(own[0, k, c] - healthy[0, k, c])
            error = (float(own[1, k, c]) ** 2 + float(healthy[1, k, c]) ** 2) ** 0.5
            if best is None or excess - z * error > best[3]:
                best = (k, c, excess, excess - z * error)
    return best
"""
STRONGEST_HYPOT = """
def strongest(own, healthy, z=3.4):
    excess, error = own[0] - healthy[0], torch.hypot(own[1], healthy[1])
    low = excess - z * error
    k, c = (low == low.max()).nonzero()[0].tolist()
    return [k, c, float(excess[k, c]), float(low[k, c])]
"""
STRONGEST_MAX = """
def strongest(own, healthy, z=3.4):
    difference = torch.stack([own[0] - healthy[0], torch.linalg.vector_norm(torch.stack([own[1], healthy[1]]), dim=0)])
    low = difference[0] - z * difference[1]
    by_cue, classes = low.max(1)
    k = by_cue.argmax()
    c = classes[k]
    return [int(k), int(c), difference[0, k, c].item(), by_cue[k].item()]
"""
DENSITY_LOOP = """
def density(maps, masks):
    found = []
    for one, mask in zip(maps.abs().sum(1), masks):
        total = one.sum()
        found.append(one[mask].sum() / total * mask.numel() / mask.sum() if total > 0 else total)
    return torch.stack(found)
"""
DENSITY_MEANS = """
def density(maps, masks):
    magnitude, inside = maps.abs().sum(1).flatten(1), masks.flatten(1).to(maps)
    mean_inside = (magnitude * inside).sum(1) / inside.sum(1)
    return torch.nan_to_num(mean_inside / magnitude.mean(1), nan=0.0)
"""
DENSITY_EINSUM = """
def density(maps, masks):
    area = masks.sum((1, 2)) / masks[0].numel()
    inside = torch.einsum("nchw,nhw->n", maps.abs(), masks.to(maps.dtype))
    total = maps.abs().sum((1, 2, 3))
    return torch.where(total > 0, inside / (total * area), torch.zeros_like(total))
"""
RIGHT = [
    ("1a", "tuple", "def many_hypotheses(): return (7 * 10, 7 * 10 / 20, 5 / 70)"),
    ("1a", "rounded", "def many_hypotheses(): return [70.0, 3.5, 0.07143]"),
    ("1a", "in steps", "def many_hypotheses():\n    m = 7 * 10\n    return [m, 0.05 * m, 100 * 0.05 / m]"),
    ("1b", "tuple", "def excesses(): return (0.03, 0.05, 0.30, 0.10)"),
    ("1b", "roots", "def excesses():\n    return [0.61 - 0.58, (0.03**2 + 0.04**2) ** 0.5, 0.35 - 0.05, (0.06**2 + 0.08**2) ** 0.5]"),
    ("1b", "with math", "import math\ndef excesses():\n    return [0.03, math.hypot(0.03, 0.04), 0.3, math.hypot(0.06, 0.08)]"),
    ("2", "loop", RISES_LOOP),
    ("2", "weights", RISES_WEIGHTS),
    ("2", "variances", RISES_VAR_MEAN),
    ("3", "loop", STRONGEST_LOOP),
    ("3", "hypot", STRONGEST_HYPOT),
    ("3", "row by row", STRONGEST_MAX),
    ("4", "loop", DENSITY_LOOP),
    ("4", "means", DENSITY_MEANS),
    ("4", "einsum", DENSITY_EINSUM),
    ("5", "another suspect", "def verdict(): return (0, 3, 7, 0.99)"),
    ("5", "a weak flaw", "def verdict(): return [3, 1, 9, 0.51]"),
    ("5", "same cue, another class", "def verdict(): return [6.0, 5.0, 8.0, 0.935]"),
]  # fmt: skip

MANY, PAIRS, VERDICT = "[70, 3.5, 0.0714]", "[0.03, 0.05, 0.3, 0.1]", "[2, 5, 0, 0.984]"
ERRORS = "d.std(dim=1) / d.shape[1] ** 0.5"
BOUND = "excess - z * (own[1].square() + healthy[1].square()).sqrt()"
ALL, LIST, MAPS = (
    "easy shape general batch side effects device",
    "easy general batch device",
    "easy shape general batch device",
)
WRONG = [
    ("1a", "sum for product", MANY, "[17, 0.85, 0.2941]", "q1a", "You count 17 pairs", "easy", "Wrong: number 1; number 2; number 3."),
    ("1a", "a fraction", MANY, "[70, 3.5, 0.000714]", "q1a", "must add up to 5 %", "easy", "Wrong: number 3."),
    ("1a", "false alarms in per cent", MANY, "[70, 350, 0.0714]", "q1a", "expected numbers add up", "easy", "Wrong: number 2."),
    ("1a", "level unchanged", MANY, "[70, 3.5, 5]", "q1a", "must add up to 5 %", "easy", "Wrong: number 3."),
    ("1a", "chance of any", MANY, "[70, 0.972, 0.0714]", "q1a", "expected numbers add up", "easy", "Wrong: number 2."),
    ("1b", "errors added", PAIRS, "[0.03, 0.07, 0.3, 0.14]", "q1b", "the variances add up", "easy", "Wrong: number 2; number 4."),
    ("1b", "errors subtracted", PAIRS, "[0.03, 0.01, 0.3, 0.02]", "q1b", "the variances add up", "easy", "Wrong: number 2; number 4."),
    ("1b", "larger error", PAIRS, "[0.03, 0.04, 0.3, 0.08]", "q1b", "the variances add up", "easy", "Wrong: number 2; number 4."),
    ("1b", "mean of the two", PAIRS, "[0.595, 0.05, 0.2, 0.1]", "q1b", "plus the excess", "easy", "Wrong: number 1; number 3."),
    ("1b", "ratio", PAIRS, "[1.0517, 0.05, 7.0, 0.1]", "q1b", "plus the excess", "easy", "Wrong: number 1; number 3."),
    ("2", "all pictures", "moved[:, labels != c, c]", "moved[:, :, c]", "q2a", "Class 0: of the four pictures with", ALL, "largest difference"),
    ("2", "the class's own pictures", "labels != c", "labels == c", "q2a", "Class 0: of the four pictures with", ALL, ""),
    ("2", "logits", ".softmax(dim=1)", "", "q2a", "The first of two cues turns the", ALL, "largest difference"),
    ("2", "before minus after", "for pictures in changed]) - plain", "for pictures in changed]).neg() + plain", "q2a", "The first of two cues turns the", ALL, "largest difference"),
    ("2", "magnitude", "for d in others], dim=1)\n    errors", "for d in others], dim=1).abs()\n    errors", "q2a", "The first of two cues turns the", ALL, "largest difference"),
    ("2", "standard deviations", ERRORS, "d.std(dim=1)", "q2a", "Class 0: of the four pictures with", ALL, "largest difference"),
    ("2", "divided by M", ERRORS, "d.std(dim=1, unbiased=False) / d.shape[1] ** 0.5", "q2a", "Class 0: of the four pictures with", ALL, "largest difference"),
    ("2", "of all pictures", ERRORS, "d.std(dim=1) / len(x) ** 0.5", "q2a", "Class 0: of the four pictures with", ALL, "largest difference"),
    ("2", "train mode", "model.eval()", "pass", "q2b", "The global random state of torch (to", "side effects", ""),
    ("2", "left in eval mode", "module.training = training", "pass", "q2b", "train/eval mode", "side effects", "had changed"),
    ("2", "on the graph", "with torch.no_grad():", "if True:", "q2a", "detached", ALL, "still hangs"),
    ("2", "classes first", "torch.stack([means, errors])", "torch.stack([means, errors]).transpose(1, 2)", "q2a", "The first of two cues turns the", ALL, "shape"),
    ("2", "on the CPU", "torch.stack([means, errors])", "torch.zeros(2, *means.shape, dtype=x.dtype) + torch.stack([means, errors])", "q2b",
     "another device", "device", "follow x"),
    ("3", "without the control", "own[0] - healthy[0]", "own[0]", "q3", "No errors: cue 0 raises class 1 by 0.9,", LIST, "largest difference"),
    ("3", "largest excess", "bound.argmax()", "excess.argmax()", "q3", "With z = 8 another pair, without an", LIST, "largest difference"),
    ("3", "own error alone", BOUND, "excess - z * own[1]", "q3", "The same with errors 0.03 and 0.04 of", LIST, "largest difference"),
    ("3", "errors added", BOUND, "excess - z * (own[1] + healthy[1])", "q3", "The same with errors 0.03 and 0.04 of", LIST, "largest difference"),
    ("3", "z of one hypothesis", BOUND, BOUND.replace("z *", "1.96 *"), "q3", "The same with errors 0.03 and 0.04 of", LIST, "largest difference"),
    ("3", "standard scores", "bound.argmax()", "(excess / (own[1].square() + healthy[1].square()).sqrt().clamp(min=1e-9)).argmax()", "q3", "The same with errors 0.03 and 0.04 of", "", ""),
    ("3", "class first", "[cue, c, excess", "[c, cue, excess", "q3", "No errors: cue 0 raises class 1 by 0.9,", LIST, "largest difference"),
    ("3", "magnitude", "own[0] - healthy[0]", "(own[0] - healthy[0]).abs()", "q3", "falls are not rises", "", ""),
    ("3", "places by cues", "bound.shape[1])", "bound.shape[0])", "q3", "which column", "easy general batch device", ""),
    ("3", "on the CPU", BOUND, "torch.zeros(own.shape[1:]) + " + BOUND, "q3", "another device", "device", "follow x"),
    ("4", "share", " / masks.to(maps.dtype).mean(dim=(1, 2))", "", "q4", "Two channels, 3 and -3 at a pixel of", MAPS, "largest difference"),
    ("4", "signs cancel", "maps.abs().sum(dim=1)", "maps.sum(dim=1).abs()", "q4", "Two channels, 3 and -3 at a pixel of", "general batch device", "largest difference"),
    ("4", "signed", "maps.abs().sum(dim=1)", "maps.sum(dim=1)", "q4", "Two channels, 3 and -3 at a pixel of", MAPS, "largest difference"),
    ("4", "zero over zero", ".clamp(min=1e-30)", "", "q4", "NaN", "general", "NaN"),
    ("4", "area of the first", "masks.to(maps.dtype).mean(dim=(1, 2))", "masks[0].to(maps.dtype).mean()", "q4", "An even map: density 1, however small", "batch device", "largest difference"),
    ("4", "one scale for all", "relevance.sum(dim=(1, 2)).clamp(min=1e-30)", "relevance.sum(dim=(1, 2)).mean().clamp(min=1e-30)", "q4", "Two channels, 3 and -3 at a pixel of", "batch device",
     "largest difference"),
    ("4", "outside", "(relevance * masks)", "(relevance * ~masks)", "q4", "Two channels, 3 and -3 at a pixel of", MAPS, "largest difference"),
    ("4", "counted pixels", "masks.to(maps.dtype).mean(dim=(1, 2))", "masks.to(maps.dtype).sum(dim=(1, 2))", "q4", "Two channels, 3 and -3 at a pixel of", MAPS, "largest difference"),
    ("4", "on the CPU", "return share", "return torch.zeros(len(maps), dtype=maps.dtype) + share", "q4", "another device", "device", "follow x"),
    ("5", "the control's finding", VERDICT, "[2, 6, 1, 0.33]", "q5", "On suspect 2 the cue 'curtain' does not", "easy general batch", "not planted"),
    ("5", "another cue", VERDICT, "[2, 3, 0, 0.984]", "q5", "Measure it over all test pictures", "easy general batch", "not by this cue"),
    ("5", "another class", VERDICT, "[2, 5, 8, 0.935]", "q5", "Measure it over all test pictures", "easy general batch", "not for this class"),
    ("5", "a neighbour's suspect", VERDICT, "[6, 5, 0, 0.984]", "q5", "Measure it over all test pictures", "easy general batch", "not made to say"),
    ("5", "a guess, all of it wrong", VERDICT, "[7, 3, 1, 0.98]", "q5", "Measure it over all test pictures", "easy general batch", "not planted"),
    ("5", "a guess, the cue right", VERDICT, "[7, 0, 1, 0.98]", "q5", "Measure it over all test pictures", "easy general batch", "not for this class"),
    ("5", "a guess, the class right", VERDICT, "[7, 1, 6, 0.98]", "q5", "Measure it over all test pictures", "easy general batch", "not by this cue"),
    ("5", "the excess", VERDICT, "[2, 5, 0, 0.62]", "q5", "Measure it over all test pictures", "batch", "another amount"),
    ("5", "a rough rise", VERDICT, "[2, 5, 0, 0.95]", "q5", "Measure it over all test pictures", "batch", "another amount"),
    ("5", "per cent", VERDICT, "[2, 5, 0, 98.4]", "q5", "Measure it over all test pictures", "easy shape general batch", "a flaw raises"),
    ("5", "cue and class exchanged", VERDICT, "[2, 0, 5, 0.984]", "q5", "Measure it over all test pictures", "easy general batch", "not planted"),
    ("5", "a second cue of the same class", "[2, 5, 0, 0.984]", "[4, 3, 5, 0.816]", "", "", "easy batch", "not planted"),
    ("5", "another finding of the control", VERDICT, "[0, 6, 1, 0.697]", "", "", "easy general batch", "not planted"),
    ("5", "measured while grading", VERDICT, "[2, 5, 0, suspect(2)(with_cue(digits('test').images, 5)).softmax(1)[:, 0].mean().item()]", "q5", "asks for", "easy shape general batch", "NameError"),
    ("5", "three numbers", VERDICT, "[5, 0, 0.984]", "q5", "rise is needed", "easy shape general batch", "shape"),
]  # fmt: skip
