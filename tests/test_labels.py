"""What is known of recordings, from folders and tables; every refusal says its sentence."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from birdinv.audio.sources import find_sources
from birdinv.data.labels import Label, is_non_event, labels_from_csv, labels_from_folders
from birdinv.errors import BirdinvError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def folders(*inputs: Path) -> dict[str, str]:
    known = labels_from_folders(find_sources(inputs).found).known
    return {name: label.label for name, label in known.items()}


def table(path: Path, text: str, *inputs: Path, **columns):
    path.write_text(text, encoding="utf-8")
    return labels_from_csv(path, find_sources(inputs).found, **columns)


def test_the_class_is_the_first_folder_below_the_input(tmp_path):
    root = touch(tmp_path / "in", "robin/a.wav", "robin/2020/b.flac", "Kohl, Meise/c.mp3")
    assert folders(root) == {
        "robin/a.wav": "robin",
        "robin/2020/b.flac": "robin",
        "Kohl, Meise/c.mp3": "Kohl, Meise",
    }


def test_an_input_without_folders_is_a_class_itself(tmp_path):
    touch(tmp_path, "robin/a.wav", "noise/b.wav", "noise/c.wav")
    expected = {"robin/a.wav": "robin", "noise/b.wav": "noise", "noise/c.wav": "noise"}
    assert folders(tmp_path / "robin", tmp_path / "noise") == expected
    assert folders(tmp_path / "robin" / "a.wav") == {"a.wav": "robin"}


def test_a_folder_named_by_a_dot_still_has_a_name(tmp_path, monkeypatch):
    touch(tmp_path / "robin", "a.wav")
    monkeypatch.chdir(tmp_path / "robin")
    assert folders(Path()) == {"a.wav": "robin"}


def test_recordings_beside_folders_of_recordings_are_refused(tmp_path):
    touch(tmp_path, "robin/a.wav", "b.wav", "c.wav")
    with pytest.raises(BirdinvError, match=r"2 recordings beside folders of recordings.*--labels"):
        folders(tmp_path)


def test_a_folder_name_that_is_no_text_becomes_one(tmp_path):
    folder = os.fsencode(tmp_path) + b"/m\xe9sange"
    os.mkdir(folder)
    open(folder + b"/a.wav", "wb").close()
    assert folders(tmp_path) == {"m\\udce9sange/a.wav": "m\\udce9sange"}


@pytest.mark.parametrize("name", ["noise", "Noise", "background", "OTHER", "silence"])
def test_what_stands_for_no_bird(name):
    assert is_non_event(name) and not is_non_event(name + "s")


def test_a_table_says_what_is_known_and_the_rest_is_unlabelled(tmp_path):
    root = touch(tmp_path / "in", "a.wav", "deep/b, é.wav", "c.wav", "d.wav")
    got = table(
        tmp_path / "labels.csv",
        "\ufefffile,label,split,group,start_s,end_s,other\n a.wav , robin ,test,anna,,,x\n"
        '"deep/b, é.wav",Kohlmeise,,,1.5,3,\nc.wav,,,,,,\n',
        root,
    )
    assert got.known == {
        "a.wav": Label("robin", "anna", "test"),
        "deep/b, é.wav": Label("Kohlmeise", stretches=((1.5, 3.0),)),
        "c.wav": Label(),
    }
    assert got.missing == {}


def test_files_are_found_below_inputs_beside_the_table_from_here_and_by_full_path(
    tmp_path, monkeypatch
):
    touch(tmp_path, "one/a.wav", "two/b.wav", "c.wav", "deep/in/d.wav")
    monkeypatch.chdir(tmp_path / "deep")
    inputs = [tmp_path / "one", tmp_path / "two", tmp_path / "c.wav", tmp_path / "deep"]
    (tmp_path / "tables").mkdir()
    got = table(
        tmp_path / "tables" / "labels.csv",
        f"file,label\na.wav,1\n../two/b.wav,2\n{tmp_path}/c.wav,3\nin/../in/d.wav,4\n",
        *inputs,
    )
    labels = {name: label.label for name, label in got.known.items()}
    assert labels == {"one/a.wav": "1", "two/b.wav": "2", "c.wav": "3", "deep/in/d.wav": "4"}


def test_the_table_may_lie_elsewhere_when_recordings_are_named_outright(tmp_path):
    touch(tmp_path, "one/a.wav", "one/b.wav", "tables/x")
    inputs = tmp_path / "one/a.wav", tmp_path / "one/b.wav"
    got = table(tmp_path / "tables/t.csv", "file,label\na.wav,1\nb.wav,2\n", *inputs)
    assert {name: label.label for name, label in got.known.items()} == {"a.wav": "1", "b.wav": "2"}


def test_a_name_that_fits_two_recordings_is_refused_and_the_full_names_are_not(tmp_path):
    touch(tmp_path, "one/a.wav", "two/a.wav", "tables/x")
    inputs = tmp_path / "one", tmp_path / "two"
    with pytest.raises(BirdinvError, match=r"line 2 .* may be one/a.wav or two/a.wav; write one"):
        table(tmp_path / "tables/t.csv", "file,label\na.wav,robin\n", *inputs)
    got = table(tmp_path / "tables/t.csv", "file,label\none/a.wav,1\ntwo/a.wav,2\n", *inputs)
    labels = {name: label.label for name, label in got.known.items()}
    assert labels == {"one/a.wav": "1", "two/a.wav": "2"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_one_character_or_two_are_the_same(tmp_path, forms):
    file, cell = (unicodedata.normalize(form, "Žluva hajní.wav") for form in forms)
    (tmp_path / "tables").mkdir()
    root = touch(tmp_path / "in", file)
    for text in (cell, f"../in/{cell}"):
        got = table(tmp_path / "tables/t.csv", f"file,label\n{text},x\n", root)
        assert got.known == {file: Label("x")} and not got.missing
    touch(root, cell)  # two files then, on a disk that tells them apart: each by its own name
    if len(list(root.iterdir())) == 2:
        got = table(tmp_path / "tables/t.csv", f"file,label\n{cell},x\n{file},y\n", root)
        assert got.known == {cell: Label("x"), file: Label("y")}


def test_files_that_are_not_there_are_kept_as_missing_wherever_they_point(tmp_path):
    root = touch(tmp_path / "in", "a.wav")
    outside = touch(tmp_path, "secret.wav") / "secret.wav"
    got = table(
        tmp_path / "t.csv",
        "file,label,split\na.wav,robin,\nb.wav,robin,train\n"
        f"../../etc/passwd,x,\n../secret.wav,y,\n{outside},z,\n",
        root,
    )
    assert set(got.known) == {"a.wav"}
    assert {f: label.label for f, label in got.missing.items()} == {
        "b.wav": "robin",
        "../../etc/passwd": "x",
        "../secret.wav": "y",
        str(outside): "z",
    }


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("x/b.wav,robin\n", "not one of the 1 files .*the first is x/b.wav; did you mean a/b.wav"),
        ("", "has a header and no rows"),
    ],
)
def test_a_table_that_fits_no_recording_is_refused(tmp_path, rows, sentence):
    root = touch(tmp_path / "in", "a/b.wav")
    with pytest.raises(BirdinvError, match=sentence):
        table(tmp_path / "t.csv", f"file,label\n{rows}", root)


def test_paths_written_on_windows_are_found(tmp_path):
    root = touch(tmp_path / "in", "a/b.wav")
    assert table(tmp_path / "t.csv", "file,label\na\\b.wav,robin\n", root).known["a/b.wav"].label


def test_a_label_with_dots_and_slashes_is_only_a_name(tmp_path):
    root = touch(tmp_path / "in", "a.wav")
    got = table(tmp_path / "t.csv", "file,label\na.wav,../../evil\n", root)
    assert got.known["a.wav"].label == "../../evil"


def test_stretches_of_one_recording_come_together_and_what_is_said_twice_counts_once(tmp_path):
    root = touch(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    got = table(
        tmp_path / "t.csv",
        "file,label,start_s,end_s\n"
        "a.wav,x,5,6\na.wav,x,0,2\na.wav,x,1,3\na.wav,x,3,3.5\na.wav,x,5,6\n"
        "b.wav,x,1,2\nb.wav,x,,\n"
        "c.wav,x,,\nc.wav,x,1,2\n",
        root,
    )
    assert got.known["a.wav"].stretches == ((0.0, 3.5), (5.0, 6.0))
    assert got.known["b.wav"].stretches == got.known["c.wav"].stretches == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "path,label\na.wav,x\n",
            r"no column 'file'; its columns are path, label: .*--file-column",
        ),
        ("file,labels\na.wav,x\n", r"no column 'label' \(did you mean labels\?\).*--label-column"),
        ("file;label\na.wav;x\n", "no column 'file'"),
        ("file,label\n,x\n", "line 2 of .* names no file in its column 'file'"),
        ("file,label\na.wav,x\n  ,x\n", "line 3 of .* names no file"),
        ("file,label\na\0.wav,x\n", r"line 2 of .* names the file 'a\\x00.wav'; expected a path"),
        ("file,label,split\na.wav,x,dev\n", "the split 'dev'; expected train, valid, test or"),
        ("file,label\na.wav,x\na.wav,y\n", "line 3 .* gives a.wav the label 'y' after 'x'"),
        ("file,label\nz.wav,x\nz.wav,y\n", "line 3 .* gives z.wav the label 'y' after 'x'"),
        (
            "file,label,group\na.wav,x,1\na.wav,x,2\n",
            "the group '2' after '1'; a recording has one",
        ),
        ("file,label,split\na.wav,x,test\na.wav,x,\n", "the split '' after 'test'"),
        ("file,label,start_s,end_s\na.wav,x,2,1\n", "start_s '2' and end_s '1'; expected seconds"),
        ("file,label,start_s,end_s\na.wav,x,1,1\n", "expected seconds with start < end"),
        ("file,label,start_s,end_s\na.wav,x,-1,1\n", "start_s '-1'"),
        ("file,label,start_s,end_s\na.wav,x,1,\n", "start_s '1' and end_s ''"),
        ("file,label,start_s,end_s\na.wav,x,one,2\n", "start_s 'one'"),
        ("file,label,start_s,end_s\na.wav,x,nan,2\n", "start_s 'nan'"),
        ("file,label,start_s,end_s\na.wav,x,1,inf\n", "end_s 'inf'"),
        (
            "file,label,group,split\na.wav,x,anna,train\nb.wav,x,anna,test\n",
            "group 'anna' into both train and test; a group must lie on one side",
        ),
        ("", "is empty; expected a table"),
        ("file,label,label\na.wav,x,y\n", "names a column twice"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_a_sentence(tmp_path, text, sentence):
    root = touch(tmp_path / "in", "a.wav", "b.wav")
    with pytest.raises(BirdinvError, match=sentence):
        table(tmp_path / "t.csv", text, root)


def test_a_table_that_is_no_text_or_not_there_is_refused(tmp_path):
    root = touch(tmp_path / "in", "a.wav")
    (tmp_path / "t.csv").write_bytes("file,label\na.wav,mésange\n".encode("latin-1"))
    sources = find_sources([root]).found
    with pytest.raises(BirdinvError, match="is not a UTF-8 CSV table"):
        labels_from_csv(tmp_path / "t.csv", sources)
    with pytest.raises(BirdinvError, match="cannot be read: No such file"):
        labels_from_csv(tmp_path / "nowhere.csv", sources)


def test_columns_can_be_called_anything(tmp_path):
    root = touch(tmp_path / "in", "a.wav")
    text = "filename,primary_label,author,group\na.wav,robin,Anna,ignored\n"
    names = {"file_column": "filename", "label_column": "primary_label", "group_column": "author"}
    assert table(tmp_path / "t.csv", text, root, **names).known["a.wav"] == Label("robin", "Anna")
    with pytest.raises(
        BirdinvError, match=r"no column 'autor'.*did you mean author.*--group-column"
    ):
        table(tmp_path / "t.csv", text, root, **{**names, "group_column": "autor"})


def test_the_table_of_birdclef_works_as_it_is(data, tmp_path):
    root = data / "bird_kenya6"
    sources = find_sources([root]).found
    for path in (root / "metadata.csv", tmp_path / "metadata.csv"):  # beside them, and elsewhere
        if path.parent == tmp_path:
            shutil.copy(root / "metadata.csv", path)
        got = labels_from_csv(
            path,
            sources,
            file_column="filename",
            label_column="primary_label",
            group_column="author",
        )
        assert not got.missing and set(got.known) == {source.name for source in sources}
        by_folder = labels_from_folders(sources).known
        assert {n: label.label for n, label in got.known.items()} == {
            n: label.label for n, label in by_folder.items()
        }
        assert all(label.group for label in got.known.values())


# ---------------------------------------------------------------- several tables


def tables(folder: Path, texts: list[str], *inputs: Path, others: tuple[Path, ...] = ()):
    paths = [folder / f"t{i}.csv" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    found = find_sources([*inputs, *others]).found
    own, rest = ([s for s in found if (s.root in others) is there] for there in (False, True))
    return labels_from_csv(paths, own, others=rest)


def test_tables_are_read_together_and_what_is_empty_in_one_gives_way(tmp_path):
    root = touch(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    texts = [
        "file,label,group,split\na.wav,robin,anna,test\nb.wav,,ben,train\ngone.wav,,,\n",
        "file,label\nb.wav,wren\nc.wav,wren\na.wav,\ngone.wav,robin\n",
    ]
    expected = {
        "a.wav": Label("robin", "anna", "test"),
        "b.wav": Label("wren", "ben", "train"),
        "c.wav": Label("wren"),
    }
    for order in (texts, texts[::-1]):
        got = tables(tmp_path, order, root)
        assert got.known == expected and got.missing == {"gone.wav": Label("robin")}


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("label\na.wav,x", "label\nb.wav,y\na.wav,y", "line 3 of .*t1.csv gives a.wav the label"),
        (
            "label\na.wav,x",
            "label\na.wav,y",
            "'y' after 'x' by line 2 of .*t0.csv; a recording has",
        ),
        ("label\nz.wav,x\nb.wav,x", "label\nz.wav,y", "gives z.wav the label 'y' after 'x'"),
        ("label,group\na.wav,x,1", "label,group\na.wav,,2", "the group '2' after '1' by"),
        ("label,split\na.wav,x,test", "label,split\na.wav,,train", "split 'train' after 'test' by"),
        (
            "label,group,split\na.wav,x,anna,train",
            "label,group,split\nb.wav,x,anna,test",
            "t0.csv and .*t1.csv put the group 'anna' into both train and test",
        ),
        ("label\na.wav,x\na.wav,", "label\na.wav,x", "line 3 of .*t0.csv gives a.wav the label ''"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(tmp_path, first, second, sentence):
    root = touch(tmp_path / "in", "a.wav", "b.wav")
    with pytest.raises(BirdinvError, match=sentence):
        tables(tmp_path, [f"file,{first}\n", f"file,{second}\n"], root)


def test_a_table_without_columns_for_times_leaves_those_of_another(tmp_path):
    root = touch(tmp_path / "in", "a.wav", "b.wav")
    texts = [
        "file,label,start_s,end_s\na.wav,x,1,2\nb.wav,x,1,2\n",
        "file,label\na.wav,x\n",
        "file,label,start_s,end_s\na.wav,x,4,5\nb.wav,x,,\n",
    ]
    for order in (texts, texts[::-1]):
        known = tables(tmp_path, order, root).known
        assert known["a.wav"].stretches == ((1.0, 2.0), (4.0, 5.0))
        assert known["b.wav"].stretches == ()  # whole, as between rows of one table


def test_only_tables_that_fit_no_recording_at_all_are_refused(tmp_path):
    root = touch(tmp_path / "in", "a.wav")
    fits, empty, not_there = "file,label\na.wav,x\n", "file,label\n", "file,label\nz.wav,x\n"
    got = tables(tmp_path, [empty, not_there, fits], root)
    assert set(got.known) == {"a.wav"} and set(got.missing) == {"z.wav"}
    with pytest.raises(BirdinvError, match=r"1 files that .*t0.csv and .*t1.csv name is below"):
        tables(tmp_path, [empty, not_there], root)
    with pytest.raises(BirdinvError, match=r"t0.csv and .*t1.csv have a header and no rows"):
        tables(tmp_path, [empty, empty], root)


def test_unlabelled_recordings_are_found_where_no_labelled_one_fits(tmp_path):
    touch(tmp_path, "in/a.wav", "in/pool/c.wav", "pool/a.wav", "pool/b.wav", "pool/c.wav")
    inputs, others = (tmp_path / "in",), (tmp_path / "pool",)
    text = "file,label\na.wav,1\nb.wav,2\npool/c.wav,3\nin/pool/c.wav,4\n"
    got = tables(tmp_path, [text], *inputs, others=others)
    assert {name: label.label for name, label in got.known.items()} == {
        "in/a.wav": "1",
        "pool/b.wav": "2",
        "pool/c.wav": "3",  # a recording's own name goes before a path
        "in/pool/c.wav": "4",
    }
