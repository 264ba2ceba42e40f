"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "data-1", "fit-softmax"]
EMPTY = {
    "1a": ("steps_without_6()", "[-3.0, -3.0]"),
    "1b": ("predicted_rises()", "[1.0, 1.0, 1.0, 1.0]"),
    "2a": ("fit_ridge(x, y, lam)", "x.sum(0)"),
    "2b": ("leave_one_out(x, y, lam)", "x"),
    "3a": ("gradients(weight, x, y)", "x[:, None].repeat(1, len(weight), 1)"),
    "3b": ("hvp(weight, x, v, lam)", "v"),
    "4a": ("harm(weight, x, y, x_test, y_test, lam)", "x.sum(1)"),
}

RIDGE_SCALED = """
def fit_ridge(x, y, lam):
    n, d = x.shape
    return torch.linalg.inv(x.T @ x + n * lam * torch.eye(d, device=x.device, dtype=x.dtype)) @ (x.T @ y)
"""
RIDGE_DUAL = """
def fit_ridge(x, y, lam):
    n = len(x)
    gram = x @ x.T + n * lam * torch.eye(n, dtype=x.dtype, device=x.device)
    return x.T @ torch.linalg.solve(gram, y)
"""
RIDGE_NEWTON = """
def fit_ridge(x, y, lam):
    at_zero = -(y[:, None] * x).mean(0)
    hessian = torch.einsum("ni,nj->ij", x, x) / len(x)
    hessian.diagonal().add_(lam)
    factor = torch.linalg.cholesky(hessian)
    return -torch.cholesky_solve(at_zero[:, None], factor)[:, 0]
"""
LOO_LOOP = """
def leave_one_out(x, y, lam):
    n, rows = len(x), []
    for i in range(n):
        keep = torch.arange(n) != i
        a, b = x[keep.to(x.device)], y[keep.to(x.device)]
        left = a.T @ a / n + lam * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        rows.append(torch.linalg.solve(left, a.T @ b / n))
    return torch.stack(rows)
"""
LOO_BATCHED = """
def leave_one_out(x, y, lam):
    n = len(x)
    whole = x.T @ x / n + lam * torch.eye(x.shape[1]).to(x)
    hessians = whole - x[:, :, None] * x[:, None, :] / n
    sides = (x.T @ y / n) - x * y[:, None] / n
    return torch.linalg.solve(hessians, sides[:, :, None]).squeeze(2)
"""
LOO_INVERSE = """
def leave_one_out(x, y, lam):
    n = x.shape[0]
    inverse = torch.linalg.inv(x.T @ x / n + lam * torch.eye(x.shape[1]).to(x))
    theta = inverse @ (x.T @ y) / n
    h = torch.einsum("ni,ij,nj->n", x, inverse, x) / n
    steps = (x @ inverse) * ((x @ theta - y) / n / (1 - h)).unsqueeze(1)
    return theta.unsqueeze(0) + steps
"""
GRADIENTS_EINSUM = """
def gradients(weight, x, y):
    p = torch.softmax(torch.einsum("nd,kd->nk", x, weight), dim=1)
    hot = (torch.arange(len(weight), device=x.device) == y[:, None]).to(x)
    return torch.einsum("nk,nd->nkd", p - hot, x)
"""
GRADIENTS_AUTOGRAD = """
def gradients(weight, x, y):
    found = []
    for row, c in zip(x, y):
        leaf = weight.detach().clone().requires_grad_(True)
        loss = -(leaf @ row[:, None])[:, 0].log_softmax(0)[c]
        found.append(torch.autograd.grad(loss, leaf)[0])
    return torch.stack(found)
"""
GRADIENTS_FUNC = """
from torch.func import grad, vmap
def gradients(weight, x, y):
    hot = F.one_hot(y, len(weight)).to(x)
    one = grad(lambda w, row, t: -(torch.log_softmax((w * row).sum(1), 0) * t).sum())
    return vmap(one, in_dims=(None, 0, 0))(weight.detach(), x, hot)
"""
HVP_AUTOGRAD = """
def hvp(weight, x, v, lam):
    w = weight.detach().clone().requires_grad_(True)
    loss = torch.logsumexp(x @ w.T, dim=1).mean() + lam / 2 * (w * w).sum()  # what the labels add is linear in w
    (g,) = torch.autograd.grad(loss, w, create_graph=True)
    return torch.autograd.grad((g * v).sum(), w)[0].detach()
"""
HVP_MATRIX = """
def hvp(weight, x, v, lam):
    p = (x @ weight.T).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    s = torch.einsum("nkl,nl->nk", curvature, x @ v.T)
    return torch.einsum("nk,nd->kd", s, x) / x.shape[0] + lam * v
"""
HVP_LOOP = """
def hvp(weight, x, v, lam):
    total = lam * v
    for row in x.split(1):
        p, s = torch.softmax(row @ weight.T, 1)[0], (row @ v.T)[0]
        total = total + torch.outer(p * s - p * (p * s).sum(), row[0]) / len(x)
    return total
"""
HARM_EACH = """
def harm(weight, x, y, x_test, y_test, lam):
    k, d = weight.shape
    p, n = (x @ weight.T).softmax(1), len(x)
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    h = torch.einsum("nkl,ni,nj->kilj", blocks, x, x).reshape(k * d, k * d) / n
    h = h + lam * torch.eye(k * d, dtype=x.dtype, device=x.device)
    steps = torch.linalg.solve(h, gradients(weight, x, y).flatten(1).T) / n
    return -(gradients(weight, x_test, y_test).flatten(1) @ steps).mean(0)
"""
HARM_CG = """
def harm(weight, x, y, x_test, y_test, lam):
    target = gradients(weight, x_test, y_test).mean(0)
    s, r = torch.zeros_like(target), target.clone()
    d, size = r.clone(), (target * target).sum()
    for _ in range(10 * target.numel()):
        if not float(size) > 1e-24:
            break
        hd = hvp(weight, x, d, lam)
        a = size / (d * hd).sum()
        s, r = s + a * d, r - a * hd
        new = (r * r).sum()
        d, size = r + new / size * d, new
    return -torch.einsum("nkd,kd->n", gradients(weight, x, y), s) / len(x)
"""
HARM_COLUMNS = """
def harm(weight, x, y, x_test, y_test, lam):
    size, columns = weight.numel(), []
    for i in range(size):
        unit = torch.zeros_like(weight).view(-1)
        unit[i] = 1
        columns.append(hvp(weight, x, unit.view_as(weight), lam).reshape(-1))
    inverse = torch.linalg.inv(torch.stack(columns, dim=1))
    g_test = gradients(weight, x_test, y_test).mean(dim=0).reshape(-1)
    g_train = gradients(weight, x, y).reshape(len(x), -1)
    return -(g_train @ inverse * g_test).sum(1) / len(x)
"""
RIGHT = [
    ("1a", "tuple", "def steps_without_6(): return (-3 / 4, -1)"),
    ("1a", "from the data", "def steps_without_6(): return [(3 - 6) / 4, (1 + 2 + 3) / 3 - 3]"),
    ("1a", "n - 1", "def steps_without_6():\n    g, n = 3 - 6, 4\n    return [g / n, g / (n - 1)]"),
    ("1b", "tuple", "def predicted_rises(): return (1 / 2, 1 / 4, 0, -3 / 4)"),
    ("1b", "formula", "def predicted_rises(): return [(3 - 2) * (3 - v) / 4 for v in (1, 2, 3, 6)]"),
    ("1b", "tensor", "def predicted_rises(): return ((numbers.mean() - 2) * (numbers.mean() - numbers) / 4).tolist()"),
    ("2a", "times n", RIDGE_SCALED),
    ("2a", "dual", RIDGE_DUAL),
    ("2a", "Newton from zero", RIDGE_NEWTON),
    ("2b", "loop", LOO_LOOP),
    ("2b", "batched", LOO_BATCHED),
    ("2b", "inverse", LOO_INVERSE),
    ("3a", "einsum", GRADIENTS_EINSUM),
    ("3a", "autograd", GRADIENTS_AUTOGRAD),
    ("3a", "functional", GRADIENTS_FUNC),
    ("3b", "autograd", HVP_AUTOGRAD),
    ("3b", "matrix of the softmax", HVP_MATRIX),
    ("3b", "loop", HVP_LOOP),
    ("4a", "one step per example", HARM_EACH),
    ("4a", "conjugate gradients", HARM_CG),
    ("4a", "inverse", HARM_COLUMNS),
]

