"""Batch prediction: how fast, how large, how many tiny files, beside the ceiling and a peer.

    python benchmarks/prediction.py [realtime|shared|workers|memory|startup|tiny|…|peer]

Default: all but the peer. Real recordings (`BIRDINV_DATA`, the folder that holds `bird_kenya6`) are
tiled to the lengths needed. Both sides of a ratio are measured in turn in one run, medians are
kept: the machine is shared, so read the ratios and not the times. Results go into
`benchmarks/results/prediction.json`. The peer is OpenSoundscape in an environment of its own, whose
Python is named by `PEER_PYTHON`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from birds import DECODE, RESULTS, measured_in_process, tiled

RATE, SEGMENT, HOP = 22050, 11025, 1102
CLASSES = 10
TINY = 50_000
BIRDINV = str(Path(sys.executable).parent / "birdinv")
ONE_CORE = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"

PREDICT = """
import json, sys, time
from pathlib import Path
import birdinv.prediction.listener
from birdinv.prediction.run import predict
started = time.perf_counter()
result = predict(Path(sys.argv[1]), [Path(sys.argv[2])], Path(sys.argv[3]))
wall = time.perf_counter() - started
print(json.dumps([wall, sum(f.detections for f in result.files),
                  sum(f.windows for f in result.files)]))
"""
COMMAND = """
import json, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(json.dumps([time.perf_counter() - started]))
"""
# A process of its own, so that the largest of its children is the one that read the file.
PEAK = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(json.dumps([resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""
READ = """
import json, sys, time
from pathlib import Path
from birdinv.audio.reading import Reader
from birdinv.audio.resampling import pcm, resampled
from birdinv.audio.sources import find_sources
started = time.perf_counter()
for source in find_sources([Path(sys.argv[1])]).found:
    with Reader(source.path) as reader:
        for block in resampled(reader, reader.source_rate, int(sys.argv[2])):
            pcm(block)
print(json.dumps([time.perf_counter() - started]))
"""

SCORE = """
import json, sys, time
from pathlib import Path
from birdinv.audio.sources import find_sources
from birdinv.prediction import Listener
started = time.perf_counter()
listener = Listener.load(sys.argv[2])
for source in find_sources([Path(sys.argv[1])]).found:
    for _ in listener.hear(source.path):
        pass
