"""The files of `deploy/` and the page about them agree with the Hub's own numbers, ports and settings."""

import re
import tomllib
from pathlib import Path

import pytest

from hub import serve
from hub.addresses import dialled_names
from hub.config import HubConfig
from tunnel.gate import DEFAULT_LIMITS
from tunnel.handshake import host_matches
from tunnel.liveness import PING_JITTER, LivenessTimes

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "proxy.md").read_text()
FILES = {name: (ROOT / "deploy" / name).read_text() for name in ("nginx.conf", "Caddyfile")}
CONFIG = HubConfig(data_dir=Path("/data"))
TIMES = LivenessTimes.for_heartbeat(DEFAULT_LIMITS.heartbeat_s)


@pytest.fixture(params=sorted(FILES))
def text(request: pytest.FixtureRequest) -> str:
    return FILES[request.param]


def test_the_ports_are_the_hubs_own(text: str) -> None:
    assert f"{CONFIG.host}:{CONFIG.port}" in text
    assert f"{CONFIG.tunnel_host}:{CONFIG.tunnel_port}" in text


def test_the_settings_on_the_page_fit_the_files(text: str) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = HubConfig(data_dir=Path("/data"), **tomllib.loads(block))
    assert config.public_url == "https://hub.example.org"
    [tunnel_url] = config.tunnel_urls
    path = tunnel_url.removeprefix("wss://hub.example.org")
    assert re.search(rf"(location = |handle ){path} {{", text)
    names = dialled_names(config.tunnel_host, config.tunnel_port, config.tunnel_urls, config.public_url)
    assert host_matches("hub.example.org", names)


def test_no_timeout_is_shorter_than_what_the_hub_may_take(text: str) -> None:
    answers, tunnel = sorted((int(each) for each in re.findall(r"read_timeout (\d+)s", text)), reverse=True)
    assert answers > CONFIG.request_deadline_s
    assert tunnel > TIMES.silence_s
    [kept] = re.findall(r"keepalive(?:_timeout)? (\d+)s", text)
    assert int(kept) < serve.KEEP_ALIVE_S
    for number in (answers, tunnel, kept):
        assert f"{number}s`" in PAGE


def test_the_numbers_beside_them_are_the_hubs(text: str) -> None:
    assert f"speaks every {TIMES.ping_s:g} s, and ends what is dead after {TIMES.silence_s:g}" in text
    assert f"less than the hub's {serve.KEEP_ALIVE_S}" in text.lower()
    assert "more than the hub's request_deadline_s" in text.lower()


def test_the_numbers_on_the_pages_are_the_hubs() -> None:
    page = " ".join(PAGE.split())
    assert f"longer than `request_deadline_s`, {CONFIG.request_deadline_s:g} s" in page
    assert f"longer than the {TIMES.silence_s:g} s after which" in page
    assert f"before the Hub does after {serve.KEEP_ALIVE_S} s" in page
    node = " ".join((ROOT / "docs" / "node.md").read_text().split())
    assert f"at least every {TIMES.ping_s * (1 + PING_JITTER):g} seconds" in node


def test_each_name_that_the_table_gives_to_a_file_is_in_it() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    [header] = [number for number, row in enumerate(rows) if row == ["need", "nginx", "Caddy"]]
    for _, nginx, caddy in rows[header + 2 :]:
        for named, file in ((nginx, "nginx.conf"), (caddy, "Caddyfile")):
            for words in re.findall(r"`([^`]+)`", named):
                assert words in FILES[file] or words == "encode", (words, file)
    assert "encode" not in FILES["Caddyfile"]
    assert re.search(r"^\s*flush_interval", FILES["Caddyfile"], re.MULTILINE) is None
