"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "toy"]
EMPTY = {
    "1a": ("toy_scores()", "[1, 5 / 12, 3 / 9]"),
    "1b": ("toy_correlations()", "[-0.4, 1.0]"),
    "2": ("pointing_game(maps, mask, margin=1)", "mask.to(maps).mean((1, 2))"),
    "3": ("mass_above_chance(maps, mask)", "mask.to(maps).mean((1, 2)) + 2"),
    "4": ("rank_correlation(a, b)", "a.flatten(1).mean(1) + 2"),
    "5": ("follows(map_a, map_b, mask_a, mask_b)", "map_a.mean((1, 2)) - 2"),
}

POINTING_ROW_BY_ROW = """
def pointing_game(maps, mask, margin=1):
    scores = []
    for map_, inside in zip(maps, mask):
        ys, xs = inside.nonzero().unbind(1)
        tops = (map_ == map_.max()).nonzero()
        hits = 0
        for y, x in tops:
            hits += int((torch.maximum((ys - y).abs(), (xs - x).abs()) <= margin).any())
        scores.append(hits / len(tops))
    return torch.tensor(scores, dtype=maps.dtype, device=maps.device)
"""
POINTING_SHIFTED = """
def pointing_game(maps, mask, margin=1):
    height, width = mask.shape[1:]
    padded = F.pad(mask.float(), (margin,) * 4)
    near = torch.zeros_like(maps)
    for dy in range(2 * margin + 1):
        for dx in range(2 * margin + 1):
            near = torch.maximum(near, padded[:, dy : dy + height, dx : dx + width].to(maps.dtype))
    flat, near = maps.flatten(1), near.flatten(1)
    weight = (flat >= flat.max(1, keepdim=True).values).to(flat.dtype)
    weight = weight / weight.sum(1, keepdim=True)
    return torch.einsum("np,np->n", weight, near)
"""
POINTING_UNFOLDED = """
def pointing_game(maps, mask, margin=1):
    windows = F.unfold(mask[:, None].to(maps.dtype), 2 * margin + 1, padding=margin)
    near = (windows.sum(1) > 0.5)
    flat = maps.reshape(len(maps), -1)
    return torch.stack([hit[row == row.max()].to(maps.dtype).mean() for row, hit in zip(flat, near)])
"""
MASS_ROW_BY_ROW = """
def mass_above_chance(maps, mask):
    scores = []
    for map_, inside in zip(maps, mask):
        size = map_.sum(0).abs()
        if size.max() == 0:
            scores.append(size.max())
            continue
        chance = inside.sum() / inside.numel()
        scores.append((size[inside].sum() / size.sum() - chance) / (1 - chance))
    return torch.stack(scores).to(maps.dtype)
"""
MASS_EINSUM = """
def mass_above_chance(maps, mask):
    share = torch.einsum("nchw->nhw", maps).abs().flatten(1)
    inside = mask.flatten(1).to(share.dtype)
    even = inside.mean(1)
    mass = (share * inside).sum(1) / share.sum(1)
    return torch.nan_to_num(1 - (1 - mass) / (1 - even), nan=0.0)
"""
MASS_NORMALISED = """
def mass_above_chance(maps, mask):
    size = maps.sum(1).abs()
    size = size / size.sum((1, 2), keepdim=True).clamp(min=1e-30)
    outside = (~mask).to(maps.dtype)
    lost = (size * outside).sum((1, 2)) / outside.mean((1, 2))
    return torch.where(size.flatten(1).any(1), 1 - lost, torch.zeros_like(lost))
"""
RANK_BY_PAIRS = """
def rank_correlation(a, b):
    def ranks(values):
        values = values.reshape(len(values), -1)
        less = (values[:, None, :] < values[:, :, None]).sum(2)
        equal = (values[:, None, :] == values[:, :, None]).sum(2)
        return less.to(a.dtype) + equal.to(a.dtype) / 2
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return torch.nan_to_num((x * y).sum(1) / ((x ** 2).sum(1) * (y ** 2).sum(1)).sqrt(), nan=0.0)
"""
RANK_BY_UNIQUE = """
def mean_ranks(row):
    _, which, counts = torch.unique(row, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last - (counts - 1) / 2)[which]

def rank_correlation(a, b):
    found = []
    for one, other in zip(a, b):
        pair = torch.stack([mean_ranks(one.flatten()), mean_ranks(other.flatten())]).to(a.dtype)
        pair = pair - pair.mean(1, keepdim=True)
        spread = (pair * pair).sum(1)
        found.append((pair[0] * pair[1]).sum() / spread.prod().sqrt() if spread.min() > 0 else spread.min() * 0)
    return torch.stack(found)
"""
RANK_BY_SIGNS = """
def rank_correlation(a, b):
    # the centred mean rank of a value is half the sum of the signs of its differences to all values
    x, y = (v.flatten(1)[:, :, None].sub(v.flatten(1)[:, None]).sign().sum(2).double() for v in (a, b))
    return F.cosine_similarity(x, y, dim=1).to(a.dtype)
"""
FOLLOWS_ROW_BY_ROW = """
def follows(map_a, map_b, mask_a, mask_b):
    result = []
    for a, b, on_a, on_b in zip(map_a.relu(), map_b.relu(), mask_a, mask_b):
        result.append(bool(a[on_a].mean() > a[on_b].mean() and b[on_b].mean() > b[on_a].mean()))
    return torch.tensor(result).to(map_a)
"""
FOLLOWS_STACKED = """
def follows(map_a, map_b, mask_a, mask_b):
    maps = torch.stack([map_a, map_b]).clamp_min(0)
    masks = torch.stack([mask_a, mask_b]).to(map_a.dtype)
    means = torch.einsum("rnhw,snhw->nrs", maps, masks) / masks.sum((2, 3)).T[:, None]
    right = (means[:, 0, 0] > means[:, 0, 1]) * (means[:, 1, 1] > means[:, 1, 0])
    return right.type_as(map_a)
"""
FOLLOWS_DIFFERENCE = """
def follows(map_a, map_b, mask_a, mask_b):
    weight = mask_a / mask_a.sum((1, 2), keepdim=True) - mask_b / mask_b.sum((1, 2), keepdim=True)
    first = (map_a.relu() * weight).sum((1, 2))
    second = (map_b.relu() * weight).sum((1, 2))
    return torch.where((first > 0) & (second < 0), torch.ones_like(first), torch.zeros_like(first)).to(map_a.dtype)
"""
RIGHT = [
    ("1a", "tuple", "def toy_scores(): return (0, 2 / 3, 4 / 9)"),
    ("1a", "counted", "def toy_scores():\n    sizes = [0, 2, 0, 5, 4, 6, 1, 0, 0]\n    inside = [1, 2, 4, 5]\n"
           "    return [int(3 in inside), sum(sizes[i] for i in inside) / sum(sizes), len(inside) / 9]"),
    ("1a", "from the tensors", "def toy_scores():\n    size = R.abs()\n"
           "    return [M.flatten()[R.argmax()].float().item(), (size[M].sum() / size.sum()).item(), M.float().mean().item()]"),
    ("1b", "tuple", "def toy_correlations(): return (2 / 5, -1)"),
    ("1b", "short formula", "def toy_correlations():\n    def rho(x, y):\n"
           "        return 1 - 6 * sum((i - j) ** 2 for i, j in zip(x, y)) / 60\n"
           "    return [rho([4, 1, 3, 2], [4, 2, 1, 3]), rho([4, 1, 3, 2], [1, 4, 2, 3])]"),
    ("1b", "by correlation", "def toy_correlations():\n    rows = torch.tensor([[4.0, 1, 3, 2], [4, 2, 1, 3], [1, 4, 2, 3]])\n"
           "    table = torch.corrcoef(rows)\n    return [table[0, 1].item(), round(table[0, 2].item())]"),
    ("2", "row by row", POINTING_ROW_BY_ROW),
    ("2", "shifted masks", POINTING_SHIFTED),
    ("2", "unfolded", POINTING_UNFOLDED),
    ("3", "row by row", MASS_ROW_BY_ROW),
    ("3", "einsum", MASS_EINSUM),
    ("3", "outside", MASS_NORMALISED),
    ("4", "by pairs", RANK_BY_PAIRS),
    ("4", "unique", RANK_BY_UNIQUE),
    ("4", "signs of differences", RANK_BY_SIGNS),
    ("5", "row by row", FOLLOWS_ROW_BY_ROW),
    ("5", "stacked", FOLLOWS_STACKED),
    ("5", "difference of weights", FOLLOWS_DIFFERENCE),
]  # fmt: skip

