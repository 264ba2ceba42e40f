"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "coalitions", "game"]
EMPTY = {
    "1": ("divisions_by_hand()", "[[1.5, 2.5, 3.5], [4.5, 5.5, 6.5], [7.5, 8.5, 9.5]]"),
    "2": ("shapley(values)", "values[..., 1 : values.shape[-1].bit_length()]"),
    "3": ("play(model, x, target, masks, baseline)", "x.flatten(1)[:, :1].expand(len(x), 2 ** len(masks))"),
    "4": ("by_orders(values, orders)", "values[..., : orders.shape[1]]"),
    "5": ("violations(values, phi)", "phi.sum().expand(3)"),
    "6": ("relatives(a, b, c)", "torch.stack([a, b, c]).expand(3, 3, *a.shape)"),
}

SHAPLEY_LOOPS = """
def shapley(values):
    n, count = values.shape[-1].bit_length() - 1, values.shape[-1]
    found = []
    for i in range(n):
        total = torch.zeros_like(values[..., 0])
        for k in range(count):
            if not k >> i & 1:
                s = bin(k).count("1")
                weight = math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n)
                total = total + weight * (values[..., k + 2**i] - values[..., k])
        found.append(total)
    return torch.stack(found, -1)
"""
SHAPLEY_ORDERS = """
import itertools
def shapley(values):
    n = values.shape[-1].bit_length() - 1
    result = values.new_zeros(*values.shape[:-1], n)
    for order in itertools.permutations(range(n)):
        k = 0
        for i in order:
            result[..., i] += values[..., k + 2**i] - values[..., k]
            k += 2**i
    return result / math.factorial(n)
"""
SHAPLEY_DIVIDENDS = """
def shapley(values):
    # what each coalition adds beyond its parts is shared equally among its members
    n = (values.shape[-1] - 1).bit_length()
    shares = values.clone()
    inside = coalitions(n).to(values.device)
    for i in range(n):
        shares[..., inside[:, i]] = shares[..., inside[:, i]] - shares[..., ~inside[:, i]]
    size = inside.sum(1).clamp(min=1)
    return (shares / size) @ inside.to(values.dtype)
"""
PLAY_LOOPS = """
def play(model, x, target, masks, baseline):
    n, players = len(x), len(masks)
    rows = torch.arange(n, device=x.device)
    result = []
    with torch.no_grad():
        for k in range(2**players):
            picture = baseline[None].repeat(n, *[1] * baseline.dim())
            for i in range(players):
                if k >> i & 1:
                    picture[:, masks[i]] = x[:, masks[i]]
            result.append(model(picture)[rows, target])
    return torch.stack(result, 1)
"""
PLAY_PRODUCT = """
@torch.no_grad()
def play(model, x, target, masks, baseline):
    table = coalitions(len(masks), x.device).to(x.dtype)
    seen = torch.einsum("kp,p...->k...", table, masks.to(x.dtype))
    mixed = seen * x.unsqueeze(1) + (1 - seen) * baseline
    logits = model(mixed.reshape(-1, *x.shape[1:])).view(len(x), len(table), -1)
    return logits[torch.arange(len(x)), :, target]
"""
PLAY_ROWS = """
def play(model, x, target, masks, baseline):
    rows = []
    for one, c in zip(x.detach(), target.tolist()):
        pictures = []
        for row in coalitions(len(masks)).tolist():
            shown = torch.zeros_like(masks[0])
            for member, mask in zip(row, masks):
                if member:
                    shown = shown | mask
            pictures.append(torch.where(shown, one, baseline))
        rows.append(model(torch.stack(pictures)).detach()[:, c])
    return torch.stack(rows)
"""
ORDERS_LOOPS = """
def by_orders(values, orders):
    players = orders.shape[1]
    total = torch.zeros_like(values[..., :players])
    for order in orders.tolist():
        for way in (order, order[::-1]):
            before = 0
            for player in way:
                total[..., player] += values[..., before + 2**player] - values[..., before]
                before += 2**player
    return total / (2 * len(orders))
"""
ORDERS_ONE_HOT = """
def by_orders(values, orders):
    found = []
    for way in (orders, orders.flip(1)):
        reached = torch.cumsum(2**way, 1)
        path = torch.nn.functional.pad(reached, (1, 0))
        gains = values[..., path].diff(dim=-1)
        who = torch.nn.functional.one_hot(way, way.shape[1]).to(values)
        found.append(torch.einsum("...kn,knp->...p", gains, who) / len(orders))
    return (found[0] + found[1]) / 2
"""
ORDERS_SETS = """
def by_orders(values, orders):
    every = torch.cat([orders, orders.flip([1])])
    place = every.argsort(1)
    early = place[:, :, None] > place[:, None, :]  # who comes before whom
    own = 2 ** torch.arange(orders.shape[1], device=orders.device)
    before = (early * own).sum(2)
    return (values[..., before + own] - values[..., before]).mean(-2)
"""
AXIOMS_DICTS = """
def violations(values, phi):
    n = len(phi)
    v = values.tolist()
    sums, twins, lonely = abs(float(phi.sum()) - v[-1] + v[0]), 0.0, 0.0
    for i in range(n):
        without = [k for k in range(2**n) if not k & 2**i]
        gains = [v[k | 2**i] - v[k] for k in without]
        if all(abs(gain - gains[0]) < 1e-6 for gain in gains):
            lonely = max(lonely, abs(float(phi[i]) - gains[0]))
        for j in range(n):
            others = [k for k in without if not k & 2**j]
            if j != i and all(abs(v[k | 2**i] - v[k | 2**j]) < 1e-6 for k in others):
                twins = max(twins, abs(float(phi[i] - phi[j])))
    return torch.tensor([sums, twins, lonely], dtype=phi.dtype, device=phi.device)
"""
AXIOMS_SWAPPED = """
def violations(values, phi):
    n = phi.numel()
    grid = values.reshape([2] * n)  # player i is the axis n - 1 - i
    result = phi.new_zeros(3)
    result[0] = torch.abs(phi.sum() - (values[-1] - values[0]))
    for i in range(n):
        gain = grid.diff(dim=n - 1 - i)
        if gain.max() - gain.min() < 1e-6:
            result[2] = torch.maximum(result[2], torch.abs(phi[i] - gain.mean()))
        for j in range(i + 1, n):
            if (grid - grid.transpose(n - 1 - i, n - 1 - j)).abs().max() < 1e-6:
                result[1] = torch.maximum(result[1], torch.abs(phi[i] - phi[j]))
    return result
"""
AXIOMS_TABLE = """
def violations(values, phi):
    numbers = torch.arange(len(values), device=values.device)
    def value(with_, without):
        chosen = numbers[(numbers & with_ == with_) & (numbers & without == 0)]
        return values[chosen]
    worst = [abs(phi.sum() - value(0, 0)[-1] + values[0]), 0 * phi.sum(), 0 * phi.sum()]
    bits = [2**i for i in range(len(phi))]
    for i, own in enumerate(bits):
        gain = value(own, 0) - value(0, own)
        if torch.all((gain - gain.mean()).abs() < 1e-6):
            worst[2] = max(worst[2], abs(phi[i] - gain.mean()))
        for j, other in enumerate(bits[:i]):
            if torch.all((value(own, other) - value(other, own)).abs() < 1e-6):
                worst[1] = max(worst[1], abs(phi[i] - phi[j]))
    return torch.stack(worst)
"""
RELATIVES_CLOSED = """
def relatives(a, b, c):
    p = b * c
    most = torch.maximum(a, p)
    first = (2 * a + most - p) / 3
    by_path = a * (a / p).clamp(max=1)
    all_ = a * (a > p)
    return torch.stack([torch.stack([own, (most - own) / 2, (most - own) / 2]) for own in (first, by_path, all_)])
"""
RELATIVES_MASKS = """
def relatives(a, b, c):
    p, zero = b * c, torch.zeros_like(a)
    best = torch.maximum(a, p)
    orders = [(best - p), a, a, a, a, best - p]  # a last in two of six orders
    by_a = sum(orders) / 6
    rest = (best - by_a) / 2
    result = [[by_a, rest, rest]]
    s = torch.minimum(torch.ones_like(a), a / p)
    result.append([a * s, p * (1 - s * s) / 2, p * (1 - s * s) / 2])
    result.append([torch.where(a > p, a, zero), torch.where(a > p, zero, p / 2), torch.where(a > p, zero, p / 2)])
    return torch.stack([torch.stack(row) for row in result])
"""
RELATIVES_NUMERICAL = """
def relatives(a, b, c):
    parts = [torch.stack([torch.zeros_like(a)] * 3) for _ in range(3)]
    values = [torch.maximum(a * (k & 1), b * (k >> 1 & 1) * c * (k >> 2 & 1)) for k in range(8)]
    parts[0] = shapley(torch.stack(values, -1)).movedim(-1, 0)
    steps = 40000
    t = (torch.arange(steps, device=a.device, dtype=a.dtype) + 0.5) / steps
    first = t * a[..., None] > t * t * (b * c)[..., None]
    parts[1] = torch.stack([a * first.to(a).mean(-1), b * c * (t * ~first).mean(-1), b * c * (t * ~first).mean(-1)])
    m = torch.relu(a - b * c) / (a - b * c)
    parts[2] = torch.stack([m * a, (1 - m) * b * c / 2, (1 - m) * b * c / 2])
    return torch.stack(parts)
"""
RIGHT = [
    ("1", "tuples", "def divisions_by_hand(): return ((6, 0, 3), (27, 21, 12), (15, 9, 6))"),
    ("1", "interactions", "def divisions_by_hand():\n    # v = 6 a + 3 c + 12 ab + 9 abc\n"
          "    return [[6, 0, 3], [6 + 12 + 9, 12 + 9, 3 + 9], [6 + 12 / 2 + 9 / 3, 12 / 2 + 9 / 3, 3 + 9 / 3]]"),
    ("1", "tensors", "def divisions_by_hand():\n    v = game.tolist()\n    first, last = [v[2**i] for i in range(3)], [v[7] - v[7 - 2**i] for i in range(3)]\n"
          "    middle = [v[3] - v[2] + v[5] - v[4], v[3] - v[1] + v[6] - v[4], v[5] - v[1] + v[6] - v[2]]\n"
          "    return [first, last, [(2 * a + 2 * b + c) / 6 for a, b, c in zip(first, last, middle)]]"),
    ("2", "sum over coalitions", SHAPLEY_LOOPS),
    ("2", "all orders", SHAPLEY_ORDERS),
    ("2", "shared interactions", SHAPLEY_DIVIDENDS),
    ("3", "loops", PLAY_LOOPS),
    ("3", "sum of masks", PLAY_PRODUCT),
    ("3", "row by row", PLAY_ROWS),
    ("4", "loops", ORDERS_LOOPS),
    ("4", "one-hot", ORDERS_ONE_HOT),
    ("4", "who comes before whom", ORDERS_SETS),
    ("5", "Python numbers", AXIOMS_DICTS),
    ("5", "axes", AXIOMS_SWAPPED),
    ("5", "numbers of coalitions", AXIOMS_TABLE),
    ("6", "closed forms", RELATIVES_CLOSED),
    ("6", "six orders", RELATIVES_MASKS),
    ("6", "a fine grid", RELATIVES_NUMERICAL),
]  # fmt: skip

