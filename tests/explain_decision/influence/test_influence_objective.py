"""Gradients and Hessian products of every kind of model, loss and data, against the formula by hand."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from influence_by_hand import (
    TEST,
    TRAIN,
    cloud,
    gradients_by_loop,
    influence_by_hand,
    two_layers,
)
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, influence, networks
from interp_lab.explain_decision.influence import objective

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("build", [networks.digits_cnn, networks.scenes_cnn])
def test_with_large_damping_it_is_the_inner_product_of_gradients_of_the_book_s_networks(build):
    torch.manual_seed(0)
    model = build()
    shape = (1, 28, 28) if build is networks.digits_cnn else (3, 64, 64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    x, y = torch.rand(6, *shape), torch.arange(6) % 8
    result = influence(model.train(), (x, y), (x[:2], y[:2]), damping=1e6, solver="cg")
    model.eval()
    expected = gradients_by_loop(model, x[:2], y[:2]) @ gradients_by_loop(model, x, y).T / 6e6
    assert_close(result, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_a_named_layer_is_the_tail_on_its_features():
    model, train, test = two_layers(), cloud(40), cloud(3, seed=2)
    features = [(model[:3](x).detach(), y) for x, y in (train, test)]
    named = influence(model, train, test, damping=0.1, parameters="3")
    assert_close(named, influence(model[3:], *features, damping=0.1))
    assert_close(named, influence(model, train, test, damping=0.1, parameters=["3.weight", "3.bias"]))


@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
def test_a_frozen_layer_keeps_its_weights(solver):
    """Transfer learning: the answer is that of the head on its features, by the default and by the head's name."""
    model = two_layers()
    model[1].requires_grad_(False)
    tail, features = model[3:], lambda pair: (model[:3](pair[0]).detach(), pair[1])
    expected = influence(tail, features(TRAIN), features(TEST), damping=1.0, solver=solver)
    for parameters in (None, "3", ["1.bias", "3"]):
        result = influence(model, TRAIN, TEST, damping=1.0, solver=solver, parameters=parameters)
        if parameters != ["1.bias", "3"]:
            assert_close(result, expected)
        else:  # a parameter that is named itself is taken
            assert (result - expected).abs().max() > 1e-4
    model[3].bias.requires_grad_(False)
    weight = influence(tail, features(TRAIN), features(TEST), damping=1.0, solver=solver, parameters="3.weight")
    assert_close(influence(model, TRAIN, TEST, damping=1.0, solver=solver, parameters="3"), weight)


def test_a_model_frozen_as_a_whole_is_explained_as_a_whole():
    model = two_layers()
    expected = influence(model, TRAIN, TEST, damping=1.0)
    assert_close(influence(model.requires_grad_(False), TRAIN, TEST, damping=1.0), expected, rtol=0, atol=0)


