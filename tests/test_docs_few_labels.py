"""What docs/few-labels.md says is what the committed results say."""

import json
import re
from pathlib import Path

from birdinv.training.recipes import FEW_LABELS

PAGE = Path(__file__).parent.parent / "docs" / "few-labels.md"
TEXT = PAGE.read_text(encoding="utf-8")
SUMMARY = json.loads(
    (PAGE.parent.parent / "results" / "birds-few-labels.json").read_text(encoding="utf-8")
)


def test_no_number_is_left_open_and_no_line_of_text_is_longer_than_100():
    assert "{{" not in TEXT
    lines = [line for line in TEXT.splitlines() if not line.startswith(("|", "!["))]
    lines = [re.sub(r"\]\(\S*\)", "]()", line) for line in lines]
    assert [line for line in lines if len(line) > 100] == []


def test_the_sections_and_pictures_it_links_are_there():
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
    pictures = re.findall(r"\]\((\S+\.png)\)", TEXT)
    assert len(pictures) >= 3
    for picture in pictures:
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_the_weights_it_names_are_those_of_the_recipe():
    assert f"γ = {FEW_LABELS['gamma']:g} times" in TEXT
    assert f"(β = {FEW_LABELS['beta']:g})" in TEXT and f"(κ = {FEW_LABELS['balance']:g})" in TEXT
    assert f"({FEW_LABELS['average']:g})" in TEXT and FEW_LABELS["group_windows"] == 4


def test_its_gains_are_those_of_the_committed_results():
    """Rows: preset, labels, supervised, few-labels, gain, interval, per recording; then segment."""
    rows = re.findall(r"^\| (by-\w+) \| (\d+) \|(.*)\|$", TEXT, re.MULTILINE)
    assert len(rows) >= 6
    for preset, labels, cells in rows:
        place = SUMMARY if preset == "by-recording" else SUMMARY[preset]
        entry = place[labels]
        numbers = [float(n.replace("−", "-")) for n in re.findall(r"[+−-]?\d+\.\d", cells)]
        expected = []
        for unit in ("recording", "segment"):
            for row in ("supervised", "few-labels"):
                scores = entry[f"{row}_{unit}_accuracy"]
                expected.append(sum(scores) / len(scores))
            expected.append(entry[f"{unit}_accuracy_gain"])
            expected += entry[f"{unit}_accuracy_gain_interval"]
        assert numbers == [round(n, 1) for n in expected], (preset, labels)


def test_the_summary_has_a_gain_for_every_split_and_seed():
    for labels in ("1", "3", "5", "10"):
        assert len(SUMMARY[labels]["recording_accuracy_gains"]) == 10
        assert SUMMARY[labels]["seeds"] == list(range(10))
