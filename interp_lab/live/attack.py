"""The direction of a step of the attack on a saliency map, so that a page can take the steps."""

from torch import Tensor, nn

from ..contract import explaining
from ..evaluate.fragility import largest, uphill
from ..explain_decision.gradient_based import saliency

DIRECTION = "attack direction"


def attack_direction(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor, *, k: int) -> Tensor:
    r"""The gradient of what :func:`~interp_lab.attack_attribution` minimises, at x, where it began at the baseline.

    .. math:: \nabla_x \sum_{i \in B} I_i(x)

    For :func:`~interp_lab.live.export_pairs`. B are the k strongest pixels of the baseline's map, and I is the map of x, with
    softplus for ReLU, divided by its sum.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.rand(1, 1, 4, 4)
    >>> attack_direction(model, x, torch.tensor([0]), x, k=3).shape
    torch.Size([1, 1, 4, 4])
    """
    inside = largest(saliency(model, baseline, target), k)
    with explaining(model, x) as x:
        return uphill(model, x, target, inside, 10.0)
