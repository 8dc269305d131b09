"""The program that this Hub runs, as one wheel for the machines of its nodes.

Owns which files are the program's and the wheel's form (PyPA, *Binary distribution format*). What was
installed is packed again, so that a Hub hands out its own version from wherever it was installed itself, and
no package index needs to have it. The same files give the same bytes. Knows nothing of HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

PACKAGES: Final = ("benchmarks", "hub", "models", "runtime", "tunnel")
_ROOT = Path(__file__).parent.parent
_INSTALLER = "hub/portal/static/install.sh"
_DESCRIBED = ("METADATA", "WHEEL", "entry_points.txt")
_LICENSES = "licenses"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first day that a zip file knows


@dataclass(frozen=True)
class Program:
    """A wheel.

    Attributes:
        version: of the program.
        file: the wheel's name.
        content: its bytes.
    """

    version: str
    file: str
    content: bytes

    @cached_property
    def sha256(self) -> str:
        """Of its bytes, in lowercase hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


@lru_cache(maxsize=1)
def own_program() -> Program:
    """What this process was started from; takes some tenths of a second the first time.

    Raises:
        PackageNotFoundError: it was not installed by pip, and nobody knows what belongs to it.
        FileNotFoundError: a part of it is missing.
    """
    described = distribution("porten")
    version = described.version
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as wheel:
        record = [_add(wheel, name, data) for name, data in _files(described)]
        name = f"porten-{version}.dist-info/RECORD"
        _add(wheel, name, "".join([*record, f"{name},,\n"]).encode())
    return Program(version, f"porten-{version}-py3-none-any.whl", content.getvalue())


def _add(wheel: zipfile.ZipFile, name: str, data: bytes) -> str:
    """Put a file in; its line in RECORD."""
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    wheel.writestr(entry, data)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def _files(described: Distribution) -> Iterator[tuple[str, bytes]]:
    """Every file of the program by its name in the wheel; what describes it comes last, as is usual."""
    yield from sorted(_code().items())
    folder = f"porten-{described.version}.dist-info"
    for name in _DESCRIBED:
        if (text := described.read_text(name)) is None:
            raise FileNotFoundError(f"{name} of the installed program is missing")
        yield f"{folder}/{name}", text.encode()
    for path in sorted(described.files or ()):
        if path.parent.name == _LICENSES:
            yield f"{folder}/{_LICENSES}/{path.name}", path.read_binary()


def _code() -> dict[str, bytes]:
    found = {
        path.relative_to(_ROOT).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and not _is_left_behind(path)
    }
    if _INSTALLER not in found:  # in a checkout it lies at the root
        found[_INSTALLER] = (_ROOT / "install.sh").read_bytes()
    return found


def _is_left_behind(path: Path) -> bool:
    """Whether it is no part of the program, but what running it or an editor left there."""
    return "__pycache__" in path.parts or path.name.startswith(".")
