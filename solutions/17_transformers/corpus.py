"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "layers"]
EMPTY = {
    "1a": ("rollout_by_hand()", "[[0.125, 0.875], [0.625, 0.375]]"),
    "1b": ("relevance_by_hand()", "[[1.25, 1.5], [2.25, 0.75], [1.75, 0.5]]"),
    "2": ("rollout(attention)", "attention[0, :, 0] + 1"),
    "3": ("half_to_first(a, b, relevance)", "a + 1"),
    "4": ("softmax_relevance(scores, relevance)", "relevance + 1"),
    "5": ("norm_relevance(x, weight, bias, relevance)", "relevance + 1"),
    "6": ("three_answers(scores, gains)", "torch.stack([gains, gains, gains]) + 1"),
}

ROLLOUT_LOOPS = """
def rollout(attention):
    layers, rows, heads, tokens, _ = attention.shape
    found = []
    for n in range(rows):
        result = torch.eye(tokens, dtype=attention.dtype, device=attention.device)
        for l in range(layers):
            mean = sum(attention[l, n, h] for h in range(heads)) / heads
            result = 0.5 * (mean @ result) + 0.5 * result
        found.append(result)
    return torch.stack(found)
"""
ROLLOUT_EINSUM = """
from functools import reduce
def rollout(attention):
    one = torch.diag(torch.ones_like(attention[0, 0, 0, 0]))
    halves = [(a.sum(1) / a.size(1) + one).div(2) for a in attention]
    return reduce(lambda before, layer: torch.einsum("nij,njk->nik", layer, before), halves)
"""
ROLLOUT_LEFT = """
def rollout(attention):
    layers = attention.mean(dim=-3)
    mixed = layers * 0.5
    mixed.diagonal(dim1=-2, dim2=-1).add_(0.5)
    result = mixed[-1]
    for layer in reversed(mixed[:-1]):
        result = torch.bmm(result, layer)
    return result
"""
PRODUCT_TERMS = """
def half_to_first(a, b, relevance):
    terms = a[:, :, :, None] * b[:, None, :, :]  # (N, T, S, D)
    total = terms.sum(2, keepdim=True)
    shares = torch.where(total != 0, terms / total, torch.zeros_like(terms))
    return 0.5 * (shares * relevance[:, :, None]).sum(3)
"""
PRODUCT_GRAD = """
def half_to_first(a, b, relevance):
    a, b = a.detach().clone().requires_grad_(), b.detach()
    o = a @ b
    signal = torch.nan_to_num(relevance / o.detach(), nan=0.0, posinf=0.0, neginf=0.0)
    (gradient,) = torch.autograd.grad(o, a, signal)
    return (a * gradient / 2).detach()
"""
PRODUCT_LOOP = """
def half_to_first(a, b, relevance):
    result = torch.zeros_like(a)
    o = torch.einsum("nts,nsd->ntd", a, b)
    for d in range(b.shape[2]):
        column = o[:, :, d]
        s = (relevance[:, :, d] / column).masked_fill(column == 0, 0)
        result = result + a * b[:, None, :, d] * s[:, :, None]
    return result * 0.5
"""
SOFTMAX_GRAD = """
def softmax_relevance(scores, relevance):
    hidden = torch.isinf(scores)
    leaf = scores.detach().clone().requires_grad_()
    p = torch.softmax(leaf, -1)
    signal = torch.where(hidden, 0, relevance / p.detach())
    (gradient,) = torch.autograd.grad(p, leaf, signal)
    return torch.where(hidden, 0, scores * gradient)
"""
SOFTMAX_JACOBIAN = """
def softmax_relevance(scores, relevance):
    p = scores.softmax(-1)
    one = torch.eye(scores.shape[-1], dtype=p.dtype, device=p.device)
    moved = torch.einsum("...j,ij->...i", relevance, one) - torch.einsum("...i,...j->...i", p, relevance)
    return torch.nan_to_num(scores, neginf=0.0) * moved
"""
SOFTMAX_WHERE = """
def softmax_relevance(scores, relevance):
    big = scores.amax(-1, keepdim=True)
    e = torch.exp(scores - big)
    p = e / e.sum(-1, keepdim=True)
    result = scores * relevance - scores * p * relevance.sum(-1).unsqueeze(-1)
    return torch.where(scores == -torch.inf, torch.zeros_like(result), result)
"""
NORM_GRAD = """
def norm_relevance(x, weight, bias, relevance):
    x = x.detach().clone().requires_grad_()
    mean = x.mean(-1, keepdim=True)
    sigma = (((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt().detach()
    y = weight * (x - mean) / sigma + bias
    (gradient,) = torch.autograd.grad(y, x, (relevance / y).detach())
    return (x * gradient).detach()
"""
NORM_MATRIX = """
def norm_relevance(x, weight, bias, relevance):
    size = x.shape[-1]
    sigma = torch.sqrt(x.var(-1, correction=0) + 1e-5)
    centre = torch.eye(size).to(x) - 1 / size
    matrix = weight[:, None] * centre / sigma[..., None, None]  # (N, T, D, D)
    y = torch.einsum("ntij,ntj->nti", matrix, x) + bias
    return x * torch.einsum("ntij,nti->ntj", matrix, relevance / y)
"""
NORM_LAYER = """
def norm_relevance(x, weight, bias, relevance):
    y = nn.functional.layer_norm(x, x.shape[-1:], weight, bias)
    up = relevance / y * weight / (x.var(-1, unbiased=False, keepdim=True) + 1e-5) ** 0.5
    return (x * up - x * up.sum(-1, keepdim=True) / x.shape[-1]).detach()
"""
ANSWERS_LOOP = """
def three_answers(scores, gains):
    p = torch.softmax(scores, 1)
    y = (p * gains).sum(1)
    missed = []
    for t in range(scores.shape[1]):
        quiet = scores.clone()
        quiet[:, t] = -torch.inf
        missed.append(y - (quiet.softmax(1) * gains).sum(1))
    return torch.stack([p, p * gains, torch.stack(missed, 1)])
"""
ANSWERS_FORMULA = """
def three_answers(scores, gains):
    weights = torch.exp(scores - torch.logsumexp(scores, 1, keepdim=True))
    mean = torch.einsum("nt,nt->n", weights, gains).unsqueeze(1)
    # p (g - y) / (1 - p)
    return torch.stack((weights, weights * gains, weights / (1 - weights) * (gains - mean)))
"""
ANSWERS_TABLE = """
def three_answers(scores, gains):
    tokens = scores.size(1)
    alone = torch.eye(tokens, dtype=torch.bool, device=scores.device)
    table = scores[:, None, :].expand(-1, tokens, -1).masked_fill(alone, float("-inf")).softmax(2)
    p = scores.softmax(1)
    y = (p * gains).sum(1, keepdim=True)
    return torch.stack([p, p * gains, y - (table @ gains[:, :, None])[..., 0]], dim=0)
"""
RIGHT = [
    ("1a", "tuples", "def rollout_by_hand(): return ((9 / 20, 11 / 20), (9 / 40, 31 / 40))"),
    ("1a", "torch", "def rollout_by_hand():\n    one = torch.eye(2)\n    return ((second + one) / 2 @ (first + one) / 2).tolist()"),
    ("1a", "all ways", "def rollout_by_hand():\n    a = [[0.75, 0.25], [0, 1]]\n    b = [[0.6, 0.4], [0.3, 0.7]]\n"
           "    return [[sum(b[i][k] * a[k][j] for k in (0, 1)) for j in (0, 1)] for i in (0, 1)]"),
    ("1b", "tuples", "def relevance_by_hand(): return ((3, -1 / 2), (3, -1 / 2), (1.23594, 0))"),
    ("1b", "rounded", "def relevance_by_hand(): return [[3, -0.5], [3, -0.5], [1.236, 0]]"),
    ("1b", "formula", "def relevance_by_hand():\n    import math\n    p, v, s = (0.75, 0.25), (8, -4), (math.log(3), 0)\n"
           "    half = [a * b / 2 for a, b in zip(p, v)]\n    return [half, half, [x * (r - q * sum(half)) for x, r, q in zip(s, half, p)]]"),
    ("1b", "torch", "def relevance_by_hand():\n    s, v = torch.tensor([3.0, 1.0]).log(), torch.tensor([8.0, -4.0])\n    half = s.softmax(0) * v / 2\n"
           "    return torch.stack([half, half, s * (half - s.softmax(0) * half.sum())]).tolist()"),
    ("2", "loops", ROLLOUT_LOOPS),
    ("2", "reduce", ROLLOUT_EINSUM),
    ("2", "from the last layer", ROLLOUT_LEFT),
    ("3", "all terms", PRODUCT_TERMS),
    ("3", "autograd", PRODUCT_GRAD),
    ("3", "columns", PRODUCT_LOOP),
    ("4", "autograd", SOFTMAX_GRAD),
    ("4", "Jacobian", SOFTMAX_JACOBIAN),
    ("4", "own softmax", SOFTMAX_WHERE),
    ("5", "autograd", NORM_GRAD),
    ("5", "matrix", NORM_MATRIX),
    ("5", "PyTorch's LayerNorm", NORM_LAYER),
    ("6", "one after the other", ANSWERS_LOOP),
    ("6", "closed form", ANSWERS_FORMULA),
    ("6", "a table of softmaxes", ANSWERS_TABLE),
]  # fmt: skip

