"""The command line as a user meets it: exit codes, sentences, nothing half-written."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from birdinv_cli.main import COMMANDS, birdinv, main
from little_disk import refuse_writes
from small import contents, make_run, sound, write, write_bad, write_classes

from birdinv.prediction import run as prediction
from birdinv.prediction.job import Job
from birdinv.prediction.pool import Here

HEAVY = ("torch", "librosa", "sklearn", "matplotlib", "scipy", "soundfile", "numpy")
QUICK = "--sample-rate 11025 --no-activity --overlap 0.5"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on stderr that says what was wrong."""
        assert "Traceback" not in self.err and "Traceback" not in self.out
        lines = [line for line in self.err.splitlines() if line.startswith(("birdinv: ", "Error"))]
        assert len(lines) == 1, self.err
        return lines[0]


Command = Callable[[str], Answer]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `birdinv <line>` in this process, what `predict` gives to workers too."""

    def here(_begin: object, arguments: tuple[Any, ...], workers: int, *, stall_s: float) -> Here:
        assert workers >= 1 and stall_s > 0
        return Here(Job, arguments)

    monkeypatch.setattr(prediction, "Processes", here)  # each imports torch anew
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own

    def run(line: str) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(line))
        out, err = capfd.readouterr()
        assert isinstance(exit_.value.code, int)
        return Answer(exit_.value.code, out, err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recordings`, `store` and `run`; tests only read it."""
    return make_run(tmp_path_factory.mktemp("trained")).parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Path:
    """An empty working folder with the links `rec`, `store` and `run` in it."""
    (tmp_path / "rec").symlink_to(trained / "recordings")
    (tmp_path / "store").symlink_to(trained / "store")
    (tmp_path / "run").symlink_to(trained / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {"rec", "store", "run"}


def start(line: str, folder: Path, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from birdinv_cli.main import main; main()"]
    return subprocess.Popen(
        [*command, *shlex.split(line)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("line", ["--help", *(f"{name} --help" for name in COMMANDS), "--version"])
def test_help_is_quick_because_nothing_heavy_is_imported(line: str, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from birdinv_cli.main import main\n"
        "try:\n"
        f"    main({line.split()!r})\n"
        "finally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert time.monotonic() - started < 5  # 0.1 s on an idle machine
    assert "birdinv" in done.stdout


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_into_eighty_columns_and_explains_every_option(name: str, run: Command) -> None:
    answer = run(f"{name} --help")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "..." not in answer.out.partition("Commands:")[2]  # no cut summary
    if name:
        assert "--config" in answer.out and "--debug" in answer.out
    else:
        assert all(f"  {command} " in answer.out for command in COMMANDS)
        assert all(f"{code} " in answer.out for code in (0, 1, 2, 3, 4, 130))


# ---------------------------------------------------------------- the path, and its exit codes


def test_the_path_from_recordings_to_tables(run: Command, place: Path) -> None:
    answer = run(f"segment rec -o new {QUICK}")
    assert answer.code == 0 and "12 inputs: 12 ok" in answer.out and answer.err == ""
    answer = run("train new -o model --epochs 1 --batch-size 32 --device cpu")
    assert answer.code == 0 and "report: model/report.html" in answer.out
    answer = run("eval model")
    assert answer.code == 0 and "segment accuracy" in answer.out
    answer = run("eval model --json --split valid")
    numbers = json.loads(answer.out)
    assert answer.code == 0 and numbers["split"] == "valid"
    assert set(numbers) >= {
        "segment_accuracy",
        "recording_accuracy",
        "macro_average_precision",
        "recordings",
        "segments",
        "per_class",
    }
    answer = run("predict model rec -o tables --min-conf 0")
    assert answer.code == 0 and "tables: tables/combined.csv" in answer.out
    answer = run("report model rec/wren/wren0.wav")
    assert answer.code == 0 and Path("model/report.html").stat().st_size > 10_000
    assert left(place) == {"new", "model", "tables"}
    command = json.loads(Path("tables/run.json").read_text())["command"]
    assert command.startswith("birdinv ")


def test_the_same_command_again_goes_on_and_says_so(run: Command, place: Path) -> None:
    line = "predict run rec -o tables --min-conf 0 --rtype raven,audacity --report"
    first = run(line)
    assert first.code == 0 and "report: tables/report.html" in first.out
    assert "earlier call" not in first.out
    again = run(line + " --workers 2")
    assert again.code == 0 and "done by an earlier call: 12 of them" in again.out
    assert Path("tables/combined.raven.txt").stat().st_size > 1000
    assert Path("tables/wren/wren0.wav.birdinv.audacity.txt").exists()
    refused = run("predict run rec -o tables --min-conf 0.2")
    assert refused.code == 1 and "min conf: 0.0 there, 0.2 now" in refused.sentence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "windows overlap by 53.6%: one every 232.2 ms; 50.0% were asked for, --exact-hop"),
        ("--exact-hop", "windows overlap by 50.0%: one every 250.0 ms\n"),
        ("--overlap 0", "windows overlap by 0.0%: one every 500.0 ms\n"),
    ],
)
def test_the_overlap_in_use_is_printed(run: Command, place: Path, options: str, said: str) -> None:
    assert said in run(f"predict run rec/wren -o tables {options}").out


def test_a_model_is_exported(run: Command, place: Path) -> None:
    answer = run("export run -o bird.onnx")
    assert answer.code == 0 and Path("bird.onnx").stat().st_size > 100_000
    assert "waveform" in answer.out and "bird.onnx" in answer.out


def test_some_files_skipped_is_3_and_they_are_named(run: Command, place: Path) -> None:
    write_classes(place / "some", 2)
    bad = write_bad(place / "some/wren")
    for line in (f"segment some -o new {QUICK}", "predict run some -o tables"):
        answer = run(line)
        assert answer.code == 3
        assert "15 inputs: 6 ok, 3 partial, 2 empty, 4 unreadable" in answer.out
        for name, status in bad.items():
            assert any(
                text.startswith(status) and f"wren/{name}: " in text
                for text in answer.err.splitlines()
            )


def test_nothing_readable_is_4(run: Command, place: Path) -> None:
    (place / "bad/wren").mkdir(parents=True)
    (place / "bad/wren/zero.wav").write_bytes(b"")
    (place / "bad/wren/text.flac").write_text("not audio")
    assert run(f"segment bad -o new {QUICK}").code == 4
    assert run("predict run bad -o tables").code == 4
    assert "unreadable" in Path("tables/files.csv").read_text()
    answer = run("report run bad/wren/zero.wav")
    assert answer.code == 4 and "cannot be shown: the file has 0 bytes" in answer.sentence


def test_a_report_without_the_recordings_that_cannot_be_shown_is_3(
    run: Command, place: Path
) -> None:
    shutil.copytree(place / "run", place / "mine")
    (place / "zero.wav").write_bytes(b"")
    answer = run("report mine rec/wren/wren0.wav zero.wav")
    assert answer.code == 3
    assert answer.sentence == "birdinv: note: zero.wav cannot be shown: the file has 0 bytes"
    assert "wren0.wav" in (place / "mine/report.html").read_text()
    (place / "mine/report.html").unlink()
    answer = run("report mine zero.wav gone.wav")
    assert answer.code == 4 and "zero.wav cannot" in answer.sentence
    assert "gone.wav cannot" in answer.sentence
    assert not (place / "mine/report.html").exists()


def test_a_name_the_terminal_cannot_write_is_no_error(place: Path) -> None:
    write(place / "some/ворона/a.wav", sound(1))
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    process = start(f"segment some -o new {QUICK}", place, env=environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and r"\u0432" in out and r"\u0432" in err
    assert "unexpected" not in err


def test_partial_alone_is_3(run: Command, place: Path) -> None:
    data = write(place / "cut.wav", sound(1)).read_bytes()
    (place / "cut.wav").write_bytes(data[:-5000])
    answer = run("predict run cut.wav -o tables")
    assert answer.code == 3 and "1 inputs: 0 ok, 1 partial" in answer.out


def test_the_odd_audio_of_the_field_is_3(run: Command, place: Path, data: Path) -> None:
    for line in ("segment {0} -o new", "predict run {0} -o tables"):
        answer = run(line.format(shlex.quote(str(data / "odd_audio"))))
        assert answer.code == 3 and "Traceback" not in answer.err


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("segment gone -o new", 1, "gone does not exist; give a recording or a folder"),
        ("segment rec gone -o new", 1, "gone does not exist"),
        ("segment empty -o new", 4, "no audio file in empty"),
        ("segment texts -o new", 4, "no audio file in texts (1 other files); expected one of"),
        ("segment rec -o full", 1, "full already exists; give -o a new folder"),
        ("segment rec -o taken", 1, "taken already exists"),
        ("segment rec -o new --unlabelled gone", 1, "gone does not exist"),
        ("segment rec -o new --unlabelled rec", 1, "overlap"),
        ("segment rec -o new --group-column author", 2, "names a column of --labels, which is not"),
        ("segmnt rec -o new", 2, "Did you mean 'segment'?"),
        ("segment rec -o new --labels gone.csv", 1, "gone.csv cannot be read: No such file"),
        ("segment rec -o new --labels empty.csv", 1, "empty.csv is empty"),
        ("segment rec -o new --labels odd.csv", 1, "no column 'file'"),
        ("segment rec -o new --labels odd.csv --file-column name", 1, "no column 'label'"),
        ("segment rec -o new --labels binary.csv", 1, "binary.csv is not a UTF-8 CSV table"),
        ("segment mixed -o new", 1, "their class is not clear"),
        ("segment rec -o new --overlap 1", 2, "the overlap is 1"),
        ("segment rec -o new --segment 0", 2, "the segment length is 0 s"),
        ("segment rec -o new --segment 0.001", 2, "at least 512 are needed"),
        ("segment rec -o new --sample-rate 5", 2, "the sample rate is 5 Hz"),
        ("segment rec -o new --fractions 0.5,0.5,0.5", 2, "0.5, 0.5, 0.5"),
        ("segment rec -o new --fractions 1", 2, "give three numbers such as"),
        ("segment rec", 2, "Missing option '-o'"),
        ("segment -o new", 2, "Missing argument"),
        ("train gone -o new", 1, "gone does not exist; expected a store"),
        ("train run -o new", 1, "expected a store made by `birdinv segment`"),
        ("train future -o new", 1, "version 99; this birdinv reads version 1: update birdinv"),
        ("train cut -o new", 1, "audio.npy holds"),
        ("train other -o new", 1, "has another format"),
        ("train store -o full", 1, "or go on with this one by --resume"),
        ("train store -o new --resume", 1, "new does not exist; expected a run"),
        ("train store -o new --epochs 0", 2, "--epochs is 0; give a number above 0"),
        ("train store -o new --alpha 2", 2, "--alpha is 2.0; give a number from 0 to 1"),
        ("train store -o new --device abacus", 1, "the device 'abacus' cannot be used"),
        ("train store -o new --labels-per-class 0", 2, "--labels-per-class is 0"),
        ("train store -o new --objective best", 2, "'best' is not one of"),
        ("train store -o new --epoch 3", 2, "No such option"),
        ("train one -o new", 1, "at least two classes"),
        ("eval gone", 1, "gone does not exist; expected a run"),
        ("eval store", 1, "expected a run made by `birdinv train`"),
        ("eval run --store one", 1, "is not the store this run was trained on"),
        ("eval run --split train", 2, "'train' is not one of"),
        ("predict gone rec -o new", 1, "expected a model folder or a run"),
        ("predict store rec -o new", 1, "expected a model folder or a run"),
        ("predict later rec -o new", 1, "model of version 99; this birdinv reads version 1"),
        ("predict torn rec -o new", 1, "torn/model is damaged"),
        ("predict run gone -o new", 1, "gone does not exist"),
        ("predict run empty -o new", 4, "no audio file in empty"),
        ("predict run rec -o full", 1, "full already exists"),
        ("predict run rec -o new --min-conf 2", 2, "--min-conf is 2; give a probability"),
        ("predict run rec -o new --overlap 1", 2, "the overlap is 1"),
        ("predict run rec -o new --workers 0", 2, "--workers is 0; give at least 1"),
        ("predict run rec -o new --top-n 0", 2, "--top-n is 0"),
        ("predict run rec -o new --stall 0", 2, "--stall is 0; give seconds above 0"),
        ("predict run rec -o new --rtype ravn", 2, "did you mean raven?"),
        ("predict run rec -o new --cluster local:x", 2, "give local:N with N processes"),
        ("predict run rec -o new --cluster a --workers 2", 2, "leave it out with --cluster"),
        ("export gone -o new", 1, "expected a model folder or a run"),
        ("export run -o full", 1, "full"),
        ("predict run rec -o new --merge-consecutive some", 2, "a number of windows from 1, or"),
        ("predict run rec -o new --merge-consecutive 0", 2, "a number of windows from 1, or all"),
        ("report gone", 1, "gone"),
        ("report run gone.wav", 4, "gone.wav cannot be shown: cannot be opened"),
        ("demo -o full", 1, "full already exists"),
        ("frobnicate", 2, "No such command 'frobnicate'"),
    ],
)
def test_bad_input_gets_a_sentence_and_leaves_nothing(
    run: Command, place: Path, line: str, code: int, said: str
) -> None:
    (place / "empty").mkdir()
    (place / "texts").mkdir()
    (place / "texts/notes.txt").write_text("not audio")
    (place / "full").mkdir()
    (place / "full/precious").write_text("keep me")
    (place / "taken").write_text("keep me")
    (place / "empty.csv").write_text("")
    (place / "odd.csv").write_text("name,species\na.wav,wren\n")
    (place / "binary.csv").write_bytes(bytes(range(256)))
    write(place / "mixed/a.wav", sound(1))
    write(place / "mixed/wren/b.wav", sound(2))
    write_classes(place / "single", 1)
    for name, change in (("future", {"version": 99}), ("other", {"format": "zarr"}), ("cut", {})):
        shutil.copytree(place / "store", place / name)
        info = json.loads((place / name / "store.json").read_text())
        (place / name / "store.json").write_text(json.dumps({**info, **change}))
    np.save(place / "cut/audio.npy", np.zeros(100, np.int16))
    for name in ("later", "torn"):
        shutil.copytree(place / "run/model", place / name / "model")
    info = json.loads((place / "later/model/model.json").read_text())
    (place / "later/model/model.json").write_text(json.dumps({**info, "version": 99}))
    weights = (place / "torn/model/model.safetensors").read_bytes()
    (place / "torn/model/model.safetensors").write_bytes(weights[:1000])
    main_segment = ["segment", "single/wren", "-o", "one", *QUICK.split()]
    assert birdinv.main(main_segment, standalone_mode=False, obj={"debug": False}) == 0
    before = left(place)
    answer = run(line)
    assert answer.code == code
    assert said in answer.sentence
    assert left(place) == before
    assert (place / "full/precious").read_text() == "keep me" == (place / "taken").read_text()
    assert set(contents(place / "full")) == {"precious"}


def test_debug_shows_the_traceback_and_the_sentence(run: Command, place: Path) -> None:
    answer = run("train gone -o new --debug")
    assert answer.code == 1 and "Traceback (most recent call last)" in answer.err
    assert answer.err.splitlines()[-1].startswith("birdinv: gone does not exist")


def test_an_unexpected_error_asks_for_a_report(
    run: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("one\n  two")

    monkeypatch.setattr("birdinv.data.segmenting.segment", broken)
    answer = run("segment rec -o new")
    assert answer.code == 1
    assert answer.sentence.startswith("birdinv: unexpected RuntimeError: one two; run again with")


def test_an_output_folder_that_is_empty_may_be_used(run: Command, place: Path) -> None:
    for name in ("a", "b"):
        (place / name).mkdir()
    assert run(f"segment rec -o a {QUICK}").code == 0
    assert run("predict run rec -o b").code == 0


# ---------------------------------------------------------------- --config


def test_config_gives_defaults_and_the_command_line_wins(run: Command, place: Path) -> None:
    (place / "bird.toml").write_text(
        """
        overlap = 0.5
        [segment]
        sample-rate = 11025
        segment = 0.6
        activity = false
        fractions = [0.5, 0.25, 0.25]
        [predict]
        min-conf = 0.0
        merge-consecutive = 4
        output = "from-config"
        [train]
        epochs = 1
        """
    )
    assert run("segment rec -o new --config bird.toml").code == 0
    info = json.loads(Path("new/store.json").read_text())
    assert (info["sample_rate"], info["segment_samples"], info["hop_samples"]) == (
        11025,
        6615,
        3308,
    )
    assert info["settings"]["fractions"] == [0.5, 0.25, 0.25]
    assert info["settings"]["activity"] is False
    answer = run("segment rec --config bird.toml -o second --overlap 0 --activity")
    assert answer.code == 0
    info = json.loads(Path("second/store.json").read_text())
    assert info["hop_samples"] == info["segment_samples"]
    assert info["settings"]["activity"] is True
    assert run("predict run rec --config bird.toml").code == 0
    settings = json.loads(Path("from-config/run.json").read_text())["settings"]
    assert settings == {
        "min_conf": 0.0,
        "top_n": None,
        "merge": 4,
        "overlap": 0.5,
        "exact_hop": False,
        "absolute_time": False,
    }


def test_config_lists_serve_options_that_repeat(run: Command, place: Path) -> None:
    for name in ("pool", "field"):
        write(place / name / "u.wav", sound(1))
    (place / "many.toml").write_text('unlabelled = ["pool", "field"]\n')
    (place / "one.toml").write_text('unlabelled = "pool"\n')
    for name, count in (("many", 2), ("one", 1)):
        answer = run(f"segment rec -o {name} --config {name}.toml {QUICK}")
        assert answer.code == 0 and f"{12 + count} inputs" in answer.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "sets 'epoch', which `birdinv train` does not know; did you mean epochs?"),
        ("[train]\nlearning_rat = 3", "did you mean learning-rate?"),
        ("zzz = 3", "which `birdinv train` does not know; see --help"),
        ("debug = true", "sets 'debug'"),
        ("segment = 0.5", "sets 'segment', which `birdinv train` does not know"),
        ("epochs = ", "bird.toml is not TOML"),
        ("epochs = 2.5", "'2.5' is not a valid integer"),
        ("epochs = true", "'True' is not a valid integer"),
        ('epochs = "many"', "'many' is not a valid integer"),
        ('objective = "best"', "'best' is not one of"),
        ('resume = "perhaps"', "'perhaps' is not a valid boolean"),
    ],
)
def test_a_config_that_is_wrong_is_refused(run: Command, place: Path, text: str, said: str) -> None:
    (place / "bird.toml").write_text(text)
    answer = run("train store -o new --config bird.toml")
    assert answer.code == 2 and said in answer.sentence
    assert left(place) == {"bird.toml"}


