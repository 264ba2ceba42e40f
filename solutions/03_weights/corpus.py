"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports"]
EMPTY = {
    "1a": ("favourites()", "[[0.0, 0.6, 0.0, -0.8], [0.0, 1.0, 1.0, 0.0]]"),
    "1b": ("sides()", "[9, 9, 9, 9]"),
    "2": ("filter_pictures(weight)", "weight"),
    "3": ("receptive_field(layers)", "[0, 0, 0]"),
    "4a": ("top_places(maps, k)", "maps"),
    "4b": ("cut(x, places, size, stride, start)", "x"),
    "5": ("project(x, w1, b1, w2, b2, unit, padding=0)", "x"),
}

FIELD_BACKWARDS = """
def receptive_field(layers):
    first, last, apart = 0, 0, 1
    for kernel, stride, padding, dilation in reversed(layers):
        first, last = first * stride - padding, last * stride - padding + (kernel - 1) * dilation
        apart = apart * stride
    return [last - first + 1, apart, first]
"""
FIELD_PRODUCTS = """
from math import prod
def receptive_field(layers):
    strides = [1] + [layer[1] for layer in layers]
    jumps = [prod(strides[: i + 1]) for i in range(len(strides))]
    size = 1 + sum((k - 1) * d * j for (k, _, _, d), j in zip(layers, jumps))
    return [size, jumps[-1], -sum(p * j for (_, _, p, _), j in zip(layers, jumps))]
"""
FIELD_RECURSIVE = """
def receptive_field(layers):
    if not layers:
        return [1, 1, 0]
    size, apart, start = receptive_field(layers[:-1])
    kernel, stride, padding, dilation = layers[-1]
    return (size + (kernel - 1) * dilation * apart, apart * stride, start - padding * apart)
"""
PLACES_LOOP = """
def top_places(maps, k):
    found = []
    for unit in range(maps.shape[1]):
        rows = []
        for image, values in enumerate(maps[:, unit].tolist()):
            best = max((value, r, c) for r, line in enumerate(values) for c, value in enumerate(line))
            rows.append((best[0], image, best[1], best[2]))
        found.append([row[1:] for row in sorted(rows, reverse=True)[:k]])
    return torch.tensor(found, device=maps.device)
"""
PLACES_SORTED = """
def top_places(maps, k):
    n, units, height, width = maps.shape
    flat = maps.permute(1, 0, 2, 3).reshape(units, n, -1)
    image = flat.max(-1).values.argsort(dim=1, descending=True)[:, :k]
    where = flat.argmax(-1).gather(1, image)
    return torch.stack((image, torch.div(where, width, rounding_mode="floor"), where.remainder(width)), -1)
"""
PLACES_ROWS_FIRST = """
def top_places(maps, k):
    by_row, column = maps.max(3)
    peak, row = by_row.max(2)
    column = column.gather(2, row[..., None])[..., 0]
    _, image = peak.T.topk(k, 1)
    return torch.stack([image, row.T.gather(1, image), column.T.gather(1, image)], dim=2)
"""
CUT_GATHER = """
def cut(x, places, size, stride, start):
    steps = torch.arange(size, device=x.device)
    image, row, column = places.to(x.device).T
    rows = (start + stride * row)[:, None] + steps
    columns = (start + stride * column)[:, None] + steps
    inside = ((rows >= 0) & (rows < x.shape[2]))[:, :, None] & ((columns >= 0) & (columns < x.shape[3]))[:, None]
    rows, columns = rows.clamp(0, x.shape[2] - 1), columns.clamp(0, x.shape[3] - 1)
    patches = x[image[:, None, None], :, rows[:, :, None], columns[:, None]]
    return (patches * inside[..., None]).permute(0, 3, 1, 2).contiguous()
"""
CUT_PASTE = """
def cut(x, places, size, stride, start):
    out = x.new_zeros(len(places), x.shape[1], size, size)
    for target, (n, i, j) in zip(out, places.tolist()):
        top, left = start + stride * i, start + stride * j
        a, b = max(top, 0), max(left, 0)
        piece = x[n, :, a : top + size, b : left + size]
        target[:, a - top : a - top + piece.shape[1], b - left : b - left + piece.shape[2]] = piece
    return out
"""
CUT_MARGINS = """
import torch.nn.functional as functional
def cut(x, places, size, stride, start):
    high, wide = x.shape[2:]
    margin = max(high, wide) + size
    whole = functional.pad(x, (margin, margin, margin, margin))
    def one(place):
        n, i, j = (int(value) for value in place)
        return whole[n].narrow(1, margin + start + stride * i, size).narrow(2, margin + start + stride * j, size)
    return torch.stack([one(place) for place in places])
"""
PROJECT_AUTOGRAD = """
class Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        return a.clamp(min=0)
    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0)

def project(x, w1, b1, w2, b2, unit, padding=0):
    leaf = x.detach().clone().requires_grad_()
    hidden = F.max_pool2d(Rectified.apply(F.conv2d(leaf, w1, b1, padding=padding)), 2)
    top = F.relu(F.conv2d(hidden, w2, b2, padding=padding).detach())[:, unit].flatten(1).amax(1)
    maps = F.conv2d(hidden, w2, b2, padding=padding)[:, unit].flatten(1)
    start = F.one_hot(maps.argmax(1), maps.shape[1]).to(x) * top[:, None]
    return torch.autograd.grad(maps, leaf, start)[0]
"""
PROJECT_ROWS = """
def project(x, w1, b1, w2, b2, unit, padding=0):
    results = []
    for row in x:
        a = nn.functional.conv2d(row[None], w1, b1, padding=padding).relu()
        p, where = nn.functional.max_pool2d(a, kernel_size=2, return_indices=True)
        z = nn.functional.conv2d(p, w2, b2, padding=padding).relu()[0, unit]
        peak = z.max()
        i, j = divmod(int(z.argmax()), z.shape[1])
        back = torch.zeros(1, len(w2), *z.shape).to(x)
        back[0, unit, i, j] = peak
        back = nn.functional.conv_transpose2d(back, w2, padding=padding)
        back = nn.functional.max_unpool2d(back, where, 2, output_size=a.shape).clamp(min=0)
        results.append(nn.functional.conv_transpose2d(back, w1, padding=padding))
    return torch.cat(results)
"""
PROJECT_SCATTER = """
def project(x, w1, b1, w2, b2, unit, padding=0):
    a = torch.relu(F.conv2d(x, w1, b1, padding=padding))
    p, where = F.max_pool2d(a, 2, 2, return_indices=True)
    z = torch.relu(F.conv2d(p, w2, b2, padding=padding))
    one = z[:, unit : unit + 1].flatten(2)
    one = one * (torch.arange(one.shape[2], device=x.device) == one.argmax(2, keepdim=True))
    one = one.unflatten(2, z.shape[2:])
    down = F.conv_transpose2d(one, w2[unit : unit + 1], padding=padding)
    spread = torch.zeros_like(a).flatten(2).scatter(2, where.flatten(2), down.flatten(2)).view(a.shape)
    return F.conv_transpose2d(spread * (spread > 0), w1, padding=padding)
"""
RIGHT = [
    ("1a", "tuples", "def favourites(): return (2 / 5, -1 / 5, -2 / 5, 4 / 5), (1, 0, 0, 1)"),
    ("1a", "computed", "def favourites():\n    w = torch.tensor([2.0, -1.0, -2.0, 4.0])\n"
           "    return [(w / w.norm()).tolist(), (w > 0).float().tolist()]"),
    ("1a", "list of pixels", "def favourites():\n    w = [2, -1, -2, 4]\n    norm = sum(v * v for v in w) ** 0.5\n"
           "    return [[v / norm for v in w], [float(v > 0) for v in w]]"),
    ("1b", "tuple", "def sides(): return 5, 6, 14, 16"),
    ("1b", "step by step", "def sides():\n    found = [5]\n    found.append(found[-1] + 1)\n    found.append(found[-1] + 2 * 4)\n"
           "    found.append(found[-1] + 2)\n    return found"),
    ("1b", "floats", "def sides(): return [5.0, 6.0, 14.0, 16.0]"),
    ("2", "clamped", "def filter_pictures(weight):\n    w = weight.detach()\n"
          "    return (1 + w / w.abs().amax().clamp(min=1e-30)) / 2"),
    ("2", "norm", "def filter_pictures(weight):\n    with torch.no_grad():\n        m = torch.linalg.vector_norm(weight, float('inf'))\n"
          "        return weight / (2 * m) + 0.5 if m > 0 else torch.full_like(weight, 0.5)"),
    ("2", "nan to zero", "def filter_pictures(weight):\n    w = weight.data\n    m = max(w.max(), -w.min())\n"
          "    return (w / m).nan_to_num(0).mul(0.5).add(0.5)"),
    ("3", "backwards", FIELD_BACKWARDS),
    ("3", "products", FIELD_PRODUCTS),
    ("3", "recursive", FIELD_RECURSIVE),
    ("4a", "loop", PLACES_LOOP),
    ("4a", "sorted", PLACES_SORTED),
    ("4a", "rows first", PLACES_ROWS_FIRST),
    ("4b", "gather", CUT_GATHER),
    ("4b", "paste", CUT_PASTE),
    ("4b", "margins", CUT_MARGINS),
    ("5", "autograd", PROJECT_AUTOGRAD),
    ("5", "row by row", PROJECT_ROWS),
    ("5", "scatter", PROJECT_SCATTER),
]  # fmt: skip