WRONG = [
    ("1a", "other order", "[0.45, 0.55],  # (0.6, 0.4) times (0.75, 0.25; 0, 1)\n        [0.225, 0.775]",
     "[0.525, 0.475],\n        [0.3, 0.7]", "q1a", "Row 0: the sum is right. Do the layers stand", "easy general",
     "Wrong:"),
    ("1a", "without the identity", "[0.45, 0.55],  # (0.6, 0.4) times (0.75, 0.25; 0, 1)\n        [0.225, 0.775]",
     "[0.1, 0.9],\n        [0.3, 0.7]", "q1a", "Row 0: the sum is right. Do the layers stand", "easy general",
     "Wrong:"),
    ("1a", "mean of the layers", "[0.45, 0.55],  # (0.6, 0.4) times (0.75, 0.25; 0, 1)\n        [0.225, 0.775]",
     "[0.675, 0.325],\n        [0.15, 0.85]", "q1a", "Row 0: the sum is right. Do the layers stand", "easy general",
     "Wrong:"),
    ("1a", "last layer alone", "[0.45, 0.55]", "[0.6, 0.4]", "q1a", "Row 0: the sum is right. Do the layers stand",
     "easy", "Wrong:"),
    ("1a", "first layer in the second row", "[0.225, 0.775]", "[0.0, 1.0]", "q1a",
     "Row 1: the sum is right. Do the layers stand", "general", "Wrong:"),
    ("1a", "without the half", "[0.225, 0.775]", "[0.9, 3.1]", "q1a",
     "Each row of R adds up to 1, as those of the factors do;", "general", "Wrong:"),
    ("1b", "all to the values", "[3.0, -0.5],  # halves of 6 and -1\n        [3.0, -0.5]",
     "[6.0, -1.0],\n        [0.0, 0.0]", "q1b", "The relevances of the values must add up to one half of 5;", "easy",
     "Wrong:"),
    ("1b", "all to both", "[3.0, -0.5],  # halves of 6 and -1\n        [3.0, -0.5]",
     "[6.0, -1.0],\n        [6.0, -1.0]", "q1b", "The relevances of the values must add up to one half of 5;",
     "easy", "Wrong:"),
    ("1b", "by the weights", "[3.0, -0.5],  # halves of 6 and -1", "[1.875, 0.625],", "q1b", "The values:", "easy",
     "Wrong:"),
    ("1b", "absolute shares", "[3.0, -0.5],  # halves of 6 and -1", "[2.0, 0.5],", "q1b", "The values:", "easy",
     "Wrong:"),
    ("1b", "softmax keeps all", "log(3) * (3 - 0.75 * 2.5), 0.0", "3.0, -0.5", "q1b", "The scores:", "general",
     "Wrong:"),
    ("1b", "score forgotten", "log(3) * (3 - 0.75 * 2.5), 0.0", "3 - 0.75 * 2.5, 0.0", "q1b", "The first score:",
     "general", "Wrong:"),
    ("1b", "sum forgotten", "log(3) * (3 - 0.75 * 2.5)", "log(3) * (3 - 0.75 * 3)", "q1b", "The first score:",
     "general", "Wrong:"),
    ("1b", "second score", "log(3) * (3 - 0.75 * 2.5), 0.0", "log(3) * (3 - 0.75 * 2.5), -0.5 - 0.25 * 2.5", "q1b",
     "The scores:", "general", "Wrong:"),
    ("2", "without the identity", "(layer + one) / 2 @ result", "layer @ result", "q2",
     "Two layers, three heads, all weights 0.2:", "easy shape general batch device", "largest difference"),
    ("2", "other order", "(layer + one) / 2 @ result", "result @ ((layer + one) / 2)", "q2",
     "First two tokens are exchanged, then both read the first", "general batch device", "largest difference"),
    ("2", "without the half", "(layer + one) / 2", "(layer + one)", "q2",
     "Two layers, three heads, all weights 0.2:", "easy shape general batch device", "largest difference"),
    ("2", "first head alone", "attention.mean(2)", "attention[:, :, 0]", "q2", "One layer:", "general batch device",
     "largest difference"),
    ("2", "largest head", "attention.mean(2)", "attention.amax(2)", "q2", "All rows must add up to 1.",
     "general batch device", "largest difference"),
    ("2", "last layer alone", "(layer + one) / 2 @ result", "(layer + one) / 2", "q2",
     "Two layers, three heads, all weights 0.2:", "general batch device", "largest difference"),
    ("2", "identity at the end", "return result", "return (result + one) / 2", "q2",
     "Two layers, three heads, all weights 0.2:", "easy shape general batch device", "largest difference"),
    ("2", "columns for rows", "(layer + one) / 2 @ result", "(layer.mT + one) / 2 @ result", "q2",
     "First two tokens are exchanged, then both read the first", "easy shape general batch device",
     "largest difference"),
    ("2", "mean over the inputs", "attention.mean(2)",
     "attention.mean((1, 2), keepdim=True)[:, :, 0].expand(-1, attention.shape[1], -1, -1)", "q2",
     "An input alone must have the same rollout as in a batch.", "batch device", "largest difference"),
    ("2", "a sum of layers", "(layer + one) / 2 @ result", "(layer + one) / 2 + result", "q2",
     "Two layers, three heads, all weights 0.2:", "easy shape general batch device", "largest difference"),
    ("2", "made on the CPU", "torch.eye(attention.shape[-1]).to(attention)",
     "torch.eye(attention.shape[-1]).to(attention.dtype)", "q2", "Inputs on another device than the CPU:", "device",
     "follow x"),
    ("3", "all of it", "(share @ b.mT) / 2", "(share @ b.mT)", "q3",
     "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):", "easy shape general batch device", "largest difference"),
    ("3", "that of the second factor", "return a * (share @ b.mT) / 2",
     "return (b * (a.mT @ share) / 2).sum(2)[:, None].expand_as(a)", "q3",
     "The first factor must get half of the relevance of each", "general batch device", "largest difference"),
    ("3", "gradient without the factor", "a * (share @ b.mT) / 2", "(share @ b.mT) / 2", "q3",
     "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):", "easy shape general batch device", "largest difference"),
    ("3", "relevance as the signal", "share = relevance / torch.where(product == 0, 1, product)",
     "share = relevance", "q3", "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):",
     "easy shape general batch device", "largest difference"),
    ("3", "zero over zero", "torch.where(product == 0, 1, product)", "product", "q3",
     "o = (2 - 2, 1 + 3), relevance (0, 4):", "general", "NaN or infinite"),
    ("3", "sign of the product lost", "torch.where(product == 0, 1, product)",
     "torch.where(product == 0, 1, product.abs()) * 2", "q3", "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):",
     "easy shape general batch device", "largest difference"),
    ("3", "large stabiliser", "torch.where(product == 0, 1, product)", "(product + 0.1)", "q3",
     "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):", "easy shape general batch device", "largest difference"),
    ("3", "equal shares", "return a * (share @ b.mT) / 2",
     "return (relevance.sum(2, keepdim=True) / a.shape[2] / 2).expand_as(a)", "q3",
     "a = (1, 2), o = (3 + 2, 1 + 4), relevance (10, 0):", "easy shape general batch device", "largest difference"),
    ("3", "whole batch", "(share @ b.mT) / 2", "(share @ b.mT).mean(0, keepdim=True) / 2", "q3",
     "The first factor must get half of the relevance of each", "batch device", "largest difference"),
    ("4", "keeps all", "change = relevance - scores.softmax(-1) * relevance.sum(-1, keepdim=True)",
     "change = relevance", "q4", "Scores (2, 2), relevances (5, 1):", "easy shape general batch device",
     "largest difference"),
    ("4", "gradient without the score", "scores.masked_fill(scores.isinf(), 0) * change", "change", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("4", "relevance as it comes", "relevance - scores.softmax(-1) * relevance.sum(-1, keepdim=True)",
     "scores.softmax(-1) * (relevance - (scores.softmax(-1) * relevance).sum(-1, keepdim=True))", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("4", "masks forgotten", "scores.masked_fill(scores.isinf(), 0)", "scores", "q4",
     "The same with a masked score between them.", "general", "NaN or infinite"),
    ("4", "sum over everything", "relevance.sum(-1, keepdim=True)", "relevance.sum()", "q4", "Random numbers:",
     "general batch device", "largest difference"),
    ("4", "weights alone", "scores.masked_fill(scores.isinf(), 0) * change", "scores.softmax(-1) * change", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("4", "softmax over the rows", "scores.softmax(-1)", "scores.softmax(-2)", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("4", "mean for the sum", "relevance.sum(-1, keepdim=True)", "relevance.mean(-1, keepdim=True)", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("4", "plus", "relevance - scores.softmax", "relevance + scores.softmax", "q4",
     "Scores (2, 2), relevances (5, 1):", "easy shape general batch device", "largest difference"),
    ("5", "nothing happens", "x * (s - s.mean(-1, keepdim=True)) / sigma", "relevance + 0 * x", "q5",
     "x = (4, 2) is normalised to (1, -1), relevances (3, 1):", "easy shape general batch device",
     "largest difference"),
    ("5", "mean forgotten", "(s - s.mean(-1, keepdim=True))", "s", "q5",
     "x = (4, 2) is normalised to (1, -1), relevances (3, 1):", "easy shape general batch device",
     "largest difference"),
    ("5", "centred values", "x * (s - s.mean", "centred * (s - s.mean", "q5",
     "x = (4, 2) is normalised to (1, -1), relevances (3, 1):", "easy shape general batch device",
     "largest difference"),
    ("5", "bias forgotten", "/ sigma + bias)", "/ sigma)", "q5", "The weights 2 and 1 and the biases 1 and 3:",
     "general batch device", "largest difference"),
    ("5", "weight forgotten", "s = weight * relevance /", "s = relevance /", "q5",
     "The weights 2 and 1 and the biases 1 and 3:", "general batch device", "largest difference"),
    ("5", "relevance as the signal", "relevance / (weight * centred / sigma + bias)", "relevance", "q5",
     "x = (4, 2) is normalised to (1, -1), relevances (3, 1):", "easy shape general batch device",
     "largest difference"),
    ("5", "deviation moves", "x * (s - s.mean(-1, keepdim=True)) / sigma",
     "x * (s - s.mean(-1, keepdim=True) - centred / sigma * (s * centred / sigma).mean(-1, keepdim=True)) / sigma",
     "q5", "x = (4, 2) is normalised to (1, -1), relevances (3, 1):", "easy shape general batch device",
     "largest difference"),
    ("5", "divided by one less", "centred.square().mean(-1, keepdim=True)",
     "centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)", "q5",
     "The weights 2 and 1 and the biases 1 and 3:", "general batch device", "largest difference"),
    ("5", "variance for the deviation", "/ sigma\n", "/ sigma**2\n", "q5", "No biases:",
     "easy shape general batch device", "largest difference"),
    ("6", "use and weight exchanged", "[read, used,", "[used, read,", "q6",
     "Read: two tokens with equal scores, gains 6", "easy shape general device", "largest difference"),
    ("6", "weight stays free", "(logit - used) / (1 - read)", "(logit - used)", "q6",
     "Missed: two tokens with equal scores, gains", "easy shape general device", "largest difference"),
    ("6", "the wrong way round", "logit - (logit - used) / (1 - read)", "(logit - used) / (1 - read) - logit", "q6",
     "Missed: two tokens with equal scores, gains", "easy shape general device", "largest difference"),
    ("6", "logit alone", "logit - (logit - used) / (1 - read)", "(logit - used) / (1 - read)", "q6",
     "Missed: two tokens with equal scores, gains", "easy shape general device", "largest difference"),
    ("6", "score set to zero", "logit - (logit - used) / (1 - read)",
     "logit - torch.stack([(scores.index_fill(1, torch.tensor([t], device=scores.device), 0).softmax(1) * gains).sum(1) for t in range(scores.shape[1])], 1)",
     "q6", "Missed: two tokens with equal scores, gains", "easy shape general device", "largest difference"),
    ("6", "sizes", "used = read * gains", "used = read * gains.abs()", "q6",
     "Used: the parts of each input must add up to", "general device", "largest difference"),
    ("6", "shares", "[read, used,", "[read, used / logit,", "q6", "Used: two tokens with equal scores, gains 6",
     "easy shape general device", "largest difference"),
    ("6", "softmax over the batch", "scores.softmax(-1)", "scores.softmax(0)", "q6", "One input of two tokens.",
     "easy shape general device", "NaN or infinite"),
    ("6", "logit of the batch", "used.sum(-1, keepdim=True)", "used.sum()", "q6",
     "Missed: the third of five tokens is taken", "device", "largest difference"),
]  # fmt: skip
