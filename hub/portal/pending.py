"""Somebody who has given the right password and owes a code.

Owns the cookie between the two steps: it holds which account it is, encrypted with a key of the Hub's, for
ten minutes. It opens no page. Knows nothing of passwords or codes.
"""

import hashlib

from fastapi import Request, Response

from hub.portal.pages import hub_of
from hub.portal.sealed import keep_sealed, read_sealed
from hub.storage.records import Account

COOKIE = "step"


def keep_pending(request: Request, response: Response, account: Account, way: str) -> None:
    """Remember who owes a code, and how they proved who they are."""
    keep_sealed(request, response, COOKIE, [account.id, _fingerprint(account), way])


async def find_pending(request: Request) -> tuple[Account, str] | None:
    """Who owes a code, and their way; ``None``: nobody, it took too long, or the password changed since."""
    said = read_sealed(request, COOKIE)
    if said is None:
        return None
    account_id, fingerprint, way = said
    account = await hub_of(request).storage.accounts.get(account_id)
    return (account, way) if account is not None and _fingerprint(account) == fingerprint else None


def _fingerprint(account: Account) -> str:
    return hashlib.sha256(account.password_hash.encode()).hexdigest()[:16]
