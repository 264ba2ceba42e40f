"""Time and memory of every attribution method beside its floor, Captum and Zennit, in one run.

The unit is one forward and one backward pass to the input; a method's floor is the number of such units that its
mathematics needs (DeepLIFT's is one pass over x and baseline together). All calls of a network take turns in rounds,
so that a drift of the machine hits all alike, and each ratio is the median over the rounds of a call's time over its
floor's time in the same round. Peak memory is that of a process of its own.

    python -m benchmarks.attribution [--rounds 7] [--device cpu|cuda] [--network NAME] [--method NAME ...] [--memory]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import captum.attr
import torch
import torchvision
import zennit.attribution
import zennit.composites
import zennit.torchvision
from torch import Tensor, nn

import interp_lab
from interp_lab import networks

Call = Callable[[], Tensor]
N = 10  # noisy copies and steps: enough passes to show a cost per pass
NETWORKS = {
    "scenes_cnn": (256, 64),
    "squeezenet1_1": (8, 224),
    "resnet18": (8, 224),
    "vgg16": (8, 224),
}  # name -> (batch, image size)


torch.backends.cudnn.allow_tf32 = False  # as our methods do, so that all count with the same digits


def setting(name: str, device: str, batch: int | None = None) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    default, size = NETWORKS[name]
    network = networks.scenes_cnn() if name == "scenes_cnn" else torchvision.models.get_model(name, weights=None)
    return network.eval().to(device), torch.rand(batch or default, 3, size, size, device=device)


def unit(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """One forward and one backward pass to the input, as bare as it gets."""
    leaf = x.detach().requires_grad_()
    score = network(leaf).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, leaf)[0]


def zennit_call(network: nn.Module, x: Tensor, target: Tensor, composite, canonizers: list) -> Call:
    with torch.no_grad():
        start = torch.zeros_like(network(x)).scatter(1, target[:, None], 1.0)

    def call() -> Tensor:
        made = composite(canonizers=[canonizer() for canonizer in canonizers])
        with zennit.attribution.Gradient(model=network, composite=made) as attributor:
            return attributor(x, start)[1]

    return call


def calls(name: str, network: nn.Module, x: Tensor, target: Tensor) -> dict[str, tuple[float, dict[str, Call]]]:
    """Method -> (floor in units, library -> call); floor 0 stands for DeepLIFT's own."""
    attr = captum.attr
    sigma = 0.15 * float(x[0].max() - x[0].min())
    canonizers = [zennit.torchvision.ResNetCanonizer] if name == "resnet18" else []
    dense = (lambda layer: layer.kind == "dense", "epsilon")

    def zennits(composite) -> Call:
        return zennit_call(network, x, target, composite, canonizers)

    def ours(method: str, **options) -> Call:
        return lambda: getattr(interp_lab, method)(network, x, target, **options)

    def lrp(rule: str) -> Call:
        return ours("lrp", rule=[dense, (lambda layer: True, rule)])

    return {
        "saliency": (
            1,
            {
                "ours": ours("saliency"),
                "Captum": lambda: attr.Saliency(network).attribute(x, target, abs=False),
            },
        ),
        "gradient_x_input": (
            1,
            {
                "ours": ours("gradient_x_input"),
                "Captum": lambda: attr.InputXGradient(network).attribute(x, target),
            },
        ),
        "interior_gradient": (
            1,
            {
                "ours": ours("interior_gradient", alpha=0.5),
                "Captum": lambda: attr.Saliency(network).attribute(0.5 * x, target, abs=False),
            },
        ),
        f"smoothgrad n={N}": (
            N,
            {
                "ours": ours("smoothgrad", n=N),
                "Captum": lambda: attr.NoiseTunnel(attr.Saliency(network)).attribute(
                    x, nt_samples=N, nt_samples_batch_size=1, stdevs=sigma, target=target, abs=False
                ),
            },
        ),
        f"integrated_gradients steps={N}": (
            N,
            {
                "ours": ours("integrated_gradients", steps=N),
                "Captum": lambda: attr.IntegratedGradients(network).attribute(
                    x, target=target, n_steps=N, internal_batch_size=len(x), method="gausslegendre"
                ),
            },
        ),
        "deconvnet": (
            1,
            {
                "ours": ours("deconvnet"),
                "Captum": lambda: attr.Deconvolution(network).attribute(x, target),
                "Zennit": zennits(zennit.composites.DeconvNet),
            },
        ),
        "guided_backprop": (
            1,
            {
                "ours": ours("guided_backprop"),
                "Captum": lambda: attr.GuidedBackprop(network).attribute(x, target),
                "Zennit": zennits(zennit.composites.GuidedBackprop),
            },
        ),
        "rectgrad": (1, {"ours": ours("rectgrad")}),
        "grad_cam": (
            1,
            {
                "ours": ours("grad_cam"),
                "Captum": lambda: attr.LayerGradCam(network, last_convolution(network)).attribute(x, target),
            },
        ),
        "lrp epsilon": (
            1,
            {
                "ours": lrp("epsilon"),
                "Captum": lambda: attr.LRP(network).attribute(x, target),
            },
        ),
        "lrp z_plus composite": (1, {"ours": lrp("z_plus"), "Zennit": zennits(zennit.composites.EpsilonPlus)}),
        "lrp alpha2_beta1 composite": (
            1,
            {
                "ours": lrp("alpha2_beta1"),
                "Zennit": zennits(zennit.composites.EpsilonAlpha2Beta1),
            },
        ),
        "deeplift": (
            0,
            {
                "ours": ours("deeplift"),
                "Captum": lambda: attr.DeepLift(network).attribute(x, target=target),
            },
        ),
    }


