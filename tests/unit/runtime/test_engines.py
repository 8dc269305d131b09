"""Engine environments, without the minutes a real installation may take: the real one is `make fixtures`."""

import asyncio
import ctypes
import sys
from pathlib import Path

import pytest

from runtime import engines
from runtime.engines import EngineEnvironment, InstallProgress, missing_library
from runtime.errors import EngineUnavailable


@pytest.fixture
def local_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineEnvironment:
    """An engine that pip can build from a folder, without an index."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "dummy_engine.py").write_text("")
    wheel = source / "dummy_engine-1.0-py3-none-any.whl"
    _write_wheel(wheel)
    recipe = engines._Recipe(f"dummy-engine @ {wheel.as_uri()}", "dummy_engine", needs_openmp=False)
    monkeypatch.setitem(engines.RECIPES, "dummy", recipe)
    return EngineEnvironment(tmp_path / "engines", "dummy")


def _write_wheel(path: Path) -> None:
    import zipfile

    info = "dummy_engine-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dummy_engine.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: dummy-engine\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


async def test_installing_twice_at_once_builds_once(local_engine: EngineEnvironment) -> None:
    assert local_engine.installed_version() is None
    steps: list[list[InstallProgress]] = [[], []]
    await asyncio.gather(*(local_engine.install(seen.append) for seen in steps))
    assert sorted(len(seen) for seen in steps) == [1, 4], "one built, the other found it built"
    assert local_engine.python.exists()
    assert local_engine.installed_version() is not None
    assert local_engine.is_current()


async def test_a_half_installation_is_none(
    local_engine: EngineEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_engine.root.mkdir(parents=True)
    (local_engine.root / "installed.json").write_text("{")
    assert local_engine.installed_version() is None
    monkeypatch.setitem(
        engines.RECIPES, "dummy", engines._Recipe("/no/such/file.whl", "dummy_engine", needs_openmp=False)
    )
    broken = EngineEnvironment(local_engine.root.parent, "dummy")
    with pytest.raises(EngineUnavailable, match="installing dummy failed") as failed:
        await broken.install()
    assert "porten engines install" in failed.value.remedy
    assert broken.installed_version() is None


@pytest.mark.skipif(sys.platform != "linux", reason="the library's name is Linux's")
async def test_a_missing_system_library_is_named_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    found = missing_library()
    assert found is not None
    assert found[0] == "libgomp.so.1"
    with pytest.raises(EngineUnavailable, match="apt-get install libgomp1"):
        await EngineEnvironment(tmp_path).install()
    assert list(tmp_path.iterdir()) == []
