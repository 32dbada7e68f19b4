"""What docs/predict.md and docs/cluster.md show works."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import contents, make_run, sound, write

from birdinv.audio.reading import STATUSES
from birdinv.prediction.combined import FILES
from birdinv.prediction.formats import RTYPES
from birdinv.prediction.run import predict

DOCS = Path(__file__).parent.parent / "docs"
PREDICT = (DOCS / "predict.md").read_text(encoding="utf-8")
CLUSTER = (DOCS / "cluster.md").read_text(encoding="utf-8")
RECORDS = ("run.json", "journal.jsonl")

# Runs the job at once, as a cluster without a queue would, and says what SLURM says.
SBATCH = """#!/bin/sh
cp "$1" "job-$$.sh"  # as SLURM does: the script is gone soon
setsid sh "job-$$.sh" > "job-$$.out" 2>&1 &
echo "$!" >> "$JOBS"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -9 "-$job" 2> /dev/null; done
exit 0
"""


def python_block(text: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_example_in_python_prints_a_line_a_window(tmp_path: Path) -> None:
    make_run(tmp_path)
    write(tmp_path / "dawn.wav", sound(1, 3.0))
    command = [sys.executable, "-c", python_block(PREDICT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 5
    assert all(re.fullmatch(r" +\d+\.\d\d s  (robin|wren|noise)  [01]\.\d\d", x) for x in lines)


def test_every_status_format_and_file_is_explained() -> None:
    for name in (*STATUSES, *RTYPES, "marked.csv", "journal.jsonl", "report.html"):
        assert f"`{name}`" in PREDICT or name.capitalize() in PREDICT
    assert {"declared_s", "read_s", "marked_windows"} <= {*FILES}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SLURM is not for Windows")
def test_slurm_from_start_to_finish(tmp_path: Path) -> None:
    """The script of the page, its jobs begun by a stand-in for SLURM."""
    run = make_run(tmp_path / "model")
    for key in range(6):
        write(tmp_path / f"recordings/{key}.wav", sound(key, 20.0))
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    script = python_block(CLUSTER)
    assert "maximum_jobs=40" in script
    (tmp_path / "workers.py").write_text(script.replace("maximum_jobs=40", "maximum_jobs=2"))
    jobs = tmp_path / "jobs"
    jobs.touch()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "JOBS": str(jobs),
    }
    workers = subprocess.Popen(
        [sys.executable, "workers.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert workers.stdout is not None
        address = workers.stdout.readline().strip()
        assert re.fullmatch(r"tcp://.+:\d+", address)
        done = subprocess.run(
            [
                Path(sys.executable).parent / "birdinv",
                *("predict", run, "recordings", "-o", "tables", "--cluster", address),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    finally:
        workers.kill()
        for job in jobs.read_text().split():
            try:
                os.killpg(int(job), signal.SIGKILL)
            except ProcessLookupError:
                continue
    predict(run, [tmp_path / "recordings"], tmp_path / "expected")
    tables, expected = contents(tmp_path / "tables"), contents(tmp_path / "expected")
    assert all(tables[name] == data for name, data in expected.items() if name not in RECORDS)
    assert jobs.read_text().split()  # it was a job that did it
