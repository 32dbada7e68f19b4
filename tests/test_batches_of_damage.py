"""Batches of files that nobody would want: each ends in a status, and costs no other a byte."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from damaged import CODECS, damaged, encoded, float_wav
from small import contents, make_run, sound, write

from birdinv.audio.reading import STATUSES
from birdinv.prediction.job import Settings
from birdinv.prediction.run import predict
from birdinv.prediction.tables import Choice

ALL = Settings(Choice(0))
COMBINED = ("combined.csv", "files.csv", "marked.csv")
RECORDS = ("run.json", "journal.jsonl")
MOST_BYTES = 800 << 20  # of memory of a process that reads the worst there is; torch takes 230 MB


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("damage"))


def tables(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(output).items() if name not in RECORDS}


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_all_damage_there_is_changes_no_byte_of_the_good_files(run: Path, tmp_path: Path) -> None:
    for number, ending in enumerate(("wav", "flac", "mp3", "ogg", "opus")):
        path = tmp_path / "good" / f"m {number}, dawn" / f"a.{ending}"  # `a.` in every format
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(sound(number, 3.0), ending, 16000 if ending == "opus" else 11025))
    shutil.copytree(tmp_path / "good", tmp_path / "both")
    corpus = {case.name: case for case in damaged()}
    for name, case in corpus.items():
        (tmp_path / "both" / "zz" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "both" / "zz" / name).write_bytes(case.content)
    (tmp_path / "both/zz/._a.wav").write_bytes(b"resource fork of macOS")
    predict(run, [tmp_path / "good"], tmp_path / "out-good", settings=ALL)
    result = predict(run, [tmp_path / "both"], tmp_path / "out-both", settings=ALL, workers=2)
    good, both = tables(tmp_path / "out-good"), tables(tmp_path / "out-both")
    for name, data in good.items():
        mine = [line for line in both[name].splitlines() if not line.startswith(b"zz/")]
        assert mine == data.splitlines(), name
    found = {file.file: file for file in result.files if file.file.startswith("zz/")}
    assert {name.removeprefix("zz/") for name in found} == set(corpus)
    for name, case in corpus.items():
        file = found[f"zz/{name}"]
        # Shorter than half a window is empty, whatever the file is otherwise.
        assert file.status in (*case.statuses, "empty"), (name, file)
        assert file.status == "ok" or file.reason
        assert float(file.read_s) >= 0
    assert len(result.files) == len(corpus) + 5 == sum(result.statuses.values())


def test_windows_with_samples_that_are_not_finite_are_marked(run: Path, tmp_path: Path) -> None:
    rate, length = 22050, 10 * 22050
    samples = sound(1, 10.0, rate=rate)
    bad = [3 * rate, 3 * rate + 7, 7 * rate]
    samples[bad] = np.nan, np.inf, -np.inf
    path = tmp_path / "in/nan.wav"
    path.parent.mkdir()
    path.write_bytes(float_wav(samples, rate))
    write(tmp_path / "in/good.wav", sound(2, 3.0))
    result = predict(run, [tmp_path / "in"], tmp_path / "out", settings=Settings(overlap=0.5))
    file = next(file for file in result.files if file.file == "nan.wav")
    assert file.status == "partial" and "3 of 220500 samples were not finite" in file.reason
    window, hop = (n / result.sample_rate for n in (result.windows.segment, result.windows.hop))
    starts = np.arange(file.windows) * hop
    holds = [
        any(start <= place / rate < start + window for place in bad) for start in starts.tolist()
    ]
    assert file.marked_windows == sum(holds) > 2
    stretches = [
        (float(row["start_s"]), float(row["end_s"]), row["file"])
        for row in rows((tmp_path / "out/marked.csv").read_bytes())
    ]
    assert [name for *_, name in stretches] == ["nan.wav"] * 2
    assert length / rate > stretches[1][1] and stretches[0][1] < stretches[1][0]
    for start, end, _ in stretches:
        inside = [s for s in starts.tolist() if start - 1e-3 <= s <= end - window + 2e-3]
        assert len(inside) == round((end - start - window) / hop) + 1
        assert all(holds[round(s / hop)] for s in inside)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A recording after one to four of: flipped bits, a cut, a splice, an overwritten stretch."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if len(data) < 8:
            break
        at, length = int(rng.integers(len(data))), int(rng.integers(1, max(2, len(data) // 3)))
        kind = rng.integers(5)
        if kind == 0:
            for place in rng.integers(len(data), size=rng.integers(1, 30)).tolist():
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:  # in the header, where it hurts
            data[int(rng.integers(min(200, len(data))))] = int(rng.integers(256))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            other = int(rng.integers(len(data)))
            data[at:at] = data[other : other + length]
        else:
            data[at : at + length] = rng.bytes(min(length, len(data) - at))
    return bytes(data)


def write_mutations(folder: Path, count: int) -> None:
    folder.mkdir()
    endings = list(CODECS)
    for seed in range(count):
        rng = np.random.default_rng([seed, 5])
        ending = endings[seed % len(endings)]
        samples = sound(seed, float(rng.uniform(0.6, 3.0)), rate=16000)
        whole = encoded(samples, ending, 16000)
        (folder / f"{seed:03}.{ending}").write_bytes(mutated(whole, rng))


SCRIPT = """
import pathlib, resource, sys
from birdinv_cli.main import main
try:
    main(sys.argv[1:])
