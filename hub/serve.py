"""The Hub's process: its listeners, its background tasks, and how they end.

Owns the order of start and stop. Knows nothing of what the parts do between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.config import HubConfig


def run(config: HubConfig) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The process's exit code.
    """
    raise NotImplementedError


async def serve(config: HubConfig) -> None:
    """Serve until SIGTERM or SIGINT, inside a running event loop."""
    raise NotImplementedError
