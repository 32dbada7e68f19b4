"""What docs/reproduce.md says: its commands are known, its tables complete, its block runs."""

import os
import re
import shlex
from pathlib import Path

import pytest
from birdinv_cli.main import birdinv
from click.testing import CliRunner

from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.tables import TABLES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^birdinv reproduce [^#\n]*", TEXT, re.MULTILINE)
DATA = os.environ.get("BIRDINV_DATA", "")


@pytest.mark.parametrize("line", COMMANDS)
def test_its_cells_are_there(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "--list"]
    done = CliRunner().invoke(birdinv, [*words, "--list"], obj={"argv": words, "debug": False})
    assert done.exit_code == 0, done.output
    assert re.search(r": [\d.,]+ (epoch|step)s?$", done.output, re.MULTILINE)


def test_it_names_every_table_and_every_preset() -> None:
    assert len(COMMANDS) >= 3
    named = re.findall(r"^\| `([\w-]+)` \|", TEXT, re.MULTILINE)
    assert sorted(named) == sorted([*TABLES, *PRESETS])


@pytest.mark.skipif(not DATA, reason="BIRDINV_DATA is not set")
def test_its_block_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(block.replace('Path("data")', f"Path({DATA!r})"), names)
    split = names["split"]
    assert (len(split.labelled), len(split.unlabelled), len(split.valid)) == (50, 54950, 5000)
