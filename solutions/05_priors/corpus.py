"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "score", "decode"]
EMPTY = {
    "1a": ("maximum_l2()", "[2.0, -1.0]"),
    "1b": ("maxima_gaussian()", "[[1.0, 0.5], [0.0, 0.5]]"),
    "2": ("log_density(x, mean, covariance)", "x.flatten(1).sum(1)"),
    "3a": ("maximise(model, target, x0, mean, covariance, steps, lr)", "x0 + 1"),
    "3b": ("most_likely(weight, mean, covariance)", "weight"),
    "4a": ("fit_generator(x, k)", "x.flatten(1)[:k].T"),
    "4b": ("maximise_code(model, target, z0, mean, matrix, lam, steps, lr)", "z0"),
}

BY_SLOGDET = """
def log_density(x, mean, covariance):
    rows = (x - mean).reshape(len(x), -1)
    distance = (rows * torch.linalg.solve(covariance, rows.T).T).sum(1)
    return -(distance + torch.linalg.slogdet(covariance)[1] + rows.size(1) * math.log(2 * math.pi)) / 2
"""
BY_DISTRIBUTION = """
from torch.distributions import MultivariateNormal
def log_density(x, mean, covariance):
    return MultivariateNormal(mean.flatten(), covariance_matrix=covariance, validate_args=False).log_prob(x.flatten(1))
"""
BY_EIGENVALUES = """
def log_density(x, mean, covariance):
    values, vectors = torch.linalg.eigh(covariance)
    u = (x - mean).flatten(1) @ vectors
    return (-0.5 * (u**2 / values + torch.log(2 * torch.pi * values))).sum(1)
"""
ASCENT_BY_HAND = """
def maximise(model, target, x0, mean, covariance, steps, lr):
    x = x0.detach().clone()
    for _ in range(steps):
        leaf = x.clone().requires_grad_(True)
        slope = torch.autograd.grad(model(leaf).gather(1, target.unsqueeze(1)).sum(), leaf)[0]
        pull = torch.linalg.solve(covariance, (mean - x).flatten(1).T).T.reshape(x.shape)
        x = x + lr * (slope + pull)
    return x
"""
ASCENT_ROW_BY_ROW = """
def maximise(model, target, x0, mean, covariance, steps, lr):
    found = []
    for row, c in zip(x0.detach().split(1), target.tolist()):
        for _ in range(steps):
            leaf = row.clone().requires_grad_(True)
            top = model(leaf)[0, c] + log_density(leaf, mean, covariance)[0]
            row = row + lr * torch.autograd.grad(top, leaf)[0]
        found.append(row)
    return torch.cat(found)
"""
ASCENT_FUNC = """
from torch.func import grad
def maximise(model, target, x0, mean, covariance, steps, lr):
    hot = torch.nn.functional.one_hot(target, model(x0).shape[1])
    slope = grad(lambda x: ((model(x) * hot).sum(1) + log_density(x, mean, covariance)).sum())
    x = x0.detach()
    for _ in range(steps):
        x = x + lr * slope(x)
    return x.detach().clone()
"""
FACTOR_EIGH = """
def fit_generator(x, k):
    rows = x.reshape(len(x), -1)
    rows = rows - rows.mean(0, keepdim=True)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors[:, -k:] * values[-k:].clamp(min=0).sqrt()
"""
FACTOR_COV = """
def fit_generator(x, k):
    values, vectors = torch.linalg.eigh(torch.cov(x.flatten(1).T, correction=0))
    order = values.argsort(descending=True)[:k]
    return torch.stack([vectors[:, j] * values[j].abs() ** 0.5 for j in order.tolist()], dim=1)
"""
FACTOR_PROJECTED = """
def fit_generator(x, k):
    rows = x.flatten(1) - x.flatten(1).mean(0)
    u, s, vt = torch.linalg.svd(rows / math.sqrt(len(x)), full_matrices=False)
    return (torch.diag(s) @ vt)[:k].T.contiguous()
"""
CODE_BY_HAND = """
def maximise_code(model, target, z0, mean, matrix, lam, steps, lr):
    z = z0.detach().clone()
    for _ in range(steps):
        x = decode(z, mean, matrix).detach().requires_grad_(True)
        slope = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]
        z = z + lr * (slope.flatten(1) @ matrix - 2 * lam * z)
    return z
"""
CODE_OWN_DECODER = """
def maximise_code(model, target, z0, mean, matrix, lam, steps, lr):
    code = z0.clone().detach()
    for _ in range(steps):
        leaf = code.clone().requires_grad_(True)
        x = mean.flatten() + torch.einsum("nk,dk->nd", leaf, matrix)
        logits = model(x.reshape(len(leaf), *mean.shape))
        total = sum(row[c] for row, c in zip(logits, target.tolist())) - lam * (leaf * leaf).sum()
        code = (leaf + lr * torch.autograd.grad(total, leaf)[0]).detach()
    return code
"""
CODE_SGD = """
def maximise_code(model, target, z0, mean, matrix, lam, steps, lr):
    z = z0.detach().clone().requires_grad_(True)
    optimiser = torch.optim.SGD([z], lr=lr)
    for _ in range(steps):
        logits = model(decode(z, mean, matrix))
        loss = (lam * z.pow(2).sum(1) - torch.stack([row[c] for row, c in zip(logits, target.tolist())])).sum()
        z.grad = torch.autograd.grad(loss, z)[0]
        optimiser.step()
    return z.detach()
"""
RIGHT = [
    ("1a", "tuple", "def maximum_l2(): return (4, -2)"),
    ("1a", "formula", "def maximum_l2(): return [v / (2 * 0.25) for v in (2, -1)]"),
    ("1a", "tensor", "def maximum_l2(): return (2 * torch.tensor([2.0, -1.0])).tolist()"),
    ("1b", "tuples", "def maxima_gaussian(): return ((9, -1 / 2), (3 / 2, 0))"),
    (
        "1b",
        "matrices",
        "def maxima_gaussian():\n    w = torch.tensor([2.0, -1.0])\n    a, b = torch.tensor([[4.0, 0], [0, 0.5]]), "
        "torch.tensor([[1, 0.5], [0.5, 1]])\n    return [(torch.tensor([1.0, 0]) + a @ w).tolist(), (b @ w).tolist()]",
    ),
    ("1b", "sums", "def maxima_gaussian(): return [[1 + 8, 0 - 0.5], [2 * 1 - 0.5, 2 * 0.5 - 1]]"),
    ("2", "slogdet", BY_SLOGDET),
    ("2", "distribution", BY_DISTRIBUTION),
    ("2", "eigenvalues", BY_EIGENVALUES),
    ("3a", "pull by hand", ASCENT_BY_HAND),
    ("3a", "row by row", ASCENT_ROW_BY_ROW),
    ("3a", "functional", ASCENT_FUNC),
    ("3b", "transposed", "def most_likely(weight, mean, covariance): return (covariance @ weight.T).T + mean"),
    ("3b", "einsum", "def most_likely(weight, mean, covariance):\n"
           "    return mean[None] + torch.einsum('kd,de->ke', weight, covariance)"),
    ("3b", "loop", "def most_likely(weight, mean, covariance):\n"
           "    return torch.stack([torch.addmv(mean, covariance, w) for w in weight])"),
    ("4a", "eigenvectors", FACTOR_EIGH),
    ("4a", "covariance", FACTOR_COV),
    ("4a", "scaled first", FACTOR_PROJECTED),
    ("4b", "chain rule by hand", CODE_BY_HAND),
    ("4b", "own decoder", CODE_OWN_DECODER),
    ("4b", "optimiser", CODE_SGD),
]  # fmt: skip