print(json.dumps([time.perf_counter() - started]))
"""


def model(scratch: Path) -> Path:
    """A Bird10 of ten classes with random weights, sure of itself often enough to write rows."""
    import torch

    from birdinv.networks import build
    from birdinv.networks.saved import Description, Hearing, save_model

    torch.manual_seed(0)
    network = build("bird10", classes=CLASSES, shape=(1, SEGMENT))
    with torch.no_grad():
        network.head.weight.mul_(100)  # type: ignore[union-attr, operator]
    names = [f"bird {number}" for number in range(CLASSES)]
    description = Description("bird10", network.sizes, names, Hearing(RATE, SEGMENT, HOP, []))  # type: ignore[arg-type]
    save_model(scratch / "model", network.state_dict(), description)
    return scratch / "model"


def realtime(scratch: Path) -> dict[str, Any]:
    """1 h of FLAC at 48 kHz on one core: `predict` beside decoding + resampling alone."""
    network, file = model(scratch), tiled(scratch, "flac", 1)
    walls: dict[str, list[float]] = {"decode + resample": [], "predict": [], "command": []}
    rows = windows = 0.0
    for turn in range(7):
        walls["decode + resample"].append(measured_in_process(ONE_CORE + DECODE, str(file), "r")[0])
        wall, rows, windows = measured_in_process(
            ONE_CORE + PREDICT, str(network), str(file), str(scratch / f"out{turn}")
        )
        walls["predict"].append(wall)
        command = [BIRDINV, "predict", str(network), str(file), "-o", str(scratch / f"cli{turn}")]
        walls["command"].append(measured_in_process(ONE_CORE + COMMAND, *command)[0])
    times = {name: statistics.median(values) for name, values in walls.items()}
    shares = [a / b for a, b in zip(walls["decode + resample"], walls["predict"], strict=True)]
    return {
        **{f"{name}_s": round(value, 3) for name, value in times.items()},
        "realtime_factor": round(3600 / times["predict"]),
        "ceiling_realtime_factor": round(3600 / times["decode + resample"]),
        "share_of_ceiling": round(statistics.median(shares), 3),
        "share_of_ceiling_each": [round(share, 3) for share in shares],
        "asked": "at least 0.6",
        "windows": int(windows),
        "rows": int(rows),
        "note": "one core, 90.7 % overlap (hop of 1024 samples), tables written; `command` is the "
        "whole of `birdinv predict` with its worker process, start-up and import of torch included",
    }


def shared(scratch: Path) -> dict[str, Any]:
    """The network part alone: shared frames against every window by itself, same windows."""
    import torch

    from birdinv.audio.windows import Windows
    from birdinv.networks.saved import load_listener
    from birdinv.prediction.scoring import WindowScorer

    torch.set_num_threads(1)
    network = load_listener(model(scratch))[0]
    windows = Windows(SEGMENT, 1024)
    samples = np.random.default_rng(0).normal(0, 3000, 1024 * 2047 + SEGMENT).astype(np.int16)
    scorers = {
        "shared": WindowScorer(network, windows),
        "by itself": WindowScorer(network, windows, share=False),
    }
    times: dict[str, list[float]] = {name: [] for name in scorers}
    scores: dict[str, list[np.ndarray]] = {}
    for _ in range(9):
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scores[name] = [
                scorer(samples[first * 1024 :], scorer.batch)
                for first in range(0, 2048, scorer.batch)
            ]
            times[name].append(time.perf_counter() - started)
    one, other = (np.concatenate(parts) for parts in scores.values())
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **{f"{name}_us_per_window": round(1e6 * t / 2048, 1) for name, t in medians.items()},
        "ratio": round(medians["by itself"] / medians["shared"], 1),
        "asked": "at least 5",
        "largest_difference_of_a_probability": float(np.abs(one - other).max()),
    }


def workers(scratch: Path) -> dict[str, Any]:
    """32 files of 6 minutes: one worker and two, start-up included."""
    network, hour = model(scratch), tiled(scratch, "flac", 0.1)
    (scratch / "in").mkdir()
    for number in range(32):
        os.link(hour, scratch / "in" / f"{number}.flac")
    walls: dict[str, list[float]] = {"1": [], "2": []}
    for turn in range(3):
        for count, values in walls.items():
            command = [BIRDINV, "predict", str(network), str(scratch / "in"), "--workers", count]
            started = time.perf_counter()
            out = str(scratch / f"out{count}-{turn}")
            subprocess.run([*command, "-o", out], check=True, capture_output=True)
            values.append(time.perf_counter() - started)
    ratios = [one / two for one, two in zip(*walls.values(), strict=True)]
    return {
        **{f"workers_{n}_s": round(statistics.median(values), 2) for n, values in walls.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_each": [round(ratio, 2) for ratio in ratios],
        "asked": "at least 1.7",
        "note": "32 FLAC files of 6 minutes at 48 kHz; two cores shared with others",
    }


def memory(scratch: Path) -> dict[str, Any]:
    """Peak memory of the process that reads: a 6-hour file beside one of 10 minutes."""
    network, peaks = model(scratch), {}
    for hours in (1 / 6, 6):
        file = tiled(scratch, "flac", hours)
        command = [BIRDINV, "predict", str(network), str(file), "-o", str(scratch / f"out{hours}")]
        peaks[hours] = measured_in_process(PEAK, *command)[0]
        file.unlink()
    return {
        "ten_minutes_mb": round(peaks[1 / 6]),
        "six_hours_mb": round(peaks[6]),
        "ratio": round(peaks[6] / peaks[1 / 6], 3),
        "asked": "at most 1.1",
    }


def startup(scratch: Path) -> dict[str, Any]:
    """From the command to the first row of one short file, and what importing torch takes."""
    network = model(scratch)
    (scratch / "in").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE)
    soundfile.write(scratch / "in/a.wav", noise, RATE)
    first, done, torch_s = [], [], []
    for turn in range(9):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        torch_s.append(time.perf_counter() - started)
        out = scratch / f"out{turn}"
        command = [BIRDINV, "predict", str(network), str(scratch / "in"), "-o", str(out)]
        command += ["--min-conf", "0"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            table = out / "a.wav.birdinv.csv"
            while not table.exists() and process.poll() is None:
                time.sleep(0.005)
            first.append(time.perf_counter() - started)
            process.communicate()
            done.append(time.perf_counter() - started)
        if len(table.read_text().splitlines()) < 2:
            raise RuntimeError("no row was written")
    return {
        "first_row_s": round(statistics.median(first), 2),
        "first_row_best_s": round(min(first), 2),
        "done_s": round(statistics.median(done), 2),
        "import_torch_alone_s": round(statistics.median(torch_s), 2),
        "asked": "below 3 s",
    }


def tiny(scratch: Path, count: int = TINY) -> dict[str, Any]:
    """Many files of one second: what `predict` takes beside reading them, for each."""
    network = model(scratch)
    rng = np.random.default_rng(0)
    for number in range(50):
        path = scratch / "sound" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, RATE), RATE)
    for number in range(count):  # names of the same bytes: the disk is not what is measured
        folder = scratch / "in" / f"{number // 1000:02}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(scratch / "sound" / f"{number % 50}.wav", folder / f"{number:05}.wav")
    walls: dict[str, list[float]] = {
        "read": [],
        "read and score": [],
        "1 worker": [],
        "2 workers": [],
    }
    for turn in range(1):  # minutes each
        walls["read"].append(measured_in_process(READ, str(scratch / "in"), str(RATE))[0])
        walls["read and score"].append(
            measured_in_process(SCORE, str(scratch / "in"), str(network))[0]
        )
        for workers in (1, 2):
            out = scratch / f"out{workers}"
            command = [BIRDINV, "predict", str(network), str(scratch / "in"), "-o", str(out)]
            started = time.perf_counter()
            subprocess.run([*command, "--workers", str(workers)], check=True, capture_output=True)
            walls[f"{workers} worker" + "s" * (workers > 1)].append(time.perf_counter() - started)
            shutil.rmtree(out)
            print(turn, walls, flush=True)
    times = {name: min(values) for name, values in walls.items()}
    one, two = (times[name] - times["read"] for name in ("1 worker", "2 workers"))
    return {
        "files": count,
        **{f"{name}_s": round(value, 1) for name, value in times.items()},
        "overhead_ms_per_file": round(1e3 * one / count, 3),
        "overhead_ms_per_file_2_workers": round(1e3 * two / count, 3),
        "of_which_scoring_ms": round(1e3 * (times["read and score"] - times["read"]) / count, 3),
        "asked": "below 3 ms",
        "note": "overhead: all but listing, reading and converting; making a new file alone takes "
        "about 0.3 ms on this disk",
    }


PEER = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import os
os.environ["WANDB_MODE"] = "disabled"
import torch
torch.set_num_threads(1)
import opensoundscape
from opensoundscape import CNN
kind, overlap, *files = sys.argv[1:]
model = CNN("resnet18", classes=[f"bird {i}" for i in range(10)], sample_duration=0.5,
            sample_rate=22050, arch_weights=None)
started = time.perf_counter()
found = {}
if kind == "load":
    loader = model.predict_dataloader(files, overlap_fraction=float(overlap), batch_size=64,
                                      num_workers=0)
    found["windows"] = sum(len(batch) for batch in loader)
else:
    table, invalid = model.predict(files, overlap_fraction=float(overlap), batch_size=64,
                                   num_workers=0, progress_bar=False, return_invalid_samples=True)
    found["windows"] = len(table)
    scored = table.dropna(how="all").reset_index()["file"].unique()
    found["files_with_scores"] = sorted(os.path.basename(f) for f in scored)
    found["invalid"] = sorted({os.path.basename(str(f)) for f in invalid})
found["seconds"] = time.perf_counter() - started
found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found["version"] = opensoundscape.__version__
print("\\n" + json.dumps(found))
"""


