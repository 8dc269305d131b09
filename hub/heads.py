"""What a node may say at the head of an answer. It is an owner's machine, and may be anybody's.

Owns the forms that are let through. Pure. A head that is let through cannot change what the Hub's own
response means: no line break becomes a header, and no status makes a client read the body as another
response.
"""

from __future__ import annotations

import re

from hub.errors import RequestFailed
from tunnel.messages import Head

DIGEST_HEADER = "x-porten-model-digest"
DEFAULT_KIND = "application/json"

_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,64}"  # noqa: S105 - RFC 9110, 5.6.2, as far as types need it
_KIND = re.compile(rf"{_TOKEN}/{_TOKEN}(?: ?; ?{_TOKEN}=(?:{_TOKEN}|\"{_TOKEN}\"))" + "{0,4}")
_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,127}")
_OK = 200


def header(head: Head, name: str) -> str | None:
    """The first header of that lowercase name."""
    return next((value for key, value in head.headers if key.lower() == name), None)


def check_success(head: Head) -> None:
    """Let the head of an answer through that is not an error.

    Raises:
        RequestFailed: ``engine_error``: a status that carries no answer, or a type that is none.
    """
    if head.status != _OK or not _KIND.fullmatch(header(head, "content-type") or DEFAULT_KIND):
        raise RequestFailed("engine_error", "The node answered in a way that makes no sense.")


def digest_of(text: str | None) -> str | None:
    """A model's digest as a node names it; ``None`` for what is none."""
    return text if text is not None and _DIGEST.fullmatch(text) else None
