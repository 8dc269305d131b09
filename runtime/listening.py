"""Sockets of this machine only: loopback names, and a unix socket that its owner alone may open.

Owns addresses and rights. Must not know what is served on them, nor any web framework.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import ConfigInvalid, PortTaken

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MAX_UNIX_PATH_BYTES = 103  # the shortest limit of the systems we run on, less the closing zero
_BACKLOG = 128


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        PortTaken: the address is in use, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortTaken(f"{host}:{port} {why}: set local_port to another, or to 0 for any") from None
    listener.settimeout(0)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket that only its owner may connect to; one left by a dead daemon is replaced.

    The caller holds the daemon's lock, so nobody else listens there.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with reachable(path) as name:
            listener.bind(name)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for a unix socket that fits into its address, while the block lasts.

    The kernel takes about a hundred bytes; Linux lets a longer path be named by its directory's descriptor.

    Raises:
        ConfigInvalid: the path is too long for this system.
    """
    if len(os.fsencode(path)) <= MAX_UNIX_PATH_BYTES:
        yield str(path)
        return
    if sys.platform != "linux":
        raise ConfigInvalid(f"state_dir is too long for a socket: {path.parent}")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
