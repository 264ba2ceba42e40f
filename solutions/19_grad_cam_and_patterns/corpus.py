"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports"]
EMPTY = {
    "1a": ("cam_by_hand()", "[9.0, 9.0, 9.0, 9.0]"),
    "1b": ("weights_and_pattern()", "[1.0, 1.0, 1.0, 1.0]"),
    "1c": ("two_attributions()", "[0.0, 3.0, 3.0, 3.0]"),
    "2": ("grad_cam(body, head, x, target)", "x.sum(1) + 2"),
    "3": ("ceiling(masks, places)", "masks.float().mean((1, 2)) + 1"),
    "4": ("pattern(x, y, rectified=False)", "x.mean(0) + 5"),
    "5": ("pattern_attribution(w1, a1, w2, a2, x, target)", "x + 1"),
}

CAM_BACKWARD = """
def grad_cam(body, head, x, target):
    A = body(x).detach().clone()
    A.requires_grad = True
    picked = head(A)[torch.arange(len(x), device=x.device), target]
    G = torch.autograd.grad(picked, A, torch.ones_like(picked))[0]
    weights = G.flatten(2).mean(2)
    return torch.clamp(torch.einsum("nk,nkij->nij", weights, A.detach()), min=0)
"""
CAM_ROW_BY_ROW = """
def grad_cam(body, head, x, target):
    maps = []
    for picture, c in zip(x.split(1), target.tolist()):
        A = body(picture).detach().requires_grad_(True)
        gradient, = torch.autograd.grad(head(A)[0, c], A)
        total = 0
        for k in range(A.shape[1]):
            total = total + gradient[0, k].mean() * A[0, k].detach()
        maps.append(torch.maximum(total, torch.zeros_like(total)))
    return torch.stack(maps)
"""
CAM_FUNC = """
def grad_cam(body, head, x, target):
    A = body(x).detach()
    score = lambda A: head(A).gather(1, target.view(-1, 1)).sum()
    alpha = torch.func.grad(score)(A).sum((-1, -2), keepdim=True) / A[0, 0].numel()
    cam = (alpha * A).sum(1).detach()
    return cam * (cam > 0)
"""
CEILING_ENLARGED = """
def ceiling(masks, places):
    m = masks.float().unsqueeze(1)
    size = (m.shape[2] // places, m.shape[3] // places)
    big = F.interpolate(F.avg_pool2d(m, size), scale_factor=tuple(float(s) for s in size), mode="nearest")
    return (big * m).sum((1, 2, 3)) / big.sum((1, 2, 3))
"""
CEILING_RESHAPED = """
def ceiling(masks, places):
    n, height, width = masks.shape
    blocks = masks.to(torch.float32).view(n, places, height // places, places, width // places)
    counts = blocks.sum((2, 4)).flatten(1)
    return (counts ** 2).sum(1) / counts.sum(1) / (height * width / places**2)
"""
CEILING_LOOP = """
def ceiling(masks, places):
    result = []
    for mask in masks.float():
        rows = [part for part in mask.chunk(places, 0)]
        m = torch.stack([cell.mean() for row in rows for cell in row.chunk(places, 1)])
        result.append((m @ m) / m.sum())
    return torch.stack(result)
"""
PATTERN_MOMENTS = """
def pattern(x, y, rectified=False):
    if rectified:
        x, y = x[y > 0], y[y > 0]
    if len(y) < 2 or y.max() == y.min():
        return x.new_zeros(x.shape[1])
    y = y - y.mean()
    return (x * y.unsqueeze(1)).mean(0) / (y * y).mean()
"""
PATTERN_COV = """
def pattern(x, y, rectified=False):
    keep = (y > 0) | (not rectified)
    both = torch.cat([y[keep][:, None], x[keep]], 1)
    both = both - both.mean(0)
    covariance = both.T @ both
    if not covariance[0, 0] > 0:
        return torch.zeros_like(x[0])
    return covariance[0, 1:] / covariance[0, 0]
"""
PATTERN_WEIGHTED = """
def pattern(x, y, rectified=False):
    weight = (y > 0).to(x) if rectified else torch.ones_like(y)
    total = weight.sum()
    if total == 0:
        return 0 * x.sum(0)
    deviation = weight * (y - (weight * y).sum() / total)
    variance = (deviation * deviation).sum()
    a = deviation @ (x - (weight[:, None] * x).sum(0) / total)
    return a / variance if variance > 0 else 0 * a
"""
ATTRIBUTION_GRADIENT = """
def pattern_attribution(w1, a1, w2, a2, x, target):
    z = x @ w1.T
    gate = (z > 0).to(x)
    logits = (z * gate) @ w2.T
    rows = []
    for n, c in enumerate(target.tolist()):
        back = (w2[c] * a2[c] * gate[n]) @ (w1 * a1)
        rows.append(logits[n, c] * back)
    return torch.stack(rows)
"""
ATTRIBUTION_EINSUM = """
def pattern_attribution(w1, a1, w2, a2, x, target):
    h = F.relu(F.linear(x, w1))
    start = F.one_hot(target, len(w2)).to(x) * F.linear(h, w2)
    through = torch.einsum("nk,kh,kh->nh", start, w2, a2)
    through = torch.where(h > 0, through, torch.zeros_like(through))
    return torch.einsum("nh,hd,hd->nd", through, w1, a1)
"""
ATTRIBUTION_AUTOGRAD = """
def pattern_attribution(w1, a1, w2, a2, x, target):
    h = (x @ w1.T).clamp(min=0)
    logit = (h @ w2.T).gather(1, target[:, None]).detach()
    probe = torch.zeros_like(x).requires_grad_()
    out = ((probe @ (w1 * a1).T) * (h > 0).to(x)) @ (w2 * a2).T
    return torch.autograd.grad(out.gather(1, target[:, None]), probe, logit)[0]
"""
RIGHT = [
    ("1a", "tuple", "def cam_by_hand(): return (1, 0, 3 / 2, 0)"),
    ("1a", "loop", "def cam_by_hand():\n    return [max(0.0, 1.0 * a - 0.5 * b) for a, b in zip([1, 0, 2, 1], [0, 2, 1, 3])]"),
    ("1a", "tensors", "def cam_by_hand():\n    A = torch.tensor([[1.0, 0, 2, 1], [0, 2, 1, 3]])\n"
           "    G = torch.tensor([[2.0, 0, 0, 2], [-1, 0, -1, 0]])\n    return (G.mean(1) @ A).relu().tolist()"),
    ("1b", "tuple", "def weights_and_pattern(): return (1 / 2, -1 / 2, 2, 0)"),
    ("1b", "covariances", "def weights_and_pattern():\n    y, x1, x2 = [1, -1, 1, -1], [4, 0, 0, -4], [2, 2, -2, -2]\n"
           "    a = [sum(p * q for p, q in zip(x, y)) / 4 for x in (x1, x2)]\n    return [0.5, -0.5] + a"),
    ("1b", "solved", "def weights_and_pattern():\n    w = torch.linalg.solve(torch.tensor([[4.0, 2.0], [0.0, 2.0]]), torch.tensor([1.0, -1.0]))\n"
           "    return [*w.tolist(), 2.0, 0.0]"),
    ("1c", "tuple", "def two_attributions(): return (2, -1, 1, 0)"),
    ("1c", "products", "def two_attributions():\n    w, a, x, y = [0.5, -0.5], [2, 0], [4, 2], 1\n"
           "    return [p * q for p, q in zip(w, x)] + [p * q * y for p, q in zip(w, a)]"),
    ("1c", "shares", "def two_attributions():\n    total = 0.5 * 4 - 0.5 * 2\n    return [2.0, total - 2.0, total, 0]"),
    ("2", "backward", CAM_BACKWARD),
    ("2", "row by row", CAM_ROW_BY_ROW),
    ("2", "torch.func", CAM_FUNC),
    ("3", "enlarged", CEILING_ENLARGED),
    ("3", "reshaped", CEILING_RESHAPED),
    ("3", "loop", CEILING_LOOP),
    ("4", "moments", PATTERN_MOMENTS),
    ("4", "covariance matrix", PATTERN_COV),
    ("4", "weighted", PATTERN_WEIGHTED),
    ("5", "row by row", ATTRIBUTION_GRADIENT),
    ("5", "einsum", ATTRIBUTION_EINSUM),
    ("5", "autograd", ATTRIBUTION_AUTOGRAD),
]  # fmt: skip