def last_convolution(network: nn.Module) -> nn.Module:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]


def timed(call: Call, device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_table(name: str, device: str, rounds: int, only: tuple[str, ...]) -> None:
    network, x = setting(name, device)
    with torch.no_grad():
        target = network(x).argmax(1)
    pair = torch.cat([x, torch.zeros_like(x)])
    table = {m: row for m, row in calls(name, network, x, target).items() if m.startswith(only)}
    x.requires_grad_()  # Captum warns otherwise; ours detaches
    ratios: dict[tuple[str, str], list[float]] = {}
    units = []
    for round_number in range(rounds + 1):
        bare = statistics.mean(timed(lambda: unit(network, x, target), device) for _ in range(3))
        both = timed(lambda: unit(network, pair, target.repeat(2)), device) if "deeplift" in table else bare
        for method, (floor, libraries) in table.items():
            for library, call in libraries.items():
                try:
                    seconds = timed(call, device)
                except Exception as error:
                    table[method] = (floor, {k: v for k, v in libraries.items() if k != library})
                    print(f"{name}: {library} cannot do {method}: {type(error).__name__}")
                    continue
                if round_number:  # the first round warms up
                    ratios.setdefault((method, library), []).append(seconds / (floor * bare or both))
        units.append(bare)
    print(
        f"\n{name}, batch {len(x)}, on {device}: a forward and backward pass takes {1000 * statistics.median(units):.1f} ms"
    )
    print(
        f"{'time / floor, median (min-max)':32} {'floor':>6} "
        + "".join(f"{who:>20}" for who in ("ours", "Captum", "Zennit"))
    )
    for method, (floor, _) in table.items():
        cells = (summary(ratios.get((method, library))) for library in ("ours", "Captum", "Zennit"))
        print(f"{method:32} {floor or '2N':>6} " + "".join(f"{cell:>20}" for cell in cells), flush=True)


def summary(values: list[float] | None) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "-"


def peak_memory(device: str, *call: str) -> float:
    """Peak memory in MB of one call in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.attribution", "--device", device, "--one", *call]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def one_call(device: str, method: str, library: str, n: str = "", batch_size: str = "") -> None:
    network, x = setting("squeezenet1_1", device)
    target = torch.zeros(len(x), dtype=torch.long, device=device)
    if n:
        option = {"smoothgrad": "n", "integrated_gradients": "steps"}[method]
        getattr(interp_lab, method)(network, x, target, **{option: int(n)}, batch_size=int(batch_size))
    else:
        calls("squeezenet1_1", network, x, target)[method][1][library]()
    if device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def memory_table(device: str) -> None:
    print(f"\nPeak memory (MB) on squeezenet1_1, 8 images of 224x224, on {device}; columns: n or steps")
    print(f"{'method':24} {'batch_size':>10} " + " ".join(f"{n:>7}" for n in (2, 8, 32)))
    for method in ("smoothgrad", "integrated_gradients"):
        for batch_size in (4, 16):
            row = [peak_memory(device, method, "ours", str(n), str(batch_size)) for n in (2, 8, 32)]
            print(f"{method:24} {batch_size:10} " + " ".join(f"{value:7.0f}" for value in row), flush=True)
    print(f"\nPeak memory (MB) of one call, the same batch\n{'method':32} {'ours':>8} {'Captum':>8} {'Zennit':>8}")
    network, x = setting("squeezenet1_1", device, batch=1)
    for method, (_, libraries) in calls(
        "squeezenet1_1", network, x, torch.zeros(1, dtype=torch.long, device=device)
    ).items():
        cells = (
            f"{peak_memory(device, method, who):8.0f}" if who in libraries else f"{'-':>8}"
            for who in ("ours", "Captum", "Zennit")
        )
        print(f"{method:32} " + " ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", choices=NETWORKS, help="one network only")
    parser.add_argument("--method", nargs="+", default=[""], help="only the methods whose names begin so")
    parser.add_argument("--memory", action="store_true", help="peak memory in place of times")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)  # Captum and Zennit announce their hooks
    if options.one:
        one_call(options.device, *options.one)
    elif options.memory:
        memory_table(options.device)
    else:
        for name in [options.network] if options.network else NETWORKS:
            time_table(name, options.device, options.rounds, tuple(options.method))


if __name__ == "__main__":
    main()
