"""MMD-critic against a naive implementation, by hand, and in closed form."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from interp_lab import mmd_critic


def kernel(x: torch.Tensor, gamma: float, labels: torch.Tensor | None = None) -> torch.Tensor:
    k = torch.exp(-gamma * torch.cdist(x, x) ** 2)
    return k if labels is None else k * (labels[:, None] == labels)


def mmd2(k: torch.Tensor, chosen: list[int]) -> float:
    return float(k.mean() - 2 * k[:, chosen].mean() + k[chosen][:, chosen].mean())


def naive(k: torch.Tensor, n_prototypes: int, n_criticisms: int, diversity: float) -> tuple[list[int], list[int]]:
    """Every candidate's objective from scratch on the whole matrix."""
    n, prototypes, criticisms = len(k), [], []
    for _ in range(n_prototypes):
        candidates = [j for j in range(n) if j not in prototypes]
        prototypes.append(min(candidates, key=lambda j: mmd2(k, [*prototypes, j])))
    witness = k.mean(0) - k[prototypes].mean(0)
    for _ in range(n_criticisms):
        candidates = [j for j in range(n) if j not in prototypes + criticisms]

        def objective(j: int) -> float:
            chosen = [*criticisms, j]
            return float(witness[chosen].abs().sum() + diversity * torch.logdet(k[chosen][:, chosen]))

        criticisms.append(max(candidates, key=objective))
    return prototypes, criticisms


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("diversity", [0.0, 0.01, 1.0])
def test_equal_to_the_naive_algorithm_index_for_index(local, diversity):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(3, (200,), generator=generator) if local else None
    result = mmd_critic(x, 12, 8, gamma=0.2, labels=labels, diversity=diversity)
    k = kernel(x, 0.2, labels)
    prototypes, criticisms = naive(k, 12, 8, diversity)
    assert result.prototypes.tolist() == prototypes
    assert result.criticisms.tolist() == criticisms
    assert_close(result.mmd2[-1].item(), mmd2(k, prototypes), rtol=1e-5, atol=1e-8)
    assert_close(result.witness, k.mean(0) - k[prototypes].mean(0))


def test_the_blocks_make_no_difference(monkeypatch):
    x = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = mmd_critic(x, 5, 3)
    monkeypatch.setattr("interp_lab.explain_model.prototypes.BLOCK", 7)
    parts = mmd_critic(x, 5, 3)
    assert parts.prototypes.tolist() == whole.prototypes.tolist()
    assert_close(parts.witness, whole.witness)


def test_the_witness_by_hand_on_five_points():
    x = torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]], dtype=torch.float64)
    result = mmd_critic(x, 1, 1, gamma=math.log(2))  # the kernel at distance 1 is 1/2
    # The mean kernel is (4 + 1/2) / 5 = .9 at 0 and (4/2 + 1) / 5 = .6 at 1; the prototype at 0 has 1 and 1/2 there.
    assert x[result.prototypes].tolist() == [[0.0]]
    assert_close(result.witness, torch.tensor([-0.1, -0.1, -0.1, -0.1, 0.1], dtype=torch.float64))
    # MMD^2 = (4 * .9 + .6) / 5 - 2 * .9 + 1
    assert_close(result.mmd2, torch.tensor([0.04]))


