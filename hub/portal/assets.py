"""The stylesheet, scripts and pictures, read once, addressed with their content's hash.

Owns which files there are. Knows nothing of requests.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One packaged file, in memory."""

    body: bytes
    kind: str
    version: str


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, _KINDS[path.suffix], hashlib.sha256(body).hexdigest()[:12])


ASSETS = {path.name: _read(path) for path in sorted(STATIC.iterdir()) if path.suffix in _KINDS}


def asset_url(name: str) -> str:
    """Return the address of a packaged file; it changes when the file does, so browsers may keep it."""
    return f"/static/{name}?v={ASSETS[name].version}"
