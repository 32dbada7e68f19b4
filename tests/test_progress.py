"""Progress: plain lines where there is no terminal, and never more than there is."""

import pytest

from birdinv import progress
from birdinv.progress import Progress


def test_lines_count_up_and_a_total_that_was_guessed_too_low_gives_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress("read", "h", digits=1) as bar:
        bar.update(0.5)
        bar.update(0.5, total=1.5, note="a.wav")
        bar.update(1.0)
    lines = [line.split(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["read: 0.5 h", "read: 1.0 of 1.5 h", "read: 2.0 of 2.0 h"]


def test_a_line_comes_now_and_then_and_not_for_every_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("train", "steps", digits=0) as bar:
        for _ in range(1000):
            bar.update(1)
    assert capsys.readouterr().err == ""
