"""The registry of known scenes, and downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kinosplat.errors import InputError
from kinosplat.scenes import load_scene
from kinosplat.scenes.download import download_file
from kinosplat.scenes.load import FORMATS
from kinosplat.scenes.registry import (
    RegisteredScene,
    download_folder,
    download_scene,
    registered_scene,
    registered_scenes,
)
from kinosplat.scenes.unpack import unpack_folder
from scenes.builders import write_nerfstudio


class Server:
    """Serves `files` with ranges and validators; breaks off after `break_after` bytes of an answer when told to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: int | None = None
        self.knows_ranges = True
        self.ranges_asked: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        asked = request.headers.get("Range")
        self.ranges_asked.append(asked)
        content = self.files.get(request.path)
        if content is None:
            request.send_error(404)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = 0
        if asked and self.knows_ranges and request.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("ETag", etag)
        request.end_headers()
        request.wfile.write(content[start:][: self.break_after])
        self.break_after = None

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of its own for each test, reached without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def zipped(folder: Path, prefix: str) -> bytes:
    """A zip archive of a folder, below a prefix."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{prefix}/{path.relative_to(folder)}")
    return buffer.getvalue()


def entry(server: Server, content: bytes, **changes: object) -> RegisteredScene:
    """A registry entry for an archive on the server."""
    server.files["/scenes.zip"] = content
    made = RegisteredScene(
        name="toy",
        title="A toy",
        format="transforms",
        moving=False,
        licence="CC0 1.0",
        home="https://example.org",
        url=f"{server.address}/scenes.zip",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        folder="toy",
        shipped=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def message(action: Callable[[], object]) -> str:
    """The message with which something is refused."""
    with pytest.raises(InputError) as error:
        action()
    return str(error.value)


def test_every_entry_of_the_registry_is_complete() -> None:
    entries = registered_scenes()
    names = [entry.name for entry in entries]
    assert {"tabletop", "dtu_scan24", "panoptic_basketball", "fox"} <= set(names)
    assert len(set(names)) == len(names)
    formats = {reader.__name__.rsplit(".", 1)[1] for reader in FORMATS}
    for known in entries:
        assert known.format in formats
        assert known.url is None or known.url.startswith("https://")
        assert known.licence
        assert known.home


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    fields = dict.fromkeys(RegisteredScene.__dataclass_fields__)
    path.write_text(json.dumps({"version": 1, "scenes": [fields | {"name": "a"}, fields | {"name": "b"}]}))
    assert registered_scene("b", path).name == "b"
    assert message(lambda: registered_scene("c", path)) == (
        "There is no scene 'c' in the registry; choose one of a, b."
    )
    path.write_text(json.dumps({"version": 1, "scenes": [{"name": "a"}]}))
    assert message(lambda: registered_scenes(path)) == f"{path} scenes[0] has no field 'title'; add it."


def test_a_scene_is_downloaded_unpacked_and_found_by_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINOSPLAT_DATA", str(tmp_path / "data"))
    content = zipped(write_nerfstudio(tmp_path / "made"), "release/toy")
    toy = entry(server, content)
    assert toy.installed_at is None
    progress: list[tuple[int, int | None]] = []
    path, checksum = download_scene(toy, download_folder(), report=lambda *done: progress.append(done))
    assert checksum == hashlib.sha256(content).hexdigest()
    assert path == toy.installed_at == tmp_path / "data" / "toy"
    assert progress[-1] == (len(content), len(content))
    assert len(load_scene("toy").views) == 4
    assert not list((tmp_path / "data" / ".downloads").iterdir())
    assert download_scene(toy, download_folder()) == (path, None)
    assert len(server.ranges_asked) == 1


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    server.files["/a.bin"] = content
    url, path = f"{server.address}/a.bin", tmp_path / "a.bin"
    server.break_after = 300_000
    assert message(lambda: download_file(url, path, sha256=None, size=None)) == (
        f"{url} broke off after 300000 of 1280000 bytes; try again to go on where it stopped."
    )
    assert not path.exists()
    checksum = hashlib.sha256(content).hexdigest()
    assert download_file(url, path, sha256=checksum, size=len(content)) == checksum
    assert server.ranges_asked == [None, "bytes=300000-"]
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_server_without_ranges_or_with_another_file_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    url, path = f"{server.address}/a.bin", tmp_path / "a.bin"
    for change in ("ranges", "file"):
        path.unlink(missing_ok=True)
        server.files["/a.bin"] = b"old" * 1000
        server.break_after = 500
        message(lambda: download_file(url, path, sha256=None, size=None))
        if change == "file":
            server.files["/a.bin"] = b"new" * 1000
        server.knows_ranges = change != "ranges"
        download_file(url, path, sha256=None, size=None)
        assert path.read_bytes() == server.files["/a.bin"]


def test_a_download_that_was_whole_but_never_renamed_is_finished(server: Server, tmp_path: Path) -> None:
    url, path = f"{server.address}/a.bin", tmp_path / "a.bin"
    server.files["/a.bin"] = b"abc" * 1000
    download_file(url, path, sha256=None, size=None)
    path.rename(tmp_path / "a.bin.part")
    etag = f'"{hashlib.sha256(b"abc" * 1000).hexdigest()[:8]}"'
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"validator": etag}))
    download_file(url, path, sha256=None, size=None)
    assert path.read_bytes() == b"abc" * 1000
    assert server.ranges_asked == [None, "bytes=3000-"]


def test_a_wrong_checksum_deletes_the_file(server: Server, tmp_path: Path) -> None:
    url, path = f"{server.address}/a.bin", tmp_path / "a.bin"
    server.files["/a.bin"] = b"abc"
    assert message(lambda: download_file(url, path, sha256="0" * 64, size=3)) == (
        f"{url} has the checksum ba7816bf8f01cfea... instead of 0000000000000000...; it was deleted, "
        "try again or report a changed file."
    )
    assert not path.exists()
    assert not path.with_name("a.bin.part").exists()


def test_a_wrong_size_and_a_missing_file_are_told(server: Server, tmp_path: Path) -> None:
    url = f"{server.address}/a.bin"
    server.files["/a.bin"] = b"abc"
    assert message(lambda: download_file(url, tmp_path / "a", sha256=None, size=4)) == (
        f"{url} is 3 bytes long instead of 4; report a changed file."
    )
    assert message(lambda: download_file(f"{url}x", tmp_path / "b", sha256=None, size=None)) == (
        f"{url}x answered 404 Not Found; check the address, or try again later."
    )
    assert message(lambda: download_file("file:///etc/hosts", tmp_path / "c", sha256=None, size=None)) == (
        "file:///etc/hosts is not an http or https address; correct the registry."
    )


def test_what_cannot_be_verified_has_to_be_allowed(server: Server, tmp_path: Path) -> None:
    content = zipped(write_nerfstudio(tmp_path / "made"), "toy")
    toy = entry(server, content, sha256=None, size=None)
    assert message(lambda: download_scene(toy, tmp_path / "data")) == (
        "toy cannot be verified, since its publisher gives no checksum; "
        "repeat with --allow-unverified if you trust the source."
    )
    path, checksum = download_scene(toy, tmp_path / "data", allow_unverified=True)
    assert path.is_dir()
    assert checksum == hashlib.sha256(content).hexdigest()


def test_scenes_without_an_archive_say_where_they_are(server: Server, tmp_path: Path) -> None:
    toy = entry(server, b"", url=None)
    assert message(lambda: download_scene(toy, tmp_path)) == (
        f"toy has no archive to download; get it from https://example.org and put it into {tmp_path}/toy."
    )


def test_the_folder_for_downloads_has_to_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINOSPLAT_DATA", raising=False)
    assert message(download_folder) == (
        "KINOSPLAT_DATA is not set; set it to the folder where scenes are kept, or name a folder."
    )


def hostile_zip(path: Path, *names: str) -> Path:
    """A zip archive with members of these names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return path


