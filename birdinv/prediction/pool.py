"""Work shared out among processes; an item that kills or stalls one costs itself, and no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any, Generic, Protocol, TypeVar

from birdinv.errors import BirdinvError

STALLED = "it made no progress for {:g} s and was given up"

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BEGIN_S = 600.0
KILL_S = 5.0
TELL_EVERY_S = 0.2  # a process about its progress: enough for a bar, and for whoever waits


class Worker(Protocol[T_contra, R_co]):
    """What a process does, item by item; `facts` are told once, before the first."""

    facts: Any

    def work(self, item: T_contra, heard: Callable[[float, float], None]) -> R_co:
        """The result of an item; `heard` is told of progress."""


Begin = Callable[..., Worker[Any, Any]]
Heard = Callable[[Any, float, float], None]


class Here:
    """The same work in this process: no start-up, and no protection from it."""

    def __init__(self, begin: Begin, arguments: tuple[Any, ...]) -> None:
        self._worker = begin(*arguments)
        self.facts = self._worker.facts

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """There is nobody else to end."""

    def results(
        self, items: Iterable[T], heard: Heard, lost: Callable[[T, str], R]
    ) -> Generator[R, None, None]:
        """See `Processes.results`."""
        for item in items:
            yield self._worker.work(item, lambda *amounts, item=item: heard(item, *amounts))


class Processes(Generic[T, R]):
    """Processes that each do one item at a time.

    Args:
        begin: a function of a module; called with `arguments` in each process, it makes what works.
        stall_s: an item that gives no sign of progress for so long is taken from its process, which
            is killed and replaced.

    Raises:
        BirdinvError: what `begin` raises, or that a process died before it could begin.
    """

    def __init__(
        self, begin: Begin, arguments: tuple[Any, ...], workers: int, *, stall_s: float
    ) -> None:
        self._begin, self._arguments = begin, arguments
        self._stall_s = stall_s
        self._all: list[_Process] = []  # also the one that has just been taken from `_idle`
        self._idle: list[_Process] = []
        self._busy: dict[_Process, tuple[Any, bool]] = {}
        try:
            for _ in range(workers):
                self._idle.append(self._new())
            self.facts = self._idle[-1].begun()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Processes[T, R]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes, whatever they are at."""
        with signals_held_back():
            for process in self._all:
                process.kill()
            self._all.clear()

    def _new(self) -> _Process:
        self._all.append(_Process(self._begin, self._arguments))
        return self._all[-1]

    def results(
        self, items: Iterable[T], heard: Heard, lost: Callable[[T, str], R]
    ) -> Generator[R, None, None]:
        """The result of every item, as they are done.

        An item whose process dies or stalls is tried once more, after the others; when it does that
        again, it gives `lost(item, why)`. When `work` raises, that is raised here.

        Args:
            heard: told the item and what `work` said of its progress.
        """
        fresh, suspects = iter(items), deque[T]()

        def take() -> tuple[T, bool] | None:
            """The next item, and whether it has seen a process die."""
            for item in fresh:
                return item, False
            return (suspects.popleft(), True) if suspects else None

        def give() -> None:
            while self._idle and (taken := take()) is not None:
                process = self._idle.pop()
                process.begun()
                process.give(taken[0])
                self._busy[process] = taken

        while True:
            give()
            if not self._busy:
                return
            for process in self._ready():
                item, again = self._busy[process]
                try:
                    kind, *content = process.receive()
                except EOFError:
                    kind, content = "lost", ["it crashed the decoder (the process died)"]
                if kind == "heard":
                    heard(item, *content)
                    continue
                del self._busy[process]
                if kind == "done":
                    self._idle.append(process)
                    give()  # it goes on while the result is dealt with
                    yield content[0]
                elif kind == "failed":
                    self._idle.append(process)
                    raise content[0]
                else:
                    process.kill()
                    self._all.remove(process)
                    self._idle.insert(0, self._new())  # used last: it has yet to begin
                    if again:
                        yield lost(item, content[0])
                    else:
                        suspects.append(item)

    def _ready(self) -> Iterator[_Process]:
        """Processes that have something to say, and those that have said nothing for too long."""
        patience = min(process.spoke for process in self._busy) + self._stall_s - time.monotonic()
        pipes = {process.pipe: process for process in self._busy}
        ready = connection.wait(list(pipes), max(0.0, patience))
        for pipe in ready:
            yield pipes[pipe]  # type: ignore[index]
        for process in list(self._busy):
            if process.pipe not in ready and time.monotonic() - process.spoke > self._stall_s:
                process.stalled = STALLED.format(self._stall_s)
                yield process


class _Process:
    """A process and the pipe to it."""

    def __init__(self, begin: Begin, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.spoke = time.monotonic()
        self.stalled = ""
        self._facts: list[Any] = []
        self._process = context.Process(target=_serve, args=(theirs, begin, arguments))
        with signals_held_back():  # in the process too, until it is ready for them
            self._process.start()
        theirs.close()

    def begun(self) -> Any:
        """Waits until it has begun; what it told of its work."""
        if not self._facts:
            try:
                if not self.pipe.poll(BEGIN_S):
                    raise EOFError
                kind, content = self.pipe.recv()
            except (EOFError, OSError) as error:
                raise BirdinvError(
                    "a worker process died before it began (out of memory?); "
                    "run again with fewer --workers"
                ) from error
            if kind == "failed":
                raise content
            self._facts.append(content)
        return self._facts[0]

    def give(self, item: object) -> None:
        self.spoke = time.monotonic()
        with suppress(OSError):  # it died while it had nothing to do: receiving says so
            self.pipe.send(item)

    def receive(self) -> tuple[Any, ...]:
        """What it says; EOFError where it has died."""
        if self.stalled:
            return "lost", self.stalled
        self.spoke = time.monotonic()
        try:
            said: tuple[Any, ...] = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.join(KILL_S)  # one that waits for a dead disk ends when the disk answers
        self.pipe.close()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Ctrl-C and `kill` wait meanwhile; what is begun here never hears them, unless it asks to."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Any, begin: Begin, arguments: tuple[Any, ...]) -> None:
    """What a process does until nobody is there to give it more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _do_all(pipe, begin, arguments)
    except (EOFError, OSError):  # nobody listens any more
        return


def _do_all(pipe: Any, begin: Begin, arguments: tuple[Any, ...]) -> None:
    try:
        worker = begin(*arguments)
    except Exception as error:
        pipe.send(("failed", portable(error)))
        return
    pipe.send(("begun", worker.facts))
    while True:
        item = pipe.recv()
        told = [0.0, time.monotonic()]

        def heard(amount: float, promised: float, told: list[float] = told) -> None:
            told[0] += amount
            if time.monotonic() - told[1] > TELL_EVERY_S:
                pipe.send(("heard", told[0], promised))
                told[:] = 0.0, time.monotonic()

        try:
            said = "done", worker.work(item, heard)
        except Exception as error:
            said = "failed", portable(error)
        pipe.send(said)


def portable(error: Exception) -> Exception:
    """The error if it survives the way to another process, or one that says the same."""
    if isinstance(error, OSError):
        own = OSError(error.errno, error.strerror, error.filename)
        return own if error.strerror else BirdinvError(str(error))
    if isinstance(error, BirdinvError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
