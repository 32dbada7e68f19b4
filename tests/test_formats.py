"""Other programs' tables: byte for byte the golden files, read back as those programs read them.

`python tests/test_formats.py` writes the golden files anew.
"""

import csv
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import crowsetta
import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from birdinv.errors import BirdinvError, SettingError
from birdinv.files import row_writer, whole_file
from birdinv.prediction import formats
from birdinv.prediction.formats import (
    ENDINGS,
    RTYPES,
    Recorded,
    require_formats,
    write_formats,
)

GOLDEN = Path(__file__).parent / "golden"
HEADER = ["file", "start_s", "end_s", "label", "score"]
QUIET = pytest.mark.filterwarnings("ignore:The inplace keyword")  # of crowsetta's own code
TEXTS = [rtype for rtype in RTYPES if rtype != "parquet"]
Rows = list[tuple[str, ...]]  # start_s, end_s, label, score[, absolute_time]

# A recording with birds, a silent one, one whose name is as bad as names get.
NAMES = ["dawn.wav", "north/silent.wav", 'north/ridge/Größe, "α"\nb\tc.wav']
SECONDS = [60.0, 30.25, 12.5]
ROWS: list[Rows] = [
    [
        ("0.150", "0.850", "Turdus merula_Eurasian Blackbird", "0.8712"),
        ("59.500", "60.000", "robin, the", "1.0000"),
    ],
    [],
    [
        ("0.000", "0.500", 'Größe\t"x"', "0.5000"),
        ("7.000", "8.250", "my_bird", "0.9999"),
    ],
]
TIMES = [["2026-05-01T05:30:00.150", "2026-05-01T05:30:59.500"], [], ["", ""]]


def native(path: Path, name: str, rows: Iterable[tuple[str, ...]], timed: bool = False) -> Path:
    with whole_file(path) as file:
        write = row_writer(file)
        write([*HEADER, "absolute_time"] if timed else HEADER)
        for row in rows:
            write([name, *row])
    return path


def recorded(name: str, seconds: float = 60.0, root: str = "/recordings") -> Recorded:
    return Recorded(name, f"{root}/{name}", root, seconds)


def example_pairs(folder: Path, timed: bool = False) -> list[tuple[Recorded, Path]]:
    pairs = []
    for i, (name, seconds, rows) in enumerate(zip(NAMES, SECONDS, ROWS, strict=True)):
        if timed:
            rows = [(*row, at) for row, at in zip(rows, TIMES[i], strict=True)]
        pairs.append((recorded(name, seconds), native(folder / f"{i}.csv", name, rows, timed)))
    return pairs


def into(folder: Path, stem: str = "t") -> Callable[[str], Path]:
    return lambda ending: folder / (stem + ending)


def made(
    folder: Path, pairs: Iterable[tuple[Recorded, Path]], rtypes: Iterable[str] = RTYPES
) -> dict[str, Path]:
    write_formats(rtypes, pairs, into(folder), high_hz=11025)
    return {rtype: folder / f"t{ENDINGS[rtype]}" for rtype in rtypes}


