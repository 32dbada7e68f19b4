"""`birdinv demo`: the main job on an embedded default, as a newcomer runs it."""

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from birdinv_cli.main import main; main()", "demo"]


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "-o", "made"], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(the folder it made, stdout, stderr) of one run."""
    folder = tmp_path_factory.mktemp("demo")
    answer = demo(folder)
    assert answer.returncode == 0, answer.stderr
    return folder / "made", answer.stdout, answer.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_tells_each_step_and_every_path_it_tells_is_there(done: tuple[Path, str, str]) -> None:
    made, out, err = done
    assert [line[:3] for line in err.splitlines() if re.match(r"\d/6 ", line)] == [
        f"{step}/6" for step in range(1, 7)
    ]
    assert "Traceback" not in err
    listed = re.findall(r"^  (\S+)  +\S", out.partition("What was made")[2], re.MULTILINE)
    assert len(listed) >= 7
    for name in listed:
        assert (made / name).exists(), name
    assert out.rstrip().endswith("report: made/run/report.html")
    assert "\n\n\n" not in out


def test_it_learns_the_songs(done: tuple[Path, str, str]) -> None:
    _, out, _ = done
    found = re.search(r"recording accuracy +([0-9.]+)", out)
    assert found is not None and float(found[1]) >= 0.4  # a seventh would be chance


def test_every_recording_is_accounted_for(done: tuple[Path, str, str]) -> None:
    made, out, _ = done
    recordings = made / "recordings"
    stored = rows(made / "store/recordings.csv")
    heard = rows(made / "predictions/files.csv")
    inputs = [path for path in recordings.rglob("*") if path.is_file()]
    audio = [path for path in inputs if path.suffix not in (".csv", ".md", ".txt", ".json")]
    assert len(stored) + len(heard) == len(audio)
    for table in (stored, heard):
        counts = Counter(row["status"] for row in table)
        assert set(counts) <= {"ok", "partial", "empty", "unreadable"}
        kinds = ", ".join(f"{counts[k]} {k}" for k in ("ok", "partial", "empty", "unreadable"))
        assert f"{len(table)} inputs: {kinds}" in out
    damaged = [row for row in heard if row["status"] != "ok"]
    assert {row["status"] for row in damaged} == {"partial", "empty", "unreadable"}
    assert all(row["file"] in out for row in damaged)


def test_the_report_is_one_file_that_needs_no_network(done: tuple[Path, str, str]) -> None:
    page = (done[0] / "run/report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    targets = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert targets and all(target.startswith(("data:", "#")) for target in targets)
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))", page)
    assert page.count("<svg") + page.count("data:image/") >= 3  # curves, confusion, spectrogram
    birds = {row["label"] for row in rows(done[0] / "predictions/combined.csv")}
    assert birds and "noise" not in birds
    assert any(bird in page for bird in birds)


def test_it_does_not_write_over_what_is_there(done: tuple[Path, str, str]) -> None:
    answer = demo(done[0].parent)
    assert answer.returncode == 1
    assert answer.stderr.startswith("birdinv: made already exists")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tables(done: tuple[Path, str, str], tmp_path: Path) -> None:
    answer = demo(tmp_path)
    assert answer.returncode == 0
    for name in ("store/recordings.csv", "predictions/combined.csv", "predictions/files.csv"):
        assert (tmp_path / "made" / name).read_bytes() == (done[0] / name).read_bytes()
    assert answer.stdout == done[1]