ALL2, ALL3, ALL4 = (
    "easy shape general batch device",
    "easy general batch side effects device",
    "easy general batch device",
)
SCALED = "directions[:k].T * scale[:k] / len(rows) ** 0.5"
BEST = "mean + weight @ covariance"
LOGIT = "gather(1, target[:, None]).squeeze(1)"
# question, name, old text of its answer cell, new text, check that catches it, its words, parts that it loses, feedback
WRONG = [
    ("1a", "without the two", "[4.0, -2.0]", "[8.0, -4.0]", "q1a", "along x[0]", "easy", "Wrong: x[0]; x[1]."),
    ("1a", "the weights", "[4.0, -2.0]", "[2.0, -1.0]", "q1a", "more than a step", "easy", "Wrong: x[0]; x[1]."),
    ("1a", "wrong sign", "[4.0, -2.0]", "[4.0, 2.0]", "q1a", "along x[1]", "easy", "Wrong: x[1]"),
    ("1a", "with the bias", "[4.0, -2.0]", "[4.0, 1.0]", "q1a", "along x[1]", "easy", "Wrong: x[1]"),
    ("1a", "one number", "[4.0, -2.0]", "4.0", "q1a", "list of two numbers, got 4.0", "easy", "must be a list, got float"),
    ("1b", "mean forgotten", "[9.0, -0.5]", "[8.0, -0.5]", "q1b", "Independent prior", "easy", "Wrong: x[0]"),
    ("1b", "divided by the variances", "[9.0, -0.5]", "[1.5, -2.0]", "q1b", "Independent prior", "easy", "Wrong: x[0]; x[1]."),
    ("1b", "standard deviations", "[9.0, -0.5]", "[5.0, -0.70710678]", "q1b", "Independent", "easy", "Wrong: x[0]; x[1]."),
    ("1b", "correlation ignored", "[1.5, 0.0]", "[2.0, -1.0]", "q1b", "Correlated prior", "general", "Wrong: x[0]; x[1]."),
    ("1b", "inverse", "[1.5, 0.0]", "[3.3333333333, -2.6666666667]", "q1b", "Correlated", "general", "Wrong: x[0]; x[1]."),
    ("1b", "one point", "return [", "return [[9.0, -0.5]] or [", "q1b", "list of two points", "easy general", "shape (2, 2)"),
    ("2", "determinant", "2 * factor.diagonal().log().sum()", "torch.linalg.det(covariance).log()", "q2b",
     "determinant that is 0", "batch", "infinite"),
    ("2", "no constant", " + offset.shape[1] * math.log(2 * math.pi)", "", "q2a", "points to the constant",
     ALL2, "largest difference"),
    ("2", "constant once", "offset.shape[1] * ", "", "q2a", "constant", ALL2, "largest difference"),
    ("2", "half of log det", "2 * factor", "factor", "q2a", "determinant", ALL2, "largest difference"),
    ("2", "no log det", "+ log_det", "", "q2a", "determinant", ALL2, "largest difference"),
    ("2", "negative", "-0.5 *", "0.5 *", "q2a", "add up", ALL2, "largest difference"),
    ("2", "not whitened", "torch.linalg.solve_triangular(factor, offset.T, upper=False)", "offset.T", "q2a", "add up",
     ALL2, "largest difference"),
    ("2", "wrong triangle", "(factor, offset.T, upper=False)", "(factor.T, offset.T, upper=True)", "q2a",
     "turned by an angle", "general batch device", "largest difference"),
    ("2", "sum over the batch", ".sum(0)", ".sum().expand(len(x))", "q2a", "add up", "batch device", "largest difference"),
    ("2", "vectors only", "(x - mean).flatten(1)", "x - mean", "q2b", "make one vector", "shape batch", "RuntimeError"),
    ("2", "a column", "return -0.5", "return -0.5 * torch.ones(1, 1).to(x)", "q2a", "must have shape (3,)",
     ALL2, "must have shape (1,)"),
    ("2", "density", "return -0.5", "return torch.exp(torch.ones(()).to(x)) * -0.5", "q2a", "add up", ALL2, "difference"),
    ("2", "no gradient", "(x - mean)", "(x - mean).detach()", "q2b", "does not depend on x for autograd", "general", "but not the gradient"),
    ("2", "double", "white.square()", "white.double().square()", "q2b", "dtype torch.float32", "shape device", "float32"),
    ("3a", "probability", "model(x).", "model(x).softmax(1).", "q3a", "One step", ALL3, "largest difference"),
    ("3a", "no prior", "logit + log_density(x, mean, covariance)", "logit", "q3a", "slope of log p", ALL3, "difference"),
    ("3a", "no network", "logit + log", "log", "q3a", "One step", ALL3, "largest difference"),
    ("3a", "descent", "x + lr", "x - lr", "q3a", "One step", ALL3, "largest difference"),
    ("3a", "one step too many", "range(steps)", "range(steps + 1)", "q3a", "steps=0", ALL3, "largest difference"),
    ("3a", "mean over the batch", "objective.sum()", "objective.mean()", "q3a", "One step", "batch side effects device", "largest"),
    ("3a", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q3a", "that row's target",
     "batch side effects device", "largest difference"),
    ("3a", "sign of the gradient", "lr * ascent", "lr * ascent.sign()", "q3a", "One step", ALL3, "largest difference"),
    ("3a", "own .grad", "(ascent,) = torch.autograd.grad(objective.sum(), x)", "objective.sum().backward(); ascent = x.grad",
     "q3a", ".grad of the parameter", "side effects", "the .grad of the parameter"),
    ("3a", "in place", "x0.detach().clone()", "x0", "q3a", "requires_grad flag of the input", "side effects", "requires_grad"),
    ("3a", "to the CPU", "return x", "return x.cpu()", "q3a", "another device", "device", "make it follow x"),
    ("3b", "inverse", "@ covariance", "@ torch.linalg.inv(covariance)", "q3b", "in balance", "easy shape general device", "difference"),
    ("3b", "no mean", BEST, "weight @ covariance", "q3b", "in balance", "easy shape general device", "difference"),
    ("3b", "descent", "mean + weight", "mean - weight", "q3b", "in balance", "easy shape general device", "difference"),
    ("3b", "variances only", "weight @ covariance", "weight * covariance.diagonal()", "q3b", "in balance",
     "general device", "difference"),
    ("3b", "Cholesky factor", "covariance\n", "torch.linalg.cholesky(covariance)\n", "q3b", "in balance",
     "easy shape general device", "difference"),
    ("3b", "of length one", BEST, f"torch.nn.functional.normalize({BEST})", "q3b", "in balance", "easy shape general device", "diff"),
    ("3b", "one class", BEST, "mean + covariance @ weight[0]", "q3b", "must have shape (3, 4)",
     "easy shape general device", "must have shape"),
    ("4a", "not centred", " - rows.mean(0)", " * 1", "q4a", "not centred", ALL4, "A A^T is compared"),
    ("4a", "N - 1", "len(rows) ** 0.5", "(len(rows) - 1) ** 0.5", "q4a", "largest variances", ALL4, "A A^T is compared"),
    ("4a", "not scaled", SCALED, "directions[:k].T", "q4a", "largest variances", ALL4, "A A^T is compared"),
    ("4a", "sums of squares", " / len(rows) ** 0.5", "", "q4a", "largest variances", ALL4, "A A^T is compared"),
    ("4a", "variances", SCALED, "directions[:k].T * scale[:k] ** 2 / len(rows)", "q4a", "Squares", ALL4, "A A^T"),
    ("4a", "smallest components", SCALED, "directions[-k:].T * scale[-k:] / len(rows) ** 0.5", "q4a", "k=2",
     "general batch device", "A A^T is compared"),
    ("4a", "transposed", SCALED, f"({SCALED}).T", "q4a", "largest variances", "easy general batch device", "A A^T"),
    ("4b", "no penalty", " - lam * z.square().sum(1)", "", "q4b", "5 %", ALL3, "largest difference"),
    ("4b", "half the penalty", "lam * z", "lam / 2 * z", "q4b", "5 %", ALL3, "largest difference"),
    ("4b", "length, not squared", "z.square().sum(1)", "z.norm(dim=1)", "q4b", "5 %", ALL3, "largest difference"),
    ("4b", "penalty on the picture", "z.square().sum(1)", "decode(z, mean, matrix).flatten(1).square().sum(1)", "q4b",
     "5 %", ALL3, "largest difference"),
    ("4b", "descent", "z + lr", "z - lr", "q4b", "5 %", ALL3, "largest difference"),
    ("4b", "pictures", "return z", "return decode(z, mean, matrix)", "q4b", "must have shape (3, 3)", ALL3, "must have shape"),
    ("4b", "first target for all", "target[:, None]", "target[:1, None].expand(len(z), 1)", "q4b", "the row's target",
     "batch side effects device", "largest difference"),
    ("4b", "mean over the batch", ".sum(1)).sum()", ".sum(1)).mean()", "q4b", "One step", "batch side effects device", "largest"),
    ("4b", "probability", "matrix)).gather", "matrix)).softmax(1).gather", "q4b", "5 %", ALL3, "largest difference"),
    ("4b", "one step", "range(steps)", "range(1)", "q4b", "closed form", "general batch side effects device", "difference"),
    ("4b", "own .grad", "(ascent,) = torch.autograd.grad((logit - lam * z.square().sum(1)).sum(), z)",
     "(logit - lam * z.square().sum(1)).sum().backward(); ascent = z.grad", "q4b", ".grad of the parameter", "side effects",
     "the .grad of the parameter"),
]  # fmt: skip
