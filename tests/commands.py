"""Fixtures for tests of the command line, as a user meets it: a folder, a line, what comes back."""

import shlex
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from birdinv_cli.main import main


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[int, str, str]]:
    """Runs a line without its `birdinv`: exit code, what it printed, and what on stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own

    def run(line: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(line))
        return exit_.value.code, *capfd.readouterr()

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """An empty working folder with links to what is in `place`."""
    for path in place.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
