"""What is listened on, as others are told of it."""

import pytest

from hub.addresses import dialled_names, local, outside


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
