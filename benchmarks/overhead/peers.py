"""Other programs that stand before an engine: what a recipe for one is, and which are asked for.

Owns the choice among them, and where those are that are installed for it. How each is started is the matter
of `recipes`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from benchmarks.errors import SettingInvalid
from benchmarks.generator.target import Target
from benchmarks.overhead.turns import Side


class Peer(Protocol):
    """A recipe."""

    @property
    def name(self) -> str:
        """What its side is called."""

    def missing(self) -> str | None:
        """Why it cannot be started here, and how to get it; None where it can."""

    def running(self, engine: Target, directory: Path) -> AbstractAsyncContextManager[Side]:
        """Run it before the engine, its files in ``directory``; leaving ends it.

        Raises:
            ProcessFailed: it did not come up.
        """


def choose_peers(text: str, known: Sequence[Peer]) -> tuple[Peer, ...]:
    """Read ``all``, ``none`` or ``nginx,ssh-R``.

    Raises:
        SettingInvalid: there is no recipe of that name.
    """
    if text in {"all", "none"}:
        return tuple(known) if text == "all" else ()
    by_name = {peer.name: peer for peer in known}
    wanted = text.split(",")
    if unknown := [name for name in wanted if name not in by_name]:
        raise SettingInvalid(f"--peers knows all, none, {', '.join(by_name)}; not {unknown[0]!r}")
    return tuple(by_name[name] for name in dict.fromkeys(wanted))


def peers_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Where peers are installed: the user's cache, by the XDG base directory specification."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "porten-bench"
