"""The program that the Hub packs of itself is a wheel of exactly what runs here."""

import base64
import csv
import hashlib
import io
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path

from hub.program import PACKAGES, own_program
from tunnel.version import __version__

ROOT = Path(__file__).parents[3]


def contents() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(own_program().content)) as wheel:
        assert wheel.testzip() is None
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_it_has_the_packages_that_a_release_has() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert list(PACKAGES) == build["packages"]
    held = contents()
    for place, name in build["force-include"].items():
        assert held[name] == (ROOT / place).read_bytes()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert held[file.relative_to(ROOT).as_posix()] == file.read_bytes()


def test_it_holds_nothing_else() -> None:
    folders = {name.split("/")[0] for name in contents()}
    assert folders == {*PACKAGES, f"porten-{__version__}.dist-info"}
    assert not [name for name in contents() if "__pycache__" in name or name.endswith(".pyc")]


def test_every_file_is_recorded_as_the_format_has_it() -> None:
    held = contents()
    (record,) = (name for name in held if name.endswith("/RECORD"))
    rows = list(csv.reader(held[record].decode().splitlines()))
    assert rows.pop() == [record, "", ""]
    digests = {name: hashlib.sha256(data).digest() for name, data in held.items() if name != record}
    assert {name: (digest, int(size)) for name, digest, size in rows} == {
        name: (f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}", len(held[name]))
        for name, digest in digests.items()
    }


def test_it_says_what_it_is() -> None:
    program, held = own_program(), contents()
    described = BytesParser().parsebytes(held[f"porten-{__version__}.dist-info/METADATA"])
    assert (program.version, described["Name"], described["Version"]) == (__version__, "porten", __version__)
    assert "porten = runtime.cli:main" in held[f"porten-{__version__}.dist-info/entry_points.txt"].decode()
    assert f"porten-{__version__}.dist-info/licenses/LICENSE" in held
    assert program.sha256 == hashlib.sha256(program.content).hexdigest()


def test_the_same_files_give_the_same_bytes() -> None:
    first = own_program()
    own_program.cache_clear()
    assert own_program().content == first.content
