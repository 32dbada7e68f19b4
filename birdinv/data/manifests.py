"""What `data_manifests/` knows of a data set: files and checksums, classes and splits."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from birdinv.errors import BirdinvError

PACKAGE = "birdinv_manifests"
ROOT_VARIABLE = "BIRDINV_DATA"


@dataclass(frozen=True)
class File:
    """A file of a data set, or an archive of files.

    Attributes:
        path: relative to the folder of the data set, with `/`.
        size: bytes, None where it is not known.
        sha256, md5: as published, None where none was found; md5 counts only where sha256 is None.
        url: where `birdinv data prepare` fetches it, None where nobody gives it away by itself.
        split: the split it belongs to.
        payload_size, payload_sha256: of what a `.gz` unpacks to, which holds however it was packed.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None
    split: str | None = None
    payload_size: int | None = None
    payload_sha256: str | None = None


@dataclass(frozen=True)
class Tree:
    """Files too many to list: those that match `pattern` in a folder.

    Attributes:
        size: bytes of all together.
        sha256: of the sorted lines `<sha256 of the file>  <path>\\n`, as `sha256sum` prints them.
    """

    pattern: str
    count: int
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Ids:
    """A class that is a folder of files with the numbers `first` to `last` in their names."""

    folder: str
    first: int
    last: int


@dataclass(frozen=True)
class Form:
    """One form a data set comes in.

    Attributes:
        format: which reader of `birdinv.data.images` it is for; "recordings" for `segment`.
        files: per split first the pixels, in order, then the labels.
        archive: what `files` are unpacked from.
    """

    name: str
    description: str
    format: str
    files: tuple[File, ...] = ()
    archive: File | None = None
    tree: Tree | None = None
    ids: tuple[Ids, ...] = ()


@dataclass(frozen=True)
class Split:
    """`count` samples, `per_class` of each class where that is known.

    Attributes:
        optional: the data set counts as whole without it.
    """

    count: int
    per_class: tuple[int, ...] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
        kind: "images" or "recordings".
        shape: (C, H, W) of an image, () for recordings.
        splits: the official ones, by name; none where there is no official split.
        valid: how many images are taken from "train" to validate on.
        forms: the forms it comes in, the one to prefer first.
        instructions: how to get it, and how to use it, in words.
        notes: one line to print beside any result.
    """

    name: str
    description: str
    homepage: str
    licence: str
    kind: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    splits: Mapping[str, Split]
    valid: int
    forms: tuple[Form, ...]
    instructions: str
    notes: str = ""

    @property
    def samples(self) -> int:
        """Images of all splits, or recordings."""
        if self.splits:
            return sum(split.count for split in self.splits.values())
        form = self.forms[0]
        if form.tree is not None:
            return form.tree.count
        if form.ids:
            return sum(each.last - each.first + 1 for each in form.ids)
        return sum(file.path.split("/")[0] in self.classes for file in form.files)

    def optional(self, split: str | None) -> bool:
        """Whether the data set is whole without the files of this split."""
        return split is not None and self.splits[split].optional


def manifests() -> tuple[str, ...]:
    """The names of all manifests, sorted."""
    entries = (Path(entry.name) for entry in resources.files(PACKAGE).iterdir())
    return tuple(sorted(entry.stem for entry in entries if entry.suffix == ".toml"))


def load_manifest(name: str) -> Manifest:
    """The manifest of that name.

    Raises:
        BirdinvError: there is none.
    """
    known = manifests()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1)
        guess = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise BirdinvError(f"{name!r} is not a data set that birdinv knows; {guess}")
    text = resources.files(PACKAGE).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_manifest(text)


def refusal(path: Path, found: str, expected: str, manifest: Manifest) -> BirdinvError:
    """The error of a file of the data set that is not what it should be."""
    return BirdinvError(
        f"{path}: {found}; expected {expected}; get {manifest.name} anew "
        f"(`birdinv data prepare {manifest.name}`)"
    )


def data_root(given: Path | None = None) -> Path:
    """`given`, or the folder that the environment variable BIRDINV_DATA names.

    Raises:
        BirdinvError: neither is there, or it is no folder.
    """
    text = os.environ.get(ROOT_VARIABLE, "")
    if given is None and not text:
        raise BirdinvError(
            "no folder of data sets is named; give --root DIR or set the environment variable "
            f"{ROOT_VARIABLE}"
        )
    root = Path(text) if given is None else given
    if not root.is_dir():
        whose = f" ({ROOT_VARIABLE})" if given is None else ""
        raise BirdinvError(f"{root}{whose} is not a folder; expected the folder of the data sets")
    return root


def parse_manifest(text: str) -> Manifest:
    """The manifest that a TOML text holds, as those of `data_manifests/` are written."""
    content = tomllib.loads(text)
    splits = {
        name: Split(**{**split, "per_class": tuple(split.get("per_class", ())) or None})
        for name, split in content.pop("splits", {}).items()
    }
    forms = tuple(_form(form) for form in content.pop("forms"))
    return Manifest(
        classes=tuple(content.pop("classes")),
        shape=tuple(content.pop("shape", ())),
        splits=splits,
        valid=content.pop("valid", 0),
        forms=forms,
        instructions=content.pop("instructions").strip(),
        **content,
    )


def _form(content: dict[str, Any]) -> Form:
    files = tuple(File(**file) for file in content.pop("files", ()))
    ids = tuple(Ids(**each) for each in content.pop("ids", ()))
    archive, tree = content.pop("archive", None), content.pop("tree", None)
    return Form(
        files=files,
        archive=File(**archive) if archive else None,
        tree=Tree(**tree) if tree else None,
        ids=ids,
        **content,
    )
