"""The main job on synthetic birds, start to finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from birdinv.audio.store import Store
from birdinv.data.segmenting import Segmented, segment
from birdinv.data.synthetic import write_chorus
from birdinv.evaluation import Evaluation
from birdinv.files import require_new
from birdinv.prediction.job import Settings
from birdinv.prediction.run import Predicted, predict
from birdinv.prediction.tables import Choice
from birdinv.progress import Progress
from birdinv.reporting.page import write_report
from birdinv.reporting.recordings import view_recording
from birdinv.training.loop import train
from birdinv.training.recipes import settle
from birdinv.training.scoring import evaluate_run

EPOCHS = 16  # of a chorus this small, in well under a minute on one core
SHOWN = 3  # recordings on the page


@dataclass(frozen=True)
class Demo:
    """What each step of the demo made."""

    segmented: Segmented
    evaluation: Evaluation
    predicted: Predicted
    report: Path


def run_demo(output: Path, *, seed: int, command: str, say: Callable[[str], None]) -> Demo:
    """Synthesises a chorus below `output`, then segment → train → eval → predict → report.

    Args:
        output: a new folder; gets `recordings/`, `store/`, `run/` and `predictions/`.
        say: takes a line about each step as it begins.
    """
    require_new(output, "demo")
    say("1/6 synthesising a bird chorus: six species, noise, unlabelled and damaged recordings")
    chorus = write_chorus(output / "recordings", seed=seed, recordings_per_species=12)
    say("2/6 segmenting it into a store")
    with Progress("segment", "h of audio") as progress:
        segmented = segment(
            [chorus.labelled],
            output / "store",
            unlabelled=[chorus.unlabelled],
            progress=progress,
        )
    say("3/6 training on the waveforms, half of each batch unlabelled")
    run = output / "run"
    with Progress("train", "steps", digits=0) as progress:
        store = Store(output / "store")
        train(
            store,
            run,
            settle(store, {"epochs": EPOCHS, "seed": seed})[0],
            device="cpu",
            command=command,
            progress=progress,
        )
    say("4/6 evaluating on recordings it has not heard")
    evaluation = evaluate_run(run)
    say("5/6 predicting over field recordings, some of them damaged")
    with Progress("predict", "h of audio") as progress:
        predicted = predict(
            run,
            [chorus.field],
            output / "predictions",
            settings=Settings(Choice(min_conf=0.5, merge=0)),
            report=True,
            command=command,
            progress=progress,
        )
    say("6/6 drawing the report")
    shown = sorted(
        (result for result in predicted.files if result.status == "ok"),
        key=lambda result: (-result.detections, result.file),
    )[:SHOWN]
    views = [view_recording(run, chorus.field / result.file, min_conf=0.5) for result in shown]
    return Demo(segmented, evaluation, predicted, write_report(run, recordings=views))
