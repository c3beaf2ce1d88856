"""Who gets in: names, origins, tokens; and that names of files never lead out of their folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from websockets.datastructures import Headers

from kinosplat.commands.view import with_token
from kinosplat.errors import InputError
from kinosplat.viewer.address import free_port, page_address, ssh_line
from kinosplat.viewer.gate import Gate, Verdict
from kinosplat.viewer.storage import Storage

LOCAL = Gate("127.0.0.1", 8080)
OPEN = Gate("0.0.0.0", 8080)
GUARDED = Gate("0.0.0.0", 8080, token="secret")


def ask(gate: Gate, path: str = "/", **headers: str) -> Verdict | None:
    given = {"Host": "localhost:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return gate.decide(path, Headers(given))


def status(verdict: Verdict | None) -> int | None:
    return None if verdict is None else int(verdict.status)


def test_the_page_itself_gets_in_also_through_a_tunnel_on_another_port() -> None:
    assert ask(LOCAL) is None
    assert ask(LOCAL, Upgrade="websocket", Origin="http://localhost:8080") is None
    assert ask(LOCAL, Host="localhost:9000", Upgrade="websocket", Origin="http://localhost:9000") is None
    assert ask(LOCAL, Host="[::1]:8080") is None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:8081", "null", "https://localhost.evil.example"]
)
def test_a_page_of_another_origin_may_not_connect(origin: str) -> None:
    assert status(ask(LOCAL, Upgrade="websocket", Origin=origin)) == 403
    assert status(ask(GUARDED, "/?token=secret", Upgrade="WebSocket", Origin=origin)) == 403


def test_a_page_of_another_origin_may_not_fetch_but_a_link_on_it_works() -> None:
    assert status(ask(LOCAL, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")) == 403
    assert ask(LOCAL, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") is None


@pytest.mark.parametrize("host", ["evil.example:8080", "evil.example", "", "[bad", "127.0.0.1.evil.example:8080"])
def test_names_that_somebody_made_point_here_get_nothing(host: str) -> None:
    assert status(ask(LOCAL, Host=host)) == 403
    assert status(ask(OPEN, Host=host)) == 403


def test_a_server_open_to_the_network_answers_to_addresses_and_its_own_name() -> None:
    assert ask(OPEN, Host="192.168.1.7:8080") is None
    assert ask(OPEN, Host=f"{socket.gethostname()}:8080") is None
    assert status(ask(LOCAL, Host="192.168.1.7:8080")) == 403


def test_the_token_comes_in_by_the_address_and_stays_in_a_cookie() -> None:
    assert status(ask(GUARDED)) == 403
    assert status(ask(GUARDED, "/?token=wrong")) == 403
    verdict = ask(GUARDED, "/?token=secret&time=1.5")
    assert verdict is not None
    assert (status(verdict), verdict.location) == (303, "/?time=1.5")
    assert verdict.cookie == "kinosplat_8080=secret; Path=/; HttpOnly; SameSite=Strict"
    assert ask(GUARDED, Cookie="other=1; kinosplat_8080=secret") is None
    assert ask(GUARDED, Cookie="kinosplat_8080=secret", Upgrade="websocket", Origin="http://localhost:8080") is None
    assert status(ask(GUARDED, Cookie="kinosplat_8080=wrong", Upgrade="websocket")) == 403


def test_the_way_on_never_leads_to_another_host() -> None:
    verdict = ask(GUARDED, "//evil.example/?token=secret")
    assert verdict is not None
    assert verdict.location is not None
    assert verdict.location.startswith("/")
    assert not verdict.location.startswith("//")


def test_share_token_without_a_value_draws_one() -> None:
    first = with_token(["run", "--share-token", "--port", "1"])
    second = with_token(["run", "--share-token"])
    assert first[1].startswith("--share-token=")
    assert len(first[1]) > 25
    assert first[1] != second[1]
    assert with_token(["--share-token", "abc"]) == ["--share-token", "abc"]
    with pytest.raises(InputError, match="--share-token must be letters, digits, - and _; leave the value out"):
        with_token(["--share-token=a b"])


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port
    with pytest.raises(InputError, match=r"--port must be from 0 to 65535, got 70000\."):
        free_port("127.0.0.1", 70000)
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1 is no address of this machine; use localhost"):
        free_port("192.0.2.1", 8080)


def test_addresses_work_from_where_the_user_sits() -> None:
    assert page_address("127.0.0.1", 8080, None) == "http://localhost:8080/"
    assert page_address("10.0.0.3", 81, "abc") == "http://10.0.0.3:81/?token=abc"
    assert ssh_line(8080, {}) is None
    line = ssh_line(8080, {"SSH_CONNECTION": "10.0.0.9 50000 10.0.0.3 2222"})
    assert line is not None
    assert line.startswith("ssh -p 2222 -L 8080:localhost:8080 ")
    assert line.endswith("@10.0.0.3")


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a..b", "x\0", "~root", "a" * 90]
)
def test_names_that_could_mean_another_place_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name for a file; use letters, digits, spaces, dots, - and _"):
        Storage(tmp_path, ".json").path(name)


def test_a_link_in_the_folder_does_not_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "paths"
    folder.mkdir()
    (folder / "out.json").symlink_to(tmp_path / "elsewhere.json")
    (folder / "fine.json").write_text("{}")
    storage = Storage(folder, ".json")
    with pytest.raises(InputError, match="leads out of"):
        storage.path("out")
    assert storage.path("fine.json") == folder / "fine.json"
    assert storage.names() == ["fine"]