CAM, BOTH, TWO = "[1.0, 0.0, 1.5, 0.0]", "[0.5, -0.5, 2.0, 0.0]", "[2.0, -1.0, 1.0, 0.0]"
SHARE = "fractions.square().sum(dim=1) / fractions.sum(dim=1)"
CUT = "x, y = x[counted], y[counted]"
GUARD = "if len(y) == 0 or (y == y[0]).all():"
BACK = "back = logit * (w2 * a2)[target] * (hidden > 0)"
ALL, LIST = "easy shape general batch side effects device", "easy general batch device"
WRONG = [
    ("1a", "not rectified", CAM, "[1.0, -1.0, 1.5, -0.5]", "q1a", "ends with max", "easy", "Wrong: number 2; number 4."),
    ("1a", "sums for means", CAM, "[4.0, 0.0, 6.0, 0.0]", "q1a", "Number 1 of your map", "easy", "Wrong: number 1; number 3."),
    ("1a", "gradient times activation", CAM, "[2.0, 0.0, 0.0, 2.0]", "q1a", "Number 1 of your map", "easy", "Wrong: number 1; number 3; number 4."),
    ("1a", "first map alone", CAM, "[1.0, 0.0, 2.0, 1.0]", "q1a", "Number 3 of your map", "easy", "Wrong: number 3; number 4."),
    ("1a", "each rectified", CAM, "[1.0, 0.0, 2.0, 1.0]", "q1a", "Number 3 of your map", "easy", "Wrong: number 3; number 4."),
    ("1a", "column by column", CAM, "[1.0, 1.5, 0.0, 0.0]", "q1a", "Number 2 of your map", "easy", "Wrong: number 2; number 3."),
    ("1b", "pattern first", BOTH, "[2.0, 0.0, 0.5, -0.5]", "q1b", "Your weights read 8", "easy", "Wrong: number 1; number 2; number 3; number 4."),
    ("1b", "weights are the pattern", BOTH, "[0.5, -0.5, 0.5, -0.5]", "q1b", "Take your a1", "easy", "Wrong: number 3; number 4."),
    ("1b", "distractor left in", BOTH, "[0.5, 0.0, 2.0, 0.0]", "q1b", "Your weights read 2", "easy", "Wrong: number 2."),
    ("1b", "not scaled", BOTH, "[1.0, -1.0, 2.0, 0.0]", "q1b", "Your weights read 2", "easy", "Wrong: number 1; number 2."),
    ("1b", "divided by the variance of x", BOTH, "[0.5, -0.5, 0.25, 0.0]", "q1b", "Take your a1", "easy", "Wrong: number 3."),
    ("1b", "distractor's pattern", BOTH, "[0.5, -0.5, 1.0, 1.0]", "q1b", "Take your a1", "easy", "Wrong: number 3; number 4."),
    ("1c", "gradient alone", TWO, "[0.5, -0.5, 1.0, 0.0]", "q1c", "Gradient times input: your two", "easy", "Wrong: number 1; number 2."),
    ("1c", "the signal", TWO, "[2.0, -1.0, 2.0, 0.0]", "q1c", "PatternAttribution: your two", "easy", "Wrong: number 3."),
    ("1c", "same for both", TWO, "[2.0, -1.0, 2.0, -1.0]", "q1c", "Number 3 is wrong", "easy", "Wrong: number 3; number 4."),
    ("1c", "exchanged", TWO, "[1.0, 0.0, 2.0, -1.0]", "q1c", "Number 1 is wrong", "easy", "Wrong: number 1; number 2; number 3; number 4."),
    ("1c", "times x", TWO, "[2.0, -1.0, 4.0, 0.0]", "q1c", "PatternAttribution: your two", "easy", "Wrong: number 3."),
    ("1c", "shared evenly", TWO, "[2.0, -1.0, 0.5, 0.5]", "q1c", "Number 3 is wrong", "easy", "Wrong: number 3; number 4."),
    ("2", "not rectified", ".relu()", "", "q2a", "The other class, whose mean gradients", ALL, "largest difference"),
    ("2", "sum for mean", "gradient.mean(", "gradient.sum(", "q2a", "Two maps and a logit that is four times", ALL, "largest difference"),
    ("2", "gradient times map", "gradient.mean(dim=(2, 3), keepdim=True)", "gradient", "q2a", "The other class, whose mean gradients", "general batch side effects device", "largest difference"),
    ("2", "positive gradients only", "gradient.mean(", "gradient.relu().mean(", "q2a", "The other class, whose mean gradients", ALL, "largest difference"),
    ("2", "rectified map by map", "(alpha * maps.detach()).sum(dim=1).relu()", "(alpha * maps.detach()).relu().sum(dim=1)", "q2a", "The other class, whose mean gradients", ALL,
     "largest difference"),
    ("2", "predicted class", "gather(1, target[:, None])", "amax(dim=1)", "q2a", "The other class, whose mean gradients", ALL, "largest difference"),
    ("2", "first image's weights", "keepdim=True)", "keepdim=True)[:1]", "q2a", "Logits with half the sum of squares of", "batch side effects device", "largest difference"),
    ("2", "probability", "head(maps).gather", "head(maps).softmax(dim=1).gather", "q2a", "Two maps and a logit that is four times", ALL, "largest difference"),
    ("2", "on the graph", "(alpha * maps.detach())", "(alpha * maps)", "q2a", "detached", ALL, "still hangs"),
    ("2", "backward", "(gradient,) = torch.autograd.grad(logits.sum(), maps)", "logits.sum().backward()\n    gradient = maps.grad", "q2b", ".grad of the parameter",
     "side effects", "had changed"),
    ("2", "enlarged", ".relu()", ".relu().repeat_interleave(2, dim=1)", "q2a", "Two maps and a logit that is four times", ALL, "shape"),
    ("2", "on the CPU", "(alpha * maps.detach())", "(torch.zeros(maps.shape, dtype=x.dtype) + alpha * maps.detach())", "q2b", "another device", "device", "follow x"),
    ("3", "mean fraction", SHARE, "fractions.mean(dim=1)", "q3", "An object that fills one of 2 x 2", LIST, "largest difference"),
    ("3", "hard places", "fractions.square()", "(fractions * (fractions >= 0.5))", "q3", "The same with a single place: the share", LIST, "largest difference"),
    ("3", "any pixel counts", "F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "q3", "The same with a single place: the share", LIST, "largest difference"),
    ("3", "not squared", "fractions.square()", "fractions", "q3", "The same with a single place: the share", LIST, "largest difference"),
    ("3", "share of the area", SHARE, "masks.float().mean(dim=(1, 2))", "q3", "An object that fills one of 2 x 2", LIST, "largest difference"),
    ("3", "over the batch", ".sum(dim=1) / fractions.sum(dim=1)", ".sum() / fractions.sum().expand(len(masks))", "q3", "Two masks must give what they give one", "batch device", "largest difference"),
    ("3", "whole pixels", "masks.float()", "masks.double()", "q3", "dtype torch.float32", LIST, "dtype"),
    ("3", "on the CPU", SHARE, "torch.zeros(len(masks)) + " + SHARE, "q3", "another device", "device", "follow x"),
    ("4", "weights", "(y[:, None] * (x - x.mean(dim=0))).sum(dim=0) / y.square().sum()", "torch.linalg.pinv(x - x.mean(dim=0)) @ y", "q4", "x = (3 y + d, d, -y), with d", ALL,
     "largest difference"),
    ("4", "neither centred", "y = y - y.mean()", "x = x + x.mean(dim=0)", "q4", "means that are not 0", ALL, "largest difference"),
    ("4", "never rectified", "y > 0 if rectified else torch.ones_like(y, dtype=torch.bool)", "torch.ones_like(y, dtype=torch.bool)", "q4", "rectified",
     "general side effects device", "largest difference"),
    ("4", "always rectified", "y > 0 if rectified else torch.ones_like(y, dtype=torch.bool)", "y > 0", "q4", "x = (3 y + d, d, -y), with d", "", ""),
    ("4", "covariance alone", "/ y.square().sum()", "/ len(y)", "q4", "x1 = 4 y + 7 where y > 0, and -9", ALL, "largest difference"),
    ("4", "over the norm of x", "/ y.square().sum()", "/ (x - x.mean(dim=0)).square().sum(dim=0)", "q4", "x = (3 y + d, d, -y), with d", ALL, "largest difference"),
    ("4", "zero over zero", GUARD, "if False:", "q4", "A unit that is never positive: its", "general", "NaN"),
    ("4", "values below zero as zero", CUT, "y = torch.where(counted, y, torch.zeros_like(y))", "q4", "x1 = 4 y + 7 where y > 0, and -9", "", ""),
    ("4", "on the CPU", "(y[:, None]", "torch.zeros(x.shape[1], dtype=x.dtype) + (y[:, None]", "q4", "another device", "device", "follow x"),
    ("5", "weights alone", "(w1 * a1)", "w1", "q5", "x = (4, 2), class 0, whose only weight", "easy shape general batch device", "largest difference"),
    ("5", "patterns alone", "(w2 * a2)", "a2", "q5", "x = (4, 2), class 0, whose only weight", "easy shape general batch device", "largest difference"),
    ("5", "closed units pass", " * (hidden > 0)", "", "q5", "closes the first unit", "general batch device", "largest difference"),
    ("5", "starts with 1", "back = logit * ", "back = ", "q5", "Class 1, logit 2 * 1 + 6 = 8, weights", "easy shape general batch device", "largest difference"),
    ("5", "times hidden", "(hidden > 0)", "hidden", "q5", "Class 1, logit 2 * 1 + 6 = 8, weights", "easy shape general batch device", "largest difference"),
    ("5", "times x", "return back @ (w1 * a1)", "return back @ (w1 * a1) * x", "q5", "x = (4, 2), class 0, whose only weight", "easy shape general batch device", "largest difference"),
    ("5", "class of the first", "(w2 * a2)[target]", "(w2 * a2)[target[:1]]", "q5", "Six inputs must give", "batch device", "largest difference"),
    ("5", "largest logit", ".gather(1, target[:, None])", ".amax(dim=1, keepdim=True)", "q5", "x = (4, 2), class 0, whose only weight", "easy shape general batch device", "largest difference"),
    ("5", "on the CPU", "return back", "back = torch.zeros(back.shape, dtype=x.dtype) + back\n    return back", "q5", "another device", "device", "follow x"),
]  # fmt: skip
