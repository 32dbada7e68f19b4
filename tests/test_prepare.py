"""Downloads from a server on this machine: whole, cut short, gone on with, wrong; and unpacking."""

import contextlib
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from birdinv.data import checks, prepare
from birdinv.data.manifests import File, Manifest, parse_manifest
from birdinv.errors import BirdinvError
from birdinv.progress import Progress

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Gives `content` by path; `ranges` or not; cuts the first `cuts` answers short."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.ranges, self.cuts, self.cut_at = True, 0, 300_000
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        asked = self.headers.get("Range")
        server.asked.append(asked)
        content = server.content.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.cuts > 0:
            server.cuts -= 1
            body = body[: server.cut_at]
        with contextlib.suppress(ConnectionError):  # the client may have enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def described(path: str, content: bytes, url: str | None = None) -> str:
    proof = f'size = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}"'
    return f'{{ path = "{path}", {proof}' + (f', url = "{url}"' if url else "") + " }"


def manifest(files: list[str], archive: str | None = None) -> Manifest:
    packed = f"archive = {archive}" if archive else ""
    return parse_manifest(
        f"""
name = "small"
kind = "recordings"
description = "a test"
homepage = "http://127.0.0.1/"
licence = "none"
classes = ["a"]
instructions = "Ask for it."
[[forms]]
name = "files"
description = "some files"
format = "recordings"
files = [{", ".join(files)}]
{packed}
"""
    )


def know(monkeypatch: pytest.MonkeyPatch, known: Manifest) -> None:
    monkeypatch.setattr(checks, "load_manifest", lambda name: known)
    monkeypatch.setattr(prepare, "load_manifest", lambda name: known)


