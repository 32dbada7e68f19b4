"""The same work on a Dask cluster: many machines that see the same files, or local processes.

A worker that is lost hands its files to others; Dask counts that against every file the worker had,
also the innocent ones, so one that Dask gives up is tried once more with the cluster to itself
before it counts as the killer. A worker whose file stalls ends itself, and whoever started it
replaces it.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from birdinv.audio.sources import Source
from birdinv.errors import BirdinvError, SettingError
from birdinv.prediction.job import Facts, FileResult, Job
from birdinv.prediction.pool import STALLED, TELL_EVERY_S, portable, signals_held_back

CONNECT_S = 30
PATIENT_S = 10  # without a word
JOIN_S = 300  # until the first worker is there: a queue may be long, but one should hear of it
STALLS = 2  # of one file, then it is given up
COUNT_EVERY_S = 5.0  # workers come and go


class Cluster:
    """A crew (`prediction.batch.Crew`) of the workers of a Dask scheduler.

    Args:
        address: of the scheduler, `tcp://host:8786`, or `local:N` for N processes of this machine.
        arguments: of `job.Job`.
        stall_s: see `predict`.

    Raises:
        SettingError: `local:N` without a number.
        BirdinvError: Dask is not installed, no scheduler answers, no worker joins, or the job
            cannot begin on a worker.
    """

    facts: Facts

    def __init__(self, address: str, arguments: tuple[Any, ...], *, stall_s: float) -> None:
        try:
            import distributed
        except ImportError as error:
            raise BirdinvError(
                "--cluster needs Dask distributed; install it with pip install 'birdinv[cluster]'"
            ) from error
        self._dask: Any = distributed
        self._address, self._stall_s = address, stall_s
        model, settings, output, rtypes = arguments
        absolute = Path(os.path.abspath(model)), settings, Path(os.path.abspath(output)), rtypes
        self._arguments, self._token = absolute, f"birdinv-{uuid4().hex}"
        self._events: deque[tuple[Any, ...]] = deque()
        self._threads, self._counted = 0, -COUNT_EVERY_S
        self._own: Any = self._local() if address.startswith("local:") else None
        self._client: Any = None
        try:
            self._connect()
            self.facts = self._begun()
        except BaseException:
            self.close()
            raise

    def _local(self) -> Any:
        import dask

        text = self._address.removeprefix("local:")
        if not text.isdecimal() or int(text) < 1:
            raise SettingError(
                f"--cluster is {self._address!r}; give local:N with N processes, such as local:4, "
                "or the address of a Dask scheduler"
            )
        with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
            return self._dask.LocalCluster(
                n_workers=int(text),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )

    def _connect(self) -> None:
        try:
            self._client = self._dask.Client(
                self._own or self._address, timeout=CONNECT_S, set_as_default=False
            )
            try:
                self._client.wait_for_workers(1, timeout=PATIENT_S)
            except TimeoutError:
                warnings.warn(
                    f"the Dask scheduler at {self._address} has no worker yet; waiting up to "
                    f"{JOIN_S} s for one",
                    stacklevel=2,
                )
                self._client.wait_for_workers(1, timeout=JOIN_S)
        except (OSError, ValueError, TimeoutError) as error:
            what = "has no worker" if self._client is not None else "does not answer"
            raise BirdinvError(
                f"the Dask scheduler at {self._address} {what} ({error}); start it, or give the "
                "address that it prints, such as tcp://host:8786"
            ) from error
        if self._own is not None:  # its processes hear Ctrl-C as this one does, which handles it
            self._client.register_worker_callbacks(setup=_deaf)
        self._client.subscribe_topic(self._token, lambda event: self._events.append(event[1]))

    def _begun(self) -> Facts:
        future = self._client.submit(_facts, self._token, self._arguments, pure=False)
        try:
            facts: Facts = future.result()
        except BirdinvError:
            raise
        except Exception as error:
            raise BirdinvError(
                f"a worker of the cluster at {self._address} cannot begin ({type(error).__name__}: "
                f"{error}); workers need the same birdinv as this machine, and the same files"
            ) from error
        return facts

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster; ends it if it is our own."""
        with signals_held_back():
            for each in (self._client, self._own):
                if each is not None:
                    with suppress(OSError, TimeoutError):  # a scheduler that is gone
                        each.close()

    def results(
        self,
        items: Iterable[Source],
        heard: Callable[[Source, float, float], None],
        lost: Callable[[Source, str], FileResult],
    ) -> Generator[FileResult, None, None]:
        """See `pool.Processes.results`."""
        waiting, suspects = iter(items), deque[Source]()
        known: dict[str, Source] = {}
        alone: set[str] = set()  # tried once more with the cluster to themselves
        stalls: dict[str, int] = {}
        running: dict[Any, Source] = {}
        try:
            while True:
                for source in islice(waiting, max(0, self._room() - len(running))):
                    known[source.name] = source
                    running[self._submit(source)] = source
                if not running and not suspects:
                    return
                if suspects and not running:
                    source = suspects.popleft()
                    alone.add(source.name)
                    running[self._submit(source)] = source
                self._wait(running)
                while self._events:
                    name, *said = self._events.popleft()
                    if len(said) == 2:
                        if known[name] in running.values():  # news of one that is through is late
                            heard(known[name], *said)
                        continue
                    stalls[name] = stalls.get(name, 0) + 1
                    future = next((f for f, s in running.items() if s.name == name), None)
                    if stalls[name] >= STALLS and future is not None:
                        del running[future]
                        future.cancel()
                        yield lost(known[name], said[0])
                for future in [future for future in running if future.done()]:
                    source = running.pop(future)
                    error = self._error(future)
                    if error is None:
                        yield future.result()
                    elif not isinstance(error, self._dask.KilledWorker):
                        raise error
                    elif source.name in alone:
                        yield lost(source, "it crashed the decoder (its workers died)")
                    else:
                        suspects.append(source)
        finally:
            with suppress(OSError, TimeoutError):
                self._client.cancel(list(running))

    def _wait(self, running: Iterable[Any]) -> None:
        """Until one is done, or it is time to tell of progress."""
        with suppress(TimeoutError), self._client.as_current():
            self._dask.wait(list(running), timeout=TELL_EVERY_S, return_when="FIRST_COMPLETED")

    def _room(self) -> int:
        """How many files may be in the workers' hands: one each, and one to follow."""
        if time.monotonic() - self._counted > COUNT_EVERY_S:
            self._threads = sum(self._client.nthreads().values())
            self._counted = time.monotonic()
        return max(1, 2 * self._threads)

    def _error(self, future: Any) -> BaseException | None:
        if future.status == "finished":
            return None
        error: BaseException | None = future.exception() if future.status == "error" else None
        return error or BirdinvError(
            f"the Dask scheduler at {self._address} went away; the same command again goes on "
            "where this one ended"
        )

    def _submit(self, source: Source) -> Any:
        there = replace(
            source,
            path=Path(os.path.abspath(source.path)),
            root=Path(os.path.abspath(source.root)),
        )
        arguments = (self._token, self._arguments, there, self._stall_s, self.facts)
        return self._client.submit(_work, *arguments, pure=False)


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _facts(token: str, arguments: tuple[Any, ...]) -> Facts:
    return _job(token, arguments).facts


