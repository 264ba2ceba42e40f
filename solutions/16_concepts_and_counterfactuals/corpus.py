"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "concept-logit", "loan"]
EMPTY = {
    "1a": ("concept_by_hand()", "[1.5, -2.5, 3.5, 0.75]"),
    "1b": ("counterfactuals_by_hand()", "[[1.5, 0.25, 2.0], [1.75, 0.5, 2.5]]"),
    "2": ("sensitivity(model, a, target, v)", "a.flatten(1).sum(1)"),
    "3": ("concept_vector(concept, random)", "concept[0]"),
    "4": ("p_values(values, random)", "values + 2"),
    "5": ("false_alarms(values, random)", "values[0, :2] + 2"),
    "6": ("closest(x, weight, bias, margin)", "x / 2"),
}

SENSITIVITY_FUNC = """
from torch.func import jvp
def sensitivity(model, a, target, v):
    unit = (v / v.square().sum().sqrt()).expand_as(a)
    _, slope = jvp(model, (a.detach(),), (unit.contiguous(),))
    return slope[torch.arange(len(a)), target].detach()
"""
SENSITIVITY_ROWS = """
def sensitivity(model, a, target, v):
    found = []
    for one, c in zip(a, target):
        x = one.detach().clone()[None].requires_grad_(True)
        gradient = torch.autograd.grad(model(x)[0, c], x)[0]
        found.append((gradient[0] * v).sum() / v.norm())
    return torch.stack(found)
"""
SENSITIVITY_STEP = """
def sensitivity(model, a, target, v):
    # the derivative by the length of the step
    step = torch.zeros(len(a), *[1] * v.dim()).to(a).requires_grad_()
    out = model(a.detach() + step * (v / torch.linalg.vector_norm(v)))
    chosen = (out * torch.nn.functional.one_hot(target, out.shape[1])).sum()
    return torch.autograd.grad(chosen, step)[0].reshape(len(a))
"""
VECTOR_LOOPS = """
def concept_vector(concept, random):
    total = 0.01 * torch.eye(concept.size(1), dtype=concept.dtype, device=concept.device)
    for rows in (concept, random):
        centred = rows - rows.mean(0, keepdim=True)
        total = total + centred.T @ centred / len(rows) / 2
    v = torch.linalg.inv(total) @ (concept.mean(0) - random.mean(0))
    return v / torch.sqrt((v * v).sum())
"""
VECTOR_LEAST_SQUARES = """
def concept_vector(concept, random):
    n, m, k = len(concept), len(random), concept.shape[1]
    rows = torch.cat([(concept - concept.mean(0)) / (2 * n) ** 0.5, (random - random.mean(0)) / (2 * m) ** 0.5,
                      torch.eye(k, device=concept.device, dtype=concept.dtype) / 10])
    gap = concept.mean(0) - random.mean(0)
    v = torch.cholesky_solve(gap[:, None], torch.linalg.cholesky(rows.T @ rows))[:, 0]
    return nn.functional.normalize(v, dim=0)
"""
VECTOR_EIGEN = """
def concept_vector(concept, random):
    moment = lambda a: torch.einsum("ni,nj->ij", a, a) / a.shape[0] - torch.outer(a.mean(0), a.mean(0))
    sizes, axes = torch.linalg.eigh((moment(concept) + moment(random)) / 2)
    v = axes @ ((axes.T @ (concept.mean(0) - random.mean(0))) / (sizes + 0.01))
    return v / v.norm()
"""
P_LOOPS = """
def p_values(values, random):
    found = []
    for s in values:
        beyond = sum(bool(abs(other) >= abs(s)) for other in random)
        found.append(min(1.0, len(values) * (1 + beyond) / (1 + len(random))))
    return torch.tensor(found, dtype=values.dtype, device=values.device)
"""
P_MEAN = """
def p_values(values, random):
    every = torch.stack([torch.cat([s[None], random]) for s in values])
    far = (every.abs() >= values.abs().unsqueeze(1)).to(values.dtype).mean(1)
    return torch.minimum(far * values.numel(), torch.ones_like(far))
"""
P_SORTED = """
def p_values(values, random):
    order = random.abs().sort().values
    below = torch.searchsorted(order, values.abs().contiguous())
    p = (1 + len(random) - below).to(values.dtype) / (len(random) + 1)
    return torch.clamp(p * values.shape[0], 0, 1)
"""
ALARMS_LOOPS = """
def false_alarms(values, random):
    k, n = values.shape
    others = random.mean(1)
    by_t = by_rank = 0
    for row in values:
        mean = row.mean()
        spread = ((row - mean).pow(2).sum() / (n - 1)).sqrt()
        by_t += int(abs(mean) * n**0.5 / spread > 2)
        by_rank += int((1 + (others.abs() >= mean.abs()).sum()) / (1 + len(others)) <= 0.05)
    return torch.tensor([by_t / k, by_rank / k]).to(values)
"""
ALARMS_ONE_LINE = """
def false_alarms(values, random):
    spread, mean = torch.std_mean(values, dim=1)
    significant = mean.square() * values.size(1) > 4 * spread.square()
    count = (mean.abs().unsqueeze(1) <= random.mean(1).abs()).sum(1)
    small = 20 * (count + 1) <= len(random) + 1
    return torch.stack([significant, small]).to(values).mean(1)
"""
ALARMS_MAP = """
def false_alarms(values, random):
    s = values.sum(1) / values.shape[1]
    error = values.var(1, unbiased=True).div(values.shape[1]).sqrt()
    r = random.mean(1)
    p = torch.tensor([p_values(s[k : k + 1], r).item() for k in range(len(s))])
    share = lambda yes: sum(yes.tolist()) / len(yes)
    return torch.tensor([share((s / error).abs() > 2), share(p < 0.0500001)], dtype=values.dtype, device=values.device)
"""
CLOSEST_SORTED = """
def closest(x, weight, bias, margin):
    result = x.clone()
    for n, row in enumerate(x.double()):
        w = weight.double()
        need = margin - bias - row @ w
        stop = torch.where(w > 0, (1 - row) / w, torch.where(w < 0, -row / w, torch.inf))
        at = 0.0
        for end in [*sorted(v for v in stop.tolist() if v != float("inf"))]:
            slope = w[(stop > at) & (w != 0)].square().sum().item()
            if need <= 0 or slope == 0:
                break
            step = min(end - at, need.item() / slope)
            need, at = need - step * slope, at + step
        result[n] = (row + at * w).clamp(0, 1).to(x.dtype)
    return result
"""
CLOSEST_ROWS = """
def closest(x, weight, bias, margin):
    w = weight
    def g(rows):
        return (rows * w).sum(1, keepdim=True) + bias
    few = torch.zeros(len(x), 1, dtype=x.dtype, device=x.device)
    many = torch.full_like(few, float(1 / w.abs()[w.abs() > 0].min()))
    for _ in range(100):
        half = 0.5 * few + 0.5 * many
        reached = g(torch.clip(x + half * w, 0, 1)) >= margin
        many[reached] = half[reached]
        few[~reached] = half[~reached]
    return torch.clip(x + many * w, min=0, max=1)
"""
CLOSEST_NEWTON = """
def closest(x, weight, bias, margin):
    # g is concave in the number: Newton's steps from below never go too far
    size = torch.zeros(x.shape[0], 1, dtype=x.dtype, device=x.device)
    for _ in range(3 * x.shape[1] + 10):
        now = (x + size * weight).clamp(0, 1)
        lacking = (margin - bias - now @ weight)[:, None].clamp(min=0)
        ahead = torch.where(weight > 0, now < 1, now > 0) & (weight != 0)
        slope = (ahead * weight.square()).sum(1, keepdim=True)
        size = size + torch.where(slope > 0, lacking / slope, torch.zeros_like(slope))
    return (x + size * weight).clamp(0, 1)
"""
RIGHT = [
    ("1a", "tuple", "def concept_by_hand(): return (-3 / 5, 3, -1 / 10, 1 / 3)"),
    ("1a", "formula", "def concept_by_hand():\n    s = [(3 * y + 4 * (x + y)) / 5 for x, y in [(1, -1), (2, 1), (-1, 0.5)]]\n"
           "    return [*s, sum(v > 0 for v in s) / 3]"),
    ("1a", "autograd", "def concept_by_hand():\n    a = torch.tensor([[1.0, -1], [2, 1], [-1, 0.5]], requires_grad=True)\n"
           "    g, = torch.autograd.grad(concept_logit(a).sum(), a)\n    s = g @ torch.tensor([0.6, 0.8])\n"
           "    return s.tolist() + [(s > 0).float().mean().item()]"),
    ("1b", "tuples", "def counterfactuals_by_hand(): return ((14 / 5, 2 / 5, 3), (2, 1, 3.16228))"),
    ("1b", "rounded", "def counterfactuals_by_hand(): return [[2.8, 0.4, 3.0], [2, 1, 3.162]]"),
    ("1b", "formula", "def counterfactuals_by_hand():\n    step = -loan(torch.tensor([1.0, -2.0])).item() / 25\n"
           "    return [[1 + 3 * step, -2 + 4 * step, 5 * step], [2, (10 - 3 * 2) / 4, (1 + 9) ** 0.5]]"),
    ("1b", "numbers", "def counterfactuals_by_hand():\n    import math\n    return [[2.8, 0.4, math.hypot(1.8, 2.4)], [2, 1, math.dist((1, -2), (2, 1))]]"),
    ("2", "forward mode", SENSITIVITY_FUNC),
    ("2", "row by row", SENSITIVITY_ROWS),
    ("2", "length of the step", SENSITIVITY_STEP),
    ("3", "own covariance", VECTOR_LOOPS),
    ("3", "Cholesky", VECTOR_LEAST_SQUARES),
    ("3", "eigenvectors", VECTOR_EIGEN),
    ("4", "loops", P_LOOPS),
    ("4", "a mean", P_MEAN),
    ("4", "sorted", P_SORTED),
    ("5", "loops", ALARMS_LOOPS),
    ("5", "counts", ALARMS_ONE_LINE),
    ("5", "Python numbers", ALARMS_MAP),
    ("6", "from bound to bound", CLOSEST_SORTED),
    ("6", "more halvings", CLOSEST_ROWS),
    ("6", "Newton", CLOSEST_NEWTON),
]  # fmt: skip