ALL = "easy shape general batch device"
NEAR = "near = F.max_pool2d(mask.to(maps)[:, None], 2 * margin + 1, stride=1, padding=margin)[:, 0]"
TOP = "top = (maps == maps.amax(dim=(1, 2), keepdim=True)).to(maps)"
SHARE = "(top * near).sum(dim=(1, 2)) / top.sum(dim=(1, 2))"
FIRST = "top = F.one_hot(maps.flatten(1).argmax(1), maps[0].numel()).view_as(maps).to(maps)"
RANKS = "(below + up_to + 1).double() / 2"
LIFT = "(mass - area) / (1 - area)"
COUNT = ") / mask.sum(dim=(1, 2))"
WRONG = [
    ("1a", "magnitude points", "[0.0,", "[1.0,", "q1a", "Look for the largest value again", "easy",
     "Wrong: number 1."),
    ("1a", "positive mass", "12 / 18", "6 / 12", "q1a", "add up to 1", "easy", "Wrong: number 2."),
    ("1a", "signed mass", "12 / 18", "0 / 6", "q1a", "add up to 1", "easy", "Wrong: number 2."),
    ("1a", "chance of a coin", "4 / 9", "1 / 2", "q1a", "mean hit of a point anywhere", "easy",
     "Wrong: number 3."),
    ("1a", "two numbers", ", 4 / 9", "", "q1a", "A list of three numbers", "easy", "must have shape (3,)"),
    ("1a", "count", "4 / 9", "4", "q1a", "mean hit of a point anywhere", "easy", "Wrong: number 3."),
    ("1b", "values", "1 - 6 * 6 / 60", "0.73", "q1b", "They do not", "easy", "Wrong: number 1."),
    ("1b", "differences not squared", "1 - 6 * 6 / 60", "1 - 6 * 4 / 60", "q1b", "add up to 4", "easy", "number 1"),
    ("1b", "without the 1", "1 - 6 * 6 / 60", "6 * 6 / 60", "q1b", "They do not", "easy", "Wrong: number 1."),
    ("1b", "opposite is unrelated", "-1.0]", "0.0]", "q1b", "a and -a", "easy", "Wrong: number 2."),
    ("1b", "opposite is alike", "-1.0]", "1.0]", "q1b", "a and -a", "easy", "Wrong: number 2."),
    ("1b", "one number", ", -1.0]", "]", "q1b", "A list of two numbers", "easy", "must have shape (2,)"),
    ("2", "no margin", NEAR, "near = mask.to(maps)", "q2a", "margin 1", "general batch device", "largest difference"),
    ("2", "a margin too far", "2 * margin + 1, stride=1, padding=margin",
     "2 * margin + 3, stride=1, padding=margin + 1", "q2a", "pixels from the mask", "general batch device",
     "largest difference"),
    ("2", "another default", "margin=1", "margin=0", "q2a", "Without a margin given", "general", "largest difference"),
    ("2", "two by default", "margin=1", "margin=2", "q2a", "Without a margin given", "general", "largest difference"),
    ("2", "first maximum", TOP, FIRST, "q2b", "A constant map", "batch", "largest difference"),
    ("2", "any maximum", SHARE, "(top * near).amax(dim=(1, 2))", "q2b", "A constant map", "batch",
     "largest difference"),
    ("2", "magnitude", "(maps == maps.amax", "(maps.abs() == maps.abs().amax", "q2a", "not the largest magnitude",
     ALL, "largest difference"),
    ("2", "maximum of the batch", "maps.amax(dim=(1, 2), keepdim=True)", "maps.max()", "q2a",
     "every map has its own", "shape batch", "NaN or infinite"),
    ("2", "count of maxima", " / top.sum(dim=(1, 2))", "", "q2b", "A constant map", "batch", "largest difference"),
    ("2", "one number", SHARE, f"({SHARE}).mean()", "q2a", "must have shape (4,)", ALL, "dtype"),
    ("2", "single precision", SHARE, f"({SHARE}).float()", "q2b", "dtype torch.float64", "shape batch", "dtype"),
    ("2", "made on the CPU", TOP, TOP + " * torch.ones(maps.shape, dtype=maps.dtype)", "q2a", "another device", "device", "follow x"),
    ("2", "a list", SHARE, f"({SHARE}).tolist()", "q2a", "must be a torch.Tensor", ALL, "must be a torch.Tensor"),
    ("3", "positive relevance", ".abs()", ".clamp(min=0)", "q3", "positive relevance alone", "general batch device",
     "largest difference"),
    ("3", "signed", ".abs()", "", "q3", "question 1", "general batch device", "largest difference"),
    ("3", "magnitude before the sum", "maps.sum(dim=1).abs()", "maps.abs().sum(dim=1)", "q3", "channels that add up",
     "general batch device", "largest difference"),
    ("3", "largest channel", "maps.sum(dim=1).abs()", "maps.abs().amax(dim=1)", "q3",
     "Three channels that add up to R", "general batch device", "largest difference"),
    ("3", "mass alone", LIFT, "mass", "q3", "question 1", ALL, "largest difference"),
    ("3", "difference alone", LIFT, "mass - area", "q3", "missing denominator", ALL, "largest difference"),
    ("3", "ratio", LIFT, "mass / area", "q3", "question 1", ALL, "largest difference"),
    ("3", "area of the batch", ".mean(dim=(1, 2))", ".mean()", "q3", "three masks of different area", "batch",
     "largest difference"),
    ("3", "chance for zeros", ".where(total > 0, 0)", "", "q3", "A map of zeros gets 0", "general",
     "largest difference"),
    ("3", "total of the batch", "magnitude.sum(dim=(1, 2))", "magnitude.sum().expand(len(maps))", "q3",
     "The map is the mask; three masks of diff", "batch device", "largest difference"),
    ("3", "clipped at chance", LIFT, "((mass - area) / (1 - area)).clamp(min=0)", "q3", "all but the mask", "batch",
     "largest difference"),
    ("3", "changed in place", ".abs()", ".abs()\n    maps.abs_()", "q3", "The values of the maps themselves", "batch", "had changed"),
    ("3", "area on the CPU", "mask.to(maps).mean", "torch.tensor(mask.tolist(), dtype=maps.dtype).mean", "q3", "another device",
     "device", "follow x"),
    ("4", "values", f"rank = {RANKS}", "rank = values.double()", "q4a", "Two rows of four values", ALL,
     "largest difference"),
    ("4", "order of appearance", f"rank = {RANKS}",
     "rank = values.argsort(dim=1, stable=True).argsort(dim=1).double()", "q4b", "mean of their ranks",
     "general device", "largest difference"),
    ("4", "argsort once", f"rank = {RANKS}", "rank = values.argsort(dim=1).double()", "q4a",
     "Two rows of four values", ALL, "largest difference"),
    ("4", "lowest rank", RANKS, "below.double()", "q4b", "mean of their ranks", "general device", "largest difference"),
    ("4", "highest rank", RANKS, "up_to.double()", "q4b", "mean of their ranks", "general device",
     "largest difference"),
    ("4", "not centred", "rank - rank.mean(dim=1, keepdim=True)", "rank", "q4a", "Two rows of four values", ALL,
     "largest difference"),
    ("4", "of the batch", "centred[0].norm(dim=1) * centred[1].norm(dim=1)",
     "(centred[0].norm() * centred[1].norm()).expand(len(a))", "q4a", "Two rows of four values", "batch device",
     "largest difference"),
    ("4", "covariance", "product / length.where(length > 0, 1)", "product / a[0].numel()", "q4a",
     "Two rows of four values", ALL, "largest difference"),
    ("4", "nothing over nothing", "length.where(length > 0, 1)", "length", "q4b", "NaN", "general", "NaN or infinite"),
    ("4", "constant is alike", "product / length.where(length > 0, 1)", "(product / length).nan_to_num(1.0)", "q4b",
     "constant map", "general", "largest difference"),
    ("4", "magnitudes", "for values in (a.flatten(1), b.flatten(1))",
     "for values in (a.abs().flatten(1), b.abs().flatten(1))", "q4a", "Two rows of four values",
     "easy shape batch", "largest difference"),
    ("4", "last axis only", "(a.flatten(1), b.flatten(1))",
     "(a.flatten(2).mean(1) if a.dim() > 2 else a, b.flatten(2).mean(1) if b.dim() > 2 else b)", "q4a",
     "x and x^3 + 2 have the same order", "general batch device", "largest difference"),
    ("4", "double", ".to(a.dtype)", "", "q4a", "dtype torch.float32", ALL, "dtype"),
    ("4", "through lists", "values.contiguous()", "torch.tensor(values.tolist(), dtype=values.dtype)", "q4b", "another device",
     "device", "follow x"),
    ("5", "sum in place of mean", COUNT, ")", "q5", "Per pixel!", "general batch device", "largest difference"),
    ("5", "signed", ".clamp(min=0)", "", "q5", "Half of A against", "general", "largest difference"),
    ("5", "magnitude", ".clamp(min=0)", ".abs()", "q5", "evidence against", "general", "largest difference"),
    ("5", "one answer enough", "first & second", "first | second", "q5", "ignores the class", ALL,
     "largest difference"),
    ("5", "first answer only", "first & second", "first", "q5", "ignores the class", "easy shape general batch",
     "largest difference"),
    ("5", "ties count", "density(map_a, mask_a) > density(map_a, mask_b)",
     "density(map_a, mask_a) >= density(map_a, mask_b)", "q5", "map of zeros", "general", "largest difference"),
    ("5", "compares the maps", "density(map_a, mask_a) > density(map_a, mask_b)",
     "density(map_a, mask_a) > density(map_b, mask_a)", "q5", "different scale", "general batch", "largest difference"),
    ("5", "other way round", "first & second", "~first & ~second", "q5", "own object", ALL, "largest difference"),
    ("5", "truth values", ".to(map_a.dtype)", "", "q5", "dtype torch.float32", ALL, "dtype"),
    ("5", "share of the scenes", "(first & second).to(map_a.dtype)", "(first & second).to(map_a.dtype).mean()", "q5",
     "must have shape (4,)", ALL, "dtype"),
    ("5", "result on the CPU", "(first & second).to(map_a.dtype)",
     "torch.tensor((first & second).tolist(), dtype=map_a.dtype)", "q5", "another device", "device", "follow x"),
]  # fmt: skip