def test_mmd_of_two_gaussians_has_its_closed_form():
    gamma, shift, n, d = 0.3, 1.5, 1500, 2
    x = torch.randn(2 * n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[n:, 0] += shift
    mean = mmd_critic(x, 1, gamma=gamma).witness  # the mean kernel, less that to one prototype
    prototype = mmd_critic(x, 1, gamma=gamma).prototypes
    at_zero = torch.exp(-gamma * ((x - x[prototype]) ** 2).sum(1))
    centre = torch.tensor([[0.0, 0.0], [shift, 0.0]], dtype=torch.float64)
    expected = ((1 + 2 * gamma) ** (-d / 2) * torch.exp(-gamma * torch.cdist(x, centre) ** 2 / (1 + 2 * gamma))).mean(1)
    # The mean of 3000 draws of a kernel in [0, 1] is within 5 standard errors of its expectation.
    assert_close(mean + at_zero, expected, rtol=0, atol=5 * 0.5 / (2 * n) ** 0.5)


def test_greedy_prototypes_are_near_the_best_of_all_choices():
    x = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    k = kernel(x, 0.5)
    best = min(mmd2(k, list(chosen)) for chosen in itertools.combinations(range(12), 3))
    found = mmd_critic(x, 3, gamma=0.5).mmd2[-1].item()
    assert best - 1e-12 <= found <= 2.5 * best


def test_every_mode_of_the_data_gets_its_prototype_in_order_of_its_weight():
    generator = torch.Generator().manual_seed(0)
    sizes = (100, 80, 60)
    x = torch.cat([torch.randn(n, 2, generator=generator) * 0.3 + 10 * k for k, n in enumerate(sizes)])
    modes = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    assert modes[mmd_critic(x, 3, gamma=0.5).prototypes].tolist() == [0, 1, 2]


def test_planted_outliers_are_found_as_criticisms_and_the_witness_is_positive_there():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator)
    x[:4] = torch.tensor([[6.0, 0.0], [0.0, 6.0], [-6.0, 0.0], [0.0, -6.0]])
    result = mmd_critic(x, 20, 8)
    assert set(range(4)) <= set(result.criticisms.tolist())
    assert (result.witness[:4] > 0).all()
    assert (result.witness < 0).any()


def test_a_small_cluster_that_the_prototypes_miss_is_where_the_signed_witness_is_largest():
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(270, 2, generator=generator), torch.randn(30, 2, generator=generator) + 8])
    result = mmd_critic(x, 1, gamma=0.3)
    assert result.prototypes.item() < 270
    assert result.witness.argmax() >= 270


BASE = torch.randn(80, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
FAR = (torch.arange(80) < 30).double()[:, None]
PLACES = {
    "50 away": BASE + 50,
    "1000 away": BASE + 1e3,
    "10,000 away": BASE + 1e4,
    "with a year": torch.cat([1990 + 30 * torch.rand_like(BASE[:, :1]).round(decimals=1), BASE], 1),
    "with features of very different size": BASE * torch.tensor([1e-3, 1.0, 1.0, 1e3, 1.0]) + 1e4,
    "two clusters far from each other": BASE + 1e4 * FAR,
    "one example very far": BASE + 1e30 * (torch.arange(80) == 3)[:, None],
    "near the largest number": BASE * 1e37,
    "tiny": BASE * 1e-18,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_where_the_data_lie_makes_no_difference(place, dtype):
    """The choice is that of the naive algorithm on the differences of the very same numbers in float64."""
    x = PLACES[place].to(dtype)
    result = mmd_critic(x, 6, 4)
    k = torch.exp(-result.gamma * (x.double()[:, None] - x.double()).square().sum(2))
    prototypes, criticisms = naive(k, 6, 4, 1.0)
    witness = k.mean(0) - k[prototypes].mean(0)
    if dtype != torch.bfloat16:  # which has many equal distances
        assert result.prototypes.tolist() == prototypes
        assert result.criticisms.tolist() == criticisms
        assert_close(result.witness.double(), witness, rtol=0, atol=1e-6)
    assert_close(result.mmd2[-1].item(), mmd2(k, prototypes), rtol=1e-4, atol=1e-6)


def test_two_far_clusters_of_doubles_are_told_apart_by_their_differences():
    x = BASE + 1e10 * FAR
    result = mmd_critic(x, 6, gamma=0.25)  # whose root is exact
    k = torch.exp(-0.25 * (x[:, None] - x).square().sum(2))
    assert result.prototypes.tolist() == naive(k, 6, 0, 1.0)[0]
    assert_close(result.witness, k.mean(0) - k[result.prototypes].mean(0), rtol=0, atol=1e-12)


CLUSTERS = torch.cat([BASE, BASE * 1.1 + 1e6]).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("x", "gamma"),
    [*((BASE.float(), gamma) for gamma in (1e-2, 1e-5, 1e-6, 1e-7, 1e-9)), (CLUSTERS, None), (CLUSTERS / 1e6, None)],
)
def test_a_kernel_near_one_keeps_its_digits(x, gamma, dtype):
    """The choice on float32 numbers is that of 1 - k by expm1, whose digits are all there, in float64."""
    result = mmd_critic(x.to(dtype), 6, gamma=gamma)
    lacking = -torch.expm1(-result.gamma * (x.double()[:, None] - x.double()).square().sum(2))
    prototypes, _ = naive(-lacking, 6, 0, 0.0)  # a constant added to the kernel changes no MMD
    witness = lacking[prototypes].mean(0) - lacking.mean(0)
    assert result.prototypes.tolist() == prototypes
    assert_close(result.witness.double(), witness, rtol=0, atol=1e-4 * float(witness.abs().max()))
    assert result.witness.dtype == dtype


def test_the_kernel_of_ordinary_data_stays_in_single_precision(monkeypatch):
    types = []
    plain = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **options: types.append(a[1].dtype) or plain(*a, **options))
    x = torch.rand(2000, 50, generator=torch.Generator().manual_seed(0))
    for data in (x, x.view(2000, 5, 10) + 10, torch.randn(2000, 20)):
        mmd_critic(data, 3, 3)
    assert set(types) == {torch.float32}


