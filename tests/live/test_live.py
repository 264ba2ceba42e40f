"""Recorded graphs against the methods that they are recordings of: in torch, and in live.js."""

import copy
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import interp_lab as il
from interp_lab.data import digits, scenes
from interp_lab.live import SHOWN, Live, OutsideError, export
from interp_lab.live.graphs import TOLERANCE, Recording, agrees
from interp_lab.live.recording import OPERATIONS
from interp_lab.networks import load

HERE, ENGINE = Path(__file__).parent, Path(il.__file__).parent / "live" / "live.js"
LOOPS = ("smoothgrad", "integrated_gradients", "interior_gradient")  # they run in the page, over the saliency graph


def methods_of(model, data) -> dict:
    methods = {name: method for name, method in SHOWN.items() if name not in LOOPS}
    for rule in ("epsilon", "gamma", "z_plus", "alpha2_beta1"):
        methods[f"lrp_{rule}"] = partial(il.lrp, rule=rule)
    methods["lrp_z_b"] = partial(il.lrp, low=0.0, high=1.0)
    methods["deep_taylor_box"] = partial(il.deep_taylor, low=0.0, high=1.0)
    patterns = il.fit_patterns(model, [data])
    methods["pattern_net"] = partial(il.pattern_net, patterns=patterns)
    return methods | {"pattern_attribution": partial(il.pattern_attribution, patterns=patterns)}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(54, 12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip
    model(torch.rand(64, 1, 12, 12))  # statistics of its own
    return model.eval()


def fresh_inputs(images: torch.Tensor) -> torch.Tensor:
    """Inputs as the network knows them, and some that are negative, partly exact zeros, and wholly noise."""
    images, generator = images.clone(), torch.Generator().manual_seed(7)
    images[1::4] -= 0.3 * torch.rand(images[1::4].shape, generator=generator)
    images[2::4, ..., images.shape[-1] // 3 :] = 0
    images[3::4] = torch.randn(images[3::4].shape, generator=generator)
    return images


@pytest.fixture(
    scope="module",
    params=[
        "small",
        pytest.param("digits_cnn", marks=pytest.mark.slow),
        pytest.param("scenes_cnn", marks=pytest.mark.exhaustive),
    ],
)
def recorded(request):
    """A network, its methods, their graphs, and images that the graphs were not made with."""
    if request.param == "small":
        model, images = small_network(), torch.rand(150, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    else:
        model = load(request.param)
        images = digits("test").images[:150] if "digits" in request.param else scenes(150, seed=2).images
    methods = methods_of(model, images[:50])
    classes = model(images[:1]).shape[1]
    return model, methods, export(model, methods, images[:4], [str(k) for k in range(classes)]), images[50:]


@pytest.fixture(scope="module")
def answered(recorded):
    """Fresh inputs with their classes, and of each method twenty maps; found once for node and the browser."""
    model, methods, _, images = recorded
    images, double = fresh_inputs(images), copy.deepcopy(model).double()
    logits = {"logits": lambda model, x, target: model(x).detach()}
    cases = {name: cases_of(model, double, method, images) for name, method in (logits | methods).items()}
    assert all(len(found) == 20 for found in cases.values()), {name: len(found) for name, found in cases.items()}
    return images, targets_of(model, images), cases


def refused_or(call):
    try:
        return call()
    except ValueError:
        return None


def targets_of(model, images) -> torch.Tensor:
    """The predicted class of every other image, any class of the rest."""
    logits = model(images).detach()
    rows = torch.arange(len(images))
    return torch.where(rows % 2 == 0, logits.argmax(1), rows % logits.shape[1])


def cases_of(model, double, method, images, count: int = 20, targets=None) -> list[tuple[int, torch.Tensor]]:
    """(row, map) of inputs with an answer: a map that is not all zero, and that rounding does not change."""
    found, targets = [], targets_of(model, images) if targets is None else targets
    for row, (x, target) in enumerate(zip(images, targets[:, None], strict=True)):
        want = refused_or(lambda: method(model, x[None], target))  # noqa: B023
        if want is None or not want.any():
            continue
        exact = refused_or(lambda: in_double(method, double, x[None].double(), target))  # noqa: B023
        if exact is not None and (exact - want).abs().max() <= 2e-6 * want.abs().max():
            found.append((row, want.detach()))
        if len(found) == count:
            break
    return found


def in_double(method, model, x, target):
    if "patterns" in getattr(method, "keywords", {}):
        patterns = {name: pattern.double() for name, pattern in method.keywords["patterns"].items()}
        method = partial(method.func, patterns=patterns)
    return method(model, x, target)


def test_a_graph_gives_the_map_of_its_method_on_inputs_of_every_kind(recorded):
    model, methods, live, images = recorded
    for name, method in methods.items():
        for row, x in enumerate(fresh_inputs(images)[:8]):
            target = torch.tensor([row % len(live.classes)])
            want = refused_or(lambda: method(model, x[None], target))  # noqa: B023
            if want is None:
                with pytest.raises(OutsideError):
                    live.run(name, x[None], target)
            else:
                assert agrees(live.run(name, x[None], target), want), (name, row)


def in_node(folder: Path, live, images, targets, cases: dict, *options: str, random: tuple | None = None) -> dict:
    """What agree.js finds for these cases, perhaps with ``random`` layers: their numbers and the seed."""
    if shutil.which("node") is None:
        pytest.skip("needs node to run live.js outside a browser")
    images.contiguous().numpy().tofile(folder / "inputs.bin")
    for name, found in cases.items():
        torch.cat([want.flatten() for _, want in found]).numpy().tofile(folder / f"{name}.bin")
    facts = {
        "network": json.loads(live.to_json()),
        "targets": targets.tolist(),
        "kept": {name: [row for row, _ in found] for name, found in cases.items()},
        "numbers": images[0].numel(),
        "random": random,
    }
    (folder / "cases.json").write_text(json.dumps(facts))
    command = ["node", HERE / "agree.js", ENGINE, folder, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_the_page_draws_the_maps_of_the_package(recorded, answered, tmp_path):
    """Every graph on twenty fresh inputs and classes; and whichever operation is a little wrong, a map is."""
    live, (images, targets, cases) = recorded[2], answered
    for options in ((), ("plain",)):
        result = in_node(tmp_path, live, images, targets, cases, *options)
        assert result["wasm"]  # this node has it, so that both products were tried
        bad = {n: e for n, errors in result["found"].items() if (e := [e for e in errors if not is_small(e)])}
        assert not bad
        assert not result["unnoticed"]
        if live.shape == (1, 1, 28, 28) and not options:
            assert result["milliseconds"] < 150  # of processor time: a stroke is answered at once
    assert set(result["operations"]) == {name.split(".")[0] for name in OPERATIONS} | {"getitem"}


def is_small(error: float | str) -> bool:
    return isinstance(error, float | int) and error <= TOLERANCE


class Branching(nn.Module):
    """Another function on bright images than on dark ones."""

    def forward(self, x):
        return x.flatten(1)[:, :3] * (2.0 if bool(x.mean() > 0.5) else 3.0)


def test_an_input_on_a_branch_that_was_not_recorded_is_refused():
    model, examples, target = Branching(), torch.full((2, 1, 2, 2), 0.9), torch.tensor([1])
    live = export(model, {"saliency": il.saliency}, examples, "abc")
    held = [refused_or(lambda v=v: live.run("saliency", torch.full((1, 1, 2, 2), v), target)) for v in (0.1, 0.9)]
    assert sum(map_ is not None for map_ in held) == 1
    for value, map_ in zip((0.1, 0.9), held, strict=True):
        if map_ is not None:
            assert torch.equal(map_, il.saliency(model, torch.full((1, 1, 2, 2), value), target))


@pytest.mark.parametrize("rule", ["composite", "z_plus", "alpha2_beta1", "gamma"])
def test_rules_that_take_a_shorter_way_for_positive_inputs_are_recorded_on_the_longer(rule):
    """The examples are positive alone, and a recording of what they take would be wrong in silence below zero."""
    model, method = small_network(), partial(il.lrp, rule=rule)
    live = export(model, {"lrp": method}, torch.rand(3, 1, 12, 12), "abc")
    for row in range(5):
        x, target = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(row)), torch.tensor([row % 3])
        assert agrees(live.run("lrp", x, target), method(model, x, target))


def test_deeplift_is_recorded_with_and_without_units_at_their_baseline():
    model = small_network()
    for start in (torch.rand(1, 1, 12, 12), torch.zeros(1, 1, 12, 12)):
        live = export(model, {"deeplift": il.deeplift}, start, "abc")
        half, target = torch.rand(1, 1, 12, 12), torch.tensor([2])
        for x in (half, half.clone().index_fill_(2, torch.arange(8), 0)):
            assert agrees(live.run("deeplift", x, target), il.deeplift(model, x, target))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_the_method_refuses_the_graph_refuses(value):
    live = export(small_network(), {"saliency": il.saliency}, torch.rand(2, 1, 12, 12), "abc")
    x = torch.rand(1, 1, 12, 12)
    with pytest.raises(OutsideError):
        live.run("saliency", x, torch.tensor([3]))
    x[0, 0, 3, 3] = value
    with pytest.raises(OutsideError):
        live.run("saliency", x, torch.tensor([0]))


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn(4)


class InPlace(nn.Module):
    def forward(self, x):
        y = x * 2
        row = y.flatten(1)[:, :2]
        y.add_(1)
        return row


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.GELU(), "cannot run in a page.*gelu"),
        (nn.Softmax(1), "cannot run in a page.*softmax"),
        (nn.Dropout(0.5).train(), ""),
        (Noisy(), "draws random numbers"),
        (InPlace(), "changed in place"),
    ],
)
def test_what_cannot_be_recorded_is_refused_by_name(layer, message):
    model = nn.Sequential(nn.Flatten(), layer, nn.Linear(2 if isinstance(layer, InPlace) else 4, 3))
    if not message:  # in eval mode dropout does nothing
        assert export(model.eval(), {"saliency": il.saliency}, torch.rand(2, 1, 2, 2), "abc")
        return
    with pytest.raises(il.UnsupportedModelError, match=message):
        export(model.eval(), {"saliency": il.saliency}, torch.rand(2, 1, 2, 2), "abc")


