"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "items"]
EMPTY = {
    "1a": ("three_discrepancies()", "[1 / 3, 1 / 3, 1 / 2]"),
    "1b": ("witness_of_item_0()", "[1.0, 0.5, 0.0]"),
    "2a": ("kernel(a, b, gamma)", "torch.cdist(a.flatten(1), b.flatten(1))"),
    "2b": ("witness(points, data, prototypes, gamma)", "points.flatten(1).sum(1)"),
    "2c": ("mmd2(data, prototypes, gamma)", "data.mean() + 3"),
    "3a": ("candidate_scores(mean, near, size)", "mean"),
    "3b": ("greedy(k, m)", "torch.arange(m).to(k.device)"),
    "4a": ("criticisms(data, rows, m, gamma)", "rows[:1].repeat(m)"),
}

KERNEL_BROADCAST = """
def kernel(a, b, gamma):
    gap = (a.flatten(1)[:, None, :] - b.flatten(1)[None, :, :]).abs().sum(-1)
    return torch.exp(-gamma * gap)
"""
KERNEL_PRODUCT = """
def kernel(a, b, gamma):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    k = 1
    for x, y in zip(a.T, b.T):
        k = k * torch.exp(-gamma * (x.unsqueeze(1) - y).abs())
    return k
"""
KERNEL_ROWS = """
def kernel(a, b, gamma):
    return torch.stack([torch.exp(-gamma * (row - b).abs().flatten(1).sum(1)) for row in a])
"""
WITNESS_LOOP = """
def witness(points, data, prototypes, gamma):
    values = []
    for p in points.split(1):
        values.append(kernel(p, data, gamma).mean() - kernel(p, prototypes, gamma).mean())
    return torch.stack(values)
"""
WITNESS_ONE_KERNEL = """
def witness(points, data, prototypes, gamma):
    k = kernel(points, torch.cat([data, prototypes]), gamma)
    return k[:, : len(data)].mean(dim=1) - k[:, len(data) :].mean(dim=1)
"""
WITNESS_OTHER_WAY = """
def witness(points, data, prototypes, gamma):
    return kernel(data, points, gamma).sum(0) / len(data) - kernel(prototypes, points, gamma).sum(0) / len(prototypes)
"""
MMD_TERMS = """
def mmd2(data, prototypes, gamma):
    within, across = kernel(data, data, gamma).mean(), kernel(data, prototypes, gamma).mean()
    return within - 2 * across + kernel(prototypes, prototypes, gamma).mean()
"""
MMD_SIGNED = """
def mmd2(data, prototypes, gamma):
    every = torch.cat([data, prototypes])
    n, m = len(data), len(prototypes)
    weight = torch.cat([torch.ones_like(every.flatten(1)[:n, 0]) / n, -torch.ones_like(every.flatten(1)[n:, 0]) / m])
    return ((weight @ kernel(every, every, gamma)) * weight).sum()
"""
MMD_SUMS = """
def mmd2(data, prototypes, gamma):
    n, m = len(data), len(prototypes)
    total = kernel(data, data, gamma).sum() / n**2 + kernel(prototypes, prototypes, gamma).sum() / m**2
    return total - 2 / (n * m) * kernel(prototypes, data, gamma).sum()
"""
SCORES_WHOLE = """
def candidate_scores(mean, near, size):
    new = size + 1
    return -(2 / new) * mean + (2 * near + 1) / new**2
"""
SCORES_STEPS = """
def candidate_scores(mean, near, size):
    share = 1 / (1 + size)
    return 2 * share * (share * near - mean)
"""
SCORES_CENTRED = """
def candidate_scores(mean, near, size):
    scores = (2 * near - 2 * (size + 1) * mean) / (size + 1) ** 2
    return scores - scores.min()
"""
GREEDY_DEFINITION = """
def greedy(k, m):
    rows = []
    for _ in range(m):
        best, least = None, float("inf")
        for j in range(len(k)):
            if j not in rows:
                s = torch.tensor(rows + [j], device=k.device)
                value = float(k[s][:, s].mean() - 2 * k[s].mean())
                if value < least:
                    best, least = j, value
        rows.append(best)
    return torch.tensor(rows, device=k.device)
"""
GREEDY_LIST = """
def greedy(k, m):
    mean, rows = k.mean(dim=1), []
    while len(rows) < m:
        near = sum((k[j] for j in rows), torch.zeros_like(mean))
        order = candidate_scores(mean, near, len(rows)).argsort().tolist()
        rows.append(next(j for j in order if j not in rows))
    return torch.as_tensor(rows, device=k.device)
"""
GREEDY_GAIN = """
def greedy(k, m):
    mean, near, out = k.mean(0), 0 * k[0], torch.zeros(m, dtype=torch.long, device=k.device)
    barred = 0 * k[0]
    for s in range(m):
        gain = mean - near / (s + 1) - barred
        j = int(gain.argmax())
        barred[j] = 1e9
        near = near + k[:, j]
        out[s] = j
    return out
"""
CRITICISMS_SORTED = """
def criticisms(data, rows, m, gamma):
    k = kernel(data, data, gamma)
    value = k.mean(dim=0) - k[rows].mean(dim=0)
    order, taken = value.argsort(descending=True).tolist(), set(rows.tolist())
    return torch.tensor([i for i in order if i not in taken][:m], device=data.device)
"""
CRITICISMS_MASKED = """
def criticisms(data, rows, m, gamma):
    k = kernel(data, data, gamma)
    w = k.sum(1) / len(k) - k[:, rows].sum(1) / len(rows)
    w = w.scatter(0, rows, torch.full_like(w[rows], -9.0))
    return torch.argsort(w, descending=True)[:m]
"""
CRITICISMS_ONE_BY_ONE = """
def criticisms(data, rows, m, gamma):
    w, found = witness(data, data, data.index_select(0, rows), gamma), []
    w = w.index_fill(0, rows, float("-inf"))
    for _ in range(m):
        found.append(w.argmax())
        w = w.index_fill(0, found[-1], float("-inf"))
    return torch.stack(found)
"""
RIGHT = [
    ("1a", "tuple", "def three_discrepancies(): return (2 / 9, 5 / 9, 1 / 18)"),
    ("1a", "definition", "def three_discrepancies():\n    k = k_items\n    return [(k.mean() - 2 * k[:, s].mean() + "
           "k[s][:, s].mean()).double().item() for s in ([1], [0], [0, 2])]"),
    ("1a", "sums", "def three_discrepancies():\n    return [5 / 9 - 4 / 3 + 1, 5 / 9 - 1 + 1, 5 / 9 - 1 + (1 + 1 + 0 + 0) / 4]"),
    ("1b", "tuple", "def witness_of_item_0(): return (-0.5, 2 / 3 - 1 / 2, 0.5)"),
    ("1b", "kernel", "def witness_of_item_0(): return (k_items.double().mean(0) - k_items[0]).tolist()"),
    ("1b", "loop", "def witness_of_item_0():\n    rows = [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]\n"
           "    return [sum(row) / 3 - row[0] for row in rows]"),
    ("2a", "broadcast", KERNEL_BROADCAST),
    ("2a", "product over pixels", KERNEL_PRODUCT),
    ("2a", "row by row", KERNEL_ROWS),
    ("2b", "loop", WITNESS_LOOP),
    ("2b", "one kernel", WITNESS_ONE_KERNEL),
    ("2b", "columns", WITNESS_OTHER_WAY),
    ("2c", "three terms", MMD_TERMS),
    ("2c", "signed weights", MMD_SIGNED),
    ("2c", "sums", MMD_SUMS),
    ("3a", "with the constant", SCORES_WHOLE),
    ("3a", "factored", SCORES_STEPS),
    ("3a", "from the smallest", SCORES_CENTRED),
    ("3b", "by the definition", GREEDY_DEFINITION),
    ("3b", "sums anew", GREEDY_LIST),
    ("3b", "largest gain", GREEDY_GAIN),
    ("4a", "sorted", CRITICISMS_SORTED),
    ("4a", "scattered", CRITICISMS_MASKED),
    ("4a", "one by one", CRITICISMS_ONE_BY_ONE),
]  # fmt: skip