@pytest.fixture
def one(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A data set of one file in a folder, on the server."""
    server.content["x.bin"] = CONTENT
    know(monkeypatch, manifest([described("sub/x.bin", CONTENT, f"{server.url}/x.bin")]))
    return server


def left(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_download_makes_it_whole(one: Server, tmp_path: Path) -> None:
    found = prepare.prepare("small", tmp_path / "new")
    assert found.whole and found.folder == tmp_path / "new/small"
    assert (tmp_path / "new/small/sub/x.bin").read_bytes() == CONTENT
    assert left(tmp_path) == {"new/small/sub/x.bin"} and one.asked == [None]
    assert prepare.prepare("small", tmp_path / "new").whole
    assert one.asked == [None]  # what is whole is not asked for again
    (tmp_path / "new/small/sub/x.bin").write_bytes(b"spoilt")
    assert prepare.prepare("small", tmp_path / "new").whole and one.asked == [None, None]


def test_the_folder_of_the_data_set_may_be_the_root(one: Server, tmp_path: Path) -> None:
    assert prepare.prepare("small", tmp_path / "small").folder == tmp_path / "small"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_cut_short_goes_on(one: Server, tmp_path: Path, ranges: bool) -> None:
    part = tmp_path / "small/sub/x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    one.ranges = ranges
    assert prepare.prepare("small", tmp_path).whole
    assert one.asked == ["bytes=1000-"] and left(tmp_path) == {"small/sub/x.bin"}


def test_a_connection_that_breaks_is_taken_up_again(one: Server, tmp_path: Path) -> None:
    one.cuts = 2
    assert prepare.prepare("small", tmp_path).whole
    assert one.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_what_came_is_kept_for_the_next_call(one: Server, tmp_path: Path) -> None:
    one.cuts, one.cut_at = 3, 100_000
    with pytest.raises(BirdinvError, match="300000 of 1048576 bytes are there: run again to go on"):
        prepare.prepare("small", tmp_path)
    assert left(tmp_path) == {"small/sub/x.bin.part"}
    assert prepare.prepare("small", tmp_path).whole
    assert one.asked[-1] == "bytes=300000-"


def test_ctrl_c_keeps_what_came(
    one: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(Progress):
        def update(self, amount: float, **more: object) -> None:
            if amount:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare("small", tmp_path, progress=Impatient("download", "MB"))
    assert left(tmp_path) == {"small/sub/x.bin.part"}
    assert prepare.prepare("small", tmp_path).whole
    asked = one.asked[-1]
    assert asked is not None and asked.startswith("bytes=")


@pytest.mark.parametrize("other", [CONTENT[:-1] + b"!", CONTENT + b"!" * 2_000_000])
def test_something_else_is_thrown_away(one: Server, tmp_path: Path, other: bytes) -> None:
    one.content["x.bin"] = other
    with pytest.raises(BirdinvError, match=r"a sub/x\.bin that is not as published \(wrong"):
        prepare.prepare("small", tmp_path)
    assert left(tmp_path) == set()


def test_a_server_that_does_not_stop_is_left(one: Server, tmp_path: Path) -> None:
    class Counting(Progress):
        megabytes = 0.0

        def update(self, amount: float, **more: object) -> None:
            self.megabytes += amount

    one.content["x.bin"] = bytes(20_000_000)
    progress = Counting("download", "MB")
    with pytest.raises(BirdinvError, match="wrong size"):
        prepare.prepare("small", tmp_path, progress=progress)
    assert progress.megabytes < 1.5


def test_a_part_that_is_too_long_or_not_of_this_file(one: Server, tmp_path: Path) -> None:
    part = tmp_path / "small/sub/x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"!")
    assert prepare.prepare("small", tmp_path).whole and one.asked == [None]
    (tmp_path / "small/sub/x.bin").unlink()
    part.write_bytes(b"?" * 1000)
    with pytest.raises(BirdinvError, match="wrong checksum"):
        prepare.prepare("small", tmp_path)
    assert prepare.prepare("small", tmp_path).whole
    part.write_bytes(b"?" * 2000)
    (tmp_path / "small/sub/x.bin").unlink()
    one.content["x.bin"] = CONTENT[:1500]  # the server answers 416, then gives what it has
    with pytest.raises(BirdinvError, match="1500 of 1048576 bytes"):
        prepare.prepare("small", tmp_path)


def test_a_part_that_is_all_there_is_not_asked_for(one: Server, tmp_path: Path) -> None:
    part = tmp_path / "small/sub/x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert prepare.prepare("small", tmp_path).whole and one.asked == []


def test_a_server_that_does_not_give_it_is_named(one: Server, tmp_path: Path) -> None:
    one.content.clear()
    with pytest.raises(BirdinvError, match=r"x\.bin could not be fetched \(HTTP 404") as error:
        prepare.prepare("small", tmp_path)
    assert str(tmp_path / "small/sub/x.bin") in str(error.value) and len(one.asked) == 1


def test_no_network_is_a_sentence_and_a_list_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_address[1]  # nobody listens there any more
    url = f"http://127.0.0.1:{port}/x.bin"
    know(monkeypatch, manifest([described("x.bin", CONTENT, url)]))
    with pytest.raises(BirdinvError, match=r"could not be fetched .*refused"):
        prepare.prepare("small", tmp_path)
    lines = "\n".join(prepare.by_hand("small", tmp_path))
    assert f"put into {tmp_path / 'small'}:" in lines and "Ask for it." in lines
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert f"x.bin, 1048576 bytes, SHA-256 {digest}, from {url}" in lines


def test_what_nobody_gives_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, manifest([described("x.bin", CONTENT)]))
    with pytest.raises(BirdinvError, match="not given away by itself: put its files into"):
        prepare.prepare("small", tmp_path)


def test_optional_files_are_not_fetched() -> None:
    from birdinv.data.manifests import load_manifest

    svhn = load_manifest("svhn")
    assert [svhn.optional(file.split) for file in svhn.forms[0].files] == [False, False, True]


# ---------------------------------------------------------------- archives


def packed(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return buffer.getvalue()


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    server.content["all.tar.gz"] = archive
    files = [described("sub/a.bin", b"aaa"), described("sub/b.bin", CONTENT)]
    source = described("all.tar.gz", archive, f"{server.url}/all.tar.gz")
    know(monkeypatch, manifest(files, source))


GOOD = {"sub/a.bin": b"aaa", "./sub/b.bin": CONTENT}


def test_only_the_listed_members_are_unpacked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"../evil.bin": b"x", "/tmp/evil.bin": b"x", "sub/readme.html": b"x", "sub/../c": b"x"}
    serve(server, monkeypatch, packed({**others, **GOOD}))
    root = tmp_path / "root"
    assert prepare.prepare("small", root).whole
    assert left(tmp_path) == {"root/small/sub/a.bin", "root/small/sub/b.bin"}
    (root / "small/sub/a.bin").unlink()  # mended from the archive, which is fetched again
    assert prepare.prepare("small", root).whole and len(server.asked) == 2


def test_an_archive_put_there_by_hand_is_unpacked_and_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(GOOD)
    serve(server, monkeypatch, archive)
    lines = "\n".join(prepare.by_hand("small", tmp_path))
    assert "all.tar.gz, " in lines and "then unpacks into" in lines
    (tmp_path / "small").mkdir()
    (tmp_path / "small/all.tar.gz").write_bytes(archive)
    assert prepare.prepare("small", tmp_path).whole and server.asked == []
    assert (tmp_path / "small/all.tar.gz").is_file()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (
            packed({**GOOD, "sub/a.bin": b"aab"}),
            r"sub/a\.bin that is not as published \(wrong chec",
        ),
        (packed({**GOOD, "sub/a.bin": b"aaaa"}), r"sub/a\.bin that is not as published \(wrong si"),
        (packed({"sub/a.bin": b"aaa"}), r"holds no sub/b\.bin"),
        (packed({"./sub/b.bin": CONTENT}, link="sub/a.bin"), r"holds no sub/a\.bin"),
        (packed(GOOD)[:2000], "is damaged"),
        (b"no archive", "is damaged"),
    ],
)
def test_an_archive_that_is_wrong_inside_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes, said: str
) -> None:
    serve(server, monkeypatch, archive)
    with pytest.raises(BirdinvError, match=said):
        prepare.prepare("small", tmp_path)
    assert not [name for name in left(tmp_path) if name.endswith(".part")]
    if (tmp_path / "small/sub/a.bin").exists():
        assert (tmp_path / "small/sub/a.bin").read_bytes() == b"aaa"


def test_a_file_in_the_way_is_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    """A member is written where the manifest says, whatever the archive calls it."""
    archive = tmp_path / "all.tar.gz"
    archive.write_bytes(packed({"a.bin": b"aaa"}))
    proof = hashlib.sha256(b"aaa").hexdigest()
    prepare.unpack(archive, tmp_path / "to", [File("a.bin", 3, proof)])
    assert left(tmp_path) == {"all.tar.gz", "to/a.bin"}
