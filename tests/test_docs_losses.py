"""The blocks of docs/losses.md run, one after the other, and its pictures are there."""

import json
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parent.parent / "docs" / "losses.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_blocks_run_in_order_in_one_namespace():
    found = list(re.finditer(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    assert len(found) == TEXT.count("```") / 2
    names = {"__name__": "losses"}
    for block in found:
        above = TEXT.count("\n", 0, block.start(1))  # so that an error names the line of the page
        exec(compile("\n" * above + block[1], PAGE, "exec"), names)


def test_the_pictures_it_links_are_there():
    pictures = [PAGE.parent / link for link in re.findall(r"\]\((\S+\.png)\)", TEXT)]
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000


def test_the_sections_it_links_are_there():
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_no_line_of_text_is_longer_than_100():
    lines = [line for line in TEXT.splitlines() if not line.startswith(("|", "!["))]
    lines = [re.sub(r"\]\(\S*\)", "]()", line) for line in lines]
    assert [line for line in lines if len(line) > 100] == []


def test_no_number_is_left_open():
    assert "{{" not in PAGE.read_text(encoding="utf-8")


def test_the_costs_are_those_of_the_committed_benchmark():
    result = PAGE.parent.parent / "benchmarks" / "results" / "training-step.json"
    measured = {
        " / ".join(f"{row[f'{threads}_threads']['ratio']:.2f}" for threads in (1, 2))
        for row in json.loads(result.read_text(encoding="utf-8"))["ratios"]
    }
    told = re.findall(r"\| (\d+\.\d\d / \d+\.\d\d) \| \d", TEXT)
    assert len(told) == 11 and set(told) <= measured
