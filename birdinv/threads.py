"""How many CPU threads torch may use, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """`count` threads inside, what there was before after.

    The last bits of a matrix product depend on the number, so whatever promises the same bits
    fixes it; and on networks as small as ours more threads wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
