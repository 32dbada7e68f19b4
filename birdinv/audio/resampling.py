"""Streams at another sample rate, in the int16 samples that stores hold and networks are fed.

Training and prediction hear a recording through the same `resampled` and `pcm`, so that a window
scored by `predict` holds exactly the samples it would have in a store.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import soxr

FULL_SCALE = 32767
PIECE = 65536  # samples
AHEAD = 8  # blocks decoded before they are asked for: at most 2 MB


def resampled(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
    """Float32 blocks `[n]` at `source_rate` Hz → float32 blocks at `sample_rate` Hz (soxr, HQ).

    The number of samples out is the number in times the ratio of the rates, rounded.
    """
    if source_rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    piece = max(1024, PIECE * source_rate // sample_rate)  # what comes out is never much longer
    for block in blocks:
        for start in range(0, len(block), piece):
            yield resampler.resample_chunk(block[start : start + piece])
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def pcm(block: np.ndarray) -> tuple[np.ndarray, int]:
    """(int16 samples, how many were clipped) of a float32 block at full scale 1."""
    scaled = block * np.float32(FULL_SCALE)
    np.rint(scaled, out=scaled)
    over = 0
    if len(scaled) and not -FULL_SCALE <= scaled.min() <= scaled.max() <= FULL_SCALE:
        over = int(np.count_nonzero(np.abs(scaled) > FULL_SCALE))
        np.clip(scaled, -FULL_SCALE, FULL_SCALE, out=scaled)
    return scaled.astype(np.int16), over


@contextmanager
def ahead(blocks: Iterable[np.ndarray], depth: int = AHEAD) -> Iterator[Iterator[np.ndarray]]:
    """The same blocks, produced by a thread that works up to `depth` blocks ahead.

    Decoding and resampling release the interpreter lock, so they overlap with what the caller does.
    An exception of the producer is raised here; leaving the context stops and joins the thread.
    """
    full: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: np.ndarray | BaseException | None) -> None:
        while not stop.is_set():
            try:
                full.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for block in blocks:
                put(block)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed over, not swallowed
            put(error)

    def consume() -> Iterator[np.ndarray]:
        while (item := full.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stop.set()
        thread.join()
