"""The same work on a Dask cluster: the same bytes, whatever becomes of its workers."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import contents, make_run, sound, write, write_bad

from birdinv.audio.sources import Source
from birdinv.errors import BirdinvError, SettingError
from birdinv.prediction import cluster as clusters
from birdinv.prediction.job import FileResult, Heard, Job, Settings
from birdinv.prediction.run import predict
from birdinv.prediction.tables import Choice

distributed = pytest.importorskip("distributed")
ALL = Settings(Choice(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long and short recordings, damaged ones among them."""
    folder = tmp_path_factory.mktemp("field")
    for key in range(8):
        write(folder / f"site {key % 2}/{key}.flac", sound(key, 60.0, rate=48000), 48000)
    write(folder / "short.wav", sound(9, 2.0))
    write_bad(folder / "bad")
    return folder


@pytest.fixture(scope="module")
def expected(run: Path, field: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("expected") / "out"
    predict(run, [field], output, settings=ALL)
    return tables(output)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    yield cluster
    cluster.close()


def tables(output: Path) -> dict[str, bytes]:
    own = ("run.json", "journal.jsonl")
    return {name: data for name, data in contents(output).items() if name not in own}


def pids(cluster: Any) -> list[int]:
    with distributed.Client(cluster, set_as_default=False) as client:
        return sorted(client.run(os.getpid).values())


def test_a_cluster_writes_the_same_bytes_though_a_worker_is_killed(
    run: Path, field: Path, expected: dict[str, bytes], workers: Any, tmp_path: Path
) -> None:
    victim, other = pids(workers)
    killed = threading.Event()

    def kill() -> None:
        while not list((tmp_path / "out").rglob("*.birdinv.csv")):
            time.sleep(0.02)
        os.kill(victim, signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    result = predict(
        run, [field], tmp_path / "out", settings=ALL, cluster=workers.scheduler_address
    )
    assert killed.is_set() and tables(tmp_path / "out") == expected
    assert result.statuses["ok"] == 9 and result.statuses["partial"] > 0
    assert other in pids(workers) and victim not in pids(workers)


class _Deadly(distributed.WorkerPlugin):  # type: ignore[misc, name-defined]
    """Every worker, also one that comes later, dies over `short.wav` and stalls over one more."""

    name = "deadly"

    def setup(self, worker: Any) -> None:
        work = Job.work

        def deadly(job: Job, source: Source, heard: Heard) -> FileResult:
            if source.name == "short.wav":
                os.kill(os.getpid(), signal.SIGKILL)
            if source.name == "bad/cut.wav":
                time.sleep(3600)
            return work(job, source, heard)

        Job.work = deadly  # type: ignore[method-assign]


@pytest.mark.slow  # workers that die and begin again, one after the other
def test_files_that_kill_or_stall_workers_cost_themselves_alone(
    run: Path, field: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    import dask

    folder = tmp_path / "field"
    shutil.copytree(field / "bad", folder / "bad")
    for name in ("site 0/0.flac", "site 1/1.flac", "short.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(field / name, folder / name)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        with distributed.Client(cluster, set_as_default=False) as client:
            client.register_plugin(_Deadly())
        result = predict(
            run,
            [folder],
            tmp_path / "out",
            settings=ALL,
            cluster=cluster.scheduler_address,
            stall_s=3.0,
        )
    reasons = {f.file: f.reason for f in result.files}
    assert reasons["short.wav"] == "it crashed the decoder (its workers died)"
    assert reasons["bad/cut.wav"] == "it made no progress for 3 s and was given up"
    for name, data in tables(tmp_path / "out").items():
        recording = name.removesuffix(".birdinv.csv")
        if recording != name and recording not in ("short.wav", "bad/cut.wav"):
            assert data == expected[name]


def test_a_local_cluster_by_the_command_line(
    run: Path, field: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(field / "bad", tmp_path / "field/bad")
    done = subprocess.run(
        [
            Path(sys.executable).parent / "birdinv",
            *("predict", run, "field", "-o", "out", "--min-conf", "0", "--cluster", "local:2"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # relative paths are the same files to the workers
    )
    assert done.returncode == 3, done.stderr
    assert "distributed" not in done.stderr and "Traceback" not in done.stderr
    out = tables(tmp_path / "out")
    for name in out.keys() - {"combined.csv", "files.csv", "marked.csv"}:
        assert out[name] == expected[name]


@pytest.mark.parametrize("address", ["local:", "local:0", "local:two"])
def test_a_local_cluster_needs_a_number(
    run: Path, field: Path, tmp_path: Path, address: str
) -> None:
    with pytest.raises(SettingError, match="give local:N with N processes"):
        predict(run, [field], tmp_path / "out", cluster=address)


def test_a_scheduler_that_does_not_answer_is_named(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "CONNECT_S", 1)
    with pytest.raises(BirdinvError, match=r"scheduler at tcp://127.0.0.1:9 does not answer"):
        predict(run, [field], tmp_path / "out", cluster="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none_is_refused_by_the_workers(
    field: Path, workers: Any, tmp_path: Path
) -> None:
    with pytest.raises(BirdinvError, match=r"none does not exist; expected a model folder"):
        predict(tmp_path / "none", [field], tmp_path / "out", cluster=workers.scheduler_address)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to interrupt")
def test_ctrl_c_on_a_local_cluster_is_one_sentence(run: Path, field: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "birdinv", "predict", run, field, "-o", "out"]
    process = subprocess.Popen(
        [*command, "--cluster", "local:2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.rglob("*.birdinv.csv")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [line for line in err.splitlines() if not line.startswith("predict: ")]
    assert len(lines) == 1 and "the same command again goes on from there" in lines[0]
