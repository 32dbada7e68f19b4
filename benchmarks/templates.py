"""The templates of all classes for a batch: one call, a loop of `autograd.grad`, `jacrev`; memory.

    python benchmarks/templates.py [--turns 15]

The ways take turns in one process, on one thread; what is reported is the median of the ratios of
one turn. `templates` gives the biases as well, the other two do not. Peak memory is that of a
process of its own for each chunk. Writes `benchmarks/results/templates.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from steps import peak_of_this_process
from torch import Tensor, nn

from birdinv.files import write_json
from birdinv.networks import build
from birdinv.spline import iter_templates, templates
from birdinv.training.record import library_versions

RESULTS = Path(__file__).parent / "results" / "templates.json"
NETWORKS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "bird10": ("bird10", 6, (1, 11025)),
    "smallcnn": ("smallcnn", 10, (1, 28, 28)),
    "resnet2-32": ("resnet2-32", 10, (1, 28, 28)),
}
BATCHES = (1, 8, 32)
CHUNKS = (48, 192, 768, 3072)  # templates at a time, for the peak of memory
MANY = 512  # inputs of that


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """With fresh weights, in eval mode, and the shape of an input."""
    kind, classes, shape = NETWORKS[name]
    torch.manual_seed(0)
    return build(kind, classes=classes, shape=shape).eval(), shape


def loop(model: nn.Module, x: Tensor) -> Tensor:
    """A backward pass for each class."""
    x = x.clone().requires_grad_()
    logits = model(x)
    rows = [
        torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0]
        for k in range(logits.shape[1])
    ]
    return torch.stack(rows, dim=1)


def jacrev(model: nn.Module, x: Tensor) -> Tensor:
    """`torch.func`, sample by sample under `vmap`."""
    jacobian = torch.func.jacrev(lambda sample: model(sample[None])[0])
    rows: Tensor = torch.func.vmap(jacobian)(x)
    return rows


def seconds(name: str, count: int, turns: int) -> dict[str, float]:
    """Medians of one network and batch."""
    model, shape = network(name)
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    ways: dict[str, Callable[[], Tensor]] = {
        "templates": lambda: templates(model, x).A,
        "loop": lambda: loop(model, x),
        "jacrev": lambda: jacrev(model, x),
    }
    first = {way: run() for way, run in ways.items()}  # warms up
    for rows in first.values():
        torch.testing.assert_close(rows, first["loop"], rtol=1e-3, atol=1e-5)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - started)
    found = {f"{way}_ms": 1000 * statistics.median(each) for way, each in times.items()}
    for way in ("loop", "jacrev"):
        ratios = [a / b for a, b in zip(times[way], times["templates"], strict=True)]
        found[f"{way}_times_templates"] = statistics.median(ratios)
    return {key: round(value, 3) for key, value in found.items()}


def peak_mb(chunk: int) -> float:
    """Of a process that goes through many inputs of bird10."""
    asked = [sys.executable, __file__, "--memory", str(chunk)]
    return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory is not None:
        model, shape = network("bird10")
        x = torch.randn(MANY, *shape)
        if given.memory:
            for _part in iter_templates(model, x, chunk=given.memory):
                pass
        print(peak_of_this_process())
        return
    rows = [
        {"network": name, "inputs": count, **seconds(name, count, given.turns)}
        for name in NETWORKS
        for count in BATCHES
    ]
    idle = peak_mb(0)
    memory: dict[str, Any] = {str(chunk): round(peak_mb(chunk) - idle) for chunk in CHUNKS}
    result = {
        "turns": given.turns,
        "rows": rows,
        "inputs": MANY,
        "peak_mb_above_idle_by_chunk": memory,
        "versions": library_versions(),
    }
    write_json(RESULTS, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
