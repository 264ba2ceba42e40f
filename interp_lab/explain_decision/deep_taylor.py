"""Deep Taylor decomposition: each unit's relevance, expanded at a root point of the unit."""

from torch import Tensor

from ..contract import Model, Target, UnsupportedModelError
from .lrp.composite import always, is_input
from .lrp.relevance import Balance, balanced_relevance, relevance_of
from .lrp.rules import Options


def deep_taylor(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    bias: str = "share",
    balance: bool = False,
) -> Tensor | tuple[Tensor, Balance]:
    r"""Deep Taylor decomposition: each unit's relevance, expanded at a root point of the unit.

    The root points give ``"z_plus"`` in the hidden layers, and in the input layer ``"z_b"`` where x lies in a box
    :math:`[l, h]`, else ``"w_squared"`` (see :func:`lrp`). It starts at :math:`\max(f_c, 0)`: where the logit is not
    positive, the map is zero. Sums, differences, averages and shifts outside the layers take ``"z_plus"`` too, so that
    the relevance is non-negative; where an operation breaks that (bicubic upsampling), it is refused. It sums to
    :math:`\max(f_c, 0)` where a ReLU follows every layer and no bias is positive, or with ``bias="inputs"``; but for
    what no contribution can carry (``lost`` in the balance), such as the constant that a BatchNorm adds to a ReLU's 0.

    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        low, high: bounds of x, numbers or tensors that broadcast to x; both or neither.
        bias: ``"share"``: a bias keeps its share of the relevance. ``"inputs"``: its share goes to the layer's inputs.
        balance: also return where the relevance of every row went; takes one pass for each row.

    Returns:
        The relevance, of the shape, dtype and device of x; with ``balance`` the pair of it and a ``Balance``.

    Raises:
        ValueError: x, target, the logits or a bound are not as above, or there is one bound without the other.
        UnsupportedModelError: an operation without a rule (softmax, a norm, attention ...), by name, or one that makes
            relevance negative.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
    >>> deep_taylor(model, torch.tensor([[3.0, 1.0]]), low=0.0, high=4.0)  # f = 1, shared as 3 to -2 + 8
    tensor([[0.3333, 0.6667]])
    """
    if (low is None) != (high is None):
        raise ValueError("deep_taylor needs both low and high, or neither")
    first = "w_squared" if low is None else "z_b"
    rules = [(is_input, first), (always, "z_plus")]
    options = Options(0.0, 0.0, bias)  # sums of one sign need no stabiliser
    if balance:
        relevance, where = balanced_relevance(model, x, target, rules, options, low, high, positive=True)
        return _not_negative(relevance), where
    return _not_negative(relevance_of(model, x, target, rules, options, low, high, positive=True))


def _not_negative(relevance: Tensor) -> Tensor:
    smallest, size = (-relevance).flatten(1), relevance.flatten(1).abs()
    if smallest.numel() and (smallest.amax(1) > 1e-4 * size.amax(1)).any():
        raise UnsupportedModelError(
            "relevance would be negative: the model sums contributions of both signs in an operation for which "
            "deep_taylor has no rule (bicubic upsampling, say); use lrp"
        )
    return relevance
