"""Text as Markdown takes it.

Pure.
"""

from typing import Final

_SIGNS: Final = "\\`*_[]<>|"


def plain(text: str) -> str:
    """The text on one line, none of it markup."""
    for sign in _SIGNS:
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