@functools.lru_cache(maxsize=1)
def _job(token: str, arguments: tuple[Any, ...]) -> Job:
    """The job of this worker; another batch, with another token, reads its model anew."""
    return Job.in_a_process(*arguments)


def _work(
    token: str, arguments: tuple[Any, ...], source: Source, stall_s: float, facts: Facts
) -> FileResult:
    with _Watch(token, source.name, stall_s) as watch:
        try:
            job = _job(token, arguments)
            if job.facts != facts:
                raise BirdinvError(
                    f"the worker on {platform.node()} has another model or another version of "
                    "birdinv, torch or Python than the first one; install the same everywhere"
                )
            return job.work(source, watch.heard)
        except Exception as error:
            raise portable(error) from None


class _Watch:
    """Tells the client of a worker's progress, and ends the worker when there is none."""

    def __init__(self, token: str, name: str, stall_s: float) -> None:
        import distributed

        self._tell = functools.partial(distributed.get_worker().log_event, token)
        self._name, self._stall_s = name, stall_s
        self._heard, self._spoke, self._told = 0.0, time.monotonic(), time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> _Watch:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()

    def heard(self, seconds: float, promised_s: float) -> None:
        """So much is done of so much."""
        self._heard += seconds
        self._spoke = time.monotonic()
        if self._spoke - self._told > TELL_EVERY_S:
            self._tell((self._name, self._heard, promised_s))
            self._heard, self._told = 0.0, self._spoke

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._stall_s / 4)):
            if time.monotonic() - self._spoke > self._stall_s:
                self._tell((self._name, STALLED.format(self._stall_s)))
                time.sleep(1)  # until that is sent
                os._exit(1)
