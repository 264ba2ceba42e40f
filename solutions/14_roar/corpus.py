"""Right answers, differently written, and wrong ones that students write: see tests/grader/test_exercises.py."""

SETTING = ["imports"]
EMPTY = {
    "1a": ("ideal_roar()", "[0.6, 0.6, 0.6]"),
    "1b": ("ideal_control()", "[1.0, 1.0, 1.0]"),
    "2": ("top_mask(maps, fraction, least=False, seed=0)", "maps.sum(1)"),
    "3": ("replace(images, mask, train_images)", "images + 1"),
    "4": ("retrain(model, train_images, train_labels, test_images, test_labels, seed=0, steps=60)", "1.5"),
    "5": (
        "roar(model, train_images, train_labels, test_images, test_labels, train_maps, test_maps, fraction, seeds, least=False, steps=60)",
        "[1.5, 1.5]",
    ),
}

MASK_BY_NOISE = """
def top_mask(maps, fraction, least=False, seed=0):
    generator, masks = torch.Generator().manual_seed(seed), []
    for map_ in maps.sum(1):
        levels = torch.unique(map_, return_inverse=True)[1].double()
        score = (levels if not least else -levels) + 0.9 * torch.rand(map_.shape, generator=generator).to(map_.device)
        mask = torch.zeros(map_.numel(), dtype=torch.bool, device=map_.device)
        mask[score.flatten().topk(round(fraction * map_.numel())).indices] = True
        masks.append(mask.view(map_.shape))
    return torch.stack(masks)
"""
MASK_BY_LISTS = """
import random
def top_mask(maps, fraction, least=False, seed=0):
    draw, rows = random.Random(seed), []
    for row in maps.sum(1).flatten(1).tolist():
        order = list(range(len(row)))
        draw.shuffle(order)
        order.sort(key=lambda p: row[p], reverse=not least)
        chosen = set(order[: round(fraction * len(row))])
        rows.append([p in chosen for p in range(len(row))])
    return torch.tensor(rows, device=maps.device).reshape(len(maps), *maps.shape[-2:])
"""
MASK_BY_RANK = """
def top_mask(maps, fraction, least=False, seed=0):
    values = maps.sum(dim=1).flatten(1) * (1 - 2 * (not least))
    shuffle = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed)).to(maps.device)
    rank = values[:, shuffle].argsort(dim=1, stable=True).argsort(dim=1)
    back = rank[:, shuffle.argsort()]
    return (back < round(fraction * values.shape[1])).view(maps[:, 0].shape)
"""
REPLACE_ARITHMETIC = """
def replace(images, mask, train_images):
    keep = (~mask).to(images.dtype)[:, None]
    mean = train_images.transpose(0, 1).flatten(1).mean(1)[:, None, None]
    return images * keep + mean * (1 - keep)
"""
REPLACE_CHANNELS = """
def replace(images, mask, train_images):
    result = images.clone()
    for channel in range(images.shape[1]):
        result[:, channel][mask] = train_images[:, channel].mean()
    return result
"""
REPLACE_FILLED = """
def replace(images, mask, train_images):
    planes = [plane.masked_fill(mask, train_images[:, c].mean().item()) for c, plane in enumerate(images.unbind(1))]
    return torch.stack(planes, 1)
"""
RETRAIN_BY_STATE = """
def retrain(model, train_images, train_labels, test_images, test_labels, seed=0, steps=60):
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    fresh = copy.deepcopy(model).requires_grad_(True)
    [module.reset_parameters() for module in fresh.modules() if hasattr(module, "reset_parameters")]
    fresh.train().zero_grad()
    adam, loss = torch.optim.Adam(fresh.parameters(), 0.05), nn.CrossEntropyLoss()
    for step in range(steps):
        loss(fresh(train_images), train_labels).backward()
        adam.step()
        adam.zero_grad()
    with torch.no_grad():
        hits = fresh.eval()(test_images).argmax(1).eq(test_labels).sum().item()
    torch.set_rng_state(state)
    return hits / len(test_labels)
"""
RETRAIN_ADAM_BY_HAND = """
@torch.random.fork_rng()
def retrain(model, train_images, train_labels, test_images, test_labels, seed=0, steps=60):
    torch.manual_seed(seed)
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        getattr(module, "reset_parameters", lambda: None)()
    weights = list(twin.parameters())
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    for t in range(1, steps + 1):
        loss = -twin(train_images).log_softmax(1).gather(1, train_labels[:, None]).mean()
        for w, g, m, v in zip(weights, torch.autograd.grad(loss, weights), first, second):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            w.data -= 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    says = twin.eval()(test_images).max(1).indices
    return float((says == test_labels).double().mean())
"""
RETRAIN_HELPERS = """
def renewed(model):
    twin = copy.deepcopy(model)
    for name, module in twin.named_modules():
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()
    return twin

def share_right(model, images, labels):
    model.eval()
    return sum(int(model(x[None]).argmax() == y) for x, y in zip(images, labels)) / len(labels)

def retrain(model, train_images, train_labels, test_images, test_labels, seed=0, steps=60):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        twin = renewed(model)
        twin.train()
        optimizer = torch.optim.Adam(twin.parameters(), lr=5e-2)
        while steps > 0:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.nll_loss(torch.log_softmax(twin(train_images), dim=1), train_labels)
            loss.backward()
            optimizer.step()
            steps -= 1
    return share_right(twin, test_images, test_labels)
"""
ROAR_UNROLLED = """
def roar(model, train_images, train_labels, test_images, test_labels, train_maps, test_maps, fraction, seeds, least=False, steps=60):
    train_mask, test_mask = top_mask(train_maps, fraction, least), top_mask(test_maps, fraction, least)
    a, b = replace(train_images, train_mask, train_images), replace(test_images, test_mask, train_images)
    c = torch.zeros_like(train_images) + train_mask[:, None]
    d = torch.zeros_like(test_images) + test_mask[:, None]
    whole = sum(retrain(model, a, train_labels, b, test_labels, s, steps) for s in seeds) / len(seeds)
    alone = sum(retrain(model, c, train_labels, d, test_labels, s, steps) for s in seeds) / len(seeds)
    return [whole, alone]
"""
ROAR_TUPLE = """
def roar(model, train_images, train_labels, test_images, test_labels, train_maps, test_maps, fraction, seeds, least=False, steps=60):
    def run(see):
        first, second = see(train_images, train_maps), see(test_images, test_maps)
        scores = torch.tensor([retrain(model, first, train_labels, second, test_labels, seed=s, steps=steps) for s in seeds])
        return scores.double().mean().item()

    def holes(images, maps):
        return replace(images, top_mask(maps, fraction, least=least), train_images)

    def shape(images, maps):
        return top_mask(maps, fraction, least=least).to(images.dtype).unsqueeze(1).repeat(1, images.shape[1], 1, 1)

    return run(holes), run(shape)
"""
ROAR_TOGETHER = """
def roar(model, train_images, train_labels, test_images, test_labels, train_maps, test_maps, fraction, seeds, least=False, steps=60):
    n = len(train_images)
    images = torch.cat([train_images, test_images])
    mask = torch.cat([top_mask(train_maps, fraction, least), top_mask(test_maps, fraction, least)])
    seen = replace(images, mask, train_images), torch.where(mask[:, None], 1.0, torch.zeros_like(images))
    return [
        sum(retrain(model, x[:n], train_labels, x[n:], test_labels, seed, steps) for seed in seeds) / len(seeds) for x in seen
    ]
"""
RIGHT = [
    ("1a", "tuple", "def ideal_roar(): return (1 / 2, 0.95, 1)"),
    ("1a", "binomials", "from math import comb\ndef ideal_roar():\n    lost = comb(13, 5) / comb(16, 8)\n"
           "    return [0.5, lost / 2 + (1 - lost), 1.0]"),
    ("1a", "one after another", "def ideal_roar():\n    lost = 8 / 16 * 7 / 15 * 6 / 14\n    return [0.5, 1 - lost / 2, 1]"),
    ("1b", "tuple", "def ideal_control(): return (1 / 2, 1 / 2, 9 / 10)"),
    ("1b", "computed", "def ideal_control():\n    right = 0.9\n    return [max(0.5, 0.5), 0.5, 0.5 * right + 0.5 * right]"),
    ("1b", "guess", "def ideal_control():\n    guess = 1 / 2\n    return [guess, guess, max(0.9, 1 - 0.9)]"),
    ("2", "noise below the levels", MASK_BY_NOISE),
    ("2", "lists", MASK_BY_LISTS),
    ("2", "by rank", MASK_BY_RANK),
    ("3", "arithmetic", REPLACE_ARITHMETIC),
    ("3", "channel by channel", REPLACE_CHANNELS),
    ("3", "masked fill", REPLACE_FILLED),
    ("4", "random state by hand", RETRAIN_BY_STATE),
    ("4", "Adam by hand", RETRAIN_ADAM_BY_HAND),
    ("4", "helpers", RETRAIN_HELPERS),
    ("5", "unrolled", ROAR_UNROLLED),
    ("5", "tuple", ROAR_TUPLE),
    ("5", "both parts together", ROAR_TOGETHER),
]  # fmt: skip

