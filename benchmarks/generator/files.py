"""How many connections this process may have: each is an open file, and systems allow few by default.

Owns the process's own limit. Must not know loads.
"""

import resource
from typing import Final

from benchmarks.errors import SettingInvalid

_OTHERS: Final = 64
"""Files of the process that are no connections."""


def most_connections() -> int:
    """As many as the system allows this process and those it starts, after they have asked for all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 30 if hard == resource.RLIM_INFINITY else hard) - _OTHERS


def ask_for_all() -> None:
    """Raise this process's own limit to what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in {soft, resource.RLIM_INFINITY}:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_connections(wanted: int) -> None:
    """Refuse what would fail on this side and look like the endpoint's failure.

    Raises:
        SettingInvalid: so many connections are more than the system allows one process.
    """
    if wanted > (most := most_connections()):
        raise SettingInvalid(
            f"{wanted} streams from one process are more than the {most} connections that this system "
            "allows it: raise the limit (ulimit -Hn), ask for fewer, or share them out with --processes"
        )