SCORE = "2 * near / (size + 1) ** 2 - 2 * mean / (size + 1)"
ALL2A, ALL2, ALL3, ALL3B = (
    "easy shape general batch device", "easy general batch device", "easy general device", "easy general batch device"
)  # fmt: skip
# question, name, old text of its answer cell, new text, check that catches it, its words, parts that it loses, feedback
WRONG = [
    ("1a", "not squared", "5 / 9,", "(5 / 9) ** 0.5,", "q1a", "prototypes [0]", "easy", "Wrong: number 2"),
    ("1a", "no first term", "2 / 9,", "-1 / 3,", "q1a", "prototypes [1]", "easy", "Wrong: number 1"),
    ("1a", "last term not divided by 4", "1 / 18,", "5 / 9 - 1 + 2,", "q1a", "prototypes [0, 2]", "general", "Wrong: number 3."),
    ("1a", "last term divided by 2", "1 / 18,", "5 / 9 - 1 + 1,", "q1a", "prototypes [0, 2]", "general", "Wrong: number 3."),
    ("1a", "cross term once", "2 / 9,", "5 / 9 - 2 / 3 + 1,", "q1a", "three terms", "easy", "Wrong: number 1"),
    ("1a", "two numbers", "return [", "return [0.0, 0.0] or [", "q1a", "list of three numbers", "easy general", "shape (3,)"),
    ("1b", "opposite sign", "[-1 / 2, 1 / 6, 1 / 2]", "[1 / 2, -1 / 6, -1 / 2]", "q1b", "at item 0", "easy", "Wrong: number 1; number 2; number 3."),
    ("1b", "prototype 1", "[-1 / 2, 1 / 6, 1 / 2]", "[0, -1 / 3, 0]", "q1b", "at item 0", "easy", "Wrong: number 1; number 2; number 3."),
    ("1b", "mean to all only", "[-1 / 2, 1 / 6, 1 / 2]", "[1 / 2, 2 / 3, 1 / 2]", "q1b", "at item 0", "easy", "Wrong: number 1; number 2."),
    ("1b", "sum to all", "[-1 / 2, 1 / 6, 1 / 2]", "[1 / 2, 3 / 2, 3 / 2]", "q1b", "at item 0", "easy", "Wrong: number 1; number 2; number 3."),
    ("1b", "sign at the prototype", "[-1 / 2,", "[1 / 2,", "q1b", "0.5 is not the witness at item 0", "easy", "Wrong: number 1."),
    ("2a", "squared length", "p=1)", "p=2) ** 2", "q2a", "distances 4, 3", ALL2A, "difference"),
    ("2a", "length", "p=1", "p=2", "q2a", "distances 4, 3", ALL2A, "difference"),
    ("2a", "largest difference", "p=1", 'p=float("inf")', "q2a", "distances 4, 3", ALL2A, "difference"),
    ("2a", "distance", "torch.exp(-gamma * ", "(gamma * ", "q2a", "distances 4, 3", ALL2A, "largest difference"),
    ("2a", "growing", "-gamma", "gamma", "q2a", "distances 4, 3", ALL2A, "largest difference"),
    ("2a", "divided by gamma", "-gamma * torch.cdist(a.flatten(1), b.flatten(1), p=1)",
     "-torch.cdist(a.flatten(1), b.flatten(1), p=1) / gamma", "q2a", "distances 4, 3", ALL2A, "largest difference"),
    ("2a", "mean over pixels", "p=1)", "p=1) / a[0].numel()", "q2a", "distances 4, 3", ALL2A, "largest difference"),
    ("2a", "the other way round", "p=1))", "p=1)).T", "q2a", "must have shape (2, 3)", "shape general batch device", "shape"),
    ("2a", "matrices only", "a.flatten(1), b.flatten(1)", "a, b", "q2a", "must have shape", "batch", "RuntimeError"),
    ("2b", "sum over prototypes", "prototypes, gamma).mean(1)", "prototypes, gamma).sum(1)", "q2b", "three times",
     "general batch device", "largest difference"),
    ("2b", "opposite sign", "return kernel", "return -kernel", "q2b", "One point, four data", ALL2, "difference"),
    ("2b", "sum over data", "data, gamma).mean(1)", "data, gamma).sum(1)", "q2b", "One point, four data", ALL2, "difference"),
    ("2b", "magnitude", "kernel(points, data, gamma).mean(1) - kernel(points, prototypes, gamma).mean(1)",
     "(kernel(points, data, gamma).mean(1) - kernel(points, prototypes, gamma).mean(1)).abs()", "q2b", "(3 + e)/4", "", ""),
    ("2b", "mean over points", "data, gamma).mean(1)", "data, gamma).mean(0)", "q2b", "One point, four data", ALL2, ""),
    ("2b", "data only", " - kernel(points, prototypes, gamma).mean(1)", "", "q2b", "One point, four data", ALL2, "difference"),
    ("2b", "difference of all", "kernel(points, data, gamma).mean(1)", "kernel(points, data, gamma).mean()", "q2b", "(3 + e)/4",
     "general batch device", "largest difference"),
    ("2c", "data only", "return at_data.mean() - witness(prototypes, data, prototypes, gamma).mean()",
     "return at_data.mean()", "q2c", "1 - 2 exp(-1.4) + 1", ALL2, "largest difference"),
    ("2c", "added", ".mean() - witness", ".mean() + witness", "q2c", "1 - 2 exp(-1.4) + 1", ALL2, "difference"),
    ("2c", "square root", "return at_data.mean() - witness(prototypes, data, prototypes, gamma).mean()",
     "return (at_data.mean() - witness(prototypes, data, prototypes, gamma).mean()).sqrt()", "q2c", "exp(-1.4)", ALL2, "diff"),
    ("2c", "mean square of the witness", "return at_data.mean()", "return at_data.square().mean()", "q2c", "exp(-1.4)",
     ALL2, "difference"),
    ("2c", "sum over prototypes", "prototypes, gamma).mean()", "prototypes, gamma).sum()", "q2c", "share nothing",
     "general batch device", "largest difference"),
    ("2c", "with one axis", ".mean()\n    ###", ".mean(0, keepdim=True)\n    ###", "q2c", "must have shape ()", ALL2, "shape ()"),
    ("3a", "near once", "2 * near", "near", "q3a", "1 chosen", "general device", "largest difference"),
    ("3a", "size of the old set", "(size + 1)", "max(size, 1)", "q3a", "1 chosen", "general device", "largest difference"),
    ("3a", "multiplied out", SCORE, "2 * near - 2 * mean * (size + 1)", "q3a", "1 chosen", "general device", "difference"),
    ("3a", "gain", f"return {SCORE}", f"return -({SCORE})", "q3a", "0 chosen", ALL3, "largest difference"),
    ("3a", "mean once", "2 * mean", "mean", "q3a", "0 chosen", ALL3, "largest difference"),
    ("3a", "no penalty for crowding", SCORE, "-2 * mean / (size + 1)", "q3a", "1 chosen", "general device", "difference"),
    ("3a", "near not squared", "(size + 1) ** 2", "(size + 1)", "q3a", "1 chosen", "general device", "largest difference"),
    ("3b", "taken twice", "free[best] = False", "pass", "q3b", "must be taken once", "batch", "were there before"),
    ("3b", "never updated", "near = near + k[best]", "pass", "q3b", "first the middle", "easy general batch device", "diff"),
    ("3b", "last only", "near + k[best]", "k[best]", "q3b", "is possible", "general device", "largest difference"),
    ("3b", "size not passed on", "near, size)", "near, 0)", "q3b", "is possible", "general device", "difference"),
    ("3b", "largest score", ".masked_fill(~free, torch.inf)\n        best = scores.argmin()",
     ".masked_fill(~free, -torch.inf)\n        best = scores.argmax()", "q3b", "first the middle", ALL3B, "difference"),
    ("3b", "sorted", "return torch.stack(chosen)", "return torch.stack(chosen).sort().values", "q3b", "is possible",
     "general device", "largest difference"),
    ("3b", "a list", "torch.stack(chosen)", "[int(j) for j in chosen]", "q3b", "must be a torch.Tensor", ALL3B, "must be a"),
    ("3b", "one short", "range(m)", "range(m - 1)", "q3b", "must have shape (2,)", ALL3B, ""),
    ("4a", "sum", "witness(data, data, data[rows], gamma)",
     "kernel(data, data, gamma).mean(1) - kernel(data, data[rows], gamma).sum(1)", "q4a", "Symptom 2", "general", "difference"),
    ("4a", "magnitude", "data[rows], gamma)", "data[rows], gamma).abs()", "q4a", "Symptom 1", ALL3, "largest difference"),
    ("4a", "with the prototypes", "left_out[rows] = -torch.inf", "pass", "q4a", "Symptom 3", "general", "difference"),
    ("4a", "most crowded", "left_out = w", "left_out = -w", "q4a", "Symptom 1", ALL3, "largest difference"),
    ("4a", "values", ".indices", ".values", "q4a", "dtype torch.int64", ALL3, "dtype"),
    ("4a", "far from the prototypes", "witness(data, data, data[rows], gamma)", "-kernel(data, data[rows], gamma).mean(1)",
     "q4a", "Symptom 1", ALL3, "largest difference"),
    ("4a", "the classmate's", "witness(data, data, data[rows], gamma)\n    left_out[rows] = -torch.inf",
     "(kernel(data, data, gamma).mean(1) - kernel(data, data[rows], gamma).sum(1)).abs()", "q4a", "Symptom 1", ALL3, "diff"),
]  # fmt: skip