ALL, REST = "easy shape general batch side effects device", "easy shape general batch device"
ROAR, CONTROL = "[0.5, 1 - 1287 / 12870 / 2, 1.0]", "[0.5, 0.5, 0.9]"
RANDOM = "1 - 1287 / 12870 / 2"
SCATTER = "torch.zeros_like(ranked, dtype=torch.bool).scatter(1, ranked[:, :count], True)"
COLOUR = "train_images.mean(dim=(0, 2, 3)).view(1, -1, 1, 1)"
HITS = "(twin(test_images).argmax(dim=1) == test_labels)"
HOLED = "replace(x, m, train_images) for x, m"
THRESHOLD = "chosen = relevance >= relevance.sort(dim=1, descending=True).values[:, [max(count, 1) - 1]]"
WRONG = [
    ("1a", "perfect without the oracle's", ROAR, "[0.0, 0.95, 1.0]", "q1a", "drawn for the oracle", "easy",
     "Wrong: number 1."),
    ("1a", "half of the evidence", RANDOM, "0.75", "q1a", "drawn for the random order", "easy",
     "Wrong: number 2."),
    ("1a", "no guess", RANDOM, "1 - 1287 / 12870", "q1a", "drawn for the random order", "easy",
     "Wrong: number 2."),
    ("1a", "independent pixels", RANDOM, "1 - 1 / 8 / 2", "q1a", "drawn for the random order", "easy",
     "Wrong: number 2."),
    ("1a", "all three needed", RANDOM, "0.55", "q1a", "drawn for the random order", "easy", "Wrong: number 2."),
    ("1a", "opposite like random", "1.0]", "0.95]", "q1a", "drawn for the opposite", "easy", "Wrong: number 3."),
    ("1a", "two numbers", ", 1.0]", "]", "q1a", "A list of three numbers", "easy", "must have shape (3,)"),
    ("1b", "oracle tells", CONTROL, "[1.0, 0.5, 0.9]", "q1b", "masks of kind 1", "easy", "Wrong: number 1."),
    ("1b", "random tells", CONTROL, "[0.5, 0.95, 0.9]", "q1b", "masks of kind 2", "easy", "Wrong: number 2."),
    ("1b", "half tells all", CONTROL, "[0.5, 0.5, 1.0]", "q1b", "masks of kind 3", "easy", "Wrong: number 3."),
    ("1b", "half tells nothing", CONTROL, "[0.5, 0.5, 0.5]", "q1b", "masks of kind 3", "easy", "Wrong: number 3."),
    ("1b", "errors counted twice", CONTROL, "[0.5, 0.5, 0.8]", "q1b", "masks of kind 3", "easy",
     "Wrong: number 3."),
    ("1b", "nothing is nought", CONTROL, "[0.0, 0.0, 0.9]", "q1b", "masks of kind 1", "easy",
     "Wrong: number 1; number 2."),
    ("2", "magnitude", "maps.sum(dim=1)", "maps.sum(dim=1).abs()", "q2a", "add up to", REST, "marked wrongly"),
    ("2", "magnitude of the channels", "maps.sum(dim=1)", "maps.abs().sum(dim=1)", "q2a", "add up to", REST, "marked wrongly"),
    ("2", "first channel", "maps.sum(dim=1)", "maps[:, 0]", "q2a", "Map 0 of three", "general batch device", "marked wrongly"),
    ("2", "a threshold", f"chosen = {SCATTER}", THRESHOLD, "q2a", "The same map", "general side effects", "marked wrongly"),
    ("2", "rounded down", "round(", "int(", "q2a", "Fraction 0.1 of 35 pixels is 4", "easy shape batch", "marked wrongly"),
    ("2", "least ignored", "descending=not least", "descending=True", "q2a", "the least relevant quarter", "general",
     "marked wrongly"),
    ("2", "other way round", "descending=not least", "descending=least", "q2a", "Two channels that add up to 1", ALL,
     "marked wrongly"),
    ("2", "reading order", "draw.argsort(dim=1)", "torch.zeros_like(draw).argsort(dim=1, stable=True)", "q2b",
     "drawn at random", "side effects", "not depend on the seed"),
    ("2", "global seed", "torch.Generator().manual_seed(seed)", "torch.manual_seed(seed)", "q2b",
     "global random state", "side effects", "had changed"),
    ("2", "seed ignored", "manual_seed(seed)", "manual_seed(0)", "q2b", "Two seeds gave the same mask", "side effects", "not depend on the seed"),
    ("2", "kept pixels", SCATTER, f"~{SCATTER}", "q2a", "Two channels that add up to 1", ALL, "marked wrongly"),
    ("2", "numbers", "chosen.view(len(maps), *maps.shape[2:])",
     "chosen.view(len(maps), *maps.shape[2:]).to(maps.dtype)", "q2a", "dtype torch.bool", ALL, "dtype"),
    ("2", "with a channel axis", "chosen.view(len(maps), *maps.shape[2:])",
     "chosen.view(len(maps), 1, *maps.shape[2:])", "q2a", "must have shape", ALL, "dtype"),
    ("2", "draw on the CPU", ".to(maps.device)", "", "q2a", "another device", "device", "follow x"),
    ("3", "own mean", COLOUR, "images.mean(dim=(2, 3), keepdim=True)", "q3", "25 is the picture's own mean", REST,
     "largest difference"),
    ("3", "mean of the batch", COLOUR, "images.mean(dim=(0, 2, 3)).view(1, -1, 1, 1)", "q3",
     "25 is the picture's own mean", REST, "largest difference"),
    ("3", "mean picture", COLOUR, "train_images.mean(dim=0, keepdim=True)", "q3", "means of one pixel", REST,
     "largest difference"),
    ("3", "one mean for all channels", COLOUR, "train_images.mean()", "q3", "Channel 0 of three",
     "general batch device", "largest difference"),
    ("3", "first training image", COLOUR, "train_images[:1].mean(dim=(2, 3), keepdim=True)", "q3",
     "Channel 0 of three has a mean of its own", REST, "largest difference"),
    ("3", "median", COLOUR, "train_images.transpose(0, 1).flatten(1).median(1).values.view(1, -1, 1, 1)", "q3",
     "A test picture 10", REST, "largest difference"),
    ("3", "keeps the marked", "colour, images)", "images, colour)", "q3", "A test picture 10", REST,
     "largest difference"),
    ("3", "black", COLOUR, "0 * train_images[:1, :, :1, :1]", "q3", "A test picture 10", REST, "largest difference"),
    ("3", "in place", "return torch.where(mask[:, None], colour, images)",
     "images[:] = torch.where(mask[:, None], colour, images)\n    return images", "q3",
     "The values of the images changed", "batch", "had changed"),
    ("3", "colour on the CPU", COLOUR,
     "torch.tensor(train_images.mean(dim=(0, 2, 3)).tolist(), dtype=images.dtype).view(1, -1, 1, 1)", "q3", "another device",
     "device", "follow x"),
    ("4", "warm start", "                module.reset_parameters()", "                pass", "q4b",
     "differ in their weights only", "easy general side effects", "largest difference"),
    ("4", "the model itself", "copy.deepcopy(model)", "model", "q4b", "changed", "side effects", "had changed"),
    ("4", "seed ignored", "torch.manual_seed(seed)", "torch.manual_seed(0)", "q4b", "steps=0",
     "easy general side effects", "largest difference"),
    ("4", "seeded for everybody", "with torch.random.fork_rng([]):", "if True:", "q4b", "global random state",
     "side effects", "had changed"),
    ("4", "accuracy in training", HITS, "(twin(train_images).argmax(dim=1) == train_labels)", "q4a",
     "Which part counts", "easy general side effects", "largest difference"),
    ("4", "trained on the test part", "twin(train_images), train_labels)", "twin(test_images), test_labels)", "q4a",
     "The same with all test labels exchanged", "easy general side effects", "largest difference"),
    ("4", "trained in eval mode", "(model).train()", "(model).eval()", "q4a", "trained in train mode",
     "general side effects", "largest difference"),
    ("4", "tested in train mode", "        twin.eval()\n", "", "q4a", "tested in eval mode", "general side effects",
     "largest difference"),
    ("4", "steps ignored", "range(steps)", "range(60)", "q4b", "steps=0", "easy general side effects", "largest difference"),
    ("4", "gradients add up", "            optimizer.zero_grad()\n", "", "q4a", "accuracy after training", "easy general side effects",
     "largest difference"),
    ("4", "another learning rate", "lr=0.05", "lr=0.001", "q4a", "accuracy after training", "easy general side effects", "largest difference"),
    ("4", "gradient descent", "torch.optim.Adam", "torch.optim.SGD", "q4a", "Adam", "easy general side effects",
     "largest difference"),
    ("4", "a tensor", ".item()", "", "q4a", "must be a float", "easy general side effects", "must be a"),
    ("4", "number of hits", ".float().mean()", ".float().sum()", "q4a", "One clear pixel tells the class",
     "easy general side effects", "largest difference"),
    ("5", "test part whole", f"[{HOLED}", "[replace(x, m, train_images) if x is train_images else x for x, m", "q5",
     "Maps", "easy general side effects", "largest difference"),
    ("5", "training part whole", f"[{HOLED}", "[replace(x, m, train_images) if x is test_images else x for x, m",
     "q5", "Maps", "easy general side effects", "largest difference"),
    ("5", "test mean", HOLED, "replace(x, m, x) for x, m", "q5", "mean over the training pictures", "easy general side effects", "largest difference"),
    ("5", "least ignored", "top_mask(maps, fraction, least)", "top_mask(maps, fraction)", "q5", "least=True",
     "general", "largest difference"),
    ("5", "no control", "(holed, alone)", "(holed, holed)", "q5", "Accuracy of the mask alone",
     "easy general side effects", "largest difference"),
    ("5", "control first", "(holed, alone)", "(alone, holed)", "q5", "Maps", "easy general side effects",
     "largest difference"),
    ("5", "one seed", "for seed in seeds]", "for seed in seeds[:1]]", "q5", "Two seeds", "general", "largest difference"),
    ("5", "sum over the seeds", "sum(runs) / len(runs)", "sum(runs)", "q5", "Maps", "general", "largest difference"),
    ("5", "training masks for both", "for maps in (train_maps, test_maps)]",
     "for maps in (train_maps, train_maps[torch.arange(len(test_maps)) % len(train_maps)])]", "q5", "Maps",
     "easy general side effects", "largest difference"),
    ("5", "masked pictures for the mask", "m[:, None].expand_as(x).to(x.dtype) for x, m in zip(holed,",
     "m[:, None] * x for x, m in zip((train_images, test_images),", "q5", "Accuracy of the mask alone",
     "easy general side effects", "largest difference"),
    ("5", "ones where pixels are kept", "m[:, None].expand_as(x)", "(~m)[:, None].expand_as(x)", "q5",
     "the inputs that are 1", "easy general side effects", "largest difference"),
    ("5", "one channel", "m[:, None].expand_as(x).to(x.dtype)", "m[:, None].to(x.dtype)", "q5", "the mask in every channel", "general",
     "raised RuntimeError"),
]  # fmt: skip
