"""The checks of exercise 01, tried on right answers written differently and on wrong ones that students write."""

import contextlib
import io
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "01_saliency_and_smoothgrad.ipynb"


def cells(folder):
    notebook = json.loads((ROOT / folder / NAME).read_text(encoding="utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"}


SOLUTION = cells("solutions")
SETTING = ["imports", "networks-a-b", "q5b-setting"]
ANSWERS = [name for name in SOLUTION if name.endswith("-answer")]
CHECKS = [name for name in SOLUTION if name.endswith("-check")]


def verdict(check, **answers):
    """What the check cell says, "" if it passes, with the given sources in place of the model answers."""
    sources = {name.replace("-", "_"): SOLUTION[name] for name in SETTING + ANSWERS} | answers
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for source in sources.values():
            exec(source, namespace)
        try:
            exec(SOLUTION[check], namespace)
        except (AssertionError, NotImplementedError) as error:
            return str(error) or "nothing"
    question = check.removeprefix("q").removesuffix("-check")
    assert f"Question {question}: passed." in printed.getvalue()
    return ""


SALIENCY_ROW_BY_ROW = """
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
SALIENCY_OF_A_COPY = """
def saliency(model, x, target):
    twin = copy.deepcopy(model).eval()
    one_row = torch.func.grad(lambda row, c: twin(row[None]).gather(1, c.view(1, 1)).sum())
    return torch.func.vmap(one_row)(x.detach(), target).detach()
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
def saliency_image(model, x, target):
    size = torch.linalg.vector_norm(saliency(model, x, target), ord=float("inf"), dim=1)
    return (size / size.flatten(1).amax(1).clamp_min(1e-30)[:, None, None]).unsqueeze(1)
"""
SMOOTHGRAD_ONE_BATCH = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    source = torch.Generator()
    source.manual_seed(seed)
    low, high = x.reshape(len(x), -1).min(1).values, x.reshape(len(x), -1).max(1).values
    sigma = noise * (high - low).reshape(len(x), *(1 for _ in x.shape[1:]))
    noisy = x + sigma * torch.randn(n, *x.shape, generator=source, dtype=x.dtype).to(x)
    return saliency(model, noisy.flatten(0, 1), target.repeat(n)).unflatten(0, (n, len(x))).mean(0)
"""
SMOOTHGRAD_SHARED_NOISE = """
def smoothgrad(model, x, target, n=50, noise=0.15, seed=0):
    source, maps = torch.Generator().manual_seed(seed), []
    draws = [torch.randn(x[0].shape, generator=source, dtype=x.dtype).to(x) for _ in range(n)]
    for row, c in zip(x.split(1), target.split(1)):
        copies = [row + noise * (row.max() - row.min()) * draw for draw in draws]
        maps.append(torch.stack([saliency(model, copy_, c) for copy_ in copies]).mean(0))
    return torch.cat(maps)
"""
SIGN_BY_ERF = """
def smoothed_sign(x, sigma):
    return torch.erf(x / (sigma * 2 ** 0.5))
"""
SIGN_BY_DISTRIBUTION = """
def smoothed_sign(x, sigma):
    noise = torch.distributions.Normal(0.0, sigma)
    return (1 - noise.cdf(-x)) - noise.cdf(-x)
"""
ERROR_BY_NORM = """
def measured_error(n):
    first = torch.zeros(1, dtype=torch.long)
    gap = smoothgrad(absolute, points, first, n, 0.25, seed=7)[0] - smoothed_sign(points[0], 1)
    return float(torch.linalg.vector_norm(gap)) / gap.numel() ** 0.5
"""
RIGHT = [
    ({"q1a_answer": "def gradient_a(): return (-3, 1 / 2, 4)"}, ["q1a-check"]),
    ({"q1b_answer": "def gradients_b(): return [(-1, 3), [1.0, 1], [0, 0]]"}, ["q1b-check"]),
    ({"q2_answer": SALIENCY_ROW_BY_ROW}, ["q2a-check", "q2b-check", "q3a-check", "q4b-check"]),
    ({"q2_answer": SALIENCY_OF_A_COPY}, ["q2a-check", "q2b-check", "q3a-check", "q4b-check"]),
    ({"q3a_answer": IMAGE_BY_LOOP}, ["q3a-check"]),
    ({"q3a_answer": IMAGE_CLAMPED}, ["q3a-check"]),
    ({"q4_answer": SMOOTHGRAD_ONE_BATCH}, ["q4a-check", "q4b-check", "q4c-check", "q5b-check"]),
    ({"q4_answer": SMOOTHGRAD_SHARED_NOISE}, ["q4a-check", "q4b-check", "q4c-check"]),
    ({"q5a_answer": SIGN_BY_ERF}, ["q5a-check", "q5b-check"]),
    ({"q5a_answer": SIGN_BY_DISTRIBUTION}, ["q5a-check", "q5b-check"]),
    ({"q5b_answer": ERROR_BY_NORM}, ["q5b-check"]),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_model_answers_pass(check):
    assert verdict(check) == ""


@pytest.mark.parametrize(("answers", "checks"), RIGHT)
def test_other_right_answers_pass(answers, checks):
    for check in checks:
        assert verdict(check, **answers) == ""


@pytest.mark.parametrize("seed", range(5))
def test_checks_of_random_numbers_do_not_depend_on_luck(seed):
    other = SOLUTION["q4-answer"].replace("manual_seed(seed)", f"manual_seed(seed + {1000 * seed + 17})")
    for check in ("q4b-check", "q5b-check"):
        assert verdict(check, q4_answer=other) == ""


# Wrong answers as edits of the model answer: (name, answer cell, old text, new text, check that catches it, its words).
NOISY, DRAW = "x + noise * spread * epsilon", "torch.randn(x.shape, generator=generator)"
UNIFORM = "(12**0.5 * (torch.rand(x.shape, generator=generator) - 0.5))"
AGAIN = "    generator.manual_seed(seed)\n        epsilon ="
PHI = "2 * torch.special.ndtr(x / sigma) - 1"
SCALED = "magnitude / peak.where(peak > 0, 1)"
BACKWARD = ("(gradient,) = torch.autograd.grad(score, leaf)", "score.backward(); gradient = leaf.grad")
WRONG = [
    ("probability", "q2", "model(leaf)", "model(leaf).softmax(1)", "q2a", "probabilities in place of logits"),
    ("log probability", "q2", "model(leaf)", "model(leaf).log_softmax(1)", "q2a", "mixture"),
    ("mean over the batch", "q2", ".sum()", ".mean()", "q2a", "mean over the batch"),
    ("absolute value", "q2", "return gradient", "return gradient.abs()", "q2a", "absolute value"),
    ("gradient of a loss", "q2", "return gradient", "return -gradient", "q2a", "weights of that row's target"),
    ("gradient x input", "q2", "return gradient", "return gradient * x", "q2a", "weights of that row's target"),
    ("predicted class", "q2", "target[:, None]", "model(leaf).argmax(1, True)", "q2a", "that row's target"),
    ("first target for all", "q2", "target[:, None]", "target[:1, None].expand(len(x), 1)", "q2a", "row's target"),
    ("all classes", "q2", ".gather(1, target[:, None])", "", "q2a", "weights of that row's target"),
    ("normalised", "q2", "return gradient", "return gradient / gradient.abs().max()", "q2a", "largest difference"),
    ("on the graph", "q2", "(score, leaf)", "(score, leaf, create_graph=True)", "q2a", "detached"),
    ("a list", "q2", "return gradient", "return list(gradient)", "q2a", "must be a torch.Tensor"),
    ("one map", "q2", "return gradient", "return gradient.sum(0)", "q2a", "must have shape (3, 4)"),
    ("double", "q2", "return gradient", "return gradient.double()", "q2a", "dtype torch.float32"),
    ("train mode", "q2", "model.eval()", "pass", "q2b", "must be explained in eval mode"),
    ("left in eval mode", "q2", "module.training = training", "pass", "q2b", "train/eval mode of the Sequential"),
    ("train for all", "q2", "module.training = training", "module.train()", "q2b", "mode of the BatchNorm1d '1'"),
    ("parameters' .grad", "q2", *BACKWARD, "q2b", "The .grad of the parameter '0.weight' changed"),
    ("zeroed .grad", "q2", "return", "model.zero_grad(); return", "q2b", "The .grad of the parameter"),
    ("requires_grad of x", "q2", "x.detach().clone()", "x", "q2b", "requires_grad flag of the input"),
    ("probability", "q3a", "saliency(model,", "saliency(nn.Sequential(model, nn.Softmax(1)),", "q3a", "Symptom 1"),
    ("sign first", "q3a", ".abs().amax(dim=1, keepdim=True)", ".amax(1, True).abs()", "q3a", "Symptom 2"),
    ("sum of channels", "q3a", ".abs().amax(dim=1", ".abs().sum(dim=1", "q3a", "Symptom 2"),
    ("range of the batch", "q3a", "magnitude.amax(dim=(1, 2, 3), keepdim=True)", "magnitude.max()", "q3a", "Symptom 3"),
    ("not scaled", "q3a", SCALED, "magnitude", "q3a", "Symptom 1"),
    ("nothing over nothing", "q3a", "peak.where(peak > 0, 1)", "peak", "q3a", "NaN"),
    ("no channel axis", "q3a", SCALED, f"({SCALED})[:, 0]", "q3a", "shape (1, 1, 2, 2)"),
    ("sum", "q4", "total / n", "total", "q4a", "sum in place of a mean"),
    ("absolute value", "q4", "+ noise * spread * epsilon, target)", ", target).abs()", "q4a", "absolute value"),
    ("square", "q4", "epsilon, target)", "epsilon, target) ** 2", "q4a", "square"),
    ("one copy short", "q4", "range(n)", "range(n - 1)", "q4a", "same gradient"),
    ("noise alone", "q4", "x + noise", "noise", "q4a", "gradient at x itself"),
    ("first target for all", "q4", ", target)", ", target[:1].expand(len(x)))", "q4a", "weights of the target"),
    ("no noise", "q4", "noise * spread * epsilon", "0 * epsilon", "q4b", "each image's own range"),
    ("not scaled by the range", "q4", "noise * spread", "noise", "q4b", "sigma = 0.4"),
    ("range of the batch", "q4", "(values.amax(1) - values.amin(1))", "torch.full([len(x)], x.max() - x.min())", "q4b", "own"),
    ("sum of the ranges", "q4", "noise * spread", "noise * spread.sum()", "q4b", "each image's own range"),
    ("maximum for range", "q4", " - values.amin(1)", "", "q4b", "sigma = 0.4"),
    ("variance for sigma", "q4", "noise * spread", "(noise * spread) ** 2", "q4b", "standard deviation"),
    ("one number per image", "q4", "torch.randn(x.shape", "torch.randn((len(x), 1, 1, 1)", "q4b", "standard deviation"),
    ("uniform noise", "q4", DRAW, UNIFORM, "q4b", "within one sigma"),
    ("clipped", "q4", NOISY, f"({NOISY}).clamp(0, 1)", "q4b", ""),
    ("clipped to its range", "q4", NOISY, f"({NOISY}).clamp(x.min(), x.max())", "q4b", ""),
    ("the same noise n times", "q4", "    epsilon =", AGAIN, "q4b", "drawn anew"),
    ("global seed", "q4", "torch.Generator().manual_seed", "torch.manual_seed", "q4c", "global random"),
    ("unseeded", "q4", ", generator=generator", "", "q4c", "global random state"),
    ("seed ignored", "q4", "manual_seed(seed)", "manual_seed(0)", "q4c", "does not depend on the seed"),
    ("distribution function", "q5a", PHI, "torch.special.ndtr(x / sigma)", "q5a", ""),
    ("variance for sigma", "q5a", "x / sigma", "x / sigma**2", "q5a", "sigma = 0.2"),
    ("erf without root 2", "q5a", PHI, "torch.erf(x / sigma)", "q5a", ""),
    ("tanh", "q5a", PHI, "torch.tanh(x / sigma)", "q5a", ""),
    ("mean square", "q5b", ".sqrt()", "", "q5b", "n=10"),
    ("mean magnitude", "q5b", ".square().mean().sqrt()", ".abs().mean()", "q5b", "n=10"),
    ("signed mean", "q5b", ".square().mean().sqrt()", ".mean()", "q5b", "n=10"),
    ("largest", "q5b", ".square().mean().sqrt()", ".abs().max()", "q5b", "n=10"),
    ("distance from the sign", "q5b", "smoothed_sign(points, 1.0)", "points.sign()", "q5b", "n=10"),
    ("another noise", "q5b", "noise=0.25", "noise=0.15", "q5b", ""),
    ("one n for all", "q5b", "n=n", "n=10", "q5b", "n=100"),
    ("a tensor", "q5b", ".item()", "", "q5b", "must be a float"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "old", "new", "check", "words"), [w[1:] for w in WRONG], ids=[f"{w[1]} {w[0]}" for w in WRONG]
)
def test_wrong_answers_fail_with_a_message_that_fits(cell, old, new, check, words):
    source = SOLUTION[f"{cell}-answer"]
    assert old in source
    message = verdict(f"{check}-check", **{f"{cell}_answer": source.replace(old, new)})
    assert message.startswith(f"Question {check.removeprefix('q')}:")
    assert words in message


SIGNATURES = {
    "q1a": "gradient_a()",
    "q1b": "gradients_b()",
    "q2": "saliency(model, x, target)",
    "q3a": "saliency_image(model, x, target)",
    "q4": "smoothgrad(model, x, target, n=50, noise=0.15, seed=0)",
    "q5a": "smoothed_sign(x, sigma)",
    "q5b": "measured_error(n)",
}
CHECKS_OF = {cell: [c for c in CHECKS if c.startswith(cell)] for cell in SIGNATURES}


@pytest.mark.parametrize("body", ["raise NotImplementedError()", "return 0 * {0}", "return {0}", "return None"])
@pytest.mark.parametrize("cell", SIGNATURES)
def test_empty_answers_fail_every_check(cell, body):
    signature = SIGNATURES[cell]
    argument = {"q1a": "[0, 0, 0]", "q1b": "[[0, 0]] * 3", "q5b": "n"}.get(cell, "x")
    for check in CHECKS_OF[cell]:
        message = verdict(check, **{f"{cell}_answer": f"def {signature}:\n    {body.format(argument)}"})
        assert message.startswith("Question")
        assert ("is not written yet" in message) == ("raise" in body)


@pytest.mark.parametrize(
    ("cell", "answer", "words"),
    [
        ("q1a", "def gradient_a(): return [0, 0, 0]", "x[0]"),
        ("q1a", "def gradient_a(): return [-3, 0.5, 0]", "x[2]"),
        ("q1a", "def gradient_a(): return [1, 2, 3]", "It does not"),
        ("q1a", "def gradient_a(): return [2, -1, 0]", "x[0]"),
        ("q1a", "def gradient_a(): return [-3, 0.5]", "expected a list of 3, got [-3, 0.5]"),
        ("q1b", "def gradients_b(): return [[1, 1], [1, 1], [0, 0]]", "(1.0, 0.5)"),
        ("q1b", "def gradients_b(): return [[-1, 3], [1, 1], [1, 1]]", "(0.2, 0.5)"),
        ("q1b", "def gradients_b(): return [[-1, 3], [1, 1]]", "A list of three gradients is needed"),
    ],
)
def test_wrong_gradients_by_hand_are_named_but_not_corrected(cell, answer, words):
    message = verdict(f"{cell}-check", **{f"{cell}_answer": answer})
    assert words in message
    assert "expected -3" not in message


def test_the_untouched_exercise_fails_in_every_check_with_a_message_that_helps():
    exercise, namespace, said = cells("exercises"), {}, {}
    for name in SETTING + ANSWERS + CHECKS:
        try:
            exec(exercise[name], namespace)
        except (AssertionError, NotImplementedError) as error:
            said[name] = str(error)
    assert set(CHECKS) <= set(said)
    for name in CHECKS:
        assert "is not written yet" in said[name]
    with pytest.raises(AssertionError, match="Question 1a: gradient_a is not defined"):
        exec(exercise["q1a-check"], {"check": namespace["check"]})


@pytest.mark.slow
def test_the_untouched_exercise_raises_nothing_else_in_a_kernel():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "exercises" / NAME, as_version=4)
    NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=300).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            errors = [output for output in cell.outputs if output.output_type == "error"]
            assert all(error.ename in ("NotImplementedError", "AssertionError") for error in errors), (cell.id, errors)
            assert bool(errors) == cell.id.endswith(("-check", "-figure", "-experiment")), cell.id
            assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"], cell.id


@pytest.mark.slow
def test_nbgrader_validates_the_answered_exercise(tmp_path):
    import nbformat
    from nbgrader.validator import Validator

    notebook = nbformat.read(ROOT / "exercises" / NAME, as_version=4)
    solved = nbformat.read(ROOT / "solutions" / NAME, as_version=4)
    for cell, answer in zip(notebook.cells, solved.cells, strict=True):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = answer.source
    nbformat.write(notebook, tmp_path / NAME)
    assert Validator().validate(str(tmp_path / NAME)) == {}


def test_the_points_in_the_text_are_those_of_the_cells():
    notebook = json.loads((ROOT / "solutions" / NAME).read_text(encoding="utf-8"))
    total = sum(cell["metadata"].get("nbgrader", {}).get("points", 0) for cell in notebook["cells"])
    title = "".join(notebook["cells"][0]["source"])
    assert f"| | together | {total} | 90 |" in title
    rows = [line.split("|") for line in title.splitlines() if "★" in line]
    assert (sum(int(row[3]) for row in rows), sum(int(row[4]) for row in rows)) == (total, 90)
