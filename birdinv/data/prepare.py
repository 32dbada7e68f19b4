"""Gets the files of a data set: downloads that go on where they stopped, and verified unpacking."""

from __future__ import annotations

import errno
import gzip
import http.client
import os
import tarfile
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from birdinv.data.checks import OK, Check, check, check_file
from birdinv.data.manifests import File, Form, Manifest, load_manifest
from birdinv.errors import BirdinvError
from birdinv.files import size_of
from birdinv.progress import Progress

ATTEMPTS = 3
TIMEOUT_S = 30.0
BLOCK = 1 << 18


def prepare(name: str, root: Path, *, progress: Progress | None = None) -> Check:
    """Downloads and unpacks what is missing or wrong of a data set into `root/name`, and checks it.

    What was downloaded in part is kept as `….part`, and the next call goes on from there.

    Args:
        root: the folder of the data sets, made where it is missing; a data set that already lies in
            it, also without a folder of its own, is mended where it is.
        progress: counts megabytes.

    Raises:
        BirdinvError: it is not to be had, by this network or at all, or not what it should be;
            `by_hand` says what to put where.
    """
    manifest = load_manifest(name)
    root.mkdir(parents=True, exist_ok=True)
    found = check(name, root)
    if found.whole:
        return found
    form, folder = target(manifest, root, found)
    wrong = [
        file
        for file in form.files
        if not manifest.optional(file.split) and check_file(folder, file).state != OK
    ]
    if not _to_be_had(form):
        raise BirdinvError(
            f"{name} is not given away by itself: put its files into {folder} by hand, then run "
            f"`birdinv data check {name} --root {root}`"
        )
    progress = progress or Progress("download", "MB")
    if form.archive is not None:
        _from_archive(folder, form.archive, wrong, progress)
    else:
        for file in wrong:
            download(folder, file, progress)
    done = check(name, root)
    if not done.whole:
        raise BirdinvError(done.sentence)
    return done


def target(manifest: Manifest, root: Path, found: Check) -> tuple[Form, Path]:
    """(form, folder) to complete: what is there in part, else the first form, in `root/name`.

    Only forms that can be fetched count, where there are any.
    """
    begun = any(finding.state == OK for finding in found.findings)
    forms = [form for form in manifest.forms if _to_be_had(form)] or list(manifest.forms)
    own = root if root.resolve().name == manifest.name else root / manifest.name
    return found.form if begun and found.form in forms else forms[0], found.folder if begun else own


def _to_be_had(form: Form) -> bool:
    sources = (form.archive,) if form.archive is not None else form.files
    return bool(sources) and all(file is not None and file.url for file in sources)


def by_hand(name: str, root: Path) -> Iterator[str]:
    """Lines that say which files to put where for a data set to be whole, and where they are from.

    Raises:
        BirdinvError: there is no such data set or folder.
    """
    manifest = load_manifest(name)
    found = check(name, root)
    form, folder = target(manifest, root, found)
    yield f"To get {name} by hand, put into {folder}:"
    if form.archive is not None:
        yield f"  {_described(form.archive)}"
        yield f"which `birdinv data prepare {name} --root {root}` then unpacks into:"
    for file in form.files:
        if check_file(folder, file).state != OK:
            optional = ", optional" if manifest.optional(file.split) else ""
            yield f"  {_described(file)}{optional}"
    if form.tree is not None:
        yield f"  {form.tree.count} files {form.tree.pattern}"
    for ids in form.ids:
        yield f"  {ids.folder}/ with the files of IDs {ids.first} to {ids.last}"
    yield ""
    for paragraph in manifest.instructions.splitlines():
        yield from textwrap.wrap(paragraph, 80)


def _described(file: File) -> str:
    facts = [f"{file.size} bytes"] if file.size is not None else []
    if file.sha256 or file.md5:
        facts.append(f"SHA-256 {file.sha256}" if file.sha256 else f"MD5 {file.md5}")
    facts += [f"from {file.url}"] if file.url else []
    return ", ".join([file.path, *facts])


