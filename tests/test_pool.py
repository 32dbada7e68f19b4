"""Processes that share out work: what each item gives, whatever happens to the process it is in."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from birdinv.errors import BirdinvError
from birdinv.prediction.pool import Here, Processes


class Worker:
    """Squares; some numbers do worse."""

    def __init__(self, offset: int = 0) -> None:
        self.facts = {"offset": offset, "pid": os.getpid()}

    def work(self, item: int, heard: Callable[[float, float], None]) -> int:
        if item == 13:
            os._exit(1)
        if item == 99:
            time.sleep(3600)
        if item == 28:
            raise OSError(28, "No space left on device", "table.csv")
        if item == 50:  # slower than patience lasts, but it says that it works
            for _ in range(8):
                time.sleep(0.25)
                heard(0.125, 1.0)
        return item**2 + self.facts["offset"]


def begin(offset: int = 0) -> Worker:
    return Worker(offset)


def fails() -> Worker:
    raise BirdinvError("no such model")


def dies() -> Worker:
    os._exit(1)


def lost(item: int, why: str) -> Any:
    return item, why


def done(items: list[int], workers: int, stall_s: float = 60.0) -> list[Any]:
    with Processes(begin, (1,), workers, stall_s=stall_s) as crew:
        return list(crew.results(items, lambda *told: None, lost))


def test_every_item_gives_its_result_once() -> None:
    assert sorted(done(list(range(12)), 2)) == [n**2 + 1 for n in range(12)]


def test_items_that_kill_or_stall_a_process_are_lost_alone() -> None:
    results = done([13, 1, 99, 2, 3], 2, stall_s=1.0)
    assert [r for r in results if isinstance(r, int)] == sorted([2, 5, 10])
    assert dict(r for r in results if isinstance(r, tuple)) == {
        13: "it crashed the decoder (the process died)",
        99: "it made no progress for 1 s and was given up",
    }


def test_an_item_that_makes_progress_is_waited_for() -> None:
    told: list[tuple[int, float, float]] = []
    with Processes(begin, (0,), 1, stall_s=1.0) as crew:
        assert list(crew.results([50], lambda *said: told.append(said), lost)) == [2500]
    assert {(item, promised) for item, _, promised in told} == {(50, 1.0)}
    assert 0.5 < sum(amount for _, amount, _ in told) <= 1.0


def test_an_error_of_the_work_comes_out_as_it_is() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        done([28], 1)
    assert (caught.value.errno, caught.value.filename) == (28, "table.csv")


def test_what_cannot_begin_says_why() -> None:
    with pytest.raises(BirdinvError, match="no such model"):
        Processes(fails, (), 2, stall_s=60)
    with pytest.raises(BirdinvError, match="a worker process died before it began"):
        Processes(dies, (), 2, stall_s=60)


def test_facts_are_those_of_a_worker_and_processes_end_with_the_crew() -> None:
    with Processes(begin, (7,), 1, stall_s=60) as crew:
        pid = crew.facts["pid"]
        assert crew.facts["offset"] == 7 and pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_here_is_the_same_work_in_this_process() -> None:
    told: list[tuple[int, float, float]] = []
    with Here(begin, (1,)) as crew:
        assert crew.facts["pid"] == os.getpid()
        assert list(crew.results([3, 50], lambda *said: told.append(said), lost)) == [10, 2501]
    assert len(told) == 8
