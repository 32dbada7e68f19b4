"""`birdinv data` from outside: tables that fit, exit codes, one sentence where it is wrong."""

from pathlib import Path
from typing import NamedTuple

import pytest
from birdinv_cli.main import main

from birdinv.data.manifests import load_manifest, manifests


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, line: str) -> Answer:
        with pytest.raises(SystemExit) as end:
            main(["data", *line.split()])
        code = end.value.code
        assert isinstance(code, int)
        return Answer(code, *self._capsys.readouterr())


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.delenv("BIRDINV_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


def test_the_list_fits_into_eighty_columns_and_names_all(run: Command) -> None:
    answer = run("list")
    lines = answer.out.splitlines()
    assert answer.code == 0 and answer.err == "" and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1 : 1 + len(manifests())]] == list(manifests())
    (mnist,) = [line.split() for line in lines if line.startswith("mnist ")]
    assert " ".join(mnist) == "mnist images 10 70000 5000 50 100 600 1000 3000"


@pytest.mark.parametrize("name", manifests())
def test_one_is_described(run: Command, name: str) -> None:
    answer, known = run(f"list {name}"), load_manifest(name)
    assert answer.code == 0 and known.homepage in answer.out and known.licence in answer.out
    assert known.notes in answer.out and known.instructions[:30] in answer.out.replace("\n", " ")
    paragraphs = answer.out.split("\n\n", 1)[1]
    assert max(len(line) for line in paragraphs.splitlines()) <= 80


def test_check_says_what_is_missing_and_what_to_do(run: Command, tmp_path: Path) -> None:
    answer = run(f"check mnist --root {tmp_path}")
    assert answer.code == 1
    assert answer.out.splitlines()[0].split() == ["missing", "train-images-idx3-ubyte.gz"]
    assert answer.err.count("\n") == 1 and answer.err.startswith("birdinv: mnist is not whole in")
    assert "run `birdinv data prepare mnist`" in answer.err


def test_check_of_a_whole_copy(run: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data / "svhn_small").is_dir():
        pytest.skip("BIRDINV_DATA holds no svhn_small")
    for given in (f" --root {data}", f" --root {data / 'svhn_small'}", ""):
        monkeypatch.setenv("BIRDINV_DATA", str(data))
        answer = run(f"check svhn_small{given}")
        assert answer.code == 0 and answer.err == ""
        assert [line.split()[0] for line in answer.out.splitlines()[:-1]] == ["ok", "ok"]
        assert answer.out.splitlines()[-1].endswith(".npz files of x [N, 32, 32, 3] and y [N]")


def test_check_of_a_damaged_copy(run: Command, data: Path, tmp_path: Path) -> None:
    if not (data / "svhn_small").is_dir():
        pytest.skip("BIRDINV_DATA holds no svhn_small")
    for name in ("train.npz", "test.npz"):
        content = bytearray((data / "svhn_small" / name).read_bytes())
        content[1000] ^= name == "test.npz"
        (tmp_path / name).write_bytes(content)
    answer = run(f"check svhn_small --root {tmp_path}")
    assert answer.code == 1 and "wrong checksum         test.npz" in answer.out
    assert "first test.npz (wrong checksum)" in answer.err


@pytest.mark.parametrize("name", ["svhn_small", "bird10", "bird_kenya6", "fsdd"])
def test_prepare_says_what_to_put_where(run: Command, tmp_path: Path, name: str) -> None:
    answer = run(f"prepare {name} --root {tmp_path / 'new'}")
    assert answer.code == 1 and answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0] == f"To get {name} by hand, put into {tmp_path / 'new' / name}:"
    assert lines[-1].startswith(f"birdinv: {name} is not given away by itself")
    assert f"run `birdinv data check {name} --root {tmp_path / 'new'}`" in lines[-1]
    for file in load_manifest(name).forms[0].files:
        assert any(line.strip().startswith(f"{file.path}, {file.size} bytes") for line in lines)


def test_prepare_leaves_a_whole_copy_alone(run: Command, data: Path) -> None:
    if not (data / "svhn_small").is_dir():
        pytest.skip("BIRDINV_DATA holds no svhn_small")
    answer = run(f"prepare svhn_small --root {data}")
    assert answer.code == 0 and "svhn_small is whole in" in answer.out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("check", 2, "check needs the NAME of a data set"),
        ("check mnist", 2, "check needs --root"),
        ("prepare mnist", 2, "prepare needs --root"),
        ("chek mnist", 2, "'chek' is not one of 'list', 'check', 'prepare'"),
        ("list mnits", 1, "did you mean mnist?"),
        ("check mnits --root .", 1, "did you mean mnist?"),
        ("prepare mnits --root .", 1, "did you mean mnist?"),
        ("check mnist --root gone", 1, "gone is not a folder"),
        ("", 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_told(run: Command, line: str, code: int, said: str) -> None:
    answer = run(line)
    assert answer.code == code and said in answer.err and answer.out == ""


def test_a_root_may_stand_in_a_config(run: Command, tmp_path: Path) -> None:
    (tmp_path / "bird.toml").write_text('[data]\nroot = "elsewhere"\n')
    answer = run("check mnist --config bird.toml")
    assert answer.code == 1 and "elsewhere is not a folder" in answer.err
