"""Which form of a data set lies in a folder, and whether its files are whole."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdinv.data.manifests import File, Form, Ids, Manifest, Tree, load_manifest
from birdinv.errors import BirdinvError

OK, MISSING, OPTIONAL = "ok", "missing", "optional, not there"
WRONG_SIZE, WRONG_CHECKSUM, WRONG_COUNT = "wrong size", "wrong checksum", "wrong count"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """What was found of one file, or of one folder of files; `detail` says more where there is."""

    path: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class Check:
    """What was found of a data set: the form nearest to whole, where, and each file of it."""

    manifest: Manifest
    form: Form
    folder: Path
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether all is there that has to be, as it should be."""
        return all(finding.state in (OK, OPTIONAL) for finding in self.findings)

    @property
    def sentence(self) -> str:
        """What was found, and what to do where something is wrong."""
        name = self.manifest.name
        if self.whole:
            return f"{name} is whole in {self.folder}: {self.form.description}"
        wrong = [each for each in self.findings if each.state not in (OK, OPTIONAL)]
        return (
            f"{name} is not whole in {self.folder} ({self.form.description}): {len(wrong)} of "
            f"{len(self.findings)} are not as they should be, first {wrong[0].path} "
            f"({wrong[0].state}); run `birdinv data prepare {name}`, which fetches them or says "
            "what to put where"
        )


def check(name: str, root: Path) -> Check:
    """Reads every file of a data set and compares its size and checksum with the manifest.

    Args:
        name: of a manifest.
        root: the folder of the data set, or one with a folder `name` in it.

    Raises:
        BirdinvError: there is no such data set or folder. A file that is wrong is no error here.
    """
    manifest = load_manifest(name)
    form, folder = nearest_form(manifest, root)
    findings = [check_file(folder, file, manifest.optional(file.split)) for file in form.files]
    if form.tree is not None:
        findings.append(_check_tree(folder, form.tree))
    findings += [_check_ids(folder, ids) for ids in form.ids]
    return Check(manifest, form, folder, tuple(findings))


def find_form(manifest: Manifest, root: Path, split: str | None = None) -> tuple[Form, Path]:
    """(form, folder): the first form of which every file, of `split` if given, is there.

    Raises:
        BirdinvError: there is none; the sentence names what is missing of the nearest.
    """
    form, folder = nearest_form(manifest, root, split)
    wanted = _wanted(manifest, form, split)
    missing = [file.path for file in wanted if not (folder / file.path).is_file()]
    if not missing:
        return form, folder
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    packed = form.archive is not None and (folder / form.archive.path).is_file()
    unpack = f"{form.archive.path} is there but not unpacked; " if form.archive and packed else ""
    of = f" of its {split} split" if split else ""
    raise BirdinvError(
        f"{manifest.name}: {folder / missing[0]}{more} is missing{of} ({form.description}); "
        f"{unpack}run `birdinv data prepare {manifest.name}`, which fetches it or says what to put "
        "where, or name another --root"
    )


def nearest_form(manifest: Manifest, root: Path, split: str | None = None) -> tuple[Form, Path]:
    """(form, folder) of which the largest share is there; the first of them, also where none is.

    Raises:
        BirdinvError: `root` is no folder.
    """
    if not root.is_dir():
        raise BirdinvError(f"{root} is not a folder; expected the folder of {manifest.name}")
    own = root / manifest.name
    folders = [own, root] if own.is_dir() else [root]
    pairs = [(form, folder) for folder in folders for form in manifest.forms]
    return max(pairs, key=lambda pair: _share(manifest, pair, split))  # max keeps the first


def _wanted(manifest: Manifest, form: Form, split: str | None) -> list[File]:
    if split is None:
        return [file for file in form.files if not manifest.optional(file.split)]
    return [file for file in form.files if file.split == split]


