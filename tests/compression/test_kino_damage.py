"""Damaged and hostile .kino files end in one clear sentence, quickly and in little memory, never in a crash or in
wrong numbers.
"""

from __future__ import annotations

import json
import random
import re
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from compression.gaussian_sets import random_gaussians, sorted_rows
from compression.make_golden import FOLDER
from kinosplat.compression.kino import HttpSource, KinoReader, Limits, Metadata, StreamDecoder, encode_kino, read_kino
from kinosplat.compression.kino.layout import PRELUDE, RECORD, decoded_bytes
from kinosplat.errors import InputError

N_BLIND = 3000
N_RESEALED = 1500


def reseal(data: bytes) -> bytes:
    """Correct every checksum that can still be found, so that a mutation reaches the code behind it."""
    out = bytearray(data)
    if len(out) < PRELUDE.size:
        return bytes(out)
    header_bytes, index_offset = struct.unpack_from("<IQ", out, 12)
    if header_bytes > len(out) or index_offset > len(out):
        return bytes(out)
    for position in range(index_offset, len(out) - RECORD.size + 1, RECORD.size):
        offset, n_bytes = struct.unpack_from("<QI", out, position)
        if offset + RECORD.size + n_bytes <= len(out):
            out[offset : offset + 28] = out[position : position + 28]
            payload = out[offset + RECORD.size : offset + RECORD.size + n_bytes]
            crc = struct.pack("<I", zlib.crc32(payload, zlib.crc32(out[offset : offset + 28])))
            out[position + 28 : position + 32] = out[offset + 28 : offset + 32] = crc
    crcs = zlib.crc32(out[48 : 48 + header_bytes]), zlib.crc32(out[index_offset:])
    struct.pack_into("<II", out, 32, *crcs)
    struct.pack_into("<I", out, 44, zlib.crc32(out[:44]))
    return bytes(out)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, overwrite, insert or repeat something."""
    out = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(out[: rng.randrange(len(out))])
    if kind == 1:
        for _ in range(rng.randint(1, 8)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    at = rng.randrange(len(out) - 8)
    if kind == 2:
        out[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)]))
    elif kind == 3:
        out[at:at] = rng.randbytes(rng.randint(1, 16))
    elif kind == 4:
        out[at : at + rng.randint(1, 64)] = b""
    else:
        source = rng.randrange(len(out) - 8)
        out[at : at + 32] = out[source : source + 32]
    return bytes(out)


def header_of(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[48 : 48 + length])


def with_header(data: bytes, change: dict[str, Any]) -> bytes:
    """The file with another header; offsets are moved and checksums made right."""
    (old,) = struct.unpack_from("<I", data, 12)
    text = json.dumps({**header_of(data), **change}).encode()
    shift = len(text) - old
    out = bytearray(data[:48] + text + data[48 + old :])
    index_offset, file_bytes = struct.unpack_from("<QQ", data, 16)
    struct.pack_into("<I", out, 12, len(text))
    struct.pack_into("<QQ", out, 16, index_offset + shift, file_bytes + shift)
    for position in range(index_offset + shift, len(out), RECORD.size):
        (offset,) = struct.unpack_from("<Q", out, position)
        struct.pack_into("<Q", out, position, offset + shift)
    return reseal(bytes(out))


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [path.read_bytes() for path in sorted(FOLDER.glob("*.kino"))]


def test_every_blind_mutation_is_noticed(files: list[bytes]) -> None:
    rng = random.Random(0)
    for i in range(N_BLIND):
        original = files[i % len(files)]
        mutant = mutate(original, rng)
        if mutant == original:
            continue
        start = time.perf_counter()
        with pytest.raises(InputError):
            read_kino(mutant)
        assert time.perf_counter() - start < 1.0


def test_mutations_with_correct_checksums_never_crash(files: list[bytes]) -> None:
    rng = random.Random(1)
    n_read = 0
    for i in range(N_RESEALED):
        mutant = reseal(mutate(files[i % len(files)], rng))
        start = time.perf_counter()
        n_read += is_harmless(mutant)
        assert time.perf_counter() - start < 1.0
    assert n_read > 0


def test_a_stream_of_mutations_never_crashes(files: list[bytes]) -> None:
    rng = random.Random(2)
    for i in range(400):
        mutant = reseal(mutate(files[i % len(files)], rng))
        decoder, began = StreamDecoder(), time.perf_counter()
        try:
            for start in range(0, len(mutant), 997):
                decoder.feed(mutant[start : start + 997])
        except InputError:
            continue
        finally:
            assert time.perf_counter() - began < 1.0


def test_header_fields_of_every_wrong_kind_are_refused_or_harmless(files: list[bytes]) -> None:
    values = [None, -1, 2**40, 1.5, "x", [], {}, [[]], True, 2**70]
    for data in files:
        header = header_of(data)
        for key in header:
            for value in values:
                is_harmless(with_header(data, {key: value}))
        for table in ("attributes", "tensors"):
            for entry in header[table][:3]:
                for key in entry:
                    for value in values:
                        changed = [{**e, key: value} if e is entry else e for e in header[table]]
                        is_harmless(with_header(data, {table: changed}))


def is_harmless(data: bytes) -> bool:
    """Whether the file can still be read; anything but InputError goes through and fails the test."""
    try:
        read_kino(data)
    except InputError:
        return False
    return True


def test_memory_stays_below_twice_what_the_header_declares(files: list[bytes]) -> None:
    rng = random.Random(3)
    # The interpreter's own (parsed JSON, frames), and what is decoded once more in float64: measured 0.20 MB, for the
    # mask of the field.
    slack = 0.3e6
    excesses = []
    for i in range(200):
        mutant = reseal(mutate(files[i % len(files)], rng))
        tracemalloc.start()
        declared = 0
        try:
            reader = KinoReader(mutant)
            declared = decoded_bytes(reader.header)
            reader.tensors()
            reader.gaussians()
        except InputError:
            pass
        excesses.append(tracemalloc.get_traced_memory()[1] - 2 * declared)
        tracemalloc.stop()
    assert max(excesses) <= slack
    assert max(excesses) > slack / 4  # or the bound says nothing


def test_a_large_file_is_read_within_twice_its_declared_memory() -> None:
    data = encode_kino(random_gaussians(20_000, sh_degree=2, moving=False), chunk_gaussians=(1000, 2048))
    tracemalloc.start()
    reader = KinoReader(data)
    reader.gaussians()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * decoded_bytes(reader.header)  # measured 1.44 times


def test_bombs_are_refused_before_they_are_unpacked(files: list[bytes]) -> None:
    data = files[1]
    with pytest.raises(InputError, match="has 67108865 Gaussians, above the limit of 67108864"):
        read_kino(with_header(data, {"n_gaussians": 2**26 + 1}))
    with pytest.raises(InputError, match="index that does not add up to the Gaussians of its header"):
        read_kino(with_header(data, {"n_gaussians": 2**20}))
    tensor = {"name": "t", "dtype": "float32", "shape": [2**20, 2**9], "offset": 0, "bytes": 100, "crc32": 0}
    with pytest.raises(InputError, match="has a tensor `t` that claims more than its bytes can hold"):
        read_kino(with_header(data, {"tensors": [*header_of(data)["tensors"], tensor]}))
    deep = b"[" * 100_000
    out = bytearray(data[:48] + deep)
    struct.pack_into("<I", out, 12, len(deep))
    struct.pack_into("<QQ", out, 16, len(out), len(out))
    with pytest.raises(InputError, match="has a header that cannot be used"):
        read_kino(reseal(bytes(out)))
    with pytest.raises(InputError, match="bytes once decoded, above the limit of 100"):
        read_kino(data, Limits(decoded_bytes=100))


def test_common_accidents_have_their_own_sentences(tmp_path: Path, files: list[bytes]) -> None:
    path = tmp_path / "scene.kino"
    messages = {
        b"": f"{path} is not a .kino file; give one that `kinosplat compress` wrote.",
        b"ply\nformat": f"{path} is not a .kino file; give one that `kinosplat compress` wrote.",
        files[1][:20]: f"{path} ends inside its first 48 bytes; copy or download it again.",
        files[1][:-1]: f"{path} is cut off; it should have {len(files[1])} bytes; copy or download it again.",
    }
    for content, message in messages.items():
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_kino(path)
        assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        read_kino(tmp_path / "nowhere.kino")
    assert (
        str(caught.value) == f"{tmp_path / 'nowhere.kino'} cannot be read (No such file or directory); check the path."
    )
    newer = bytearray(files[1])
    struct.pack_into("<I", newer, 8, 3)
    path.write_bytes(reseal(bytes(newer)))
    with pytest.raises(InputError) as caught:
        read_kino(path)
    message = f"{path} has .kino version 3 and this kinosplat reads versions 1 and 2; install a newer one."
    assert str(caught.value) == message


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """A local web server with ranges: its address, and what it serves (`data`) and was asked for (`ranges`)."""
    state: dict[str, Any] = {"data": b"", "ranges": [], "honours": True, "answers": True}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not state["answers"]:
                return
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            state["ranges"].append((first, last))
            body = state["data"][first : last + 1] if state["honours"] else state["data"]
            self.send_response(206 if state["honours"] else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/scene.kino", state
    server.shutdown()
    server.server_close()


def test_the_python_of_the_format_page_runs(
    served: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, state = served
    state["data"] = encode_kino(random_gaussians(500), metadata=Metadata(duration=2.0), chunk_gaussians=(20, 50))
    (tmp_path / "scene.kino").write_bytes(state["data"])
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "HttpSource" in block)
    found: dict[str, Any] = {}
    exec(code.replace("https://example.org/scene.kino", url), found)
    assert len(found["scene"].gaussians) == 500
    assert not found["moment"].is_moving
    assert 0 < len(found["moment"]) < 500
    assert found["shown_until"] == float("inf")


def test_a_moment_is_fetched_by_ranges(served: tuple[str, dict[str, Any]]) -> None:
    url, state = served
    gaussians = random_gaussians(3000, sh_degree=0)
    state["data"] = encode_kino(gaussians, chunk_gaussians=(100, 200))
    reader = KinoReader(HttpSource(url))
    assert len(state["ranges"]) == 3  # prelude, header, index
    chunk = reader.chunks[-1]
    part = reader.chunk(chunk)
    assert state["ranges"][-1] == (chunk.offset, chunk.end - 1)
    assert len(part) == chunk.n_gaussians
    assert torch.equal(sorted_rows(reader.gaussians()), sorted_rows(gaussians))
    state["answers"] = False
    with pytest.raises(InputError, match=r"cannot be read \(Remote end closed .*\); check the address"):
        reader.chunk(chunk)
    state["answers"], state["honours"] = True, False
    with pytest.raises(InputError, match="is served without byte ranges; download the file first"):
        reader.chunk(chunk)
