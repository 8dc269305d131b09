"""The Hub's listening sockets, bound before anything runs, so that a taken port is found out first."""

from __future__ import annotations

import socket

from hub.addresses import local
from hub.errors import AddressUnavailable

BACKLOG = 1024
DEAD_PEER_MS = 120_000
"""Milliseconds a peer may leave what was sent to it unacknowledged, or its window shut."""


def listen(host: str, port: int) -> socket.socket:
    """Bind an address and listen on it; port 0 takes a free one.

    Raises:
        AddressUnavailable: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {local(host, port)}: {error.strerror or error}. Is a Hub running already? "
            "Other ports: `port` and `tunnel_port`"
        ) from error
    # Accepted connections inherit it. asyncio sets it by itself only on sockets that name their protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _give_up_dead_peers(listener)
    return listener


def _give_up_dead_peers(listener: socket.socket) -> None:
    """Let the kernel drop connections whose peer has taken nothing for a while (RFC 5482), where it can."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
