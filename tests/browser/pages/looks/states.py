"""The states in which pages are looked at: each a function that leads a scene to it."""

from collections.abc import Awaitable, Callable
from typing import Any

import playwright.async_api as pw

PHONE = {"width": 390, "height": 844}

State = Callable[[Any], Awaitable[pw.Page]]


class States(dict[str, State]):
    """States by their names."""

    def add(self, build: State) -> State:
        """Add a state, named as its function."""
        self[build.__name__.replace("_", "-")] = build
        return build