def download(folder: Path, file: File, progress: Progress) -> None:
    """Fetches `file.url` to `folder/file.path`, going on from a `.part` that an earlier call left.

    Raises:
        BirdinvError: the network or the server does not give it, or what it gave is not the file.
    """
    if file.url is None or file.size is None:
        raise BirdinvError(f"{file.path} has no address and size; put it into {folder} by hand")
    path, part = folder / file.path, _part(folder, file)
    if size_of(part) > file.size:
        part.unlink()
    for _attempt in range(ATTEMPTS):
        before, reason = size_of(part), "it ended too early"
        try:
            _fetch(file.url, part, file.size, progress)
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
        except (URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if not before < size_of(part) < file.size:
            break  # all is there, or nothing more came
    if size_of(part) < file.size:
        raise BirdinvError(
            f"{file.url} could not be fetched ({reason}); {size_of(part)} of {file.size} bytes are "
            f"there: run again to go on, or put the file at {path} by hand"
        )
    _accept(part, folder, file, f"{file.url} gave")


def _fetch(url: str, part: Path, size: int, progress: Progress) -> None:
    """Appends what is missing of `size` bytes, or begins anew where the server has no ranges."""
    have = size_of(part)
    if have == size:
        return
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        part.unlink()  # the file there is shorter than what we have: not the same one
        _fetch(url, part, size, progress)
        return
    with answer:
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT or not goes_on:
            have = 0
        progress.update(0, total=size / 1e6, note=part.stem)
        with open(part, "ab" if have else "wb") as into:
            while have <= size and (block := answer.read(BLOCK)):  # one block too much at most
                into.write(block)
                have += len(block)
                progress.update(len(block) / 1e6)


def _accept(part: Path, folder: Path, file: File, source: str) -> None:
    """Moves `part` to where it belongs if it is what the manifest says, else removes it."""
    name = part.relative_to(folder).as_posix()
    found = check_file(folder, replace(file, path=name, payload_sha256=None))
    if found.state != OK:
        part.unlink()
        raise BirdinvError(
            f"{source} a {file.path} that is not as published ({found.state}); it was thrown away: "
            f"run again, or put the file at {folder / file.path} by hand"
        )
    os.replace(part, folder / file.path)


def _from_archive(folder: Path, archive: File, wanted: list[File], progress: Progress) -> None:
    """Unpacks the `wanted` files; an archive that was fetched for that is removed afterwards."""
    path = folder / archive.path
    fetched = check_file(folder, archive).state != OK
    if fetched:
        download(folder, archive, progress)
    unpack(path, folder, wanted)
    if fetched:
        path.unlink()


def _part(folder: Path, file: File) -> Path:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def unpack(archive: Path, folder: Path, wanted: list[File]) -> None:
    """Writes the `wanted` members of a .tar.gz, nothing else, into `folder`, each if it is right.

    Raises:
        BirdinvError: the archive is damaged, or lacks one, or one is not what it should be.
    """
    left = {file.path: file for file in wanted}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                file = left.get(member.name.removeprefix("./"))
                if file is None or not member.isreg():
                    continue
                source = members.extractfile(member)
                if source is None or file.size is None:
                    continue  # not found in the archive, as one that is not there
                # Where it goes is what the manifest says, so that no member leaves the folder.
                part = _part(folder, file)
                try:
                    with open(part, "wb") as into:
                        _copy(source, into, file.size)
                    _accept(part, folder, file, f"{archive} holds")
                finally:
                    part.unlink(missing_ok=True)  # a download would go on from it
                del left[file.path]
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BirdinvError(f"{archive} is damaged ({error}); remove it and run again") from error
    if left:
        raise BirdinvError(f"{archive} holds no {', '.join(left)}; remove it and run again")


def _copy(source: IO[bytes], into: IO[bytes], size: int) -> None:
    left = size + 1  # one more, so that a longer one is seen as wrong
    while left > 0 and (block := source.read(min(BLOCK, left))):
        into.write(block)
        left -= len(block)
