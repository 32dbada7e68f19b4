"""What a training step on reconstructions costs: both sides of every ratio, paired in one run.

    python benchmarks/training_step.py

Every side is a whole step: gradients to None, objective, backward, Adam. The sides of a ratio take
turns, and the ratio is the median over the turns; the machine is shared, so read the ratios and not
the times. Beside each stands the ratio of counted operations (multiplications of matrices and
convolutions), and before anything is timed both sides' gradients are compared. Memory is the peak
of a fresh process above what it held before its first step. Results are kept in
`benchmarks/results/training-step.json`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import birdinv
from birdinv.networks.layers import normalise

RESULT = Path(__file__).parent / "results" / "training-step.json"
TURNS = {"bird10-11025": 60, "bird10-22050": 40, "smallcnn": 25}
FEW = 7  # turns against what is many times slower
Step = Callable[[], Tensor]


def networks(name: str) -> tuple[nn.Module, nn.Module, Tensor, Tensor, tuple[str, ...]]:
    """Ours, the same in torch's own layers with the same weights, a batch, layer names."""
    torch.manual_seed(0)
    if name == "smallcnn":
        ours, batch, shape = (
            birdinv.networks.build(name, classes=10, shape=(1, 28, 28)),
            64,
            (1, 28, 28),
        )
        theirs: nn.Module = nn.ModuleDict(
            {
                "block1": nn.Sequential(
                    nn.Conv2d(1, 32, 5, padding=4), nn.LeakyReLU(0.01), nn.AvgPool2d(2)
                ),
                "block2": nn.Sequential(nn.Conv2d(32, 64, 3), nn.LeakyReLU(0.01)),
                "block3": nn.Sequential(
                    nn.Conv2d(64, 64, 3, padding=2), nn.LeakyReLU(0.01), nn.AvgPool2d(2)
                ),
                "block4": nn.Sequential(nn.Conv2d(64, 128, 3), nn.LeakyReLU(0.01)),
                "head": nn.Sequential(nn.Conv2d(128, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            }
        )
    else:
        samples = int(name.split("-")[1])
        shape, batch = (1, samples), 128
        # No dropout: both sides must be the same function, for the gradients to be compared.
        ours = birdinv.networks.build("bird10", classes=10, shape=shape, dropout=0.0)
        steps = ours.hidden[1].in_features
        theirs = nn.ModuleDict(
            {
                "block1": nn.Sequential(
                    nn.Conv1d(1, 42, 1024, 512), nn.LeakyReLU(0.01), nn.MaxPool1d(4, 2)
                ),
                "block2": nn.Sequential(nn.Conv1d(42, 42, 3, 2), nn.LeakyReLU(0.01)),
                "hidden": nn.Sequential(nn.Flatten(), nn.Linear(steps, 32), nn.LeakyReLU(0.01)),
                "head": nn.Linear(32, 10),
            }
        )
    theirs.load_state_dict(ours.state_dict())
    x = normalise(torch.randn(batch, *shape))
    y = torch.randint(0, 10, (batch,))
    return ours, nn.Sequential(*theirs.values()), x, y, tuple(ours.layers)


def plain(
    model: nn.Sequential, x: Tensor, y: Tensor, scale: str, each_alone: bool = False
) -> Tensor:
    """An objective as one would write it: `autograd.grad` back to the input, and through that.

    "weighted" is INV 10 at (0.7, 0.3), "global" and "multiscale" MS 6 with MS 9 or 10; `each_alone`
    takes one backward pass a layer.
    """
    x = x.clone().requires_grad_()
    points = [x]
    for stage in model:
        points.append(stage(points[-1]))
    logits = points.pop()
    half = 0.5 * logits.square().sum()
    points = points if scale == "multiscale" else points[:1]
    if each_alone:
        backs = [torch.autograd.grad(half, point, create_graph=True)[0] for point in points]
    else:
        backs = list(torch.autograd.grad(half, points, create_graph=True))
    pairs = zip(backs, points, strict=True)
    return complete(
        logits, y, torch.stack([functional.mse_loss(a, b) for a, b in pairs]).mean(), scale
    )


def jacobian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The weighted objective by the full Jacobian of every sample."""

    def alone(sample: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(sample[None])[0]
        return logits, logits

    rows, logits = torch.func.vmap(torch.func.jacrev(alone, has_aux=True))(x)
    back = torch.einsum("nk,nk...->n...", logits, rows)
    return complete(logits, y, functional.mse_loss(back, x), "weighted")


def complete(logits: Tensor, y: Tensor, rebuilt: Tensor, scale: str) -> Tensor:
    log_probs = logits.log_softmax(1)
    entropy = -(log_probs.exp() * log_probs).sum(1)[y < 0].mean()
    likelihood = functional.nll_loss(log_probs, y, ignore_index=-1)
    if scale == "weighted":
        return 0.7 * likelihood + 0.3 * (0.3 * rebuilt + 0.7 * entropy)
    return (likelihood + entropy) / torch.tensor(10.0).log() + rebuilt


def sides(name: str) -> dict[str, Step]:
    """The steps that can be taken on a network, by name."""
    ours, theirs, x, y, layers = networks(name)
    half = y.clone()
    half[len(y) // 2 :] = birdinv.UNLABELED
    supervised = birdinv.WeightedObjective(1.0, 0.0)
    weighted = birdinv.WeightedObjective(0.7, 0.3)
    whole = birdinv.ParameterFreeObjective("global")
    multiscale = birdinv.ParameterFreeObjective("multiscale", layers=layers)
    losses: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "supervised": (ours, lambda: supervised(ours, x, y).total),
        "weighted": (ours, lambda: weighted(ours, x, half).total),
        "global": (ours, lambda: whole(ours, x, half).total),
        "multiscale": (ours, lambda: multiscale(ours, x, half).total),
        "supervised, torch's layers": (theirs, lambda: functional.cross_entropy(theirs(x), y)),
        "weighted, plain": (theirs, lambda: plain(theirs, x, half, "weighted")),
        "global, plain": (theirs, lambda: plain(theirs, x, half, "global")),
        "multiscale, plain": (theirs, lambda: plain(theirs, x, half, "multiscale")),
        "multiscale, a pass a layer": (
            theirs,
            lambda: plain(theirs, x, half, "multiscale", each_alone=True),
        ),
        "weighted, full Jacobian": (theirs, lambda: jacobian(theirs, x, half)),
        "global, torch's layers": (theirs, lambda: whole(theirs, x, half).total),
    }
    optimisers = {model: torch.optim.Adam(model.parameters(), lr=0.0) for model in (ours, theirs)}

    def step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
        def take() -> Tensor:
            optimisers[model].zero_grad()
            total = loss()
            total.backward()
            optimisers[model].step()
            return torch.cat([p.grad.flatten() for p in model.parameters()])

        return take

    return {key: step(*value) for key, value in losses.items()}


RATIOS: list[tuple[str, str, str, str, float | None]] = [
    # network, numerator, denominator, asked, at most (or, from "≥", at least)
    ("bird10-11025", "weighted", "supervised", "≤", 1.5),
    ("bird10-22050", "weighted", "supervised", "≤", 1.5),
    ("bird10-22050", "weighted, plain", "weighted", "≥", 4.0),
    ("bird10-11025", "weighted, plain", "weighted", "", None),
    ("bird10-22050", "multiscale", "supervised", "", None),
    ("bird10-22050", "multiscale, plain", "multiscale", "", None),
    ("bird10-22050", "multiscale, a pass a layer", "multiscale", "", None),
    ("bird10-22050", "supervised, torch's layers", "supervised", "", None),
    ("bird10-22050", "weighted, full Jacobian", "weighted", "", None),
    ("smallcnn", "global", "supervised", "≤", 2.15),
    ("smallcnn", "multiscale", "global", "≤", 1.1),
    ("smallcnn", "global, plain", "global", "", None),
    ("smallcnn", "global, torch's layers", "global", "", None),
    ("smallcnn", "supervised, torch's layers", "supervised", "", None),
    ("smallcnn", "multiscale, a pass a layer", "multiscale", "", None),
    ("smallcnn", "weighted, full Jacobian", "weighted", "", None),
]
MEMORY = [
    ("bird10-11025", "weighted", "weighted, plain"),
    ("bird10-22050", "weighted", "weighted, plain"),
    ("bird10-22050", "multiscale", "multiscale, plain"),
    ("smallcnn", "global", "global, plain"),
    ("smallcnn", "multiscale", "multiscale, plain"),
]


def timed(first: Step, second: Step, turns: int) -> tuple[float, float, float]:
    """Median milliseconds of both sides, and the median of their ratios."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-2, turns):
        for step, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            step()
            if turn >= 0:
                kept.append(1000 * (time.perf_counter() - started))
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions while it is entered."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def operations(step: Step) -> int:
    with Operations() as counter:
        step()
    return counter.total


def agreement(name: str, steps: dict[str, Step]) -> dict[str, float]:
    """The largest difference of our gradients from the plain ones, over the largest of those."""
    ours = networks(name)[0]
    theirs = networks(name)[1]
    names = [n for n, _ in ours.named_parameters()]
    order = [p.numel() for p in theirs.parameters()]
    assert [p.numel() for p in ours.parameters()] == order, names
    result = {}
    for scale in ("weighted", "global", "multiscale"):
        mine, reference = steps[scale](), steps[f"{scale}, plain"]()
        result[scale] = float((mine - reference).abs().max() / reference.abs().max())
    return result


def memory(name: str, side: str) -> float:
    """Peak megabytes of a fresh process above what it held before its first step."""
    command = [sys.executable, __file__, "--memory", name, side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_memory(name: str, side: str) -> None:
    torch.set_num_threads(1)
    step = sides(name)[side]
    before = status("VmRSS")
    for _ in range(3):
        step()
    print((status("VmHWM") - before) / 1024)


def status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0])


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        print_memory(*sys.argv[2:])
        return
    built = {name: sides(name) for name in TURNS}
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "gradients_differ_by": {name: agreement(name, steps) for name, steps in built.items()},
        "ratios": [],
        "memory": [],
    }
    print("largest difference of gradients from plain double backward, relative:")
    for name, differences in result["gradients_differ_by"].items():
        print(f"  {name}: " + ", ".join(f"{k} {v:.1e}" for k, v in differences.items()))
    heading = f"{'network':13} {'numerator ÷ denominator':50} {'asked':>7}"
    print(f"\n{heading} {'1 thread':>9} {'2 threads':>9} {'counted':>8}   ms (1 thread)")
    for name, above, below, kind, asked in RATIOS:
        first, second = built[name][above], built[name][below]
        counted = operations(first) / operations(second)
        slow = "Jacobian" in above
        row: dict[str, Any] = {"network": name, "numerator": above, "denominator": below}
        row |= {"asked": f"{kind} {asked}" if asked else None, "counted_operations": counted}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            a, b, ratio = timed(first, second, FEW if slow else TURNS[name])
            row[f"{threads}_threads"] = {"numerator_ms": a, "denominator_ms": b, "ratio": ratio}
        one, two = row["1_threads"], row["2_threads"]
        want = f"{kind} {asked:g}" if asked else ""
        print(
            f"{name:13} {above + ' ÷ ' + below:50} {want:>7} {one['ratio']:9.2f} "
            f"{two['ratio']:9.2f} {counted:8.2f}   "
            f"{one['numerator_ms']:.1f} ÷ {one['denominator_ms']:.1f}",
            flush=True,
        )
        result["ratios"].append(row)
    print(f"\n{'memory':64} {'asked':>7} {'ratio':>9}   MB")
    for name, ours, theirs in MEMORY:
        a = statistics.median(memory(name, ours) for _ in range(3))
        b = statistics.median(memory(name, theirs) for _ in range(3))
        row = {"network": name, "ours": ours, "plain": theirs, "ours_mb": a, "plain_mb": b}
        result["memory"].append(row | {"ratio": a / b, "asked": "≤ 1.0"})
        print(
            f"{name:13} {ours + ' ÷ ' + theirs:50} {'≤ 1':>7} {a / b:9.2f}   {a:.0f} ÷ {b:.0f}",
            flush=True,
        )
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