@pytest.mark.browser
def test_the_browser_draws_the_maps_of_the_package(recorded, answered, browser):
    """As in node: every graph on twenty fresh inputs."""
    live, (images, targets, cases) = recorded[2], answered
    page = browser.new_page()
    page.add_script_tag(path=ENGINE)
    page.evaluate("network => { window.net = new (liveEngine().Network)(JSON.parse(network)) }", live.to_json())
    by_row: dict[int, dict[str, torch.Tensor]] = {}
    for name, found in cases.items():
        for row, want in found:
            by_row.setdefault(row, {})[name] = want
    for row, wanted in by_row.items():
        facts = [images[row].flatten().tolist(), int(targets[row]), [*wanted]]
        run = "([x, target, names]) => { const at = net.at(Float32Array.from(x), target); return names.map(n => [...at.map(n)]); }"
        for (name, want), got in zip(wanted.items(), page.evaluate(run, facts), strict=True):
            assert agrees(torch.tensor(got).view_as(want), want), (name, row)
    page.close()


def operands() -> dict[str, list[tuple]]:
    """Arguments for every operation of the page: what broadcasts, is negative, lies on a boundary, or is not contiguous."""
    a, b, row = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(3, 1)
    mask, other = a > 0, b > 0
    image, kernel = torch.randn(1, 4, 7, 6), torch.randn(6, 2, 3, 2)
    whole = torch.randn(3, 4).mul(3).round()
    place = torch.tensor([[0, 2, 1, 1], [2, 0, 0, 1]])
    scalars = {
        f"{name}.Scalar": [(whole, 1.0), (whole, -2)]
        for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")
    }
    tensors = {
        f"{name}.Tensor": [(a, b), (a, row), (row, a), (whole, whole.roll(1, 1)), (a, torch.tensor(0.5))]
        for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")
        if name != "div"
    }
    return scalars | tensors | {
        "eq.Scalar": [(torch.tensor([0.1, 0.2, -0.1]), 0.1)],  # which is 0.1 in single precision
        "_to_copy.default": [(a * 3, {"dtype": torch.int64}), (whole, {"dtype": torch.bool}), (mask, {"dtype": torch.float32})],
        "_unsafe_view.default": [(a, [6, 4])], "abs.default": [(a,)], "alias.default": [(a,)], "clone.default": [(a,)], "detach.default": [(a,)],
        "addmm.default": [(torch.randn(5), torch.randn(3, 4), torch.randn(4, 5)), (torch.randn(40), torch.randn(30, 20), torch.randn(20, 40))],
        "all.default": [(mask,), (a.abs() >= 0,)], "any.default": [(mask,), (a.abs() < 0,)],
        "amax.default": [(a, [1]), (a, [0, -1], True), (a,)], "amin.default": [(a, [1]), (a,)],
        "bmm.default": [(torch.randn(2, 3, 4), torch.randn(2, 4, 5))], "cat.default": [([a, b], 1), ([a, b[:, :2]], -2)],
        "clamp.default": [(a, 0), (a, None, 0.5), (a, -0.5, 0.5)],
        "constant_pad_nd.default": [(image, [1, 2, 0, 3], 0.5), (image, [0, -1, -2, 1]), (a, [0, 0, 1, -1, -1, 2])],
        "convolution.default": [
            (image, kernel, torch.randn(6), [2, 1], [1, 2], [1, 1], False, [0, 0], 2),
            (image, torch.randn(5, 4, 2, 2), None, [1, 1], [0, 0], [2, 3], False, [0, 0], 1),
            (image, torch.randn(4, 1, 3, 2), torch.randn(4), [2, 1], [1, 2], [1, 1], False, [0, 0], 4),
            (image, torch.randn(4, 1, 3, 2), None, [2, 3], [1, 1], [1, 2], True, [1, 2], 4),
            (image, kernel.transpose(0, 1).reshape(4, 3, 3, 2), torch.randn(6), [2, 3], [1, 1], [1, 2], True, [1, 2], 2),
        ],
        "div.Tensor": [(a, b.abs() + 0.5), (a, row.abs() + 0.5)], "exp.default": [(a,)], "log.default": [(a.abs(),)], "expand.default": [(row, [2, 3, 4]), (row, [2, -1, 4])],
        "full.default": [([2, 3], 0.5)], "gather.default": [(torch.randn(3, 4), 0, place), (torch.randn(2, 5), 1, place)],
        "index.Tensor": [(a, [None, torch.tensor([[2], [0]]), torch.tensor([1, -1, 0])]), (a, [torch.tensor([1, 0, 1])])],
        "isnan.default": [(a / a * a,), (torch.tensor([1.0, float("nan"), 2.0]),)],
        "logical_and.default": [(mask, other)], "logical_or.default": [(mask, other)], "logical_not.default": [(mask,)],
        "max.default": [(a,)], "min.default": [(a,)], "maximum.default": [(a, b), (a, row)], "minimum.default": [(a, b)],
        "max_pool2d_with_indices.default": [(image, [2, 3], [2, 2], [1, 1]), (image, [3, 2], [], [0, 0], [2, 1]), (torch.randn(1, 1, 5, 5).round(), [2, 2])],
        "mean.default": [(a,)], "mean.dim": [(a, [1]), (a, [-1, 0], True)], "mm.default": [(torch.randn(3, 4), torch.randn(4, 5)), (torch.randn(33, 21), torch.randn(21, 17))],
        "neg.default": [(a,)], "permute.default": [(a, [2, 0, 1])], "pow.Tensor_Scalar": [(a, 2), (a.abs(), 0.5)], "reciprocal.default": [(a,)],
        "relu.default": [(a,)], "rsqrt.default": [(a.abs(),)], "sqrt.default": [(a.abs(),)], "sigmoid.default": [(a,)], "tanh.default": [(a,)],
        "scatter_add.default": [(torch.randn(3, 4), 0, place, torch.randn(2, 4)), (torch.randn(2, 5), 1, place, torch.randn(2, 4))],
        "select.int": [(a, 1, 2), (a, -1, -2)], "slice.Tensor": [(a, 1, 1, 3), (a, 2, 0, 9223372036854775807, 2), (a, -1, -3, 4)],
        "squeeze.dim": [(row, 1)], "squeeze.dims": [(row[None], [0, 2])], "squeeze.default": [(row[None],)],
        "sum.default": [(a,)], "sum.dim_IntList": [(a, [1]), (a, [0, -1], True), (a, None)], "t.default": [(torch.randn(3, 4),)],
        "topk.default": [(torch.randn(3, 9), 4, 1), (torch.randn(3, 9), 2, 0, False)], "transpose.int": [(a, 0, -1)], "unsqueeze.default": [(a, -1), (a, 1)],
        "upsample_bilinear2d.default": [(image, [10, 9], False), (image, [3, 4], True)], "upsample_bilinear2d.vec": [(image, [14, 12], False, None), (image, None, False, [2.0, 1.5])],
        "view.default": [(a, [4, 6]), (a, [-1, 2])],
        "where.self": [(mask, a, b), (mask, row, b)], "where.ScalarSelf": [(mask, 0.5, b)], "where.ScalarOther": [(mask, a, 0.5)], "where.Scalar": [(mask, 1.0, -2.0)],
    }  # fmt: skip


