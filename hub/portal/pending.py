"""Somebody who has given the right password and owes a code.

Owns the cookie between the two steps: it holds which account it is, encrypted with a key of the Hub's, for
ten minutes. It opens no page. Knows nothing of passwords or codes.
"""

import hashlib
import json
from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Request, Response

from hub.identity import derived_secret
from hub.portal.pages import hub_of, is_secure
from hub.storage.records import Account

PENDING_S = 600


def _cookie(request: Request) -> str:
    return "__Host-porten-step" if is_secure(request) else "porten-step"


def keep_pending(request: Request, response: Response, account: Account) -> None:
    """Remember who owes a code."""
    hub = hub_of(request)
    said = json.dumps([account.id, _fingerprint(account)]).encode()
    value = _fernet(request).encrypt_at_time(said, int(hub.clock())).decode()
    response.set_cookie(
        _cookie(request),
        value,
        max_age=PENDING_S,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


async def find_pending(request: Request) -> Account | None:
    """Who owes a code; ``None`` where nobody does, it took too long, or the password changed since."""
    hub = hub_of(request)
    try:
        said = _fernet(request).decrypt_at_time(
            request.cookies.get(_cookie(request), ""), PENDING_S, int(hub.clock())
        )
    except InvalidToken:
        return None
    account_id, fingerprint = json.loads(said)
    account = await hub.storage.accounts.get(account_id)
    return account if account is not None and _fingerprint(account) == fingerprint else None


def drop_pending(request: Request, response: Response) -> None:
    """Nobody owes a code any more."""
    response.delete_cookie(
        _cookie(request), path="/", secure=is_secure(request), httponly=True, samesite="lax"
    )


def _fernet(request: Request) -> Fernet:
    return Fernet(urlsafe_b64encode(derived_secret(hub_of(request).key, "between the steps of a sign-in")))


def _fingerprint(account: Account) -> str:
    return hashlib.sha256(account.password_hash.encode()).hexdigest()[:16]