def test_a_low_rank_addition_to_frozen_weights():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 3)
            self.down, self.up = nn.Parameter(torch.randn(8, 1)), nn.Parameter(torch.randn(1, 3))

        def forward(self, x):
            return self.base(x) + x @ self.down @ self.up

    class Rest(nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.down, self.up, self.fixed = whole.down, whole.up, [whole.base]

        def forward(self, x):
            return self.fixed[0](x).detach() + x @ self.down @ self.up

    torch.manual_seed(0)
    model = Added().double()
    model.base.requires_grad_(False)
    assert_close(influence(model, TRAIN, TEST, damping=1.0), influence_by_hand(Rest(model), TRAIN, TEST, 1.0))


IDS = torch.randint(5, (12, 3), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("padding", [None, 0])
def test_token_ids_need_no_gradient(solver, padding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 2, padding_idx=padding), nn.Flatten(), nn.Linear(6, 3)).double()
    train, test = (IDS, LABELS), (IDS[:2].flip(1), LABELS[:2])
    expected = influence_by_hand(model, train, test, 1.0)
    assert_close(influence(model, train, test, damping=1.0, solver=solver), expected)
    batches = [(IDS[:5], LABELS[:5]), (IDS[5:], LABELS[5:])]
    assert_close(influence(model, batches, test, damping=1.0, solver=solver), expected)
    expected = influence(
        model[2:], (model[:2](IDS).detach(), LABELS), (model[:2](test[0]).detach(), test[1]), damping=1.0
    )
    assert_close(influence(model, train, test, damping=1.0, solver="cg", parameters="2"), expected)


def test_outputs_of_any_shape_that_the_loss_takes():
    x, y = cloud(20)
    value = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()
    for labels, loss in ((x[:, 0], F.mse_loss), ((y > 0).double(), F.binary_cross_entropy_with_logits)):
        expected = influence_by_hand(value, (x, labels), (x[:2], labels[:2]), 9.0, loss)
        for solver in ("exact", "cg"):
            found = influence(value, (x, labels), (x[:2], labels[:2]), damping=9.0, loss=loss, solver=solver)
            assert_close(found, expected)
        kfac = influence(value, (x, labels), (x[:2], labels[:2]), damping=9.0, loss=loss, solver="kfac")
        assert torch.corrcoef(torch.stack([kfac.flatten(), expected.flatten()]))[0, 1] > 0.99
    places = nn.Conv1d(2, 3, 1).double()  # a class at every place
    signals, classes = x.view(20, 2, 4), torch.randint(3, (20, 4), generator=torch.Generator().manual_seed(0))
    expected = influence_by_hand(places, (signals, classes), (signals[:2], classes[:2]), 1.0)
    assert_close(influence(places, (signals, classes), (signals[:2], classes[:2]), damping=1.0), expected)


def test_attention_is_differentiated_twice():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(8, 3)).double().eval()
    x, y = cloud(8, shape=(2, 4))
    with sdpa_kernel(SDPBackend.MATH):
        expected = influence_by_hand(model, (x, y), (x[:2], y[:2]), 5.0)
    for solver in ("exact", "cg"):
        assert_close(influence(model, (x, y), (x[:2], y[:2]), damping=5.0, solver=solver), expected)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.body, self.one_step = getattr(nn, kind)(2, 2, **options), kind.endswith("Cell")
        self.head = nn.LazyLinear(3)

    def forward(self, x):  # (N, steps, 2)
        if not self.one_step:
            return self.head(self.body(x)[0][:, -1])
        state = None
        for step in x.unbind(1):
            state = self.body(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_recurrent_layers_are_written_out(kind):
    torch.manual_seed(0)
    whole = {} if kind.endswith("Cell") else {"batch_first": True}
    other = {**whole, "bidirectional": True, "num_layers": 2} if whole else {"nonlinearity": "relu"}
    x, y = cloud(6, shape=(2, 2))
    for options, solver in ((whole, "exact"), (other, "cg")):
        if options == {"nonlinearity": "relu"} and kind != "RNNCell":
            continue
        model = Recurrent(kind, **options).double()
        model(x)
        expected = influence_by_hand(model, (x, y), (x[:2], y[:2]), 5.0)
        assert_close(influence(model, (x, y), (x[:2], y[:2]), damping=5.0, solver=solver), expected)


def test_the_head_of_a_recurrent_network_is_the_tail_on_its_features():
    torch.manual_seed(0)
    model, (x, y) = Recurrent("LSTM", batch_first=True).double(), cloud(6, shape=(2, 2))
    model(x)
    features = model.body(x)[0][:, -1].detach()
    expected = influence(model.head, (features, y), (features, y), damping=1.0)
    assert_close(influence(model, (x, y), (x, y), damping=1.0, parameters="head"), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_against_its_formula_whose_second_derivative_torch_has_wrong(norm):
    class Formula(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.bias, self.g, self.v = (nn.Parameter(p.detach().clone()) for p in layer.parameters())

        def forward(self, x):
            return F.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True), self.bias)

    torch.manual_seed(0)
    model = norm(nn.Linear(8, 3).double())
    model(TRAIN[0])
    weight = vars(model).get("weight")
    result = influence(model, TRAIN, TEST, damping=1.0)
    assert_close(result, influence_by_hand(Formula(model), TRAIN, TEST, 1.0))
    assert vars(model).get("weight") is weight


def test_a_wrong_second_derivative_is_refused():
    class Product(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(a, b):
            return a * b

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g * b.detach(), g * a  # right, but the second derivative misses one of two equal ones

    class Scaled(nn.Linear):
        def forward(self, x):
            return Product.apply(super().forward(x), self.bias.expand(len(x), -1))

    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match="the Hessian is not symmetric"):
        influence(nn.Sequential(Scaled(8, 8), nn.Linear(8, 3)).double(), TRAIN, TEST, damping=9.0)


class Peeking(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


def test_operations_and_layers_that_have_no_right_answer_are_refused_by_name():
    model = nn.Sequential(nn.Linear(8, 8), Peeking(), nn.Linear(8, 3)).double()
    with pytest.raises(UnsupportedModelError, match=r"the module '1' has an operation that torch.func refuses.*\.item"):
        influence(model, TRAIN, TEST, damping=1.0)
    for layer, name in (
        (nn.BatchNorm1d(8), r"'1\.weight' belongs to BatchNorm1d"),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten()),
            r"'1\.1\.weight'.*Conv2d",
        ),
    ):
        model = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3)).double()
        with pytest.raises(UnsupportedModelError, match=name):
            influence(model, TRAIN, TEST, damping=1.0, solver="kfac")
        influence(model, TRAIN, TEST, damping=1.0, solver="kfac", parameters=["0", "2"])
    twice = nn.Linear(8, 8).double()
    with pytest.raises(UnsupportedModelError, match="layers that run once, but '0' runs again"):
        influence(
            nn.Sequential(twice, nn.Tanh(), twice, nn.Linear(8, 3).double()), TRAIN, TEST, damping=1.0, solver="kfac"
        )


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", ["partial", "list", "view", "loss"])
@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
def test_a_weight_that_is_also_reached_past_its_module_is_refused(how, frozen, solver):
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Linear(8, 8, bias=False).double(), nn.Linear(8, 3).double()
            self.held = {"partial": partial(F.linear, weight=self.a.weight), "list": [self.a.weight]}.get(how)
            self.view = self.a.weight.t() if how == "view" else None

        def forward(self, x):
            h = torch.tanh(self.a(x))
            h = self.held(h) if how == "partial" else h @ self.held[0].T if how == "list" else h
            return self.head(torch.tanh(h @ self.view if how == "view" else h))

    model = Held()
    loss = F.cross_entropy
    if how == "loss":
        loss = lambda z, y: F.cross_entropy(z, y) + 0.1 * model.a.weight.square().sum()  # noqa: E731
    if frozen and how != "view":  # a view of a weight that was trained has its graph
        model.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(UnsupportedModelError, match=r"'a\.weight' is also reached .* read it as self\.weight"):
        influence(model, TRAIN, TEST, damping=9.0, solver=solver, loss=loss)
    assert [p.requires_grad for p in model.parameters()] == before
    if how != "loss":
        influence(model, TRAIN, TEST, damping=9.0, solver=solver, parameters="head")


