"""The pictures of `docs/inside.md`, of two runs on the same recordings and of one recording.

    python docs/pictures/inside.py RUN_A RUN_B RECORDING [--at SECONDS]

RUN_A and RUN_B are compared on their test set; the recording is looked at with RUN_B.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from birdinv.inspection import figures
from birdinv.inspection.comparison import compare_runs
from birdinv.inspection.comparison_page import curves_picture, distances_picture
from birdinv.inspection.filters import by_frequency, first_kernels
from birdinv.inspection.findings import look
from birdinv.inspection.subjects import recording_subject
from birdinv.networks.saved import load_model

HERE = Path(__file__).parent


def main() -> None:
    """Draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run_a", "run_b", "recording"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--at", type=float)
    given = parser.parse_args()
    model, description = load_model(given.run_b)
    subject = recording_subject(given.run_b, given.recording, given.at)
    rate = subject.sample_rate or 1
    found = look(model, description.classes, subject)
    x, A = subject.x[0, 0].numpy(), found.templates.A[0, :, 0].numpy()
    order = [int(k) for k in found.templates.logits[0].argsort(descending=True)]
    rows = [
        ("the sound", x),
        ("its reconstruction", found.templates.reconstruction[0, 0].numpy()),
        (f"template of {found.classes[order[0]]}, its answer", A[order[0]]),
        (f"template of {found.classes[order[1]]}, the next", A[order[1]]),
    ]
    step = found.flips.step[0, 0].numpy()
    level = f"{float(found.flips.level_db[0]):.1f} dB".replace("-", "−")
    fooled = found.classes[int(found.flips.after[0])]
    changed = [(f"the change, {level}", step), (f"with it: {fooled}, says the network", x + step)]
    pictures = {
        "inside-sound": figures.signals(rows, rate),
        "inside-fooled": figures.signals(changed, rate),
    }
    kernels = first_kernels(model)
    if kernels is not None:
        pictures["inside-filters"] = figures.filters_picture(by_frequency(kernels[1], rate), rate)
    compared = compare_runs((given.run_a, given.run_b), split="test")
    pictures["inside-regions"] = distances_picture(compared.b, compared.borders)
    pictures["inside-robustness"] = curves_picture(compared)
    for name, picture in pictures.items():
        picture.savefig(HERE / f"{name}.png", dpi=120, metadata={"Software": None})
    print(f"{subject.name} at {subject.start_s:.2f} s: {found.to_dict()}")


if __name__ == "__main__":
    main()
