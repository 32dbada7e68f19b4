"""The main job on real recordings (`bird_kenya6`): does it run, how well, how fast, how large?

    python benchmarks/birds.py path|accuracy|segment|feed [...]     (default: all four)

Needs `BIRDINV_DATA`, the folder that holds `bird_kenya6`. Each part prints what it measured and
keeps it in `benchmarks/results/birds-<part>.json`. Both sides of a ratio are measured in one run;
the machine is shared, so read the ratios and not the times.
"""

from __future__ import annotations

import json
import os
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

RESULTS = Path(__file__).parent / "results"
SEEDS = range(5)
EPOCHS = 12
FRACTIONS = (0.7, 0.0, 0.3)  # the prototype's 70/30: nothing is selected, the last epoch counts
OBJECTIVES: dict[str, dict[str, Any]] = {
    "supervised": {"objective": "supervised"},
    "weighted (0.7, 0.3)": {"objective": "weighted", "alpha": 0.7, "beta": 0.3},
    "multiscale": {"objective": "multiscale"},
}


def birds() -> Path:
    """The folder of real recordings."""
    folder = Path(os.environ.get("BIRDINV_DATA", "")) / "bird_kenya6"
    if not os.environ.get("BIRDINV_DATA") or not folder.is_dir():
        sys.exit("set BIRDINV_DATA to the folder that holds bird_kenya6")
    return folder


def path(scratch: Path) -> dict[str, Any]:
    """segment → train → eval → predict by the command line, its exit codes and results."""
    source, store, run = birds(), scratch / "store", scratch / "run"
    labels = ["--labels", str(source / "metadata.csv"), "--file-column", "filename"]
    labels += ["--label-column", "primary_label"]
    commands = {
        "segment": ["segment", str(source), "-o", str(store), *labels],
        "train": ["train", str(store), "-o", str(run), "--epochs", str(EPOCHS)],
        "eval": ["eval", str(run), "--json"],
        "predict": ["predict", str(run), str(source), "-o", str(scratch / "out"), "--workers", "2"],
    }
    result: dict[str, Any] = {}
    for name, arguments in commands.items():
        started = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "birdinv"), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        seconds = time.perf_counter() - started
        result[name] = {"exit_code": done.returncode, "seconds": round(seconds, 1)}
        print(f"birdinv {name}: exit code {done.returncode}, {seconds:.1f} s", flush=True)
        if name == "eval":
            keys = ("segment_accuracy", "recording_accuracy", "macro_average_precision")
            measured = json.loads(done.stdout)
            result[name] |= {key: measured[key] for key in (*keys, "intervals")}
        else:
            result[name]["output"] = [
                line for line in done.stdout.splitlines() if str(scratch) not in line
            ]
    return result


def accuracy(scratch: Path) -> dict[str, Any]:
    """Test accuracy of each objective over splits by recording, with all labels and with three."""
    import torch

    from birdinv.audio.store import Store
    from birdinv.data.segmenting import SegmentSettings, segment
    from birdinv.training.config import TrainConfig
    from birdinv.training.loop import train
    from birdinv.training.scoring import evaluate_run

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        store = scratch / f"store{seed}"
        segment([birds()], store, SegmentSettings(fractions=FRACTIONS, seed=seed))
        for labels in (None, 3):
            for name, settings in OBJECTIVES.items():
                run = scratch / f"run-{seed}-{labels}-{settings['objective']}"
                config = TrainConfig(
                    class_balanced=False,
                    **settings,
                    labels_per_class=labels,
                    epochs=EPOCHS,
                    seed=seed,
                )
                if not config.uses_unlabelled:
                    config = same_steps(Store(store), config)
                started = time.perf_counter()
                train(Store(store), run, config, device="cpu")
                seconds = time.perf_counter() - started
                measured = evaluate_run(run, resamples=0)
                rows.append(
                    {
                        "seed": seed,
                        "labels_per_class": labels,
                        "objective": name,
                        "segment_accuracy": round(measured.segment_accuracy, 4),
                        "recording_accuracy": round(measured.recording_accuracy, 4),
                        "test_recordings": measured.recordings,
                        "test_segments": measured.segments,
                        "seconds": round(seconds, 1),
                    }
                )
                print(rows[-1], flush=True)
    summary = {}
    for labels in (None, 3):
        for name in OBJECTIVES:
            own = [r for r in rows if (r["labels_per_class"], r["objective"]) == (labels, name)]
            summary[f"{labels or 'all'} labels, {name}"] = {
                key: [
                    round(statistics.mean(r[key] for r in own), 3),
                    round(statistics.stdev(r[key] for r in own), 3),
                ]
                for key in ("segment_accuracy", "recording_accuracy")
            }
    for name, values in summary.items():
        cells = ", ".join(f"{key} {m:.3f} ± {s:.3f}" for key, (m, s) in values.items())
        print(f"{name}: {cells}")
    return {"fractions": FRACTIONS, "epochs": EPOCHS, "rows": rows, "mean_and_std": summary}


