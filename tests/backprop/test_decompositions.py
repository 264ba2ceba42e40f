"""Operations of one call, written out: the same values, conservation without biases, sums to the difference."""

import naive
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, deeplift, guided_backprop
from interp_lab.backprop.decompositions import MAXIMA, written_out
from interp_lab.contract.interception import Interception
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

RECURRENT = {
    "LSTM": lambda **o: nn.LSTM(4, 5, **o),
    "GRU": lambda **o: nn.GRU(4, 5, **o),
    "RNN": lambda **o: nn.RNN(4, 5, **o),
    "RNN with relu": lambda **o: nn.RNN(4, 5, nonlinearity="relu", **o),
    "LSTM with projection": lambda **o: nn.LSTM(4, 5, proj_size=3, **o),
}
OPTIONS = {
    "plain": {},
    "batch first, both directions": {"batch_first": True, "bidirectional": True},
    "two layers without biases": {"num_layers": 2, "bias": False, "dropout": 0.3},
}


class Recurrent(nn.Module):
    """Reads (N, T, 4); logits from the last step and the last state."""

    def __init__(self, name: str, options: dict) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.net = options.get("batch_first", False), RECURRENT[name](**options)
        self.head = nn.LazyLinear(3, bias=False)
        self.eval()(torch.zeros(1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.net(x if self.first else x.transpose(0, 1))
        state = state[0] if isinstance(state, tuple) else state
        last = out[:, -1] if self.first else out[-1]
        return self.head(torch.cat([last, state[-1]], 1))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_networks(name, options):
    model, x = Recurrent(name, options), torch.randn(3, 6, 4)
    value = x.clone().requires_grad_()
    with Interception(written_out({}), [value]):
        assert_close(model(value), model(x))
    difference = (model(x) - model(torch.full_like(x, 0.3)))[:, 1].detach()
    assert_close(deeplift(model, x, 1, baseline=0.3).sum((1, 2)), difference)
    for parameter_name, p in model.named_parameters():
        if "bias" in parameter_name:
            p.data.zero_()
    assert_close(lrp(model, x, 1, rule="epsilon", epsilon=1e-15).sum((1, 2)), model(x)[:, 1].detach())


def test_the_relevance_of_an_lstm_is_that_of_gates_held_constant():
    # Arras et al. 2017: the signal takes all of a gated product. One unit, one step, written out by hand.
    torch.manual_seed(0)
    model, x = nn.LSTM(3, 2, batch_first=True, bias=False), torch.randn(2, 1, 3)
    _, _, g, o = (x[:, 0] @ model.weight_ih_l0.detach().T).chunk(4, 1)
    h = model(x)[0][:, 0].detach()
    w = model.weight_ih_l0.detach()[4:6]
    expected = h[:, 1:2] * w[1] * x[:, 0] / g[:, 1:2]
    ours = lrp(lambda x: model(x)[0][:, 0], x, 1, rule="epsilon", epsilon=1e-15)
    assert_close(ours[:, 0], expected)
    assert (o.sigmoid() < 0.95).any()  # the gate is no constant 1


def unchanged(phi, z: Tensor) -> Tensor:
    """A nonlinearity as a constant factor, so that its gradient hands the relevance on unchanged."""
    return z * (phi(z) / z).detach()


def lstm_with_constants(net: nn.LSTM, x: Tensor) -> Tensor:
    h, c = x.new_zeros(2, len(x), 5)
    for step in x.unbind(1):
        z = step @ net.weight_ih_l0.T + net.bias_ih_l0 + h @ net.weight_hh_l0.T + net.bias_hh_l0
        i, f, g, o = z.chunk(4, 1)
        c = f.sigmoid().detach() * c + i.sigmoid().detach() * unchanged(torch.tanh, g)
        h = o.sigmoid().detach() * unchanged(torch.tanh, c)
    return h


def gru_with_constants(net: nn.GRU, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 5)
    for step in x.unbind(1):
        a, b = step @ net.weight_ih_l0.T + net.bias_ih_l0, h @ net.weight_hh_l0.T + net.bias_hh_l0
        (r, z, n), (r_h, z_h, n_h) = a.chunk(3, 1), b.chunk(3, 1)
        r, z = (r + r_h).sigmoid().detach(), (z + z_h).sigmoid().detach()
        h = (1 - z) * unchanged(torch.tanh, n + r * n_h) + z * h
    return h


@pytest.mark.parametrize(("kind", "constants"), [(nn.LSTM, lstm_with_constants), (nn.GRU, gru_with_constants)])
def test_the_relevance_of_a_recurrent_network_is_the_gradient_with_its_gates_as_constants(kind, constants):
    torch.manual_seed(0)
    net, head, x = kind(4, 5, batch_first=True), nn.Linear(5, 3), torch.randn(2, 6, 4)
    net.bias_hh_l0.data[10:15] = 0  # at the first step a gate times that constant is no product of two activations
    gradient = naive.gradient(lambda x: head(constants(net, x)), x, 1)
    ours = lrp(lambda x: head(net(x)[0][:, -1]), x, 1, rule="epsilon", epsilon=0)
    assert_close(ours, x * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell(4, 5), nn.GRUCell(4, 5), nn.RNNCell(4, 5), nn.RNNCell(4, 5, nonlinearity="relu")]
)
def test_recurrent_cells(cell):
    cell, head = cell.double(), nn.Linear(5, 3)

    def model(x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        return head(state[0] if isinstance(state, tuple) else state)

    x = torch.randn(3, 4, 4)
    difference = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    assert_close(deeplift(model, x, 1).sum((1, 2)), difference)


def test_packed_sequences_are_refused_with_the_remedy():
    net = nn.LSTM(4, 3)

    def model(x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2], batch_first=True)
        return net(packed)[1][0][-1]

    with pytest.raises(UnsupportedModelError, match="'lstm' on packed sequences: give a padded batch"):
        lrp(model, torch.randn(2, 4, 4), 0)


MAPS = {
    "x.max(dim)": lambda z: z.max(2).values,
    "x.max(dim, keepdim)": lambda z: z.max(-1, keepdim=True)[0].flatten(1),
    "x.min(dim)": lambda z: z.min(dim=2).values,
    "amax": lambda z: z.amax(2),
    "amax over two": lambda z: z.amax((1, 2))[:, None].expand(-1, 6),
    "amin, keepdim": lambda z: z.amin(2, keepdim=True).squeeze(2),
    "maximum": lambda z: torch.maximum(z[..., 0], z[..., 1]),
    "maximum with a constant": lambda z: torch.maximum(z[..., 0], torch.tensor(0.2)),
    "minimum": lambda z: torch.minimum(z[..., 0], z[..., 1] + 1),
    "max of two": lambda z: torch.max(z[..., 0], z[..., 1]),
    "glu": lambda z: F.glu(z[..., :2].reshape(len(z), -1), 1),
    "addcmul": lambda z: torch.addcmul(z[..., 0], z[..., 1], z[..., 2].sigmoid(), value=0.5),
    "power": lambda z: z[..., 0] ** 3 + z[..., 1].pow(2),
    "exponent": lambda z: 2 ** z[..., 0],
    "reciprocal": lambda z: 1 / (2 + z[..., 0] ** 2),
    "einsum": lambda z: torch.einsum("nkt,tu->nku", z, torch.ones(9, 2))[..., 0],
    "addmm": lambda z: torch.addmm(torch.ones(6), z[..., 0], torch.ones(6, 6), beta=2),
    "circular padding": lambda z: F.pad(z, (2, 1), mode="circular").relu().sum(2),
}
NO_GRADIENT_RULE = {"exponent", "reciprocal"}  # in LRP


@pytest.mark.parametrize("name", MAPS)
def test_deeplift_sums_to_the_difference_and_lrp_conserves(name):
    torch.manual_seed(0)
    conv, head, function = nn.Conv1d(4, 6, 3, padding=1, bias=False), nn.Linear(6, 3, bias=False), MAPS[name]

    def model(x: Tensor) -> Tensor:
        return head(function(conv(x)))

    x, baseline = torch.randn(3, 4, 9), torch.randn(3, 4, 9)
    value = x.clone().requires_grad_()
    with Interception(written_out({}, MAXIMA), [value]):
        assert_close(model(value), model(x))
    difference = (model(x) - model(baseline))[:, 1].detach()
    assert_close(deeplift(model, x, 1, baseline=baseline).sum((1, 2)), difference)
    if name in NO_GRADIENT_RULE:
        return
    relevance, balance = lrp(model, x, 1, rule="epsilon", epsilon=1e-15, balance=True)
    assert_close(relevance.sum((1, 2)) + balance.biases, model(x)[:, 1].detach())
    if name not in ("maximum with a constant", "minimum", "addmm"):
        assert_close(balance.biases, torch.zeros(3))


def test_a_maximum_shares_as_a_max_pool_does():
    torch.manual_seed(0)
    conv, head, x, x0 = nn.Conv1d(4, 6, 3), nn.Linear(6, 3), torch.randn(3, 4, 9), torch.randn(3, 4, 9)
    expected = deeplift(lambda x: head(F.max_pool1d(conv(x), 7)[..., 0]), x, 1, baseline=x0)
    for function in (lambda z: z.amax(2), lambda z: z.max(2).values, lambda z: -(-z).amin(2)):
        assert_close(deeplift(lambda x, f=function: head(f(conv(x))), x, 1, baseline=x0), expected)


LINEAR = {
    "linear": (1, nn.Upsample(scale_factor=2, mode="linear")),
    "trilinear": (3, nn.Upsample(scale_factor=2, mode="trilinear")),
    "nearest": (3, nn.Upsample(scale_factor=2)),
    "nearest-exact": (2, nn.Upsample(scale_factor=2, mode="nearest-exact")),
    "antialias": (2, lambda z: F.interpolate(z, size=5, mode="bilinear", antialias=True)),
    "circular padding": (2, nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")),
    "fixed grid": (
        2,
        lambda z: F.grid_sample(z, torch.linspace(-1, 1, 16).view(1, 4, 2, 2).expand(len(z), -1, -1, -1)),
    ),
    "cumulative": (1, lambda z: z.cumsum(2)),
    "triangular": (2, lambda z: z.tril()),
    "added by index": (2, lambda z: z.index_add(1, torch.tensor([0, 2]), z[:, :2])),
}


@pytest.mark.filterwarnings("ignore:Default grid_sample")
@pytest.mark.parametrize(("dim", "middle"), LINEAR.values(), ids=LINEAR.keys())
def test_linear_operations_have_their_gradient(dim, middle):
    torch.manual_seed(0)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1](1, 3, 3, padding=1)
    middle = middle.double() if isinstance(middle, nn.Module) else middle
    head, x = nn.Linear(3, 2), torch.randn(2, 1, *[4] * dim)

    def model(x: Tensor) -> Tensor:
        return head(middle(F.relu(layer(x))).flatten(2).mean(2))

    gradient = naive.gradient(model, x, 0)
    assert_close(lrp(model, x, 0, rule="epsilon", epsilon=1e-15), x * gradient)
    difference = (model(x) - model(torch.full_like(x, 0.2)))[:, 0].detach()
    assert_close(deeplift(model, x, 0, baseline=0.2).flatten(1).sum(1), difference)
    assert guided_backprop(model, x, 0).shape == x.shape


def test_a_grid_that_depends_on_x_is_refused():
    with pytest.raises(UnsupportedModelError, match="grid_sampler"):
        deeplift(
            lambda x: F.grid_sample(x, x[:, :2].movedim(1, -1), align_corners=True).mean((2, 3)), torch.rand(2, 3, 4, 4)
        )