finally:
    status = pathlib.Path("/proc/self/status")  # ru_maxrss begins with that of whoever began this
    own = [int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line] \
        if status.exists() else [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
    print("peak", max(*own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_random_mutations_end_in_a_status_each(run: Path, tmp_path: Path, count: int) -> None:
    write_mutations(tmp_path / "in", count)
    write(tmp_path / "in/good.wav", sound(1, 3.0))
    command = ["predict", str(run), "in", "-o", "out", "--min-conf", "0", "--stall", "60"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=tmp_path,
        timeout=1200,
    )
    assert done.returncode == 3, done.stderr
    files = rows((tmp_path / "out/files.csv").read_bytes())
    assert [row["file"] for row in files] == sorted(p.name for p in (tmp_path / "in").iterdir())
    assert {row["status"] for row in files} <= set(STATUSES)
    stalled = [row for row in files if "no progress" in row["reason"]]
    assert not stalled
    peak = int(done.stdout.split("peak")[-1]) * 1024
    assert peak < MOST_BYTES
    predict(run, [tmp_path / "in/good.wav"], tmp_path / "alone", settings=ALL)
    name = "good.wav.birdinv.csv"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def interrupted(command: list[str], folder: Path, seconds: float) -> int:
    """Kills the command and leaves it no time for anything; its exit status."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    run: Path, tmp_path: Path, kills: int
) -> None:
    for key in range(40):
        write(tmp_path / f"in/{key % 3}/{key}.flac", sound(key, 30.0, rate=32000), 32000)
    for case in list(damaged())[::9]:
        (tmp_path / "in" / case.name).write_bytes(case.content)
    birdinv = str(Path(sys.executable).parent / "birdinv")
    command = [birdinv, "predict", str(run), "in", "-o", "out", "--min-conf", "0"]
    command += ["--workers", "2", "--rtype", "raven"]
    started = time.monotonic()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 3
    whole_s = time.monotonic() - started
    os.rename(tmp_path / "out", tmp_path / "expected")
    expected = tables(tmp_path / "expected")
    rng = np.random.default_rng(kills)
    killed = 0
    scored: list[bytes] = []  # the journal's lines as they were before each kill
    while killed < kills:
        status = interrupted(command, tmp_path, float(rng.uniform(0.02, 1.0)) * whole_s)
        killed += status == -signal.SIGKILL
        journal = tmp_path / "out/journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
        assert [line for line in lines if line.endswith(b"\n")][: len(scored)] == scored
        scored = [line for line in lines if line.endswith(b"\n")]
        if status != -signal.SIGKILL:  # it came to its end
            assert tables(tmp_path / "out") == expected
            shutil.rmtree(tmp_path / "out")
            scored = []
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 3
    assert tables(tmp_path / "out") == expected
    names = [line.split(b'"file": ')[1] for line in scored[1:]]
    assert len(names) == len(set(names))  # nothing was scored twice
    runs = [(tmp_path / name / "run.json").read_bytes() for name in ("out", "expected")]
    assert runs[0] == runs[1]