WRONG = [
    ("1", "first and last exchanged", "[6.0, 0.0, 3.0],  # alone\n        [27.0, 21.0, 12.0]",
     "[27.0, 21.0, 12.0],\n        [6.0, 0.0, 3.0]", "q1", "First: when player 0 comes, nobody is there. ", "easy",
     "Wrong:"),
    ("1", "mean of first and last", "[15.0, 9.0, 6.0]", "[16.5, 10.5, 7.5]", "q1",
     "Mean: in each order the three players add 30 ", "general", "Wrong:"),
    ("1", "equal parts", "[15.0, 9.0, 6.0]", "[10.0, 10.0, 10.0]", "q1",
     "Mean: the sum is right, but player 0 adds", "general", "Wrong:"),
    ("1", "every coalition alike", "[15.0, 9.0, 6.0]", "[14.25, 8.25, 5.25]", "q1",
     "Mean: in each order the three players add 30 ", "general", "Wrong:"),
    ("1", "in the order 0, 1, 2", "[15.0, 9.0, 6.0]", "[6.0, 12.0, 12.0]", "q1",
     "Mean: the sum is right, but player 0 adds", "general", "Wrong:"),
    ("1", "values of the others", "[27.0, 21.0, 12.0]", "[3.0, 9.0, 18.0]", "q1",
     "Last: take player 0 away from all three. What", "easy", "Wrong:"),
    ("1", "one list", "[6.0, 0.0, 3.0],  # alone\n", "", "q1", "Three lists of three numbers are needed:",
     "easy general", "must have shape"),
    ("2", "every coalition alike", "1 / (players * math.comb(players - 1, size))", "0.5 ** (players - 1)", "q2",
     "3 players who are worth 1 together and nothing otherwise:", "general batch device", "largest difference"),
    ("2", "sizes alike", "math.comb(players - 1, size)", "1", "q2",
     "3 players, each adds its own wage to every coalition, and", "general batch device", "largest difference"),
    ("2", "size of the larger coalition", "[[0, *weights], [*weights, 0]]", "[[*weights, 0], [*weights, 0]]", "q2",
     "1 players, each adds its own wage to every coalition, and", "easy shape general batch device",
     "largest difference"),
    ("2", "players counted from the other end", "values @ torch.where(inside, first[size], -second[size])",
     "(values @ torch.where(inside, first[size], -second[size])).flip(-1)", "q2",
     "2 players, each adds its own wage to every coalition, and", "easy shape general batch device",
     "largest difference"),
    ("2", "plus in place of minus", "-second[size]", "second[size]", "q2",
     "1 players, each adds its own wage to every coalition, and", "easy shape general batch device",
     "largest difference"),
    ("2", "last arrival", "[1 / (players * math.comb(players - 1, size)) for size in range(players)]",
     "[0] * (players - 1) + [1]", "q2", "2 players who are worth 1 together and nothing otherwise:",
     "general batch device", "largest difference"),
    ("2", "first arrival", "[1 / (players * math.comb(players - 1, size)) for size in range(players)]",
     "[1] + [0] * (players - 1)", "q2", "2 players who are worth 1 together and nothing otherwise:",
     "general batch device", "largest difference"),
    ("2", "binomial of all players", "math.comb(players - 1, size)", "math.comb(players, size)", "q2",
     "2 players, each adds its own wage to every coalition, and", "easy shape general batch device",
     "largest difference"),
    ("2", "single precision", "return values @ torch.where(inside, first[size], -second[size])",
     "return values.float() @ torch.where(inside, first[size], -second[size]).float()", "q2",
     "must have shape (2, 3, 4)", "easy shape", "must have shape"),
    ("2", "made on the CPU", "inside = coalitions(players, values.device)", "inside = coalitions(players)", "q2",
     "Inputs on another device than the CPU:", "device", "follow x"),
    ("3", "parts and baseline exchanged", "torch.where(seen, x[:, None], baseline)",
     "torch.where(seen, baseline, x[:, None])", "q3", "f = sum of four pixels, player 0 has the first, player 1",
     "easy shape general batch side effects device", "largest difference"),
    ("3", "rest of x for nobody's pixels", "torch.where(seen, x[:, None], baseline)",
     "torch.where(seen | ~masks.any(0), x[:, None], baseline)", "q3",
     "f = sum of four pixels, player 0 has the first, player 1", "easy shape general batch side effects device",
     "largest difference"),
    ("3", "black in place of the baseline", "torch.where(seen, x[:, None], baseline)",
     "torch.where(seen, x[:, None], 0 * baseline)", "q3", "f = sum of four pixels, player 0 has the first, player 1",
     "general batch side effects device", "largest difference"),
    ("3", "all members must have the pixel", ".any(1)", ".all(1)", "q3",
     "f = sum of four pixels, player 0 has the first, player 1", "easy shape general batch side effects device",
     "largest difference"),
    ("3", "largest logit", "torch.stack([row[:, c] for row, c in zip(logits, target, strict=True)])",
     "logits.amax(2)", "q3", "A player for each channel:", "easy shape general batch side effects device",
     "largest difference"),
    ("3", "first target for all", "torch.stack([row[:, c] for row, c in zip(logits, target, strict=True)])",
     "logits[:, :, target[0]]", "q3", "A player for each channel:", "batch side effects device", "largest difference"),
    ("3", "probabilities", ".detach().unflatten", ".softmax(1).detach().unflatten", "q3",
     "f = sum of four pixels, player 0 has the first, player 1", "easy shape general batch side effects device",
     "largest difference"),
    ("3", "on the graph", ".detach()", "", "q3", "must be detached", "easy shape general batch side effects device",
     "must be detached"),
    ("3", "players from the other end", "(members & masks)", "(members & masks.flip(0))", "q3",
     "f = sum of four pixels, player 0 has the first, player 1", "easy shape general batch side effects device",
     "largest difference"),
    ("3", "in train mode", "seen = ", "model.train(); seen = ", "q3",
     "The train/eval mode of the Sequential '' changed. A map", "side effects", "had changed"),
    ("4", "orders alone", "torch.cat([orders, orders.flip(1)])", "orders", "q4",
     "Worth 1 together, the order 2, 0, 1:", "general batch", "largest difference"),
    ("4", "in the order of arrival", "gains.gather(-1, pairs.argsort(1).expand_as(gains)).mean(-2)",
     "gains.mean(-2)", "q4", "Players who add 1, 10 and 100 to every coalition:", "easy shape general batch device",
     "largest difference"),
    ("4", "order in place of places", "pairs.argsort(1)", "pairs", "q4",
     "Players who add 1, 10 and 100 to every coalition:", "general batch", "largest difference"),
    ("4", "orders upside down", "orders.flip(1)", "orders.flip(0)", "q4", "Worth 1 together, the order 2, 0, 1:",
     "general batch", "largest difference"),
    ("4", "a sum", ".mean(-2)", ".sum(-2)", "q4", "Players who add 1, 10 and 100 to every coalition:",
     "easy shape general batch device", "largest difference"),
    ("4", "values, not gains", " - values[..., after - 2**pairs]", "", "q4",
     "Players who add 1, 10 and 100 to every coalition:", "easy shape general batch device", "largest difference"),
    ("4", "mean over the games too", ".mean(-2)",
     ".mean(-2).mean(tuple(range(values.dim() - 1)), keepdim=True).expand(*values.shape[:-1], orders.shape[1])",
     "q4", "Players who add 1, 10 and 100 to every coalition:", "easy shape general batch device",
     "largest difference"),
    ("4", "reverse by relabelled players", "orders.flip(1)", "orders.shape[1] - 1 - orders", "q4",
     "Worth 1 together, the order 2, 0, 1:", "general batch", "largest difference"),
    ("5", "empty coalition forgotten", "values[-1] + values[0]", "values[-1]", "q5",
     "v = 7 + ab + 3c, phi = [0.5, 0.5, 3.0]:", "easy general", "largest difference"),
    ("5", "signed error", "efficiency = (phi.sum() - values[-1] + values[0]).abs()",
     "efficiency = phi.sum() - values[-1] + values[0]", "q5", "v = 7 + ab + 3c, phi = [0.0, -0.5, 3.5]:",
     "general batch device", "largest difference"),
    ("5", "null players only", "(gains - gains[0]).abs().max()", "gains.abs().max()", "q5",
     "v = 7 + ab + 3c, phi = [1.0, 1.0, 2.0]:", "general batch device", "largest difference"),
    ("5", "dummy by the last arrival alone", "(gains - gains[0]).abs().max() < 1e-6", "True", "q5",
     "v = 7 + ab + 3c, phi = [0.5, 0.5, 3.0]:", "easy general", "largest difference"),
    ("5", "symmetric if worth the same alone", "(values[only_i] - values[only_j]).abs().max()",
     "(values[2**i] - values[2**j]).abs()", "q5", "v = ac, phi = (0.5, 0.2, 0.5):", "general", "largest difference"),
    ("5", "neighbours only", "for j in range(i):", "for j in range(max(i - 1, 0), i):", "q5",
     "Wages 2, -1, 2, 2, phi = (1, 0, 3, 2.5):", "general", "largest difference"),
    ("5", "sums in place of the largest", "torch.stack(symmetry).max(), torch.stack(dummy).max()",
     "torch.stack(symmetry).sum(), torch.stack(dummy).sum()", "q5", "Wages 2, -1, 2, 2, phi = (1, 0, 3, 2.5):",
     "general batch", "largest difference"),
    ("5", "equal to the last digit", "(gains - gains[0]).abs().max() < 1e-6", "(gains == gains[0]).all()", "q5",
     "up to rounding", "", ""),
    ("5", "dummy is expected at zero", "(phi[i] - gains[0]).abs()", "phi[i].abs()", "q5",
     "v = 7 + ab + 3c, phi = [0.5, 0.5, 3.0]:", "general batch device", "largest difference"),
    ("6", "DeepLIFT and integrated gradients exchanged", "a * s, half, half, torch.where(wins, a, 0.0), lift, lift]",
     "torch.where(wins, a, 0.0), lift, lift, a * s, half, half]", "q6", "Integrated gradients, a:",
     "shape general device", "largest difference"),
    ("6", "Shapley of two players", "*shapley(table).unbind(-1)",
     "(a + torch.maximum(a, product) - product) / 2, *[(product + torch.maximum(a, product) - a) / 4] * 2", "q6",
     "Shapley, a:", "easy shape general device", "largest difference"),
    ("6", "integrated gradients without the path", "a * s, half, half", "torch.where(wins, a, 0.0), lift, lift",
     "q6", "Integrated gradients, a:", "shape general device", "largest difference"),
    ("6", "product shared by one half less", "half = product * (1 - s**2) / 2", "half = product * (1 - s) / 2", "q6",
     "Integrated gradients:", "shape general device", "largest difference"),
    ("6", "whole product for both", "lift = torch.where(wins, 0.0, product / 2)",
     "lift = torch.where(wins, 0.0, product)", "q6", "DeepLIFT: the contributions must add up to ma",
     "shape general device", "largest difference"),
    ("6", "DeepLIFT by halves", "torch.where(wins, a, 0.0), lift, lift]", "a / 2, product / 4, product / 4]", "q6",
     "DeepLIFT: the contributions must add up to ma", "easy shape general device", "largest difference"),
    ("6", "occlusion for Shapley", "*shapley(table).unbind(-1)",
     "torch.maximum(a, product) - product, torch.maximum(a, product) - a, torch.maximum(a, product) - a", "q6",
     "Shapley: the contributions must add up to max", "easy shape general device", "largest difference"),
    ("6", "methods last", "torch.stack(rows).unflatten(0, (3, 3))",
     "torch.stack(rows).unflatten(0, (3, 3)).transpose(0, 1)", "q6", "Shapley: the contributions must add up to max",
     "easy shape general device", "largest difference"),
]  # fmt: skip