WRONG = [
    ("1a", "length of v forgotten", "-0.6,", "-3.0,", "q1a", "a = [1.0, -1.0]:", "easy general", "Wrong:"),
    ("1a", "gradient of the first factor alone", "3.0,  # (1, 3)", "2.2,", "q1a", "a = [2.0, 1.0]:", "easy general",
     "Wrong:"),
    ("1a", "gradient by the second entry alone", "-0.1,  # (1/2, -1/2)", "-0.4,", "q1a", "a = [-1.0, 0.5]:",
     "easy general", "Wrong:"),
    ("1a", "sign", "3.0,  # (1, 3)", "-3.0,", "q1a", "a = [2.0, 1.0]:", "easy general", "Wrong:"),
    ("1a", "share of negative ones", "1 / 3,", "2 / 3,", "q1a", "The score counts signs:", "general", "Wrong:"),
    ("1a", "count in place of the share", "1 / 3,", "1.0,", "q1a", "The score counts signs:", "general", "Wrong:"),
    ("1b", "step by the length of w", "[2.8, 0.4, 3.0]", "[10.0, 10.0, 15.0]", "q1b", "Without bounds:", "easy",
     "Wrong:"),
    ("1b", "one entry alone", "[2.8, 0.4, 3.0]", "[6.0, -2.0, 5.0]", "q1b", "Without bounds:", "easy", "Wrong:"),
    ("1b", "distance squared", "[2.8, 0.4, 3.0]", "[2.8, 0.4, 9.0]", "q1b", "Without bounds:", "easy", "Wrong:"),
    ("1b", "cut off", "[2.0, 1.0, 10**0.5]", "[2.0, 0.4, 2.6]", "q1b", "With bounds:", "general", "Wrong:"),
    ("1b", "bounds forgotten", "[2.0, 1.0, 10**0.5]", "[2.8, 0.4, 3.0]", "q1b", "With bounds:", "general", "Wrong:"),
    ("1b", "to the corner", "[2.0, 1.0, 10**0.5]", "[2.0, 2.0, 17**0.5]", "q1b", "With bounds:", "general", "Wrong:"),
    ("2", "length of v", "gradient * v / v.norm()", "gradient * v", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "squared length", "v / v.norm()", "v / v.square().sum()", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "gradient's length too", "return (gradient * v / v.norm()).flatten(1).sum(1)",
     "return torch.nn.functional.cosine_similarity(gradient.flatten(1), v.flatten()[None])", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "size", "flatten(1).sum(1)", "flatten(1).sum(1).abs()", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "general batch side effects device",
     "largest difference"),
    ("2", "sign only", "flatten(1).sum(1)", "flatten(1).sum(1).sign()", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "mean", "flatten(1).sum(1)", "flatten(1).mean(1)", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "first target for all", "target[:, None]", "target[:1, None].expand(len(a), 1)", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "batch side effects device", "largest difference"),
    ("2", "all classes", "model(leaf).gather(1, target[:, None])", "model(leaf)", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "probability", "model(leaf).gather", "model(leaf).softmax(1).gather", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "easy shape general batch side effects device",
     "largest difference"),
    ("2", "whole batch", "flatten(1).sum(1)", "sum().expand(len(a))", "q2",
     "A linear network with the weights (1, 2) and (0, -5), v =", "batch side effects device", "largest difference"),
    ("2", "own .grad", "(gradient,) = torch.autograd.grad(logits.sum(), leaf)",
     "logits.sum().backward(); gradient = leaf.grad", "q2",
     "The .grad of the parameter '0.weight' changed. A map only", "side effects", "had changed"),
    ("2", "large step", "(gradient * v / v.norm()).flatten(1).sum(1)",
     "((model(a + v / v.norm()) - model(a)).gather(1, target[:, None])[:, 0]).detach()", "q2", "A curved network:",
     "general batch side effects device", "largest difference"),
    ("3", "difference of means", "torch.linalg.solve(spread, concept.mean(0) - random.mean(0))",
     "concept.mean(0) - random.mean(0)", "q3", "Both entries vary together, and the concept adds 1 to the",
     "general device", "largest difference"),
    ("3", "length forgotten", "return v / v.norm()", "return v", "q3", "Two squares, the concept's moved by (3, 4):",
     "easy shape general device", "largest difference"),
    ("3", "from concept to random", "concept.mean(0) - random.mean(0)", "random.mean(0) - concept.mean(0)", "q3",
     "Two squares, the concept's moved by (3, 4):", "easy shape general device", "largest difference"),
    ("3", "covariance of the random ones",
     "(torch.cov(concept.T, correction=0) + torch.cov(random.T, correction=0)) / 2",
     "torch.cov(random.T, correction=0)", "q3", "Covariances of 4 and 1/2 in all entries:", "general device",
     "largest difference"),
    ("3", "one covariance of all", "(torch.cov(concept.T, correction=0) + torch.cov(random.T, correction=0)) / 2",
     "torch.cov(torch.cat([concept, random]).T, correction=0)", "q3", "Covariances of 4 and 1/2 in all entries:",
     "general device", "largest difference"),
    ("3", "sum of the covariances", "random.T, correction=0)) / 2", "random.T, correction=0))", "q3",
     "Both entries vary together, and the concept adds 1 to the", "general device", "largest difference"),
    ("3", "variances alone", "spread = spread +", "spread = spread.diag().diag() +", "q3",
     "Both entries vary together, and the concept adds 1 to the", "general device", "largest difference"),
    ("3", "less on the diagonal", "0.01 * torch.eye", "1e-4 * torch.eye", "q3",
     "Both entries vary together, and the concept adds 1 to the", "general device", "largest difference"),
    ("3", "divided by one less", "correction=0", "correction=1", "q3",
     "Both entries vary together, and the concept adds 1 to the", "general device", "largest difference"),
    ("3", "times in place of inverse", "torch.linalg.solve(spread, concept.mean(0) - random.mean(0))",
     "spread @ (concept.mean(0) - random.mean(0))", "q3",
     "Both entries vary together, and the concept adds 1 to the", "general device", "largest difference"),
    ("3", "made on the CPU", "torch.eye(concept.shape[1]).to(concept)", "torch.eye(concept.shape[1])", "", "",
     "device", "follow x"),
    ("4", "the concept does not count itself", "1 + as_far", "as_far", "q4", "One concept at 2.5, nine random ones:",
     "easy shape general", "largest difference"),
    ("4", "one side", "random.abs() >= values.abs()[:, None]", "random >= values[:, None]", "q4",
     "One concept at 2.5, nine random ones:", "general device", "largest difference"),
    ("4", "ties do not count", "random.abs() >=", "random.abs() >", "q4", "A concept at -2:", "general",
     "largest difference"),
    ("4", "no correction", "len(values) * (1 +", "(1 +", "q4", "Three concepts at 9, 0.9 and -2.5:",
     "general device", "largest difference"),
    ("4", "divided by the random ones", "(len(random) + 1)", "len(random)", "q4",
     "One concept at 2.5, nine random ones:", "easy shape general", "largest difference"),
    ("4", "not cut off", ".clamp(max=1)", "", "q4", "Three concepts at 9, 0.9 and -2.5:", "general device",
     "largest difference"),
    ("4", "the other share", ">= values.abs()", "<= values.abs()", "q4", "One concept at 2.5, nine random ones:",
     "easy shape general", "largest difference"),
    ("5", "t-test alone", "(p <= 0.05).to(values).mean()", "(t.abs() > 2).to(values).mean()", "q5",
     "Random collections with means from -2.2 to 2.2:", "easy shape general device", "largest difference"),
    ("5", "exchanged", "[(t.abs() > 2).to(values).mean(), (p <= 0.05).to(values).mean()]",
     "[(p <= 0.05).to(values).mean(), (t.abs() > 2).to(values).mean()]", "q5",
     "Random collections with means from -2.2 to 2.2:", "easy shape general device", "largest difference"),
    ("5", "deviation in place of its error", "/ values.shape[1] ** 0.5)", "/ 1.0)", "q5",
     "Four collections and 41 random collections with means from", "easy shape general device", "largest difference"),
    ("5", "divided by n", "/ values.shape[1] ** 0.5)", "/ values.shape[1])", "q5",
     "Four collections and 41 random collections with means from", "easy shape general device", "largest difference"),
    ("5", "one side", "t.abs() > 2", "t > 2", "q5", "Four collections and 41 random collections with means from",
     "easy shape general device", "largest difference"),
    ("5", "corrected p-values", "p = torch.cat([p_values(one, random.mean(1)) for one in mean.split(1)])",
     "p = p_values(mean, random.mean(1))", "q5", "Four collections and 41 random collections with means from",
     "easy shape general device", "largest difference"),
    ("5", "single splits as random collections", "random.mean(1)", "random.flatten()", "q5",
     "Four collections and 41 random collections with means from", "easy shape general device", "largest difference"),
    ("5", "first split of the random ones", "random.mean(1)", "random[:, 0]", "q5",
     "Four collections and 41 random collections with means from", "easy shape general device", "largest difference"),
    ("5", "counts", "[(t.abs() > 2).to(values).mean(), (p <= 0.05).to(values).mean()]",
     "[(t.abs() > 2).to(values).sum(), (p <= 0.05).to(values).sum()]", "q5",
     "Four collections and 41 random collections with means from", "easy shape general device", "largest difference"),
    ("5", "deviation by n", "values.std(1)", "values.std(1, correction=0)", "q5",
     "Four collections and 41 random collections with means from", "easy shape general", "largest difference"),
    ("6", "cut off", "return (x + high * weight).clamp(0, 1)",
     "return (x + ((margin - bias - x @ weight) / weight.square().sum()).clamp(min=0)[:, None] * weight).clamp(0, 1)",
     "q6", "g = -2 at x = (0.1, 0.8, 0.5):", "general batch device", "largest difference"),
    ("6", "no bounds", "return (x + high * weight).clamp(0, 1)",
     "return x + ((margin - bias - x @ weight) / weight.square().sum()).clamp(min=0)[:, None] * weight", "q6",
     "g = -2 at x = (0.1, 0.8, 0.5):", "general batch device", "largest difference"),
    ("6", "always moved", "return (x + high * weight).clamp(0, 1)",
     "return (x + ((margin - bias - x @ weight) / weight.square().sum())[:, None] * weight).clamp(0, 1)", "q6",
     "g = -2 at x = (0.1, 0.8, 0.5):", "general batch device", "largest difference"),
    ("6", "no margin", ">= margin", ">= 0", "q6", "The same with a margin of 0.25:", "easy shape general device",
     "largest difference"),
    ("6", "sign of the weights", "middle * weight).clamp(0, 1) @", "middle * weight.sign()).clamp(0, 1) @", "q6",
     "w = (3, 4, 0), g = -0.5 at x = (0.5, 0.5, 0.2):", "easy shape general batch device", "largest difference"),
    ("6", "one number for the batch", "bias >= margin",
     "bias >= margin\n        enough = enough.all().expand_as(enough)", "q6", "Random numbers:", "batch device",
     "largest difference"),
    ("6", "upper bound alone", "clamp(0, 1)", "clamp(max=1)", "q6", "Random numbers:", "general device",
     "largest difference"),
    ("6", "too few halvings", "range(60)", "range(6)", "q6", "w = (3, 4, 0), g = -0.5 at x = (0.5, 0.5, 0.2):",
     "easy shape general batch device", "largest difference"),
    ("6", "to the corner", "return (x + high * weight).clamp(0, 1)",
     "return torch.where(weight > 0, 1.0, torch.where(weight < 0, 0.0, x)).to(x.dtype)", "q6",
     "w = (3, 4, 0), g = -0.5 at x = (0.5, 0.5, 0.2):", "easy shape general batch device", "largest difference"),
    ("6", "too small an interval", "1 / weight[weight != 0].abs().min()", "1 / weight.abs().max()", "q6",
     "w = (4, 0.5, 0), g = 4.5 - 9 at most:", "batch", "largest difference"),
]  # fmt: skip