def test_every_operation_of_the_page_is_that_of_torch(tmp_path):
    assert operands().keys() == OPERATIONS
    live, wanted = Live((1, 1), ("a",)), {}
    for op, calls in operands().items():
        for number, call in enumerate(calls):
            args, options = (call[:-1], call[-1]) if isinstance(call[-1], dict) else (call, {})
            name, _, overload = op.partition(".")
            results = getattr(getattr(torch.ops.aten, name), overload)(*args, **options)
            kwargs = tuple((k, str(v).removeprefix("torch.")) for k, v in options.items())
            shape = tuple((results[0] if isinstance(results, tuple) else results).shape)
            step = live.graph.add(op, constants(live, list(args)), kwargs, shape, False)
            for part, result in enumerate(results if isinstance(results, tuple) else [results]):
                output = (
                    step
                    if isinstance(results, torch.Tensor)
                    else live.graph.add("getitem", (step, part), (), shape, False)
                )
                live.methods[f"{op} {number} {part}"] = Recording(output.step, [])
                wanted[f"{op} {number} {part}"] = [(0, result.float())]
    result = in_node(tmp_path, live, torch.zeros(1, 1), torch.tensor([0]), wanted)
    assert not {name: error for name, (error,) in result["found"].items() if not is_small(error)}
    assert not result["unnoticed"]


def constants(live, value):
    if isinstance(value, torch.Tensor):
        return live.graph.constant(value)
    return [constants(live, part) for part in value] if isinstance(value, list) else value