@pytest.mark.parametrize("kind", [list, lambda labels: labels.numpy(), lambda labels: labels.to(torch.uint8)])
def test_labels_of_any_kind_of_integers(kind):
    labels = torch.arange(80) % 3
    given = kind(labels.tolist() if kind is list else labels)
    expected, came = (mmd_critic(BASE, 6, 3, labels=each) for each in (labels, given))
    assert torch.equal(came.prototypes, expected.prototypes)
    assert torch.equal(came.criticisms, expected.criticisms)


def test_half_precision_is_computed_in_single():
    x = BASE.half()
    half, single = mmd_critic(x, 6, 4), mmd_critic(x.float(), 6, 4)
    assert half.witness.dtype == torch.float32
    for field in ("prototypes", "criticisms", "witness", "mmd2"):
        assert_close(getattr(half, field), getattr(single, field), rtol=0, atol=0)


X = torch.rand(10, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mmd_critic([[1.0]], 1), r"floating-point tensor \(N, ...\), got list"),
        (lambda: mmd_critic(torch.arange(5), 1), r"got torch.int64 \(5,\)"),
        (lambda: mmd_critic(torch.zeros(5, 3, dtype=torch.long), 1), "of token ids, .* give their embeddings"),
        (lambda: mmd_critic(X / 0, 1), "x must be finite"),
        (lambda: mmd_critic(X, 0), r"n_prototypes must lie in 1\.\.10 .*, got 0"),
        (lambda: mmd_critic(X, 11), r"n_prototypes must lie in 1\.\.10 .*, got 11"),
        (lambda: mmd_critic(X, 8, 3), r"n_criticisms must lie in 0\.\.2, got 3"),
        (lambda: mmd_critic(X, 1, gamma=0.0), "gamma must be positive, got 0.0"),
        (
            lambda: mmd_critic(X, 1, labels=torch.zeros(9, dtype=torch.long)),
            r"labels must be 10 integers, got int64 \(9,\)",
        ),
        (lambda: mmd_critic(X, 1, labels=["a"] * 10), "labels must be 10 integers, got <U1"),
        (lambda: mmd_critic(X, 1, labels=torch.rand(10)), "labels must be 10 integers, got float64"),
        (lambda: mmd_critic(X, 5.0), r"n_prototypes must be a whole number, got 5\.0; give int\(n_prototypes\)"),
        (lambda: mmd_critic(X, 5, 1.0), "n_criticisms must be a whole number"),
        (lambda: mmd_critic(X.double() * 1e200, 2), r"distances in x overflow .* such as x / x\.abs\(\)\.max\(\)"),
        (lambda: mmd_critic(X.double() * 1e-200, 2), "distances in x underflow double precision"),
        (lambda: mmd_critic(X, 2, gamma=1e-15), r"with gamma 1e-15 the kernel of most pairs is 1 .* give a gamma near"),
        (lambda: mmd_critic(X, 1, diversity=-1), "diversity must be at least 0, got -1"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