def _share(manifest: Manifest, pair: tuple[Form, Path], split: str | None) -> float:
    form, folder = pair
    wanted = _wanted(manifest, form, split)
    there, total = sum((folder / file.path).is_file() for file in wanted), len(wanted)
    if form.tree is not None:
        there += min(form.tree.count, len(_matches(folder, form.tree)))
        total += form.tree.count
    for ids in form.ids:
        there += len(_numbers(folder, ids))
        total += ids.last - ids.first + 1
    packed = form.archive is not None and (folder / form.archive.path).is_file()
    return max(there / max(1, total), 0.01 * packed)


def check_file(folder: Path, file: File, optional: bool = False) -> Finding:
    """Compares one file with what the manifest says of it."""
    path = folder / file.path
    if not path.is_file():
        return Finding(file.path, OPTIONAL if optional else MISSING)
    size = path.stat().st_size
    if file.size in (None, size):
        if file.sha256 is None and file.md5 is None:
            return Finding(file.path, OK, "size only, no checksum is known")
        if _same(path, file):
            return Finding(file.path, OK)
    if file.payload_sha256 is not None and _payload(path, file) == file.payload_sha256:
        return Finding(file.path, OK, "packed anew, the same inside")
    if file.size not in (None, size):
        return Finding(file.path, WRONG_SIZE, f"{size} bytes, expected {file.size}")
    return Finding(file.path, WRONG_CHECKSUM)


def _same(path: Path, file: File) -> bool:
    with open(path, "rb") as opened:
        if file.sha256 is not None:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
        return hashlib.file_digest(opened, _md5).hexdigest() == file.md5


def _md5() -> Any:
    # Against damage, not against malice: nothing better is published of some files.
    return hashlib.md5(usedforsecurity=False)


def _payload(path: Path, file: File) -> str | None:
    """SHA-256 of what a .gz unpacks to, None where it is damaged or has not the right size."""
    digest, left = hashlib.sha256(), file.payload_size or 0
    try:
        with gzip.open(path) as opened:
            while block := opened.read(min(BLOCK, left + 1)):  # one byte too much at most
                left -= len(block)
                digest.update(block)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None
    return digest.hexdigest() if left == 0 else None


def _matches(folder: Path, tree: Tree) -> list[Path]:
    return sorted(path for path in folder.glob(tree.pattern) if _counts(path))


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # macOS leaves ._name beside a name


def _check_tree(folder: Path, tree: Tree) -> Finding:
    paths = _matches(folder, tree)
    if len(paths) != tree.count:
        found = f"{len(paths)} files, expected {tree.count}"
        return Finding(tree.pattern, WRONG_COUNT if paths else MISSING, found)
    size = sum(path.stat().st_size for path in paths)
    if tree.size not in (None, size):
        return Finding(tree.pattern, WRONG_SIZE, f"{size} bytes together, expected {tree.size}")
    if tree.sha256 is None:
        return Finding(tree.pattern, OK, f"{tree.count} files; no checksum is known")
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{digest}  {path.relative_to(folder).as_posix()}\n".encode())
    state = OK if total.hexdigest() == tree.sha256 else WRONG_CHECKSUM
    return Finding(tree.pattern, state, f"{tree.count} files")


def _numbers(folder: Path, ids: Ids) -> set[int]:
    """Which of the numbers `first` to `last` stand last in the name of a file."""
    found = set()
    for path in filter(_counts, (folder / ids.folder).glob("*")):
        if numbers := re.findall(r"\d{1,9}", path.stem):
            found.add(int(numbers[-1]))
    return found & set(range(ids.first, ids.last + 1))


def _check_ids(folder: Path, ids: Ids) -> Finding:
    missing = sorted(set(range(ids.first, ids.last + 1)) - _numbers(folder, ids))
    path = f"{ids.folder}/"
    if not missing:
        return Finding(path, OK, f"IDs {ids.first} to {ids.last}")
    if len(missing) == ids.last - ids.first + 1:
        return Finding(path, MISSING, f"expected files with the IDs {ids.first} to {ids.last}")
    return Finding(path, WRONG_COUNT, f"missing {len(missing)} IDs, first {missing[0]}")