def golden_tables(folder: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """(name, tables): per recording, combined, with absolute times, without any detection."""
    pairs, timed = example_pairs(folder), example_pairs(folder / "timed", timed=True)
    for name, chosen in [
        ("one", pairs[2:]),
        ("silent", pairs[1:2]),
        ("combined", pairs),
        ("timed", timed),
    ]:
        yield name, made(folder / name, chosen)


def tabbed(path: Path) -> list[list[str]]:
    """The cells of a table without quoting; every line is a row."""
    text = path.read_bytes().decode()
    assert text == "" or text.endswith("\n")
    return [line.split("\t") for line in text.split("\n")[:-1]]


def quoted(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# The bytes --------------------------------------------------------------------------------------


def test_every_format_is_its_golden_file(tmp_path: Path) -> None:
    compared = set()
    for name, tables in golden_tables(tmp_path):
        for rtype, path in tables.items():
            golden = GOLDEN / (name + ENDINGS[rtype])
            compared.add(golden.name)
            if rtype == "parquet":  # the bytes are those of a version of pyarrow
                got, expected = pq.read_table(path), pq.read_table(golden)
                assert got.schema.equals(expected.schema)
                assert got.to_pylist() == expected.to_pylist()
            else:
                assert path.read_bytes() == golden.read_bytes(), golden.name
    assert compared == {path.name for path in GOLDEN.iterdir()}


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    pairs = example_pairs(tmp_path)
    together = {rtype: path.read_bytes() for rtype, path in made(tmp_path / "a", pairs).items()}
    for rtype in RTYPES:  # alone, from a stream
        alone = made(tmp_path / "b", iter(pairs), [rtype])
        assert alone[rtype].read_bytes() == together[rtype]


def test_a_format_named_twice_is_written_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def target(ending: str) -> Path:
        asked.append(ending)
        return tmp_path / ("t" + ending)

    write_formats(["raven", "audacity", "raven"], example_pairs(tmp_path), target, high_hz=11025)
    assert asked == [".raven.txt", ".audacity.txt"]


def test_without_formats_no_table_is_looked_through(tmp_path: Path) -> None:
    pairs = [(recorded("another"), table) for _, table in example_pairs(tmp_path)]
    assert made(tmp_path / "out", pairs, []) == {}
    assert not (tmp_path / "out").exists()


# The clock --------------------------------------------------------------------------------------


def test_a_combined_table_counts_the_seconds_of_silent_recordings_too(tmp_path: Path) -> None:
    tables = made(tmp_path, example_pairs(tmp_path))
    third = 60 + 30.25
    header, *rows = tabbed(tables["raven"])
    raven = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["Begin Time (s)"] for row in raven] == [
        "0.150",
        "59.500",
        f"{third:.3f}",
        f"{third + 7:.3f}",
    ]
    assert [row["End Time (s)"] for row in raven][-1] == f"{third + 8.25:.3f}"
    assert [row["File Offset (s)"] for row in raven] == ["0.150", "59.500", "0.000", "7.000"]
    assert [row["Selection"] for row in raven] == ["1", "2", "3", "4"]
    audacity = tabbed(tables["audacity"])
    assert [row[0] for row in audacity] == ["0.150000", "59.500000", "90.250000", "97.250000"]


def test_the_clock_does_not_drift_over_thousands_of_recordings(tmp_path: Path) -> None:
    seconds, n = 1 / 3, 3000
    silent = native(tmp_path / "silent.csv", "a", [])
    last = native(tmp_path / "last.csv", "a", [("0.000", "0.100", "crow", "0.9000")])
    pairs = [(recorded("a", 1e6), silent), *[(recorded("a", seconds), silent)] * n]
    table = made(tmp_path, [*pairs, (recorded("a"), last)], ["audacity"])["audacity"]
    exact = 10**6 + n * Fraction(seconds)
    assert tabbed(table)[0][0] == f"{float(exact):.6f}"


# Read back --------------------------------------------------------------------------------------


@QUIET
def test_crowsetta_reads_raven(tmp_path: Path) -> None:
    path = made(tmp_path, example_pairs(tmp_path), ["raven"])["raven"]
    boxes = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").to_bbox()
    assert [(box.onset, box.offset) for box in boxes] == [
        (0.15, 0.85),
        (59.5, 60.0),
        (90.25, 90.75),
        (97.25, 98.5),
    ]
    assert {(box.low_freq, box.high_freq) for box in boxes} == {(0.0, 11025.0)}
    assert [box.label for box in boxes] == [
        "Turdus merula_Eurasian Blackbird",
        "robin, the",
        'Größe "x"',
        "my_bird",
    ]


@QUIET
def test_crowsetta_reads_raven_where_all_numbers_are_whole(tmp_path: Path) -> None:
    rows = [("0.000", "1.000", "crow", "1.0000"), ("2.000", "3.000", "crow", "1.0000")]
    table = native(tmp_path / "n.csv", "a", rows)
    path = made(tmp_path, [(recorded("a"), table)], ["raven"])["raven"]
    boxes = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").to_bbox()
    assert [(box.onset, box.offset) for box in boxes] == [(0.0, 1.0), (2.0, 3.0)]


def test_crowsetta_reads_audacity(tmp_path: Path) -> None:
    path = made(tmp_path, example_pairs(tmp_path, timed=True), ["audacity"])["audacity"]
    read = crowsetta.formats.seq.AudSeq.from_file(path)  # refuses a fourth column
    assert read.start_times.tolist() == [0.15, 59.5, 90.25, 97.25]
    assert read.end_times.tolist() == [0.85, 60.0, 90.75, 98.5]
    assert list(read.labels) == [
        "Turdus merula_Eurasian Blackbird 0.87",
        "robin, the 1.00",
        'Größe "x" 0.50',
        "my_bird 1.00",
    ]


@pytest.mark.parametrize("label", ["Scientific name", "Common name"])
def test_crowsetta_reads_birdnet(tmp_path: Path, label: str) -> None:
    path = made(tmp_path, example_pairs(tmp_path), ["birdnet"])["birdnet"]
    columns = {"Start (s)": "onset_s", "End (s)": "offset_s", label: "label"}
    read = crowsetta.formats.seq.SimpleSeq.from_file(path, columns_map=columns)
    assert read.onsets_s.tolist() == [0.15, 59.5, 0.0, 7.0]
    assert read.offsets_s.tolist() == [0.85, 60.0, 0.5, 8.25]
    blackbird = {"Common name": "Eurasian Blackbird", "Scientific name": "Turdus merula"}[label]
    assert list(read.labels) == [blackbird, "robin, the", 'Größe\t"x"', "my_bird"]


def test_pandas_reads_kaleidoscope(tmp_path: Path) -> None:
    path = made(tmp_path, example_pairs(tmp_path), ["kaleidoscope"])["kaleidoscope"]
    table = pandas.read_csv(path, keep_default_na=False)
    assert [*zip(table["INDIR"], table["FOLDER"], table["IN FILE"], strict=True)] == [
        ("/recordings", "", "dawn.wav"),
        ("/recordings", "", "dawn.wav"),
        ("/recordings", "north/ridge", 'Größe, "α"\nb\tc.wav'),
        ("/recordings", "north/ridge", 'Größe, "α"\nb\tc.wav'),
    ]
    assert table["OFFSET"].tolist() == [0.15, 59.5, 0.0, 7.0]
    assert table["DURATION"].tolist() == [0.7, 0.5, 0.5, 1.25]
    assert table["TOP1DIST"].tolist() == [0.1288, 0.0, 0.5, 0.0001]


def test_parquet_has_typed_columns_and_null_for_no_time(tmp_path: Path) -> None:
    table = pq.read_table(made(tmp_path, example_pairs(tmp_path, timed=True))["parquet"])
    types = {field.name: str(field.type) for field in table.schema}
    text = "dictionary<values=string, indices=int32, ordered=0>"
    assert types == {
        "file": text,
        "start_s": "double",
        "end_s": "double",
        "label": text,
        "score": "float",
        "absolute_time": "string",
    }
    assert table["file"].to_pylist() == [NAMES[0]] * 2 + [NAMES[2]] * 2
    assert table["absolute_time"].to_pylist() == [*TIMES[0], None, None]
    assert table["score"].to_pylist() == pytest.approx([0.8712, 1.0, 0.5, 0.9999], abs=1e-7)


def test_the_absolute_time_is_last_wherever_there_is_a_header(tmp_path: Path) -> None:
    tables = made(tmp_path, example_pairs(tmp_path, timed=True))
    for rtype, read in [("raven", tabbed), ("kaleidoscope", quoted), ("birdnet", quoted)]:
        assert [row[-1] for row in read(tables[rtype])] == ["absolute_time", *TIMES[0], "", ""]
    assert pq.read_schema(tables["parquet"]).names[-1] == "absolute_time"
    assert {len(row) for row in tabbed(tables["audacity"])} == {3}


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("Turdus merula_Eurasian Blackbird", ("Turdus merula", "Eurasian Blackbird")),
        ("Canis lupus familiaris_Dog_big", ("Canis lupus familiaris", "Dog_big")),
        ("Acrocephalus c-album_X", ("Acrocephalus c-album", "X")),
        ("Turdus merula_a\nb", ("Turdus merula", "a\nb")),
        ("Turdus merula", ("Turdus merula",) * 2),
        ("Turdus merula_", ("Turdus merula_",) * 2),
        ("blackbird_song", ("blackbird_song",) * 2),
        ("Blackbird_song", ("Blackbird_song",) * 2),
        ("turdus merula_Blackbird", ("turdus merula_Blackbird",) * 2),
        ("Turdus_merula_Blackbird", ("Turdus_merula_Blackbird",) * 2),
    ],
)
def test_birdnet_gets_two_names_of_its_own_labels_only(
    tmp_path: Path, label: str, names: tuple[str, str]
) -> None:
    table = native(tmp_path / "n.csv", "a", [("0.000", "1.000", label, "0.5000")])
    path = made(tmp_path, [(recorded("a"), table)], ["birdnet"])["birdnet"]
    assert tuple(quoted(path)[1][2:4]) == names


