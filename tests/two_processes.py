"""What two processes find that share a network, for tests of losses over several ranks."""

import multiprocessing
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def process(rank: int, folder: Path, outcome: Callable[..., Any], cases: Sequence[tuple]) -> None:
    """One of the two: leaves `outcome(*case, rank)` of every case in `folder`."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    torch.save([outcome(*case, rank) for case in cases], folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def found_by_two(
    folder: Path, outcome: Callable[..., Any], cases: Sequence[tuple]
) -> dict[tuple, list]:
    """By case what both found; `outcome` is a function of a module, which they import anew."""
    spawn = multiprocessing.get_context("spawn")
    both = [
        spawn.Process(target=process, args=(rank, folder, outcome, cases), daemon=True)
        for rank in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
    assert [each.exitcode for each in both] == [0, 0]
    found = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return {case: both for case, *both in zip(cases, *found, strict=True)}