def test_a_config_that_cannot_be_read_is_named(run: Command, place: Path) -> None:
    (place / "bird.toml").write_bytes(b"\xff\xfe")
    answer = run("train store -o new --config bird.toml")
    assert answer.code == 2 and "bird.toml is not TOML" in answer.sentence
    answer = run("train store -o new --config gone.toml")
    assert answer.code == 2 and "gone.toml cannot be read: No such file" in answer.sentence


def test_every_long_option_may_stand_in_a_config(run: Command, place: Path) -> None:
    """Keys are the names of the options, whatever the code calls them."""
    import tomllib

    import click

    for name in COMMANDS:
        command = birdinv.get_command(click.Context(birdinv), name)
        assert command is not None
        lines = []
        for option in command.params:
            long = [text[2:] for text in option.opts if text.startswith("--")]
            if isinstance(option, click.Option) and long[0] not in ("config", "debug", "help"):
                lines.append(f"{long[0]} = {'true' if option.is_flag else chr(34) + 'x' + chr(34)}")
        text = "\n".join(lines)
        tomllib.loads(text)
        (place / "all.toml").write_text(text)
        answer = run(f"{name} run run --config all.toml -o new")
        assert "does not know" not in answer.err


# ---------------------------------------------------------------- disks


LINES = [f"segment rec -o new {QUICK}", "predict run rec -o new", "train store -o new --epochs 1"]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_takes_nothing_gets_a_sentence(
    run: Command, place: Path, monkeypatch: pytest.MonkeyPatch, line: str, kind: int
) -> None:
    refuse_writes(monkeypatch, kind)
    answer = run(line)
    assert answer.code == 1
    assert os.strerror(kind) in answer.sentence and "run again" in answer.sentence
    assert "unexpected" not in answer.sentence
    made = {path.name for path in place.rglob("new/**/*") if path.is_file()}
    assert made <= {"journal.jsonl"}  # what is known is where to go on from
    assert not list(place.glob(".*"))