ALL2, ALL3A, ALL3B = "easy shape general device", "easy general shape device", "easy general side effects device"
ALL4 = "easy shape general batch device"
# question, name, old text of its answer cell, new text, check that catches it, its words, parts that it loses, feedback
WRONG = [
    ("1a", "wrong sign", "[-0.75, -1.0]", "[0.75, 1.0]", "q1a", "thousandth of 0.75", "easy general", "Wrong: number"),
    ("1a", "not divided by n", "[-0.75,", "[-3.0,", "q1a", "thousandth of -3.0", "easy", "Wrong: number 1"),
    ("1a", "true one twice", "[-0.75,", "[-1.0,", "q1a", "thousandth of -1.0", "easy", "Wrong: number 1"),
    ("1a", "predicted one twice", "-1.0]", "-0.75]", "q1a", "still has the slope", "general", "Wrong: number 2"),
    ("1a", "the new mean", "-1.0]", "2.0]", "q1a", "still has the slope", "general", "Wrong: number 2"),
    ("1a", "one number", "[-0.75, -1.0]", "[-0.75]", "q1a", "list of two numbers", "easy general", "must have shape (2,)"),
    ("1b", "wrong sign", "[0.5, 0.25, 0.0, -0.75]", "[-0.5, -0.25, 0.0, 0.75]", "q1b", "Without 1", "easy", "Wrong: number 1; number 2; number 4."),
    ("1b", "not divided by n", "[0.5, 0.25, 0.0, -0.75]", "[2.0, 1.0, 0.0, -3.0]", "q1b", "Without 1", "easy", "Wrong: number 1; number 2; number 4."),
    ("1b", "true rise", "-0.75]", "-0.5]", "q1b", "Without 6", "easy", "Wrong: number 4"),
    ("1b", "losses", "[0.5, 0.25, 0.0, -0.75]", "[2.0, 0.5, 0.0, 4.5]", "q1b", "Without 1", "easy", "Wrong: number 1; number 2; number 4."),
    ("1b", "magnitude", "-0.75]", "0.75]", "q1b", "Without 6", "easy", "Wrong: number 4"),
    ("2a", "no penalty", "+ penalty", "", "q2a", "smallest at 1", ALL2, "largest difference"),
    ("2a", "penalty over n", "/ len(x) + penalty", "/ len(x) + penalty / len(x)", "q2a", "slope must be zero", ALL2, "difference"),
    ("2a", "sum of the losses", "x.T @ x / len(x) + penalty, x.T @ y / len(x)", "x.T @ x + penalty, x.T @ y", "q2a",
     "slope must be zero", ALL2, "difference"),
    ("2a", "right side not divided", "x.T @ y / len(x)", "x.T @ y", "q2a", "slope must be zero", ALL2, "difference"),
    ("2a", "twice the penalty", "lam *", "2 * lam *", "q2a", "smallest at 1", ALL2, "largest difference"),
    ("2a", "penalty everywhere", "torch.eye(x.shape[1])", "torch.ones(x.shape[1], x.shape[1])", "q2a", "slope must be zero",
     "general device", "largest difference"),
    ("2a", "a column", "x.T @ y / len(x))", "(x.T @ y / len(x))[:, None])", "q2a", "must have shape (1,)", ALL2, "must have"),
    ("2b", "influence", " / (1 - leverage)", "", "q2b", "curvature of all six", ALL2, "largest difference"),
    ("2b", "wrong sign", "theta + solved", "theta - solved", "q2b", "without example 0", ALL2, "largest difference"),
    ("2b", "shorter", "1 - leverage", "1 + leverage", "q2b", "without example 0", ALL2, "largest difference"),
    ("2b", "steps", "return theta + solved", "return solved", "q2b", "without example 0", ALL2, "largest difference"),
    ("2b", "not divided by n", ".T / n", ".T", "q2b", "without example 0", ALL2, "largest difference"),
    ("2b", "no penalty in the Hessian", " + lam * torch.eye(x.shape[1]).to(x)", "", "q2b", "without example 0", ALL2, "diff"),
    ("2b", "labels", "(x @ theta - y)", "-y", "q2b", "without example 0", ALL2, "largest difference"),
    ("3a", "probability of the label only", "error[:, :, None]", "(error * F.one_hot(y, len(weight)))[:, :, None]", "q3a",
     "+1/2 x for the other class", ALL3A, "largest difference"),
    ("3a", "no label", " - F.one_hot(y, len(weight))", "", "q3a", "-1/2 x for the label", ALL3A, "largest difference"),
    ("3a", "wrong sign", "return error", "return -error", "q3a", "-1/2 x for the label", ALL3A, "largest difference"),
    ("3a", "logits", ".softmax(1)", "", "q3a", "-1/2 x for the label", ALL3A, "largest difference"),
    ("3a", "mean", "x[:, None, :]", "x[:, None, :] / len(x)", "q3a", "-1/2 x for the label", "general device", "difference"),
    ("3a", "summed", "return error[:, :, None] * x[:, None, :]", "return error.T @ x", "q3a", "must have shape (2, 2, 1)",
     ALL3A, "must have shape"),
    ("3a", "softmax over examples", "softmax(1)", "softmax(0)", "q3a", "rises along", ALL3A, "largest difference"),
    ("3b", "no coupling of the classes", "p * (s - (p * s).sum(1, keepdim=True))", "p * s", "q3b", "mean of x^2 / 4", ALL3B, "diff"),
    ("3b", "diagonal", "p * (s - (p * s).sum(1, keepdim=True))", "p * s - p * p * s", "q3b", "mean of x^2 / 4", ALL3B, "diff"),
    ("3b", "no penalty", " + lam * v", "", "q3b", "mean of x^2 / 4", ALL3B, "largest difference"),
    ("3b", "sum of the losses", "/ len(x)", "", "q3b", "mean of x^2 / 4", "general side effects device", "largest difference"),
    ("3b", "penalty of the weight", "lam * v", "lam * weight", "q3b", "mean of x^2 / 4", ALL3B, "largest difference"),
    ("3b", "Fisher of hard labels", "p * (s - (p * s).sum(1, keepdim=True))", "p * (1 - p) * s", "q3b", "x^2 / 4", ALL3B, "diff"),
    ("3b", "gradient", "return change.T @ x", "return p.T @ x", "q3b", "mean of x^2 / 4", ALL3B, "largest difference"),
    ("3b", "v changed", "return change", "v.mul_(2)\n    return change", "q3b", "mean of x^2 / 4", ALL3B, ""),
    ("4a", "rise", "return -(", "return (", "q4a", "Is the sign right?", "easy shape general batch device", "difference"),
    ("4a", "sum over the test set", "y_test).mean(0)", "y_test).sum(0)", "q4a", "number of training or of test",
     "batch device", "largest difference"),
    ("4a", "not divided by n", " / len(x)\n", "\n", "q4a", "number of training or of test", ALL4, "largest difference"),
    ("4a", "divided by the test set", "/ len(x)", "/ len(x_test)", "q4a", "number of training", ALL4, "largest difference"),
    ("4a", "no Hessian", "torch.linalg.solve(hessian, wanted)", "wanted", "q4a", "divided by the largest", ALL4, "difference"),
    ("4a", "Hessian times", "torch.linalg.solve(hessian, wanted)", "(hessian @ wanted[:, None])[:, 0]", "q4a",
     "divided by the largest", ALL4, "largest difference"),
    ("4a", "Hessian without penalty", "unit, lam)", "unit, 1e-9 * lam)", "q4a", "divided by the largest", ALL4, "difference"),
    ("4a", "magnitude", ".sum(1) / len(x)", ".sum(1).abs() / len(x)", "q4a", "Trained again", ALL4, "largest difference"),
    ("4a", "self-influence", "gradients(weight, x_test, y_test)", "gradients(weight, x, y)", "q4a", "divided by the largest",
     ALL4, "largest difference"),
]  # fmt: skip
