"""Prototype networks: similarity to pieces of training images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backprop.receptive_field import ReceptiveField, receptive_field
from ..contract import check_input, explaining
from ..schedule import one_cycle
from .features import check_labels, fit_head


@dataclass(frozen=True, eq=False)
class PrototypeEvidence:
    """Why a prototype network gave N images their logits.

    Attributes:
        images: the images ``(N, C, H, W)``.
        similarity: ``(N, M)``, to each prototype at the place where it is largest.
        contribution: ``(N, M)``, what each prototype adds to the logit of the target; they sum to that logit.
        target: ``(N,)``.
        windows: LongTensor ``(N, M, 4)``: top, bottom, left, right of the piece of the image compared.
        sources: ``(M, C, H, W)``, the training image that holds each prototype.
        source_windows: LongTensor ``(M, 4)``, the piece of it that is the prototype.
        classes: LongTensor ``(M,)``, the class each prototype was taken from.
    """

    images: Tensor
    similarity: Tensor
    contribution: Tensor
    target: Tensor
    windows: Tensor
    sources: Tensor
    source_windows: Tensor
    classes: Tensor


class PrototypeNetwork(nn.Module):
    r"""A network that decides by similarity to pieces of training images; made by :func:`prototype_network`.

    .. math:: f_c(x) = \sum_j w_{cj} s_j(x), \qquad s_j(x) = \max_p \log \frac{d_{jp} + 1}{d_{jp} + 10^{-4}},
        \qquad d_{jp} = \lVert h_p(x) - h_{p_j}(x_j) \rVert^2
    """

    classes: Tensor
    sources: Tensor
    source_windows: Tensor

    def __init__(self, body: nn.Sequential, width: int, image: Tensor, classes: int, per_class: int) -> None:
        super().__init__()
        self.fields = receptive_field(body, body, image[None])
        self.body = nn.Sequential(body, nn.Conv2d(width, 32, 1), nn.Sigmoid())
        self.prototypes = nn.Parameter(torch.rand(classes * per_class, 32))
        self.head = nn.Linear(classes * per_class, classes, bias=False)
        self.register_buffer("classes", torch.arange(classes).repeat_interleave(per_class))
        self.register_buffer("sources", torch.zeros(classes * per_class, *image.shape))
        self.register_buffer("source_windows", torch.zeros(classes * per_class, 4, dtype=torch.int64))
        with torch.no_grad():  # for its own class, and half as much against the others
            self.head.weight.copy_(1.5 * F.one_hot(self.classes).T - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(_similarity(self.distances(x).flatten(2).amin(2)))

    def distances(self, x: Tensor) -> Tensor:
        """Squared distance of every place to every prototype, ``(N, M, h, w)``."""
        h = self.body(x)
        cross = F.conv2d(h, self.prototypes[..., None, None])
        norms = self.prototypes.square().sum(1)[:, None, None]
        return F.relu(h.square().sum(1, keepdim=True) - 2 * cross + norms)  # rounding may go below zero

    def explain(self, x: Tensor, target: int | Tensor | None = None) -> PrototypeEvidence:
        """Each prototype's part in the logit of the target.

        Args:
            x: images, float ``(N, C, H, W)``; where they have another size than those of the training, what a place sees
                is found anew.
            target: a class, or a LongTensor ``(N,)`` of them; None takes the predicted one.

        Raises:
            ValueError: x is not a finite float batch, or the target is not a class.
        """
        with explaining(self, x) as x, torch.no_grad():
            distance = self.distances(x)
            similarity = _similarity(distance.flatten(2).amin(2))
            logits = self.head(similarity)
            chosen = logits.argmax(1) if target is None else torch.as_tensor(target, device=x.device).expand(len(x))
            if chosen.min() < 0 or chosen.max() >= logits.shape[1]:
                raise ValueError(f"target must lie in 0..{logits.shape[1] - 1}, got {target}")
            same = x.shape[1:] == self.sources.shape[1:]
            windows = _windows(distance, self.fields if same else receptive_field(self, self.body, x[:1]), x.shape[-2:])
            contribution = similarity * self.head.weight[chosen]
            own = (self.sources, self.source_windows, self.classes)
            return PrototypeEvidence(x, similarity, contribution, chosen, windows, *own)


def _windows(distance: Tensor, fields: tuple[ReceptiveField, ReceptiveField], size: torch.Size) -> Tensor:
    """The piece of the image at the smallest distance, ``(N, M, 4)``."""
    best, columns = distance.flatten(2).argmin(2), distance.shape[3]
    places = (best // columns, best % columns)
    sides = [field.windows(place, length) for field, place, length in zip(fields, places, size, strict=True)]
    return torch.cat(sides).permute(1, 2, 0)


def _similarity(distance: Tensor) -> Tensor:
    return torch.log((distance + 1) / (distance + 1e-4))


def prototype_network(
    x: Tensor,
    y: Tensor,
    body: nn.Sequential,
    *,
    per_class: int = 3,
    epochs: int = 20,
    lr: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> PrototypeNetwork:
    r"""Fit a prototype network: "this looks like that".

    .. math:: \min \; \frac1N \sum_n \Bigl( -\log p(y_n | x_n) + 0.8 \min_{j \in P(y_n)} \min_p d_{jp}(x_n)
        - 0.08 \min_{j \notin P(y_n)} \min_p d_{jp}(x_n) \Bigr)

    where :math:`P(c)` are the prototypes of class c: each image is drawn to one of its class and pushed from those of the
    others. Then every prototype is replaced by the nearest piece of a training image of its class, so that it *is* that
    piece, and the weights of the last layer are fitted again. Chen et al. 2019, arXiv:1806.10574, with its weights.

    Args:
        x: images, float ``(N, C, H, W)``, on the body's device.
        y: labels, LongTensor ``(N,)``, every class present.
        body: from images to maps ``(N, width, h, w)`` whose places see equal patches at equal steps, such as a stack of
            convolutions, poolings and pointwise layers; trained in place. On hard data start from the body of a
            trained network.
        per_class: prototypes of each class, at least 1.
        epochs: of the training (AdamW), at least 1.
        lr: the largest learning rate, reached after a fifth of the training.
        batch_size: images per step of the training.
        seed: of the start and of the order of the images; the global random state is not touched.

    Raises:
        ValueError: x or y are not as above, per_class or epochs below 1.
        UnsupportedModelError: the body gives no maps, or its places do not see equal patches.

    Example:
        >>> import torch
        >>> from interp_lab import prototype_network
        >>> bright = torch.arange(20) % 2
        >>> x = torch.rand(20, 1, 6, 6) / 2 + bright.view(-1, 1, 1, 1) / 2
        >>> network = prototype_network(x, bright, torch.nn.Conv2d(1, 4, 3), per_class=1, epochs=3)
        >>> evidence = network.explain(x[:5])
        >>> torch.allclose(evidence.contribution.sum(1), network(x[:5]).amax(1), atol=1e-5)
        True
    """
    check_input(body, x)
    classes, y = check_labels(y, len(x)), y.to(x.device)
    if per_class < 1 or epochs < 1:
        raise ValueError(f"per_class and epochs must be at least 1, got {per_class} and {epochs}")
    with explaining(body, x[:1]), torch.no_grad():
        width = body(x[:1]).shape[1]
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = PrototypeNetwork(body, width, x[0], classes, per_class).to(x).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.0)
        schedule = one_cycle(optimizer, lr, epochs * -(-len(x) // batch_size))
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=order).split(batch_size):
                index = index.to(x.device)
                optimizer.zero_grad()
                _loss(network, x[index], y[index]).backward()
                optimizer.step()
                schedule.step()
    network.eval()
    _project(network, x, y, batch_size)
    with torch.no_grad():
        nearest = torch.cat([network.distances(rows).flatten(2).amin(2) for rows in x.split(batch_size)])
    fit_head(network.head, _similarity(nearest), y)
    network.zero_grad()
    return network


def _loss(network: PrototypeNetwork, x: Tensor, y: Tensor) -> Tensor:
    """What :func:`prototype_network` minimises, for a batch."""
    nearest = network.distances(x).flatten(2).amin(2)
    own = network.classes == y[:, None]
    pull = nearest.where(own, torch.inf).amin(1).mean()
    push = nearest.where(~own, torch.inf).amin(1).mean()
    return F.cross_entropy(network.head(_similarity(nearest)), y) + 0.8 * pull - 0.08 * push


@torch.no_grad()
def _project(network: PrototypeNetwork, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Replace each prototype by the nearest piece of a training image of its class."""
    distance = torch.cat([network.distances(rows).flatten(2).amin(2) for rows in x.split(batch_size)])
    rows = distance.where(y[:, None] == network.classes, torch.inf).argmin(0)
    each = torch.arange(len(rows), device=x.device)
    maps, near = network.body(x[rows]), network.distances(x[rows])
    network.sources.copy_(x[rows])
    network.source_windows.copy_(_windows(near, network.fields, x.shape[-2:])[each, each])
    network.prototypes.copy_(maps.flatten(2)[each, :, near.flatten(2)[each, each].argmin(1)])