def same_steps(store: Any, config: Any) -> Any:
    """Settings under which labels alone see the labelled halves of the others, step by step.

    Where others fill half of each batch with unlabelled segments, an epoch of theirs is a pass over
    those; supervised training gets half the batch and as many steps.
    """
    from dataclasses import replace

    from birdinv.data.batches import Segments
    from birdinv.training.partition import partition

    parts = partition(store, config.labels_per_class, config.seed)
    labelled, unlabelled = (
        len(Segments(store, role)) for role in (parts.labelled, parts.unlabelled)
    )
    if not unlabelled:
        return config
    half = config.batch_size // 2
    steps = config.epochs * -(-max(labelled, unlabelled) // half)
    return replace(config, batch_size=half, epochs=max(1, round(steps / -(-labelled // half))))


def tiled(scratch: Path, extension: str, hours: float) -> Path:
    """A recording of some hours at 48 kHz, tiled from real ones, written in pieces."""
    import soxr

    target = scratch / f"{hours:g}h.{extension}"
    pieces = [soundfile.read(p, dtype="float32") for p in sorted(birds().glob("*/*.ogg"))]
    sound = np.concatenate([soxr.resample(x, rate, 48000) for x, rate in pieces])
    left = int(hours * 3600 * 48000)
    subtype = None if extension == "mp3" else "PCM_16"
    with soundfile.SoundFile(target, "w", 48000, 1, subtype) as file:
        while left > 0:
            file.write(sound[:left])
            left -= len(sound[:left])
    return target


# Run in a process of its own: peak memory above what the imports took, and the time.
SEGMENT = """
import json, re, sys, time
from pathlib import Path
from birdinv.data.segmenting import segment
# In MB; getrusage would count the process that started this one.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before, started, used = peak(), time.perf_counter(), time.process_time()
result = segment([Path(sys.argv[1])], Path(sys.argv[2]))
print(json.dumps([time.perf_counter() - started, time.process_time() - used, peak() - before]))
"""
DECODE = """
import json, sys, time
import soundfile
if len(sys.argv) > 2:
    import numpy, soxr
    stream = soxr.ResampleStream(48000, 22050, 1, dtype="float32", quality="HQ")
started, used = time.perf_counter(), time.process_time()
with soundfile.SoundFile(sys.argv[1]) as file:
    while len(block := file.read(65536, dtype="float32")):
        if len(sys.argv) > 2:
            stream.resample_chunk(block)
print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""


def measured_in_process(code: str, *arguments: str) -> list[float]:
    """What a script prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    values: list[float] = json.loads(done.stdout)
    return values


def segmenting(scratch: Path) -> dict[str, Any]:
    """`segment` against decoding alone and decoding + resampling alone: time and peak memory."""
    import shutil

    result: dict[str, Any] = {}
    for extension, hours, repeats in (
        ("wav", 1, 5), ("flac", 1, 5), ("mp3", 1, 5), ("wav", 6, 1), ("flac", 6, 1), ("mp3", 6, 1)
    ):  # fmt: skip
        file = tiled(scratch, extension, hours)
        walls: dict[str, list[float]] = {"decode": [], "decode + resample": [], "segment": []}
        memory = []
        for _ in range(repeats):  # interleaved: a busy moment of the machine hits all three
            walls["decode"].append(measured_in_process(DECODE, str(file))[0])
            walls["decode + resample"].append(measured_in_process(DECODE, str(file), "r")[0])
            wall, _cpu, peak = measured_in_process(SEGMENT, str(file), str(scratch / "timed"))
            walls["segment"].append(wall)
            memory.append(peak)
            shutil.rmtree(scratch / "timed")
        file.unlink()
        times = {name: statistics.median(values) for name, values in walls.items()}
        row = {
            **{f"{name}_s": round(value, 3) for name, value in times.items()},
            "realtime_factor": round(3600 * hours / times["segment"]),
            "share_of_decoding_ceiling": round(times["decode"] / times["segment"], 3),
            "share_of_decode_resample_ceiling": round(
                times["decode + resample"] / times["segment"], 3
            ),
            "peak_mb_above_import": round(max(memory)),
        }
        result[f"{hours} h {extension}"] = row
        print(f"{hours} h {extension}: {row}", flush=True)
    return result


def feed(scratch: Path) -> dict[str, Any]:
    """Segments a second: from the store, against open + seek + read from the source files."""
    import torch

    from birdinv.audio.store import Store
    from birdinv.data.batches import EndlessShuffle, Segments
    from birdinv.data.segmenting import segment
    from birdinv.networks.layers import normalise

    torch.set_num_threads(1)
    segment([birds()], scratch / "store")
    store = Store(scratch / "store")
    segments = Segments(store, {r.file: r.label for r in store.recordings})
    order = EndlessShuffle(len(segments), 0, 0)
    rows, starts = segments.recordings, segments.starts(np.arange(len(segments)))
    ratio_of_rates = {
        r.file: (birds() / r.file, r.source_rate / store.sample_rate) for r in store.recordings
    }

    def from_store(which: np.ndarray) -> None:
        segments.inputs(which)

    def from_files(which: np.ndarray) -> None:
        parts = []
        for i in which:
            recording = store.recordings[int(rows[i])]
            path, ratio = ratio_of_rates[recording.file]
            start = int((starts[i] - recording.offset) * ratio)
            with soundfile.SoundFile(path) as file:
                file.seek(start)
                parts.append(file.read(int(store.windows.segment * ratio), dtype="float32"))
        shortest = min(map(len, parts))  # left at the source's rate: that favours the files
        normalise(torch.from_numpy(np.stack([part[:shortest] for part in parts]))[:, None])

    speeds: dict[str, list[float]] = {"store": [], "files": []}
    for turn in range(7):
        which = order.take(turn * 1280, 1280)
        for name, take in (("store", from_store), ("files", from_files)):
            count = 1280 if name == "store" else 256
            started = time.perf_counter()
            for first in range(0, count, 128):
                take(which[first : first + 128])
            speeds[name].append(count / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        **{f"{name}_segments_per_s": round(value) for name, value in medians.items()},
        "ratio": round(medians["store"] / medians["files"], 1),
        "source": "32 kHz Ogg Vorbis, batches of 128 in random order, normalised, one thread",
    }
    print(result)
    return result


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "path": path,
    "accuracy": accuracy,
    "segment": segmenting,
    "feed": feed,
}


def main() -> None:
    """Runs the parts named on the command line."""
    asked = sys.argv[1:] or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        sys.exit(f"unknown parts {sorted(unknown)}; there are {', '.join(PARTS)}")
    RESULTS.mkdir(exist_ok=True)
    for name in asked:
        with tempfile.TemporaryDirectory() as scratch:
            result = PARTS[name](Path(scratch))
        target = RESULTS / f"birds-{name}.json"
        target.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
