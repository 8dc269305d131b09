"""How this Hub is reached: from its own machine, and by everybody else.

Owns turning what is listened on into what is told to people, programs and nodes. Must not open sockets.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised here, bound nowhere
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(slots=True)
class Addresses:
    """Known once the sockets listen.

    Attributes:
        api_url: base URL of the API and the portal as the world knows it, without a trailing slash.
        api_local: the same as this machine reaches it.
        tunnel_urls: where nodes dial, ``ws://`` or ``wss://``.
        tunnel_local: the same as this machine reaches it.
        tunnel_listening: whether the tunnel's listener is up.
        draining: whether the Hub is on its way out and wants no new work.
    """

    api_url: str = ""
    api_local: str = ""
    tunnel_urls: tuple[str, ...] = ()
    tunnel_local: str = ""
    tunnel_listening: bool = False
    draining: bool = False

    @property
    def tunnel_out_of_reach(self) -> bool:
        """Whether others are told of the API, and yet nodes of an address that means their own machine."""
        return not _is_loopback(self.api_url) and all(map(_is_loopback, self.tunnel_urls))


def local(host: str, port: int) -> str:
    """``host:port`` as this machine reaches what listens on ``host``."""
    return f"{_bracketed(_WILDCARDS.get(host, host))}:{port}"


def outside(host: str, port: int, public_url: str | None = None) -> str:
    """``host:port`` as others may reach it.

    What listens everywhere is told by the public URL's host, or else by the machine's name: a guess that
    ``public_url`` in the settings ends.
    """
    if host not in _WILDCARDS:
        return f"{_bracketed(host)}:{port}"
    public = urlsplit(public_url).hostname if public_url else None
    return f"{_bracketed(public or socket.gethostname())}:{port}"


def dialled_names(host: str, port: int, urls: Sequence[str], public_url: str | None = None) -> list[str]:
    """What a node may have dialled to get here; a name without a port stands for any port.

    A handshake signed for another name was meant for another Hub.
    """
    names = [urlsplit(url).netloc.rpartition("@")[2] for url in urls]
    names.append(outside(host, port, public_url).removesuffix(f":{port}"))
    if host in _WILDCARDS or host in _LOOPBACK:
        names += [_bracketed(name) for name in _LOOPBACK]
    return list(dict.fromkeys(names))


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host in _LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