# Any text whatever ------------------------------------------------------------------------------

NASTY = st.text(
    st.sampled_from("ab,\"'\t\n\r\v\x00\x85\u2028 ;é鳥|{}\\") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(label=NASTY, name=NASTY.map(lambda text: text.replace("/", "-")))
@example(label='"never closed', name="a\tb\nc\r.wav")
@example(label="{label}|{0}", name="{start_s}.wav")
def test_no_name_and_no_label_breaks_a_row(label: str, name: str) -> None:
    name += ".wav"
    rows = [("0.000", "1.000", label, "0.5000"), ("1.000", "2.000", "crow", "0.7500")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rec = recorded(name)
        tables = made(folder, [(rec, native(folder / "n.csv", name, rows))])
        for rtype, width in [("raven", 11), ("audacity", 3)]:
            lines = tables[rtype].read_bytes().decode().splitlines()  # at every break there is
            assert [line.count("\t") + 1 for line in lines] == [width] * (3 - (width == 3))
        raven = pandas.read_csv(tables["raven"], sep="\t", keep_default_na=False)
        assert raven["Confidence"].tolist() == [0.5, 0.75]
        birdnet = quoted(tables["birdnet"])[1:]
        assert [row[5] for row in birdnet] == [rec.path] * 2
        assert [row[3] for row in birdnet] == [label, "crow"]
        kaleidoscope = quoted(tables["kaleidoscope"])[1:]
        assert [row[:3] for row in kaleidoscope] == [["/recordings", "", name]] * 2
        parquet = pq.read_table(tables["parquet"]).to_pylist()
        assert [(row["file"], row["label"]) for row in parquet] == [(name, label), (name, "crow")]


def test_a_path_that_is_no_text_is_written_as_it_can_be(tmp_path: Path) -> None:
    table = native(tmp_path / "n.csv", "b\\udce4d.wav", [("0.000", "1.000", "crow", "0.5000")])
    rec = Recorded("b\\udce4d.wav", "/recordings/b\udce4d.wav", "/recordings", 60)
    tables = made(tmp_path, [(rec, table)])
    assert quoted(tables["birdnet"])[1][5] == "/recordings/b\\udce4d.wav"
    assert tabbed(tables["raven"])[1][9] == "/recordings/b\\udce4d.wav"
    assert pq.read_table(tables["parquet"])["file"].to_pylist() == ["b\\udce4d.wav"]


# Nothing, and failures --------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_without_detections_there_is_a_header_alone(tmp_path: Path, silent: int) -> None:
    table = native(tmp_path / "n.csv", "a", [])
    tables = made(tmp_path, [(recorded("a"), table)] * silent)
    assert tables["audacity"].read_bytes() == b""
    assert len(tabbed(tables["raven"])) == 1
    assert len(quoted(tables["kaleidoscope"])) == len(quoted(tables["birdnet"])) == 1
    empty = pq.read_table(tables["parquet"])
    assert empty.num_rows == 0
    assert empty.column_names == HEADER


def test_a_failure_in_mid_write_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    pairs = example_pairs(tmp_path / "native")
    before = {rtype: path.read_bytes() for rtype, path in made(tmp_path / "out", pairs[:1]).items()}

    def broken() -> Iterator[tuple[Recorded, Path]]:
        yield from pairs
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out", broken())
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == {"t" + ENDINGS[rtype]: data for rtype, data in before.items()}
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "new", broken())
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,start_s,end_s,label,score\na,0.000,x,crow,0.5\n", "could not convert"),
        ("file,start_s,end_s,label,score\na,0.000,1.000,cr", "could not convert"),
        ("file,start_s,end_s,label,score\nb,0.000,1.000,crow,0.5\n", "'file': 'b'"),
        ("file,start_s,end_s,label\na,0.000,1.000,crow\n", "a row is"),
        ("", "is empty"),
        ("file,start_s,\xe9", "is not a UTF-8 CSV table"),
        ("file,start_s,end_s,label,score,more\na,0.000,1.000,crow,0.5,1\n", "'more': '1'"),
    ],
)
def test_what_is_not_the_table_of_the_recording_is_named(
    tmp_path: Path, text: str, said: str
) -> None:
    table = tmp_path / "native.csv"
    table.write_text(text, encoding="latin-1")
    with pytest.raises(BirdinvError, match=said) as error:
        made(tmp_path / "out", [(recorded("a"), table)])
    assert str(table) in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_absolute_times_are_in_all_native_tables_or_in_none(tmp_path: Path) -> None:
    row = ("0.000", "1.000", "crow", "0.5000")
    without = native(tmp_path / "without.csv", "a", [row])
    with_times = native(tmp_path / "with.csv", "a", [(*row, "2026")], timed=True)
    for tables in [(without, with_times), (with_times, without)]:
        with pytest.raises(BirdinvError, match="is not the table of a"):
            made(tmp_path / "out", [(recorded("a"), table) for table in tables], ["raven"])


