"""Work shared out among processes; one that dies costs what it had in hand, and no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any, TypeVar

from birdinv.errors import BirdinvError

T = TypeVar("T")
R = TypeVar("R")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def in_processes(
    work: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    *,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
    crashed: Callable[[T], R],
) -> Generator[R, None, None]:
    """`work(item)` of every item, as they are done.

    An item whose process dies is tried once more, after the others; when it kills that one too, it
    gives `crashed(item)`. On Ctrl-C, and when `work` raises, the other processes stop at their next
    `stop_if_told`, and what was done by then still comes.

    Args:
        work: a function of a module, as is `begin`.
        begin: called with `arguments` in each process before its first item.

    Raises:
        BirdinvError: a process died before it could begin.
    """
    waiting = deque((item, False) for item in items)  # True: has seen a process die
    running: dict[Future[R], tuple[T, bool, _Process]] = {}
    idle: list[_Process] = []
    try:
        for _ in range(min(workers, len(items))):
            idle.append(_Process(begin, arguments))
        while waiting or running:
            while waiting and idle:
                (item, again), process = waiting.popleft(), idle.pop()
                running[process.submit(work, item)] = item, again, process
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item, again, process = running.pop(future)
                idle.append(process)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    idle.remove(process)
                    process.require_begun()
                    idle.append(_Process(begin, arguments))
                    if not again:
                        waiting.append((item, True))
                        continue
                    result = crashed(item)
                yield result
    except BaseException as error:
        for _, _, process in running.values():
            process.stop()
        for future in wait(running).done:
            if future.exception() is None and not isinstance(error, GeneratorExit):
                yield future.result()
        raise
    finally:
        for process in [*idle, *(process for _, _, process in running.values())]:
            process.close()


class _Process:
    """One process, as a pool of its own: a pool loses all of its items when one process dies."""

    def __init__(self, begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _begin, (begin, arguments))
        with _signals_held_back():  # in the process too, until it is ready for them
            self._pid = self._pool.submit(os.getpid)

    def submit(self, work: Callable[[T], R], item: T) -> Future[R]:
        try:
            return self._pool.submit(work, item)
        except BrokenProcessPool as error:  # it died while it had nothing to do
            future: Future[R] = Future()
            future.set_exception(error)
            return future

    def require_begun(self) -> None:
        if self._pid.exception() is not None:
            raise BirdinvError(
                "a worker process died before it began (out of memory?); "
                "run again with fewer --workers"
            )

    def stop(self) -> None:
        with suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self._pid.result(), signal.SIGTERM)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_told_to_stop = False  # this process, by the one that began it or by whoever stops both


def stop_if_told() -> None:
    """Raises KeyboardInterrupt in a process of `in_processes` that was told to stop."""
    if _told_to_stop:
        raise KeyboardInterrupt


def _begin(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    signal.signal(signal.SIGTERM, _tell)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*arguments)


def _tell(_number: int, _frame: object) -> None:
    global _told_to_stop
    _told_to_stop = True


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
