"""Short-lived cookies that only the Hub can read: what it must remember of somebody who is not signed in.

Owns their sealing (Fernet: AES-CBC with HMAC-SHA-256, a key for each purpose derived from the Hub's own) and
their age. Knows nothing of what they hold.
"""

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Request, Response

from hub.identity import derived_secret
from hub.portal.pages import hub_of, is_secure

SEALED_S = 600
"""Seconds that one is good for."""


def keep_sealed(request: Request, response: Response, purpose: str, value: list[Any]) -> None:
    """Give the browser something to bring back."""
    sealed = _fernet(request, purpose).encrypt_at_time(
        json.dumps(value).encode(), int(hub_of(request).clock())
    )
    response.set_cookie(
        _name(request, purpose),
        sealed.decode(),
        max_age=SEALED_S,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def read_sealed(request: Request, purpose: str) -> list[Any] | None:
    """What the browser brought back; ``None`` where it is none of ours, of another purpose, or too old."""
    brought = request.cookies.get(_name(request, purpose), "")
    if not brought.isascii():  # where it is no text of its own kind Fernet raises something else
        return None
    try:
        said = _fernet(request, purpose).decrypt_at_time(brought, SEALED_S, int(hub_of(request).clock()))
    except InvalidToken:
        return None
    value: list[Any] = json.loads(said)
    return value


def drop_sealed(request: Request, response: Response, purpose: str) -> None:
    """Have the browser forget it."""
    response.delete_cookie(
        _name(request, purpose), path="/", secure=is_secure(request), httponly=True, samesite="lax"
    )


def _name(request: Request, purpose: str) -> str:
    return f"{'__Host-' if is_secure(request) else ''}porten-{purpose}"


def _fernet(request: Request, purpose: str) -> Fernet:
    return Fernet(urlsafe_b64encode(derived_secret(hub_of(request).key, f"sealed cookie {purpose}")))
