"""Every command and every example of the README does what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from birdinv.data.synthetic import recording

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def write(path: Path, species: list[str], number: int, seconds: float = 3.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([number, len(species)])
    soundfile.write(path, recording(species, rng, seconds=seconds), 22050)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README says one has: recordings, unlabelled ones, new ones, a BirdCLEF table."""
    folder = tmp_path_factory.mktemp("readme")
    rows = ["filename,primary_label,author,rating"]
    for number in range(6):
        for species in ("whistler", "buzzer"):
            write(folder / f"recordings/{species}/{number}.wav", [species], number)
            write(folder / f"train_audio/{species}/XC{number}.ogg", [species], number + 10)
            rows.append(f"{species}/XC{number}.ogg,{species},recordist {number},4.0")
        write(folder / f"recordings/noise/{number}.wav", [], number)
    (folder / "train_audio/metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write(folder / "unlabelled/a.flac", ["whistler", "buzzer"], 50)
    write(folder / "new_recordings/dawn.wav", ["whistler", "buzzer"], 60)
    write(folder / "new_recordings/site 2/dusk.mp3", ["buzzer"], 61)
    return folder


def test_shell_commands_run(folder: Path) -> None:
    ran = 0
    for line in commands():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        assert words[0] == "birdinv"
        done = subprocess.run(
            [Path(sys.executable).parent / "birdinv", *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran == 13
    for made in (
        "tables/combined.csv",
        "tables/files.csv",
        "run/report.html",
        "tables2/run.json",
        "inside/inspection.html",
    ):
        assert (folder / made).stat().st_size > 0, made


def test_python_example_runs() -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["x_hat"].shape == names["x"].shape  # type: ignore[attr-defined]
    assert all(p.grad is not None for p in names["model"].parameters())  # type: ignore[attr-defined]


def test_every_command_is_in_the_table() -> None:
    from birdinv_cli.main import COMMANDS

    named = set(re.findall(r"^\| `birdinv (\w+)", README, re.MULTILINE))
    assert named == set(COMMANDS)
