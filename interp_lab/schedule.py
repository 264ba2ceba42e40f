"""The learning rate of every training of the course."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: Optimizer, lr: float, steps: int) -> OneCycleLR:
    r"""One cycle: the learning rate rises over a fifth of the steps and falls to nearly zero over the rest.

    With :math:`w = T / 5 - 1` for T steps, step :math:`s = 0, \dots, T - 1` has the rate

    .. math::

        \eta_s = \begin{cases}
            \eta - (\eta - \eta / 25) \, (1 + \cos (\pi s / w)) / 2 & 0 \le s \le w > 0, \\
            \epsilon + (\eta - \epsilon) \, (1 + \cos (\pi (s - w) / (T - 1 - w))) / 2 & \text{else,}
        \end{cases}

    where :math:`\epsilon = \eta / 250\,000`. Five steps and fewer have no rise: five begin at :math:`\eta`. A single
    step, which is the first and the last, is of size :math:`\eta`. The momentum (the first beta of Adam) goes the
    other way, from 0.95 to 0.85 and back.

    Args:
        optimizer: its learning rates and momenta are overwritten; call ``step()`` of the schedule after each of its steps.
        lr: the highest learning rate :math:`\eta`.
        steps: T, of the whole training.

    Raises:
        ValueError: fewer steps than one.

    Source: Smith and Topin (2019), Super-convergence, arXiv:1708.07120, with a cosine for both ways.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], momentum=0.9)
        >>> schedule, rates = one_cycle(optimizer, 1.0, steps=10), []
        >>> for _ in range(10):
        ...     rates.append(round(schedule.get_last_lr()[0], 2))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.04, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04, 0.0]
    """
    if steps == 1:
        steps = 5  # of which it is the first: the last one would have a rate of nearly zero
    rise = 0.2 - 1e-9 if steps == 5 else 0.2  # OneCycleLR would divide by the rise from step 0 to step 0
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)
