"""What is listened on, as others are told of it."""

import pytest

from hub.addresses import Addresses, dialled_names, local, outside


@pytest.mark.parametrize(
    ("host", "here", "there"),
    [
        ("127.0.0.1", "127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0", "127.0.0.1:1", "hub.example:1"),
        ("::", "[::1]:1", "hub.example:1"),
        ("fd00::5", "[fd00::5]:1", "[fd00::5]:1"),
        ("10.0.0.5", "10.0.0.5:1", "10.0.0.5:1"),
    ],
)
def test_addresses_for_this_machine_and_for_others(host, here, there):
    assert local(host, 1) == here
    assert outside(host, 1, "https://hub.example/") == there


def test_what_listens_everywhere_is_known_by_the_machines_name(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert outside("0.0.0.0", 5) == "box:5"


def test_names_a_node_may_have_dialled():
    assert dialled_names("10.0.0.5", 8421, ["wss://tunnel.example/t"]) == ["tunnel.example", "10.0.0.5"]
    assert "127.0.0.1" not in dialled_names("10.0.0.5", 8421, [])
    assert "localhost" in dialled_names("127.0.0.1", 0, [])


@pytest.mark.parametrize(
    ("api_url", "tunnel_urls", "out_of_reach"),
    [
        ("http://127.0.0.1:8420", ["ws://127.0.0.1:8421"], False),
        ("http://localhost:9000", ["ws://[::1]:8421"], False),
        ("https://hub.example", ["ws://127.0.0.1:8421"], True),
        ("http://box:8420", ["ws://127.0.0.2:8421", "ws://localhost:8421"], True),
        ("https://hub.example", ["ws://127.0.0.1:8421", "wss://hub.example/tunnel"], False),
        ("http://box:8420", ["ws://box:8421"], False),
    ],
)
def test_a_hub_that_others_are_told_of_needs_a_tunnel_that_they_reach(api_url, tunnel_urls, out_of_reach):
    addresses = Addresses(api_url=api_url, tunnel_urls=tuple(tunnel_urls))
    assert addresses.tunnel_out_of_reach is out_of_reach