def test_a_disk_that_fills_up_late_leaves_no_store(
    run: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(map(len, contents(place / "store").values()))
    audio = (place / "store/audio.npy").stat().st_size
    for room in (audio // 2, audio + 100, needed - 10):
        with monkeypatch.context() as patch:
            refuse_writes(patch, errno.ENOSPC, room)
            answer = run(f"segment rec -o new {QUICK}")
        assert answer.code == 1 and "No space left on device" in answer.sentence
        assert left(place) == set()


def test_a_folder_that_cannot_be_made_is_named(
    run: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if not self.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    for line in LINES:
        answer = run(line)
        assert answer.code == 1 and "Permission denied" in answer.sentence
        assert str(place) in answer.sentence or "birdinv: new" in answer.sentence
    assert left(place) == set()


def test_replacing_that_fails_leaves_the_old_file(
    run: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "run", place / "mine")
    before = contents(place / "mine")

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    answer = run("eval mine")
    assert answer.code == 1 and "Read-only file system" in answer.sentence
    assert contents(place / "mine") == before


# ---------------------------------------------------------------- Ctrl-C


def interrupt_when(
    process: subprocess.Popen[str], ready: Callable[[], bool], by: signal.Signals = signal.SIGINT
) -> Answer:
    """Sends the signal once `ready`, and waits for the end."""
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(by)
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, out, err)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that take a while: small files of which every name counts."""
    folder = tmp_path_factory.mktemp("long")
    first = write(folder / "robin/0000.wav", np.tile(sound(1, 10, rate=48000), 6), 48000)
    for i in range(1, 300):
        os.link(first, folder / f"robin/{i:04d}.wav")
    return folder


def test_ctrl_c_while_segmenting_leaves_nothing(place: Path, long: Path) -> None:
    process = start(f"segment {long} -o new", place)
    answer = interrupt_when(process, lambda: any(place.glob(".*/audio.npy")))
    assert answer.code == 130
    assert "interrupted; new was not written" in answer.sentence
    assert left(place) == set()


def test_a_termination_while_segmenting_leaves_nothing(place: Path, long: Path) -> None:
    process = start(f"segment {long} -o new", place)
    answer = interrupt_when(process, lambda: any(place.glob(".*/audio.npy")), by=signal.SIGTERM)
    assert answer.code == 130
    assert "interrupted; new was not written" in answer.sentence
    assert left(place) == set()


@pytest.mark.parametrize(
    ("workers", "number", "to_all"),
    [
        (1, signal.SIGINT, True),
        (2, signal.SIGINT, True),  # as from a terminal
        (1, signal.SIGTERM, False),
        (2, signal.SIGTERM, False),  # `kill`
        (2, signal.SIGTERM, True),  # a cluster whose time is up
    ],
)
def test_a_signal_while_predicting_keeps_the_finished_tables(
    place: Path, long: Path, workers: int, number: signal.Signals, to_all: bool
) -> None:
    process = start(f"predict run {long} -o new --workers {workers}", place, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(place.glob("new/robin/*.csv"))) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    answer = Answer(process.returncode, out, err)
    assert answer.code == 130
    assert "are in new; the same command again goes on" in answer.sentence
    info = json.loads((place / "new/run.json").read_text())
    assert info["outcome"] == "interrupted"
    listed = (place / "new/files.csv").read_text().splitlines()[1:]
    done = {path.name for path in place.glob("new/robin/*.birdinv.csv")}
    assert {line.split(",")[0].removeprefix("robin/") + ".birdinv.csv" for line in listed} == done
    assert 1 <= len(done) < 300  # what a worker had in hand is not counted
    assert not list(place.glob("new/**/.*"))


def test_a_signal_while_workers_start_gets_one_sentence(place: Path, long: Path) -> None:
    process = start(f"predict run {long} -o new --workers 2", place, start_new_session=True)
    until = time.monotonic() + 60
    while len(members(process.pid)) < 3:  # it, the tracker of its semaphores, a worker
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.3)  # in the middle of its imports
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    answer = Answer(process.returncode, out, err)
    assert answer.code == 130
    assert err == "birdinv: interrupted before the first file\n"
    assert not (place / "new").exists()


def test_workers_end_with_their_parent(place: Path, long: Path) -> None:
    process = start(f"predict run {long} -o new --workers 2", place, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(place.glob("new/robin/*.csv"))) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    while members(process.pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def members(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, own = path.read_text().rpartition(")")[2].split()[:3]
            found += [int(path.parent.name)] if int(own) == group and state != "Z" else []
    return found


def test_a_reader_that_goes_away_is_no_error(place: Path) -> None:
    """`birdinv eval run | head -1`"""
    process = start("eval run", place)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


# ---------------------------------------------------------------- the bar


def test_a_terminal_gets_one_bar(place: Path) -> None:
    """In a pseudo terminal of 80 columns the bar stays on its line and ends at 100 %."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    for line in (f"segment rec -o new {QUICK}", "train new -o model --epochs 2 --batch-size 32"):
        command = [sys.executable, "-c", "from birdinv_cli.main import main; main()"]
        process = subprocess.Popen(
            [*command, *line.split()], cwd=place, stdout=subprocess.DEVNULL, stderr=follower
        )
        assert process.wait(timeout=120) == 0
        text = os.read(leader, 1 << 20).decode()
        states = [state for state in text.replace("\n", "\r").split("\r") if state.strip()]
        assert max(map(len, states)) <= 80
        assert f"{line.split()[0]}: 100%|" in states[-1]
    os.close(leader)
    os.close(follower)


def test_no_terminal_gets_plain_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from birdinv import progress

    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.Progress("train", "steps", digits=0) as bar:
        for _ in range(4):
            bar.update(10_000, total=123_456, note="epoch 1")
    lines = capfd.readouterr().err.splitlines()
    assert lines and all("\r" not in line for line in lines)
    assert lines[0].startswith("train: 20000 of 123456 steps, ") and lines[0].endswith(", epoch 1")


def test_a_warning_is_one_sentence_without_a_path(run: Command) -> None:
    run("--help")
    ours, theirs = "lib/birdinv/losses.py", "lib/torch/nn.py"
    assert warnings.formatwarning("a class emptied", UserWarning, ours, 7) == (
        "birdinv: a class emptied\n"
    )
    assert "torch" in warnings.formatwarning("old", DeprecationWarning, theirs, 7)