def test_the_numbers_of_a_step_follow_the_memory_of_the_device(monkeypatch):
    assert objective.budget(torch.zeros(1)) == (2**25, 256)

    class Elsewhere:
        device = torch.device("cuda", 1)

        def element_size(self):
            return 8

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {1: (80 * 2**30, 96 * 2**30)}[device.index])
    assert objective.budget(Elsewhere()) == (80 * 2**30 // 32, 4096)


def test_a_module_s_name_is_not_taken_for_the_beginning_of_another():
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(a=nn.Linear(8, 4), ab=nn.Linear(4, 3))).double()
    named = influence(model, TRAIN, TEST, damping=1.0, parameters="a")
    model.ab.requires_grad_(False)
    assert_close(named, influence(model, TRAIN, TEST, damping=1.0))


def test_batch_size_bounds_the_rows_that_go_together():
    rows = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, g):
            return g

        @staticmethod
        def vmap(info, in_dims, x):
            rows.append(info.batch_size)
            return Counted.apply(x), in_dims[0]

    class Counting(nn.Linear):
        def forward(self, x):
            return Counted.apply(super().forward(x))

    model = Counting(8, 3).double()
    for batch_size, most in ((9, 9), (None, len(TRAIN[0]))):
        influence(model, TRAIN, TEST, damping=1.0, batch_size=batch_size)
        assert max(rows) == most
        rows.clear()
