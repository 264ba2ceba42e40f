"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports", "language"]
EMPTY = {
    "1a": ("my_sentences()", "[[number, *[1] * 10] for number in numbers_of('Grace Hopper')]"),
    "1b": ("not_awful()", "[0.5, 0.25, 1.25, 0.75, 0.5]"),
    "2": ("left_out(model, x, target, neutral)", "x.mean((1, 2)) + 1"),
    "3": ("integrated(model, x, target, neutral, steps)", "x.mean((1, 2)) + 1"),
    "4": ("found_words(values, decides)", "torch.stack([values[:, 0], values[:, 1]]) + 2"),
}

SENTENCES_PLACES = """
def my_sentences():
    # of Alan Turing: the places of the words that decide
    places = {79: [0, 1], 15: [6, 8, 9], 29: [9], 104: [1], 16: [2]}
    return [[number] + [int(place in found) for place in range(10)] for number, found in places.items()]
"""
SENTENCES_RULE = """
# of Jane Doe
TEXTS = {
    46: "not boring sound not ending music camera not actor story",
    42: "sound scene light not boring but scene actor poor cast",
    20: "cast light story not poor not but sound music good",
    102: "plot not clever music plot script film not great story",
    116: "cast film good film scene ending camera awful scene light",
}

def label(words):
    tail = words[len(words) - words[::-1].index("but"):] if "but" in words else words
    for before, word in zip(["", *tail], tail):
        sign = (word in ("good", "great", "lovely", "clever")) - (word in ("bad", "poor", "awful", "boring"))
        if sign:
            return -sign if before == "not" else sign
    return 0

def my_sentences():
    rows = []
    for number, text in TEXTS.items():
        words = text.split()
        changed = [label(words[:t] + ["film"] + words[t + 1:]) for t in range(len(words))]
        rows.append([number] + [int(other != label(words)) for other in changed])
    return rows
"""
AWFUL_SCORES = """
def not_awful():
    score = {"not awful": 1, "film awful": -1, "not film": 0, "film film": 0}
    both, no_not, no_awful, none = score.values()
    return [both - no_not, both - no_awful, 2 * both - no_not - no_awful, both - none, both - no_not - no_awful + none]
"""
AWFUL_TABLE = """
def not_awful():
    v = torch.tensor([[0.0, -1.0], [0.0, 1.0]])  # rows without and with not, columns without and with awful
    first, second, whole = v[1, 1] - v[0, 1], v[1, 1] - v[1, 0], v[1, 1] - v[0, 0]
    return torch.stack([first, second, first + second, whole, first + second - whole]).tolist()
"""
LEFT_LOOP = """
def left_out(model, x, target, neutral):
    rows = torch.arange(len(x), device=x.device)
    losses = []
    with torch.no_grad():
        logit = model(x)[rows, target]
        for t in range(x.shape[3]):
            other = x.clone()
            other[:, :, 0, t] = neutral
            losses.append(logit - model(other)[rows, target])
    return torch.stack(losses, 1)
"""
LEFT_MIXED = """
@torch.no_grad()
def left_out(model, x, target, neutral):
    n, d, _, t = x.shape
    kept = 1 - torch.eye(t).to(x)
    mixed = torch.einsum("ndht,kt->nkdht", x, kept) + torch.einsum("d,kt->kdt", neutral, 1 - kept)[:, :, None]
    logits = model(mixed.reshape(n * t, d, 1, t)).reshape(n, t, -1)
    index = target.view(n, 1, 1).expand(n, t, 1)
    return model(x).gather(1, target.view(n, 1)) - logits.gather(2, index).squeeze(2)
"""
LEFT_ROWS = """
def left_out(model, x, target, neutral):
    found = []
    for sentence, c in zip(x.detach(), target.tolist()):
        table = sentence.repeat(sentence.shape[-1] + 1, 1, 1, 1)  # the last row stays whole
        for t in range(sentence.shape[-1]):
            table[t, :, :, t] = neutral[:, None]
        logits = model(table).detach()[:, c]
        found.append(logits[-1] - logits[:-1])
    return torch.stack(found)
"""
PATH_BATCH = """
def integrated(model, x, target, neutral, steps):
    start = neutral.view(1, -1, 1, 1).expand_as(x)
    t = ((torch.arange(steps, device=x.device) + 0.5) / steps).to(x.dtype).view(-1, 1, 1, 1, 1)
    points = torch.lerp(start.expand(steps, *x.shape), x.expand(steps, *x.shape), t).flatten(0, 1)
    points = points.detach().requires_grad_()
    asked = model(points)[torch.arange(len(points), device=x.device), target.repeat(steps)]
    (gradients,) = torch.autograd.grad(asked.sum(), points)
    return torch.einsum("ndht,sndht->nt", x - start, gradients.view(steps, *x.shape)).detach() / steps
"""
PATH_INPUTS = """
def integrated(model, x, target, neutral, steps):
    x = x.detach()
    delta = x - neutral.reshape(-1, 1, 1)
    result = 0
    for s in range(1, 2 * steps, 2):
        at = x - delta + delta * (s / (2 * steps))
        at.requires_grad_()
        value = sum(logits[c] for logits, c in zip(model(at), target))
        value.backward(inputs=[at])
        result = result + (at.grad * delta).sum(1)[:, 0]
    return result / steps
"""
PATH_SENTENCES = """
def integrated(model, x, target, neutral, steps):
    found = []
    for sentence, c in zip(x, target):
        start = neutral[:, None, None].expand_as(sentence)
        mean = torch.zeros_like(sentence)
        for s in range(steps):
            point = (start + (s + 0.5) / steps * (sentence - start)).detach().clone()[None].requires_grad_()
            mean = mean + torch.autograd.grad(model(point)[0, c], [point])[0][0] / steps
        found.append(((sentence - start) * mean).sum(dim=0).squeeze(0))
    return torch.stack(found).detach()
"""
FOUND_TOPK = """
def found_words(values, decides):
    shares, blind = [], []
    for row, truth in zip(values.abs(), decides):
        k = int(truth.sum())
        shares.append(truth[row.topk(k).indices].to(values.dtype).mean())
        blind.append(truth.to(values.dtype).mean())
    return torch.stack([torch.stack(shares), torch.stack(blind)])
"""
FOUND_SORTED = """
def found_words(values, decides):
    order = torch.argsort(-values.abs(), dim=1)
    hits = decides.gather(1, order).cumsum(1)
    k = decides.sum(1, keepdim=True)
    share = hits.gather(1, k - 1) / k
    return torch.cat([share, k / values.shape[1]], 1).T.to(values)
"""
FOUND_COUNTED = """
def found_words(values, decides):
    size = values ** 2
    larger = (size[:, None, :] > size[:, :, None]).sum(2)  # how many words are larger
    truth = decides.to(values.dtype)
    k = truth.sum(1)
    hits = torch.einsum("nt,nt->n", truth, (larger < k[:, None]).to(values.dtype))
    return torch.stack((hits / k, truth.mean(1)))
"""
RIGHT = [
    ("1a", "tuples", "def my_sentences(): return (79, 1, 1, *[0] * 8), (42, *[0] * 5, 1, 0, 0, 1, 0), (38, *[0] * 8, 1, 0), (139, 1, *[0] * 9), (154, *[0] * 10)"),
    ("1a", "places", SENTENCES_PLACES),
    ("1a", "the rule written down", SENTENCES_RULE),
    ("1b", "tuple", "def not_awful(): return (2.0, 1.0, 3.0, 1.0, 2.0)"),
    ("1b", "scores", AWFUL_SCORES),
    ("1b", "a table", AWFUL_TABLE),
    ("2", "a loop over the words", LEFT_LOOP),
    ("2", "mixed by a matrix", LEFT_MIXED),
    ("2", "one sentence after the other", LEFT_ROWS),
    ("3", "the way as one batch", PATH_BATCH),
    ("3", "backward to the point alone", PATH_INPUTS),
    ("3", "one sentence after the other", PATH_SENTENCES),
    ("4", "topk of each row", FOUND_TOPK),
    ("4", "sorted hits", FOUND_SORTED),
    ("4", "larger words counted", FOUND_COUNTED),
]  # fmt: skip

