"""Bags of local features: a map of evidence that sums to the logit."""

import torch
from torch import Tensor, nn

from ..contract import explaining


class BagOfLocalFeatures(nn.Module):
    r"""A network that adds up local evidence: logits are the mean of the logits of all patches.

    .. math:: f_c(x) = \frac{1}{|P|} \sum_{p \in P} \bigl( w_c \cdot h_p(x) + b_c \bigr)

    :math:`h_p` sees the pixels of its receptive field alone, and the order of the patches plays no role. Brendel &
    Bethge 2019, arXiv:1904.00760. Train it with :func:`interp_lab.networks.train`;
    :func:`~interp_lab.backprop.receptive_field.receptive_field` says how many pixels a place of its body sees.

    Args:
        body: from ``(N, C, H, W)`` to maps ``(N, width, h, w)``; local if it is a stack of convolutions, poolings and
            pointwise layers.
        width: channels that the body gives.
        classes: number of classes.

    Example:
        >>> import torch
        >>> from interp_lab import BagOfLocalFeatures
        >>> body = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 4, stride=4), torch.nn.ReLU())
        >>> bag = BagOfLocalFeatures(body, width=8, classes=3).eval()
        >>> x = torch.rand(2, 1, 12, 12)
        >>> evidence = bag.evidence(x)  # of nine patches
        >>> evidence.shape, torch.allclose(evidence.sum((2, 3)), bag(x), atol=1e-6)
        (torch.Size([2, 3, 3, 3]), True)
    """

    def __init__(self, body: nn.Sequential, width: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).mean((2, 3))

    def evidence(self, x: Tensor) -> Tensor:
        """What each place contributes to each logit, ``(N, K, h, w)``; over the places it sums to the logits."""
        with explaining(self, x) as x, torch.no_grad():
            local = self.head(self.body(x))
            return local / local[0, 0].numel()