ALL_2, ALL_4A = "easy shape general device", "easy shape general device"
ALL_4B, ALL_5 = "easy shape general batch device", "easy shape general batch side effects device"
UNIT, BOX = "[0.4, -0.2, -0.4, 0.8]", "[1.0, 0.0, 0.0, 1.0]"
PICTURE = "0.5 + weight / (2 * largest.where(largest > 0, 1))"
STACKED = "torch.stack([image, place // width, place % width], 2).transpose(0, 1)"
CORNER = "place * stride + start + size"
POOLED = "signal = F.max_unpool2d(signal, switches, 2, output_size=first.shape[2:])"
BACK = "F.conv_transpose2d(F.relu(signal), w1, padding=padding)"
WRONG = [
    ("1a", "the filter itself", UNIT, "[2.0, -1.0, -2.0, 4.0]", "q1a", "must have the length 1, yours has 5", "easy", "pixel 0"),
    ("1a", "magnitudes", UNIT, "[0.4, 0.2, 0.4, 0.8]", "q1a", "A random patch of length 1", "easy", "Wrong: pixel 1; pixel 2."),
    ("1a", "the largest pixel only", UNIT, "[0.0, 0.0, 0.0, 1.0]", "q1a", "A random patch", "easy", "pixel 0"),
    ("1a", "all white", BOX, "[1.0, 1.0, 1.0, 1.0]", "q1a", "A patch of black and white", "general", "Wrong: pixel 1; pixel 2."),
    ("1a", "grey scale", BOX, "[0.75, 0.375, 0.25, 1.0]", "q1a", "A patch of black and white", "general", "pixel 0"),
    ("1a", "outside the box", BOX, "[1.0, -1.0, -1.0, 1.0]", "q1a", "must lie in [0, 1]", "general", "Wrong: pixel 1; pixel 2."),
    ("1a", "one patch", "[of_length_one, in_the_box]", "of_length_one", "q1a", "Two lists of four pixels are needed,", "easy general", "must have shape (2, 4)"),
    ("1b", "sum of kernels", "[5, 6, 14, 16]", "[5, 7, 12, 14]", "q1b", "After layer 2 of 4, your number 7 is too large", "easy", "layer 1"),
    ("1b", "without the stride", "[5, 6, 14, 16]", "[5, 6, 10, 11]", "q1b", "After layer 3 of 4, your number 10 is too small", "easy", "Wrong: layer 2; layer 3."),
    ("1b", "pooling doubles", "[5, 6, 14, 16]", "[5, 10, 14, 28]", "q1b", "too large", "easy", "Wrong: layer 1; layer 3."),
    ("1b", "kernels", "[5, 6, 14, 16]", "[5, 2, 5, 2]", "q1b", "too small", "easy", "Wrong: layer 1; layer 2; layer 3."),
    ("1b", "last pooling by 1", "[5, 6, 14, 16]", "[5, 6, 14, 15]", "q1b", "After layer 4", "easy", "Wrong: layer 3."),
    ("1b", "three numbers", "[5, 6, 14, 16]", "[5, 6, 14]", "q1b", "Four numbers", "easy", "must have shape (4,)"),
    ("2", "a scale per filter", "weight.abs().max()", "weight.abs().amax((1, 2, 3), True)", "q2", "second filter must look weak", "general device", "difference"),
    ("2", "from least to largest", PICTURE, "(weight - weight.min()) / (weight.max() - weight.min())", "q2", "0 must be mid-grey", ALL_2, "difference"),
    ("2", "largest weight", "weight.abs().max()", "weight.max()", "q2", "negatives", "general", "difference"),
    ("2", "no one half", PICTURE, "weight / largest", "q2", "must be mid-grey", ALL_2, "difference"),
    ("2", "magnitude", PICTURE, "weight.abs() / largest", "q2", "must be mid-grey", ALL_2, "difference"),
    ("2", "nothing over nothing", "largest.where(largest > 0, 1)", "largest", "q2", "NaN", "general", "NaN"),
    ("2", "on the graph", "weight = weight.detach()", "pass", "q2", "detached", "general", "detached"),
    ("2", "scaled in place", PICTURE, "weight.div_(2 * largest.where(largest > 0, 1)).add_(0.5)", "q2", "", "general", ""),
    ("2", "single precision", PICTURE, f"({PICTURE}).float()", "q2", "float64", "shape general", "float64"),
    ("2", "on the CPU", PICTURE, f"torch.full(weight.shape, 0.5, dtype=weight.dtype) - 0.5 + {PICTURE}", "q2", "another device", "device", "follow x"),
    ("3", "kernels add up", "(kernel - 1) * dilation * apart", "(kernel - 1) * dilation", "q3", "place", "general", "difference"),
    ("3", "kernel, not kernel - 1", "(kernel - 1) * dilation", "kernel * dilation", "q3", "[[5, 1, 0, 1]]", "easy general", "difference"),
    ("3", "no dilation", " * dilation", "", "q3", "[[3, 1, 0, 2]]", "general", "difference"),
    ("3", "dilated kernel + 1", "(kernel - 1) * dilation", "(kernel * dilation - 1)", "q3", "[[3, 1, 0, 2]]", "general", "difference"),
    ("3", "padding in places", "padding * apart", "padding", "q3", "", "general", "difference"),
    ("3", "padding added", "start -= padding", "start += padding", "q3", "[[3, 2, 1, 1]]", "easy general", "difference"),
    ("3", "no padding", "start -= padding * apart", "pass", "q3", "[[3, 2, 1, 1]]", "easy general", "difference"),
    ("3", "strides add up", "apart *= stride", "apart += stride - 1", "q3", "", "general", "difference"),
    ("3", "stride of the last layer", "[size, apart, start]", "[size, stride, start]", "q3", "", "general", "difference"),
    ("3", "stride too early", "        size += (", "        apart *= stride\n        size += (", "q3", "", "easy general", "difference"),
    ("3", "size only", "return [size, apart, start]", "return size", "q3", "A list of size, stride and start", "easy general", "must be a list, got int"),
    ("4a", "several of one image", "highest, place = maps.flatten(2).max(2)  # both (N, K)", "n, units, h, w = maps.shape\n    index = maps.transpose(0, 1).flatten(1).topk(k).indices\n    return torch.stack([index // (h * w), index % (h * w) // w, index % w], 2)", "q4a", "The 8 beside the 9", "general device", "difference"),
    ("4a", "lowest first", "topk(k, dim=0)", "topk(k, dim=0, largest=False)", "q4a", "the highest values are 9 and 7", ALL_4A, "difference"),
    ("4a", "in the order of images", ".indices  # (k, K)", ".indices.sort(0).values  # (k, K)", "q4a", "falling order", "general device", "difference"),
    ("4a", "mean of the map", "highest, place = maps.flatten(2).max(2)", "highest, place = maps.flatten(2).mean(2), maps.flatten(2).argmax(2)", "q4a", "", ALL_4A, "difference"),
    ("4a", "height for width", "maps.shape[3]", "maps.shape[2]", "q4a", "the highest values", "easy general shape device", "difference"),
    ("4a", "row and column exchanged", "place // width, place % width", "place % width, place // width", "q4a", "the highest values", "easy shape general device", "difference"),
    ("4a", "place of another image", "place.gather(0, image)", "place[:k]", "q4a", "", "general device", "difference"),
    ("4a", "ranks before units", ".transpose(0, 1)", "", "q4a", "must have shape (1, 2, 3)", "shape general device", "must have shape"),
    ("4a", "place not split", STACKED, "torch.stack([image, place], 2).transpose(0, 1)", "q4a", "must have shape (1, 2, 3)", ALL_4A, "must have shape"),
    ("4a", "largest magnitude", "maps.flatten(2)", "maps.abs().flatten(2)", "q4a", "four highest", "general device", "difference"),
    ("4a", "on the CPU", STACKED, f"{STACKED} + torch.zeros(1, 1, 3, dtype=torch.long)", "q4a", "another device", "device", "follow x"),
    ("4b", "start forgotten", CORNER, "place * stride + size", "q4b", "start -1", "general batch device", "difference"),
    ("4b", "stride forgotten", CORNER, "place + start + size", "q4b", "row 0, column 1 of the map sees", "easy shape general batch device", "difference"),
    ("4b", "start added twice", CORNER, "(place + start) * stride + size", "q4b", "", "general batch device", "difference"),
    ("4b", "rows for columns", "left : left + size]", "top : top + size]", "q4b", "row 0, column 1", ALL_4B, "difference"),
    ("4b", "first image", "padded[image,", "padded[0,", "q4b", "of image 1", "batch device", "difference"),
    ("4b", "clipped, not padded", CORNER, "max(0, place * stride + start) + size", "q4b", "", "general batch", "difference"),
    ("4b", "edge repeated", "F.pad(x, [size] * 4)", "F.pad(x, [min(size, 5)] * 4, mode='replicate')", "q4b", "there are zeros", "general batch", "difference"),
    ("4b", "one pixel less", "top + size, left : left + size", "top + size - 1, left : left + size - 1", "q4b", "must have shape", ALL_4B, "must have shape"),
    ("4b", "first channel", "padded[image, :,", "padded[image, :1,", "q4b", "must have shape", "shape general batch", "must have shape"),
    ("4b", "no batch", "torch.stack(patches)", "patches[0]", "q4b", "must have shape (1, 1, 2, 2)", ALL_4B, "must have shape"),
    ("4b", "on the CPU", "torch.stack(patches)", "torch.stack(patches) + torch.zeros(1, 1, 1, 1, dtype=x.dtype)", "q4b", "another device", "device", "follow x"),
    ("5", "plain gradient", BACK, BACK.replace("F.relu(signal)", "signal * (first > 0)"), "q5a", "must be rectified away", "general batch side effects device", "difference"),
    ("5", "guided", BACK, BACK.replace("F.relu(signal)", "F.relu(signal) * (first > 0)"), "q5a", "not at what was active", "general batch side effects device", "difference"),
    ("5", "no ReLU on the way down", BACK, BACK.replace("F.relu(signal)", "signal"), "q5a", "must be rectified away", "general batch side effects device", "difference"),
    ("5", "pixels rectified", BACK, f"F.relu({BACK})", "q5a", "looks for a cross", "general batch side effects device", "difference"),
    ("5", "starts with one", "highest[:, None])", "torch.ones_like(highest[:, None]))", "q5a", "5 times the filter", ALL_5, "difference"),
    ("5", "all places", ".scatter(1, place[:, None], highest[:, None])", ".add(last[:, unit].flatten(1))", "q5a", "looks for a cross", ALL_5, "difference"),
    ("5", "place of the first image", "place[:, None]", "place[:1, None].expand(len(x), 1)", "q5a", "one cross in each of two images", "batch device", "difference"),
    ("5", "all units", "signal = torch.zeros_like(last)\n", "signal = last.clone()\n", "q5a", "looks for a cross", ALL_5, "difference"),
    ("5", "upper left of each window", POOLED, "lifted = torch.zeros_like(first)\n    lifted[:, :, : 2 * signal.shape[2] : 2, : 2 * signal.shape[3] : 2] = signal\n    signal = lifted", "q5a", "at the place of the cross", ALL_5, "difference"),
    ("5", "spread over the window", POOLED, "signal = F.interpolate(signal, size=first.shape[2:]) / 4", "q5a", "at the place of the cross", ALL_5, "difference"),
    ("5", "even sides only", ", output_size=first.shape[2:])", ")", "q5a", "Random weights above zero, two images", "general batch side effects", ""),
    ("5", "no biases", "F.conv2d(x, w1, b1, padding=padding)", "F.conv2d(x, w1, padding=padding)", "q5a", "3 - 2.5", ALL_5, "difference"),
    ("5", "biases on the way down", BACK, f"{BACK} + b1.mean()", "q5a", "", "", ""),
    ("5", "active or not", "last = F.relu(F.conv2d(pooled, w2, b2, padding=padding))", "last = F.conv2d(pooled, w2, b2, padding=padding)", "q5b", "is not active", "side effects", "difference"),
    ("5", "on the CPU", "torch.zeros_like(last)\n", "torch.zeros(last.shape, dtype=last.dtype)\n", "q5b", "another device", "device", ""),
]  # fmt: skip
