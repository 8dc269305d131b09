"""What keeps a page from being misused: CSRF tokens, safe redirects and response headers.

Pure functions of their arguments. Knows nothing of accounts, storage or templates.
"""

import hashlib
import hmac
import re
import secrets
from urllib.parse import urlsplit

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

# Nothing inline and nothing foreign: a page that somehow carried a script would not run it.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)

PAGE_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Every page is either somebody's own or holds a token: none may stay in a shared or on-disk cache.
    "cache-control": "no-store",
}


def new_token() -> str:
    """Return a fresh, unguessable token for a cookie."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Say whether a text could have come from `new_token`."""
    return _TOKEN.fullmatch(text) is not None


def csrf_token(cookie: str) -> str:
    """Return the token that forms of the session with this cookie carry.

    Derived from the cookie, which scripts and other sites cannot read, so it needs no storage and changes
    whenever the session does.
    """
    return hmac.new(cookie.encode(), b"porten portal form", hashlib.sha256).hexdigest()


def csrf_matches(cookie: str, given: str) -> bool:
    """Say, in constant time, whether a posted token belongs to the session with this cookie."""
    return hmac.compare_digest(csrf_token(cookie).encode(), given.encode())


def safe_next(target: str | None, default: str = "/") -> str:
    """Return `target` where it is a path on this site, else `default`: sign-in must not forward elsewhere."""
    if not target or not target.startswith("/") or target.startswith("//"):
        return default
    # Browsers read a backslash as a slash and drop control characters, which makes `/\t/evil` a foreign host.
    if "\\" in target or any(ord(character) < 0x21 or ord(character) == 0x7F for character in target):
        return default
    try:
        parts = urlsplit(target)
    except ValueError:
        return default
    return default if parts.scheme or parts.netloc else target
