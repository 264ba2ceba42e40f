"""The graded questions of exercise 01, tried on right answers written differently and on wrong ones."""

import json
import threading
from pathlib import Path

import pytest
import torch

import interp_lab
from interp_lab.grade import calls, extract, gradebook
from interp_lab.grade.question import generator, mark
from interp_lab.grade.questions import questions

SOLUTION = Path(__file__).parents[2] / "solutions" / "01_saliency_and_smoothgrad.ipynb"
QUESTIONS = {question.name: question for question in questions(SOLUTION.stem)}
CELLS = {
    cell["id"]: "".join(cell["source"])
    for cell in json.loads(SOLUTION.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
}


def lost(lane, name, *sources, student="anna"):
    """The parts of a question that are wrong when these cells follow those of the solution, with what is wrong."""
    question = QUESTIONS[name]
    given, answers = gradebook.references(SOLUTION.stem, SOLUTION.read_bytes())
    cells = given | {f"code cell {i}": source for i, source in enumerate([*CELLS.values(), *sources], 1)}
    seed = (SOLUTION.stem, student)
    faults = mark((question,), b"key", seed, lambda c: lane.run(cells, c), answers, threading.Lock())[name]
    return {part.kind: fault for part, fault in zip(question.parts, faults, strict=True) if fault}


ROW_BY_ROW = """
def saliency(model, x, target):
    before = {module: module.training for module in model.modules()}
    model.eval()
    maps = []
    for row, c in zip(x.detach().clone().requires_grad_().split(1), target.tolist()):
        maps += torch.autograd.grad(model(row)[0, c], row)
    for module, mode in before.items():
        module.training = mode
    return torch.cat(maps)
"""
OF_A_COPY = """
from copy import deepcopy
from torch.func import grad, vmap
def saliency(model, x, target):
    twin = deepcopy(model).eval()
    one_row = grad(lambda row, c: twin(row[None]).gather(1, c.view(1, 1)).sum())
    return vmap(one_row)(x.detach(), target).detach()
"""
ONE_HOT = """
class keeping:
    def __init__(self, model): self.was = [(m, m.training) for m in model.modules()]
    def __enter__(self): [setattr(m, "training", False) for m, _ in self.was]
    def __exit__(self, *_): [setattr(m, "training", t) for m, t in self.was]

def saliency(model, x, target):
    x = x.detach().requires_grad_(True) if not x.requires_grad else x.detach().clone().requires_grad_(True)
    with keeping(model), torch.enable_grad():
        out = model(x)
        start = torch.nn.functional.one_hot(target, out.shape[1]).to(out)
        return torch.autograd.grad(out, x, start)[0]
"""
IMAGE_BY_LOOP = """
def saliency_image(model, x, target):
    maps = []
    for values in saliency(model, x, target):
        strongest = torch.maximum(values.max(0).values, -values.min(0).values)
        maps.append(strongest / strongest.max() if strongest.max() > 0 else strongest)
    return torch.stack(maps)[:, None]
"""
IMAGE_CLAMPED = """
import torch.linalg as la
def saliency_image(model, x, target):
    size = la.vector_norm(saliency(model, x, target), ord=float("inf"), dim=1)
    return (size / size.flatten(1).amax(1).clamp_min(1e-30)[:, None, None]).unsqueeze(1)
"""
IMAGE_NAN = """
scaled = lambda m: torch.nan_to_num(m / m.flatten(1).max(1).values[:, None, None, None], nan=0.0)
def saliency_image(model, x, target):
    g = saliency(model, x, target)
    return scaled(torch.stack([g, -g]).amax(0).amax(1, True))
"""
SMOOTH_ONE_BATCH = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    source = torch.Generator()
    source.manual_seed(seed)
    low, high = x.reshape(len(x), -1).min(1).values, x.reshape(len(x), -1).max(1).values
    sigma = noise * (high - low).reshape(len(x), *(1 for _ in x.shape[1:]))
    noisy = x + sigma * torch.randn(n, *x.shape, generator=source, dtype=x.dtype).to(x.device)
    return saliency(model, noisy.flatten(0, 1), target.repeat(n)).unflatten(0, (n, len(x))).mean(0)
"""
SMOOTH_ON_DEVICE = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    g = torch.Generator(device=x.device).manual_seed(seed)
    sigma = torch.tensor([noise * float(r.max() - r.min()) for r in x], device=x.device, dtype=x.dtype)
    sigma = sigma.view(-1, *[1] * (x.dim() - 1))
    maps = [saliency(model, x + sigma * torch.randn(x.shape, generator=g, device=x.device, dtype=x.dtype), target)
            for _ in range(n)]
    return sum(maps) / n
"""
SMOOTH_NUMPY = """
import numpy as np
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    rng, total = np.random.default_rng(seed), torch.zeros_like(x)
    for _ in range(n):
        spread = x.flatten(1).amax(1) - x.flatten(1).amin(1)
        step = torch.from_numpy(rng.standard_normal(x.shape)).to(x) * noise
        total = total + saliency(model, x + step * spread.view(-1, *[1] * (x.dim() - 1)), target)
    return total.div_(n)
"""
RIGHT = [
    ("1a", "tuple", "def gradient_a(): return (-3, 1 / 2, 4)"),
    ("1a", "weights", "def gradient_a(): return W[1].tolist()"),
    ("1a", "autograd", "def gradient_a():\n    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)\n"
           "    return torch.autograd.grad(network_a(x)[1], x)[0].tolist()"),
    ("1b", "tuples", "def gradients_b(): return [(-1, 3), [1.0, 1], [0, 0]]"),
    ("1b", "masks", "def gradients_b():\n    rows = []\n    for a, b in ((1.0, 0.5), (0.5, 1.0), (0.2, 0.5)):\n"
           "        first, second = a + b > 1, a > b\n        rows.append([first - 2 * second, first + 2 * second])\n"
           "    return rows"),
    ("1b", "autograd", "def gradients_b():\n    points = [[1.0, 0.5], [0.5, 1.0], [0.2, 0.5]]\n    found = []\n"
           "    for p in points:\n        x = torch.tensor(p, requires_grad=True)\n"
           "        found.append(torch.autograd.grad(network_b(x), x)[0].tolist())\n    return found"),
    ("2", "row by row", ROW_BY_ROW),
    ("2", "of a copy", OF_A_COPY),
    ("2", "one-hot start", ONE_HOT),
    ("3a", "loop", IMAGE_BY_LOOP),
    ("3a", "clamped", IMAGE_CLAMPED),
    ("3a", "nan to zero", IMAGE_NAN),
    ("4", "one batch", SMOOTH_ONE_BATCH),
    ("4", "on the device", SMOOTH_ON_DEVICE),
    ("4", "numpy", SMOOTH_NUMPY),
    ("5a", "erf", "def smoothed_sign(x, sigma): return torch.erf(x / (sigma * 2**0.5))"),
    ("5a", "distribution", "def smoothed_sign(x, sigma):\n    normal = torch.distributions.Normal(0.0, sigma)\n"
           "    return (1 - normal.cdf(-x)) - normal.cdf(-x)"),
    ("5a", "symmetric", "def smoothed_sign(x, sigma): return torch.special.ndtr(x / sigma) - torch.special.ndtr(-x / sigma)"),
    ("5b", "norm", "def measured_error(n):\n    first = torch.zeros(1, dtype=torch.long)\n"
           "    gap = smoothgrad(absolute, points, first, n, 0.25, seed=7)[0] - smoothed_sign(points[0], 1)\n"
           "    return float(torch.linalg.vector_norm(gap)) / gap.numel() ** 0.5"),
    ("5b", "mse loss", "def measured_error(n):\n    return torch.nn.functional.mse_loss(smoothgrad(absolute, points, "
           "torch.tensor([0]), n=n, noise=0.25), smoothed_sign(points, 1.0)).item() ** 0.5"),
    ("5b", "numpy", "import numpy as np\ndef measured_error(n):\n"
           "    a, b = smoothgrad(absolute, points, torch.tensor([0]), n, 0.25), smoothed_sign(points, 1.0)\n"
           "    return float(np.sqrt(((a - b).numpy() ** 2).mean()))"),
]  # fmt: skip

NOISY = "x + noise * spread * epsilon"
PHI = "2 * torch.special.ndtr(x / sigma) - 1"
SCALED = "magnitude / peak.where(peak > 0, 1)"
ALL = "easy shape general batch manners device"
# Wrong answers: question, name, old text of its cell, new text, parts that it loses, words of the feedback.
WRONG = [
    ("1a", "class 0", "[-3.0, 0.5, 4.0]", "[2.0, -1.0, 0.0]", "easy", "x[0] and x[1] and x[2] is wrong"),
    ("1a", "the score", "[-3.0, 0.5, 4.0]", "[-3.0, 1.0, 12.0]", "easy", "x[1] and x[2] is wrong"),
    ("1a", "absolute", "[-3.0, 0.5, 4.0]", "[3.0, 0.5, 4.0]", "easy", "respect to x[0] is wrong"),
    ("1a", "one number", "[-3.0, 0.5, 4.0]", "1.5", "easy", "must be a list, got float"),
    ("1a", "two numbers", "[-3.0, 0.5, 4.0]", "[-3.0, 0.5]", "easy", "must have shape (3,)"),
    ("1b", "sign of the second ReLU", "[-1.0, 3.0]", "[3.0, -1.0]", "easy", "x[0] and x[1] is wrong"),
    ("1b", "first ReLU only", "[-1.0, 3.0]", "[1.0, 1.0]", "easy", "is wrong"),
    ("1b", "never off", "[0.0, 0.0]", "[1.0, 1.0]", "general", "is wrong"),
    ("1b", "second always on", "[1.0, 1.0]", "[-1.0, 3.0]", "general", "is wrong"),
    ("1b", "one point", "return [", "return [[0.0, 0.0]] or [", "easy general", "must have shape (3, 2)"),
    ("2", "probability", "model(leaf)", "model(leaf).softmax(1)", "easy shape general batch manners device", "difference"),
    ("2", "mean over the batch", ".sum()", ".mean()", "batch manners device", "largest difference"),
    ("2", "absolute value", "return gradient", "return gradient.abs()", ALL, "largest difference"),
    ("2", "gradient x input", "return gradient", "return gradient * x", ALL, "largest difference"),
    ("2", "first target for all", "target[:, None]", "target[:1, None].expand(len(x), 1)", "batch manners device", "diff"),
    ("2", "normalised", "return gradient", "return gradient / gradient.abs().max()", ALL, "largest difference"),
    ("2", "on the graph", "(score, leaf)", "(score, leaf, create_graph=True)", ALL, "detached"),
    ("2", "a list", "return gradient", "return gradient.tolist()", ALL, "must be a torch.Tensor, got list"),
    ("2", "single precision", "return gradient", "return gradient.float()", "shape general manners", "float64"),
    ("2", "train mode", "model.eval()", "pass", "manners", "largest difference"),
    ("2", "left in eval mode", "module.training = training", "pass", "manners", "the train/eval mode of"),
    ("2", "own .grad", "(gradient,) = torch.autograd.grad(score, leaf)", "score.backward(); gradient = leaf.grad",
     "manners", "the .grad of the parameter"),
    ("2", "to the CPU", "return gradient", "return gradient.cpu()", "device", "make it follow x"),
    ("2", "vectors only", "leaf = x", "leaf = x.view(len(x), -1)[:, :]", "shape general batch device", "RuntimeError"),
    ("3a", "probability", "saliency(model,", "saliency(nn.Sequential(model, nn.Softmax(1)),", "easy shape general batch device",
     "largest difference"),
    ("3a", "sign first", ".abs().amax(dim=1, keepdim=True)", ".amax(1, True).abs()", "general batch device", "largest"),
    ("3a", "sum of channels", ".abs().amax(dim=1", ".abs().sum(dim=1", "general batch device", "largest difference"),
    ("3a", "range of the batch", "magnitude.amax(dim=(1, 2, 3), keepdim=True)", "magnitude.max()", "batch device", "largest"),
    ("3a", "not scaled", SCALED, "magnitude", "easy shape general batch device", "largest difference"),
    ("3a", "nothing over nothing", "peak.where(peak > 0, 1)", "peak", "general", "NaN"),
    ("3a", "no channel axis", SCALED, f"({SCALED})[:, 0]", "easy shape general batch device", "must have shape (1, 1, 4, 4)"),
    ("3a", "made on the CPU", SCALED, f"torch.zeros(len(x), 1, *x.shape[2:], dtype=x.dtype) + {SCALED}", "device", "follow x"),
    ("4", "sum", "total / n", "total", ALL, "difference"),
    ("4", "absolute value", f"saliency(model, {NOISY}, target)", f"saliency(model, {NOISY}, target).abs()",
     ALL, "difference"),
    ("4", "one copy short", "range(n)", "range(n - 1)", ALL, "difference"),
    ("4", "no noise", "noise * spread * epsilon", "0 * epsilon", "general batch manners", "root mean square"),
    ("4", "not scaled by the range", "noise * spread", "noise", "general batch", "root mean square"),
    ("4", "range of the batch", "(values.amax(1) - values.amin(1))", "(x.max() - x.min()).expand(len(x))", "batch", "image"),
    ("4", "variance for sigma", "noise * spread", "(noise * spread) ** 2", "general batch", "root mean square"),
    ("4", "one number per image", "torch.randn(x.shape", "torch.randn((len(x), *[1] * (x.dim() - 1))", "general batch", ""),
    ("4", "uniform noise", "torch.randn(x.shape, generator=generator)",
     "(12**0.5 * (torch.rand(x.shape, generator=generator) - 0.5))", "general", "Is the noise normal?"),
    ("4", "clipped", NOISY, f"({NOISY}).clamp(x.min(), x.max())", "general batch", ""),
    ("4", "the same noise n times", "    epsilon =", "    generator.manual_seed(seed)\n        epsilon =", "general batch", ""),
    ("4", "global seed", "torch.Generator().manual_seed", "torch.manual_seed", "manners", "global random state"),
    ("4", "seed ignored", "manual_seed(seed)", "manual_seed(0)", "manners", "does not depend on the seed"),
    ("4", "noise on the CPU", ".to(x)", "", "device", "follow x"),
    ("5a", "distribution function", PHI, "torch.special.ndtr(x / sigma)", "easy shape general device", "difference"),
    ("5a", "variance for sigma", "x / sigma", "x / sigma**2", "general device", "largest difference"),
    ("5a", "erf without root 2", PHI, "torch.erf(x / sigma)", "easy shape general device", "largest difference"),
    ("5a", "tanh", PHI, "torch.tanh(x / sigma)", "easy shape general device", "largest difference"),
    ("5a", "numbers", PHI, f"({PHI}).tolist()", "easy shape general device", "must be a torch.Tensor, got list"),
    ("5a", "on the CPU", "x / sigma", "x / torch.full(x.shape, sigma, dtype=x.dtype)", "device", "follow x"),
    ("5b", "mean square", ".sqrt()", "", "easy general", "standard error"),
    ("5b", "mean magnitude", ".square().mean().sqrt()", ".abs().mean()", "easy general", "standard error"),
    ("5b", "largest", ".square().mean().sqrt()", ".abs().max()", "easy general", "standard error"),
    ("5b", "one n for all", "n=n", "n=40", "general", "standard error"),
    ("5b", "a tensor", ".item()", "", "easy general", "must be a float, got Tensor"),
    ("5b", "too slow for many", "estimate =", "assert n < 100\n    estimate =", "general", "AssertionError"),
]  # fmt: skip
CELL = {"1a": "q1a", "1b": "q1b", "2": "q2", "3a": "q3a", "4": "q4", "5a": "q5a", "5b": "q5b"}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_solution_gets_all_points(lane, name):
    for student in ("anna", "ben", "cem"):
        assert lost(lane, name, student=student) == {}


@pytest.mark.parametrize(("name", "source"), [(r[0], r[2]) for r in RIGHT], ids=[f"{r[0]} {r[1]}" for r in RIGHT])
def test_other_right_answers_get_all_points(lane, name, source):
    assert lost(lane, name, source) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{w[0]} {w[1]}" for w in WRONG])
def test_wrong_answers_lose_the_points_of_the_right_parts(lane, wrong):
    name, _, old, new, parts, words = wrong
    source = CELLS[f"{CELL[name]}-answer"]
    assert old in source
    faults = lost(lane, name, source.replace(old, new))
    assert set(faults) == set(parts.split())
    assert any(words in fault for fault in faults.values())


@pytest.mark.parametrize("body", ["raise NotImplementedError()", "return 0 * {0}", "return {0}", "return None"])
def test_empty_answers_get_nothing(lane, body):
    signatures = {
        "1a": ("gradient_a()", "[0, 0, 0]"),
        "1b": ("gradients_b()", "[[0.5, 0]] * 3"),
        "2": ("saliency(model, x, target)", "x"),
        "3a": ("saliency_image(model, x, target)", "x"),
        "4": ("smoothgrad(model, x, target, n=50, noise=0.15, seed=0)", "x"),
        "5a": ("smoothed_sign(x, sigma)", "x"),
        "5b": ("measured_error(n)", "n"),
    }
    for name, (signature, value) in signatures.items():
        faults = lost(lane, name, f"def {signature}:\n    {body.format(value)}")
        assert len(faults) == len(QUESTIONS[name].parts)
        if body.startswith("raise"):
            assert all("There is no answer yet (code cell" in fault for fault in faults.values())


def test_points_are_those_of_the_notebook():
    """Autograded points by question, as the test cells of the solution have them."""
    cells = [c["metadata"].get("nbgrader", {}) for c in json.loads(SOLUTION.read_text())["cells"]]
    in_notebook = {}
    for cell in cells:
        if cell.get("grade") and not cell["solution"]:
            question = cell["grade_id"].removeprefix("q").removesuffix("-check")
            question = question if question in QUESTIONS else question[0]
            in_notebook[question] = in_notebook.get(question, 0) + cell["points"]
    assert in_notebook == {name: question.points for name, question in QUESTIONS.items()}


def test_the_reference_is_the_method_of_the_package():
    """The solution notebook and `interp_lab` were written apart; where both are exact they must agree."""
    _, answers = gradebook.references(SOLUTION.stem, SOLUTION.read_bytes())
    g = torch.Generator().manual_seed(0)
    for part in QUESTIONS["2"].parts:
        for call in part.calls(g):
            net, x, target = call.args
            expected = interp_lab.saliency(net.build(), x, target)
            torch.testing.assert_close(answers["saliency"](net.build(), x, target), expected)


def test_inputs_are_fresh_for_each_student_question_and_key_and_come_again():
    part = QUESTIONS["2"].parts[2]

    def x(*names, key=b"key"):
        return part.calls(generator(key, *names))[0].args[1]

    assert torch.equal(x("01", "anna", "2", "general"), x("01", "anna", "2", "general"))
    others = [x("01", "ben", "2", "general"), x("01", "anna", "2", "batch"), x("01", "anna", "2", "general", key=b"k")]
    for other in others:
        assert not torch.equal(x("01", "anna", "2", "general"), other)


def test_calls_travel_unchanged():
    for question in QUESTIONS.values():
        sent = [call for part in question.parts for call in part.calls(torch.Generator().manual_seed(0))]
        cells, got = calls.unpack_calls(calls.pack_calls({"code cell 1": "x = 1"}, sent))
        assert cells == {"code cell 1": "x = 1"}
        for a, b in zip(sent, got, strict=True):
            assert (a.function, a.options, a.look, a.elsewhere) == (b.function, b.options, b.look, b.elsewhere)
            for one, other in zip(a.args, b.args, strict=True):
                if isinstance(one, calls.Net):
                    one, other = one.build(), other.build()
                    assert repr(one) == repr(other)
                    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
                    assert [m.training for m in one.modules()] == [m.training for m in other.modules()]
                elif isinstance(one, torch.Tensor):
                    torch.testing.assert_close(one, other, rtol=0, atol=0)
                else:
                    assert one == other


def test_a_function_is_found_by_name_with_what_it_needs_and_nothing_else():
    cells = [
        "import os, math as m\nfrom torch import nn, Tensor\nprint('never run')\nunused = open('x')",
        "%matplotlib inline\ndef helper(x):\n    return m.sqrt(x) * SCALE",
        "this does not parse",
        "SCALE = 1\nSCALE += 1\ndef f(x):\n    return 'first'",
        "class Table:\n    def look(self): return f(1)\nfor i in range(3): SCALE = i",
        "def f(x):\n    return helper(x)",
    ]
    statements, problems = extract.parse({f"code cell {i}": source for i, source in enumerate(cells, 1)})
    namespace = {}
    assert extract.execute(extract.select(statements, "f"), namespace) == []
    assert namespace["f"](4) == 4
    assert not {"unused", "Table", "nn", "Tensor"} & namespace.keys()
    assert problems == ["code cell 3, line 1 does not parse: SyntaxError: invalid syntax (<unknown>, line 1)"]