def test_unknown_formats_are_named_with_the_nearest(tmp_path: Path) -> None:
    require_formats(RTYPES)
    with pytest.raises(SettingError, match=r"--rtype is 'ravn'; did you mean raven\?"):
        require_formats(["audacity", "ravn"])
    with pytest.raises(SettingError, match="known are raven, audacity, kaleidoscope, birdnet"):
        require_formats(["xyz"])
    with pytest.raises(SettingError, match="did you mean birdnet"):
        made(tmp_path / "out", [], ["BirdNET"])
    assert not (tmp_path / "out").exists()


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    require_formats(TEXTS)
    with pytest.raises(BirdinvError, match=r"pyarrow.*pip install 'birdinv\[parquet\]'"):
        require_formats(RTYPES)


# Millions of rows -------------------------------------------------------------------------------


def many_rows(path: Path, rows: int) -> list[tuple[Recorded, Path]]:
    with open(path, "w") as file:
        file.write(",".join(HEADER) + "\n")
        file.writelines(f"a.wav,{i}.000,{i}.500,bird{i % 9},0.8700\n" for i in range(rows))
    return [(recorded("a.wav", 1e6), path)]


def test_text_formats_hold_a_row_at_a_time(tmp_path: Path) -> None:
    pairs = many_rows(tmp_path / "n.csv", 4_000)
    tracemalloc.start()
    try:
        made(tmp_path, pairs, TEXTS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # held as rows they are four
    finally:
        tracemalloc.stop()


def test_parquet_holds_one_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "ROW_GROUP", 1000)
    pairs = many_rows(tmp_path / "n.csv", 20_500)
    made(tmp_path / "warm", pairs[:0], ["parquet"])  # the import is not the table's
    tracemalloc.start()
    try:
        path = made(tmp_path, pairs, ["parquet"])["parquet"]
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [
        *[1000] * 20,
        500,
    ]
    assert pq.read_table(path)["start_s"].to_pylist() == list(range(20_500))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, tables in golden_tables(Path(temporary)):
            for rtype, path in tables.items():
                (GOLDEN / (name + ENDINGS[rtype])).write_bytes(path.read_bytes())