def peer(scratch: Path) -> dict[str, Any]:
    """OpenSoundscape on the same recordings: its loading path, its smallest model, bad files."""
    python = os.environ.get("PEER_PYTHON") or sys.exit("set PEER_PYTHON; see the module")
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from damaged import damaged

    def theirs(*arguments: str) -> Any:
        command = [python, "-c", ONE_CORE + PEER, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1][:200]}
        return json.loads(done.stdout.strip().splitlines()[-1])

    network, minutes = model(scratch), 3
    file = tiled(scratch, "flac", minutes / 60)
    out = [scratch / f"out{number}" for number in range(3)]
    ours = measured_in_process(ONE_CORE + PREDICT, str(network), str(file), str(out[0]))
    peak = measured_in_process(PEAK, BIRDINV, "predict", str(network), str(file), "-o", str(out[1]))
    load, predict = theirs("load", "0.9", str(file)), theirs("predict", "0.9", str(file))
    folder = scratch / "damaged"
    folder.mkdir()
    for case in damaged():
        if case.name.split(".")[-1] in ("wav", "flac", "mp3", "ogg", "opus"):
            (folder / case.name).write_bytes(case.content)
    # The first is whole: with a damaged one in its place the peer stops at once.
    files = sorted(str(path) for path in folder.iterdir())
    files.insert(0, str(folder / "good.wav"))
    soundfile.write(files[0], np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    bad = theirs("predict", "0", *files)
    command = [BIRDINV, "predict", str(network), str(folder), "-o", str(out[2])]
    done = subprocess.run(command, capture_output=True, text=True)
    statuses = json.loads((out[2] / "run.json").read_text())["statuses"]
    return {
        "peer": f"OpenSoundscape {load.get('version')}, resnet18 without weights, one thread",
        "sound": f"{minutes} minutes of FLAC at 48 kHz, windows of 0.5 s at 90 % overlap, one core",
        "realtime_factor": {
            "birdinv predict": round(60 * minutes / ours[0]),
            "their loading path": round(60 * minutes / load["seconds"], 1),
            "their prediction": round(60 * minutes / predict["seconds"], 1),
        },
        "peak_mb": {
            "birdinv predict": round(peak[0]),
            "their loading path": round(load["peak_mb"]),
            "their prediction": round(predict["peak_mb"]),
        },
        "damaged_files": {
            "given": len(files),
            "birdinv": {**statuses, "exit_code": done.returncode},
            "theirs": bad
            if "failed" in bad
            else {
                "files with scores": len(bad["files_with_scores"]),
                "files with samples called invalid": len(bad["invalid"]),
                "files it says nothing of": len(
                    {Path(f).name for f in files} - {*bad["files_with_scores"], *bad["invalid"]}
                ),
                "damaged files it scored without a word": sorted(
                    {*bad["files_with_scores"]} - {*bad["invalid"]}
                ),
            },
        },
    }


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "realtime": realtime,
    "shared": shared,
    "workers": workers,
    "memory": memory,
    "startup": startup,
    "tiny": tiny,
    "tiny-parts": lambda scratch: tiny(scratch, 10_000),  # in minutes
    "peer": peer,
}


def main() -> None:
    """Runs the parts named on the command line."""
    asked = sys.argv[1:] or [name for name in PARTS if name not in ("tiny-parts", "peer")]
    if unknown := set(asked) - set(PARTS):
        sys.exit(f"unknown parts {sorted(unknown)}; there are {', '.join(PARTS)}")
    target = RESULTS / "prediction.json"
    for name in asked:
        with tempfile.TemporaryDirectory() as scratch:
            result = PARTS[name](Path(scratch))
        print(f"{name}: {result}", flush=True)
        everything = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
        everything[name] = result
        text = json.dumps(everything, indent=2, ensure_ascii=False) + "\n"
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