DIFFERENT = "largest difference"
WRONG = [
    ("1a", "the not alone", "[79, 1, 1,", "[79, 1, 0,", "q1a", "some other one does as well", "easy", "Wrong: sentence 79"),
    ("1a", "the judgement alone", "[79, 1, 1,", "[79, 0, 1,", "q1a", "some other one does as well", "easy",
     "Wrong: sentence 79"),
    ("1a", "a cancelled judgement", "[31, 0, 0, 0,", "[31, 0, 0, 1,", "q1a", "Sentence 31 is good by the rule, and it stays",
     "easy", "Wrong: sentence 31"),
    ("1a", "but forgotten", "[31, 0, 0, 0, 0, 0, 1,", "[31, 0, 0, 0, 0, 0, 0,", "q1a", "some other one does as well", "easy",
     "Wrong: sentence 31"),
    ("1a", "every but", "[22, 0, 0, 0, 0, 0,", "[22, 0, 0, 0, 0, 1,", "q1a", "Sentence 22 is good by the rule, and it stays",
     "general", "Wrong: sentence 22"),
    ("1a", "the judgement behind a not", "[72, 1, 0,", "[72, 1, 1,", "q1a", "Sentence 72 is good by the rule, and it stays",
     "general", "Wrong: sentence 72"),
    ("1a", "the first of two", "[57, 0, 0, 0, 0, 0,", "[57, 0, 0, 0, 0, 1,", "q1a",
     "Sentence 57 is bad by the rule, and it stays", "general", "Wrong: sentence 57"),
    ("1a", "a row left as it is printed", "[57,", "[116,", "q1a", "some other one does as well", "general", "Wrong: sentence 116"),
    ("1a", "a sentence of another row", "[22, 0, 0, 0, 0, 0, 0, 0, 0, 1,", "[42, 0, 0, 0, 0, 0, 1, 0, 0, 1,", "q1a",
     "Here stands one of the sentences", "general", "Row 3 is of no sentence"),
    ("1b", "not says nothing", "[2, 1, 3, 1, 2]", "[0, 1, 1, 1, 0]", "q1b", "Without not:", "easy general", "Wrong:"),
    ("1b", "from bad to nothing", "[2, 1, 3, 1, 2]", "[1, 1, 2, 1, 1]", "q1b", "Without not:", "easy general", "Wrong:"),
    ("1b", "awful says bad", "[2, 1, 3, 1, 2]", "[2, -1, 1, 1, 0]", "q1b", "Without awful:", "easy general", "Wrong:"),
    ("1b", "signs", "[2, 1, 3, 1, 2]", "[-2, -1, -3, -1, -2]", "q1b", "Without not:", "easy general", "Wrong:"),
    ("1b", "the sum is the whole", "[2, 1, 3, 1, 2]", "[2, 1, 1, 1, 0]", "q1b", "The third number is the sum", "general",
     "Wrong: number 3"),
    ("1b", "from good to bad", "[2, 1, 3, 1, 2]", "[2, 1, 3, 2, 1]", "q1b", "Without both:", "general", "Wrong: number 4"),
    ("1b", "interaction is the whole", "[2, 1, 3, 1, 2]", "[2, 1, 3, 1, 1]", "q1b", "The interaction:", "general",
     "Wrong: number 5"),
    ("2", "zeros for the word", "torch.where(this_word, neutral[", "torch.where(this_word, 0 * neutral[", "q2",
     "The logit ab, the neutral word is 1:", "easy shape general batch device", DIFFERENT),
    ("2", "this word alone", "torch.where(this_word", "torch.where(~this_word", "q2",
     "The logit a + 2b + 3c, words (4, 5, 6)", "easy shape general batch device", DIFFERENT),
    ("2", "the wrong way round", "whole - rest.view(len(x), words)", "rest.view(len(x), words) - whole", "q2",
     "The logit a + 2b + 3c, words (4, 5, 6)", "easy shape general batch device", DIFFERENT),
    ("2", "words before as well", "torch.eye(words, dtype=torch.bool, device=x.device)",
     "torch.ones(words, words, dtype=torch.bool, device=x.device).tril()", "q2", "The logit a + 2b + 3c, words (4, 5, 6)",
     "easy shape general batch device", DIFFERENT),
    ("2", "targets in turn", "target.repeat_interleave(words)", "target.repeat(words)", "q2", "Three sentences, the targets",
     "batch device", DIFFERENT),
    ("2", "another class", "target[:, None]", "1 - target[:, None].clamp(max=1)", "q2",
     "The logit a + 2b + 3c, words (4, 5, 6)", "easy shape general batch device", DIFFERENT),
    ("2", "first number of the embedding", "    changed = ",
     "    this_word = this_word & (torch.arange(x.shape[1], device=x.device) == 0)[:, None, None]\n    changed = ", "q2",
     "A linear network:", "easy shape general batch device", DIFFERENT),
    ("2", "probabilities", ".gather(1, ", ".softmax(1).gather(1, ", "q2", "The logit a + 2b + 3c, words (4, 5, 6)",
     "easy shape general batch device", DIFFERENT),
    ("2", "words of the batch mixed", "rest.view(len(x), words)", "rest.view(words, len(x)).T", "q2",
     "Three sentences, the targets", "batch device", DIFFERENT),
    ("2", "on the graph", "with torch.no_grad():", "if True:", "q2", "still hangs on the graph",
     "easy shape general batch device", "still hangs on the graph"),
    ("2", "made on the CPU", ", device=x.device", "", "q2", "Inputs on another device than the CPU:", "device", "follow x"),
    ("3", "from zeros", "change = x - neutral[:, None, None]", "change = x", "q3", "The logit a + 2b, words (4, 5)",
     "easy shape general batch side effects device", DIFFERENT),
    ("3", "times the embedding", "(change * total", "(x * total", "q3", "The logit a + 2b, words (4, 5)",
     "easy shape general batch side effects device", DIFFERENT),
    ("3", "at the sentence itself", "(1 - (s + 0.5) / steps)", "0", "q3", "The logit ab, one step:",
     "general batch side effects device", DIFFERENT),
    ("3", "left ends", "(s + 0.5)", "s", "q3", "The logit ab, one step:", "general batch side effects device", DIFFERENT),
    ("3", "right ends", "(s + 0.5)", "(s + 1)", "q3", "The logit ab, one step:", "general batch side effects device",
     DIFFERENT),
    ("3", "sum over the steps", "total / steps", "total", "q3", "The logit a^3, words (1, 0)",
     "general batch side effects device", DIFFERENT),
    ("3", "sizes added up", ".sum((1, 2))", ".abs().sum((1, 2))", "q3", "Completeness,",
     "easy shape general batch side effects device", DIFFERENT),
    ("3", "mean over the embedding", ".sum((1, 2))", ".mean((1, 2))", "q3", "Completeness,",
     "easy shape general batch side effects device", DIFFERENT),
    ("3", "another class", "target[:, None]", "1 - target[:, None].clamp(max=1)", "q3", "The logit a + 2b, words (4, 5)",
     "easy shape general batch side effects device", DIFFERENT),
    ("3", "gradients left behind", "total += torch.autograd.grad(logits.sum(), point)[0]",
     "logits.sum().backward()\n        total += point.grad", "q3", "The .grad of the parameter", "side effects",
     "had changed"),
    ("3", "gradients thrown away", "total += torch.autograd.grad(logits.sum(), point)[0]",
     "logits.sum().backward()\n        total += point.grad\n        model.zero_grad()", "q3", "The .grad of the parameter",
     "side effects", "had changed"),
    ("3", "made on the CPU", "torch.zeros_like(x)", "torch.zeros(x.shape, dtype=x.dtype)", "q3",
     "Inputs on another device than the CPU:", "device", "follow x"),
    ("4", "signs kept", "values.abs()", "values", "q4", "Values (0.1, -0.9", "easy shape general batch device", DIFFERENT),
    ("4", "words in order, not their places", ".argsort(1, descending=True).argsort(1)", ".argsort(1, descending=True)", "q4",
     "Values (0.1, -0.9", "easy shape general batch device", DIFFERENT),
    ("4", "the smallest", "descending=True", "descending=False", "q4", "The second, third and fifth word",
     "easy shape general batch device", DIFFERENT),
    ("4", "the largest alone", "place < k[:, None]", "place < 1", "q4", "The second, third and fifth word",
     "general batch device", DIFFERENT),
    ("4", "share of the words", ".sum(1) / k,", ".sum(1) / decides.shape[1],", "q4", "Values (0.1, -0.9",
     "easy shape general batch device", DIFFERENT),
    ("4", "chance of one place", "k / decides.shape[1]", "1 / k", "q4", "By chance: any word",
     "easy shape general batch device", DIFFERENT),
    ("4", "chance of one word", "k / decides.shape[1]", "0 * k + 1 / decides.shape[1]", "q4", "By chance: any word",
     "general batch device", DIFFERENT),
    ("4", "one number for all", "k = decides.sum(1)",
     "k = decides.sum(1).double().mean().round().long().expand(len(values))", "q4", "The last two sentences at once",
     "batch device", DIFFERENT),
    ("4", "the highest, as many for all", "place < k[:, None]\n    both = torch.stack([(highest & decides).sum(1) / k,",
     "place < k.max()\n    both = torch.stack([(highest & decides).sum(1) / k.max(),", "q4", "The last two sentences at once",
     "batch device", DIFFERENT),
    ("4", "single precision", "both.to(values.dtype)", "both", "q4", "4000 sentences of six words in float64.", "shape",
     "dtype torch.float64"),
    ("4", "made on the CPU", "k = decides.sum(1)",
     "k = torch.zeros(len(values), dtype=torch.long) + decides.sum(1)", "q4", "Inputs on another device than the CPU:",
     "device", "follow x"),
]  # fmt: skip
