"""Which recordings a command was given: files and folders → a sorted list with unique names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from birdinv.audio.reading import FOREIGN, READABLE
from birdinv.errors import BirdinvError, NothingReadable

SYSTEM = frozenset(["lost+found", "System Volume Information", "$RECYCLE.BIN"])


@dataclass(frozen=True)
class Source:
    """One recording to read.

    `name` is its path below the input it came from, with forward slashes; with several inputs the
    input's own name comes first. `root` is that input, a folder or the file itself.
    """

    path: Path
    name: str
    root: Path


@dataclass(frozen=True)
class Sources:
    """The recordings found, sorted by name, and how many other files lay beside them.

    `unlisted` are the names of folders that the system did not let us look into, and why.
    """

    found: tuple[Source, ...]
    others: int
    unlisted: tuple[tuple[str, str], ...] = ()


def find_sources(inputs: Sequence[Path]) -> Sources:
    """Recordings in files and folders, folders searched to their depths, names unique.

    A file named outright counts whatever its ending; in folders, files whose ending is that of
    audio do. Hidden files (`._x.wav` of macOS) do not.

    Raises:
        BirdinvError: an input does not exist, or two of them lead to the same recording.
        NothingReadable: there is no audio file in all of the inputs.
    """
    found: dict[str, Source] = {}
    reached: dict[str, Path] = {}  # real path → the input that led there first
    unlisted: dict[str, str] = {}
    others = 0
    roots = _unique_names(inputs)
    for root, prefix in roots:
        if root.is_dir():
            paths, rest, locked = _walk(root)
            others += rest
            for path, reason in locked:
                unlisted[_named([*prefix, *path.relative_to(root).parts])] = reason
        elif root.exists():
            paths = [root]
        else:
            raise BirdinvError(f"{root} does not exist; give a recording or a folder of recordings")
        for path in paths:
            below = [path.name] if path == root else [*path.relative_to(root).parts]
            name = _named([*prefix, *below])
            if PurePosixPath(name).is_absolute() or ".." in name.split("/"):
                raise BirdinvError(
                    f"{path} would be called {name}, which leads out of a folder; give the folder "
                    "that holds it"
                )
            first = reached.setdefault(os.path.realpath(path), root)
            if first != root:
                raise BirdinvError(
                    f"{path} would be read twice: it lies in {first} and in {root}; "
                    "give inputs that do not overlap"
                )
            if name in found:
                raise BirdinvError(
                    f"{path} and {found[name].path} would both be called {name}; rename one"
                )
            found[name] = Source(path, name, root)
    if not found and unlisted:
        name, reason = next(iter(unlisted.items()))
        raise NothingReadable(f"{name or roots[0][0]} cannot be listed: {reason}")
    if not found:
        where = ", ".join(str(root) for root in inputs)
        raise NothingReadable(
            f"no audio file in {where} ({others} other files); expected one of "
            f"{' '.join(sorted(READABLE))}"
        )
    return Sources(
        tuple(found[name] for name in sorted(found)), others, tuple(sorted(unlisted.items()))
    )


def _named(parts: Iterable[str]) -> str:
    # A name that came from the file system undecodable could not be written to a table.
    return "/".join(parts).encode("utf-8", "backslashreplace").decode()


def _unique_names(inputs: Iterable[Path]) -> list[tuple[Path, tuple[str, ...]]]:
    """Each distinct input with what its recordings' names begin with."""
    distinct = list({os.path.realpath(path): path for path in inputs}.values())
    folders = [path for path in distinct if path.is_dir()]
    if len(distinct) == 1 or not folders:
        prefixes: list[tuple[str, ...]] = [() for _ in distinct]
        names = [path.name for path in distinct]
        if len(distinct) > 1 and len(set(names)) < len(names):
            prefixes = [(_name(Path(os.path.realpath(path)).parent),) for path in distinct]
    else:
        prefixes = [
            (_name(Path(os.path.realpath(path))),) if path.is_dir() else () for path in distinct
        ]
    taken: set[tuple[str, ...]] = set()
    result = []
    for path, prefix in zip(distinct, prefixes, strict=True):
        key = (*prefix, path.name) if path.is_file() else prefix
        if key in taken:
            raise BirdinvError(
                f"two inputs are both called {key[-1]}; give the folder that holds both instead"
            )
        taken.add(key)
        result.append((path, prefix))
    return result


def _name(folder: Path) -> str:
    return folder.name or "root"  # of a disk: it has no name, and names must not begin with "/"


def _walk(root: Path) -> tuple[list[Path], int, list[tuple[Path, str]]]:
    """(audio files, number of other files, folders that cannot be listed and why) below `root`.

    Links to folders are followed once; folders in which systems keep their own are left out.
    """
    paths: list[Path] = []
    others = 0
    seen: set[str] = set()

    locked: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        locked.append((Path(error.filename), error.strerror or str(error)))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and name not in SYSTEM
        )
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in READABLE | FOREIGN:
                paths.append(Path(folder) / name)
            else:
                others += 1
    return paths, others, locked
