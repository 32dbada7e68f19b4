"""Counts are read as people write them."""

from birdinv.words import counted


def test_one_is_singular_and_thousands_are_parted() -> None:
    numbers = (0, 1, 2, 12_345)
    assert [counted(n, "file") for n in numbers] == ["0 files", "1 file", "2 files", "12,345 files"]
    assert counted(2, "class") == "2 classes"


def test_what_is_no_count_is_a_dash() -> None:
    assert [counted(value, "file") for value in (None, "3", True)] == ["– files"] * 3
