"""Whose word about an address counts: that of trusted proxies, and of nobody else."""

from ipaddress import ip_network

import pytest

from tunnel.errors import HandshakeRefused
from tunnel.gate import Gate, TunnelLimits, client_address
from tunnel.stats import TunnelStats

TRUSTED = [ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("::1")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["192.0.2.66, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.66", "192.0.2.1, 10.1.2.3"], "192.0.2.1"),
        ("198.51.100.1", ["192.0.2.66"], "198.51.100.1"),
        ("127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1,"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.66, nonsense"], "nonsense"),
        ("127.0.0.1", ["x" * 1000], "x" * 64),
        ("", ["192.0.2.66"], ""),
    ],
)
def test_the_nearest_address_that_no_trusted_proxy_has(peer, forwarded, address) -> None:
    assert client_address(peer, forwarded, TRUSTED) == address


def test_handshakes_are_counted_by_address_and_no_longer_than_they_last() -> None:
    gate = Gate(None, TunnelLimits(handshakes_per_address=2), TunnelStats())
    with (
        gate.handshake("a"),
        gate.handshake("a"),
        gate.handshake("b"),
        pytest.raises(HandshakeRefused),
        gate.handshake("a"),
    ):
        pass
    with gate.handshake("a"), gate.handshake("a"):
        pass
    assert not gate._unfinished