@pytest.mark.parametrize("name", ["toy/../../evil.txt", "toy/C:/evil.txt", "toy\\..\\..\\evil.txt"])
def test_members_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = hostile_zip(tmp_path / "a.zip", "toy/fine.txt", name)
    text = message(lambda: unpack_folder(archive, "toy", tmp_path / "toy"))
    shown = name.replace("\\", "/")
    assert text == (
        f"{archive} is refused because its member {shown} leads out of the folder; "
        "delete it and do not trust its source."
    )
    assert list(tmp_path.iterdir()) == [archive]


def test_links_are_refused_and_other_folders_do_not_matter(tmp_path: Path) -> None:
    def tar_with_link(name: str) -> Path:
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("toy/fine.txt")
            info.size = 2
            archive.addfile(info, io.BytesIO(b"hi"))
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        return path

    archive = tar_with_link("toy/link")
    assert message(lambda: unpack_folder(archive, "toy", tmp_path / "toy")) == (
        f"{archive} is refused because its member toy/link is a link or a device; "
        "delete it and do not trust its source."
    )
    unpack_folder(tar_with_link("elsewhere/link"), "toy", tmp_path / "toy")
    assert [p.name for p in (tmp_path / "toy").iterdir()] == ["fine.txt"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    archive = hostile_zip(tmp_path / "a.zip", "toy/a", "toy/b", "toy/c")
    for limits in ({"max_bytes": 250}, {"max_files": 2}):
        text = message(lambda limits=limits: unpack_folder(archive, "toy", tmp_path / "toy", **limits))
        assert text.startswith(f"{archive} unpacks to more than ")
    assert list(tmp_path.iterdir()) == [archive]


def test_damaged_archives_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"hello")
    text = message(lambda: unpack_folder(archive, "toy", tmp_path / "toy"))
    assert text.startswith(f"{archive} is damaged or of an unknown kind (")
    hostile_zip(archive, "other/a")
    assert message(lambda: unpack_folder(archive, "toy", tmp_path / "toy")) == (
        f"{archive} has no folder toy; the archive has changed, report it."
    )


def test_contents_that_do_not_match_their_checksum_leave_nothing(tmp_path: Path) -> None:
    archive = hostile_zip(tmp_path / "a.zip", "toy/a")
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"x" * 100, b"y" * 100, 1))
    assert message(lambda: unpack_folder(archive, "toy", tmp_path / "toy")).startswith(f"{archive} is damaged")
    assert list(tmp_path.iterdir()) == [archive]
