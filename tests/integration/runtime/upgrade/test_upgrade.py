"""`porten upgrade` with real wheels, environments and processes: what it does, and what a failure leaves."""

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(300)]

FIRST, NEXT, UNLOADABLE, DIES, NEVER_DIALS, NEVER_LISTENS, LIES = (f"7.{number}.0" for number in range(1, 8))


async def status(installed: Any) -> dict[str, Any]:
    return json.loads(await installed("status", "--json"))


async def test_a_service_goes_over_and_back_with_its_session(service: Any, tunnel: Any) -> None:
    before = await status(service)
    assert before["tunnel"]["state"] == "connected"
    said = await service("upgrade", "--from", service.wheels[NEXT])
    assert f"porten {NEXT} is in use, instead of {FIRST}" in said
    after = await status(service)
    assert (after["agent"], after["tunnel"]["state"]) == (f"porten/{NEXT}", "connected")
    assert Path(after["program"]).name == NEXT
    assert [view["model"] for view in after["models"]] == [view["model"] for view in before["models"]]
    assert service.current == NEXT
    assert service.manager.starts == 2
    checked = await service("upgrade", "--check", "--from", service.wheels[NEXT])
    assert f"installed  {NEXT}" in checked
    assert f"before     {FIRST}" in checked
    assert f"available  {NEXT}" in checked
    assert "installed already" in await service("upgrade", "--from", service.wheels[NEXT])
    assert service.manager.starts == 2, "nothing was restarted for nothing"
    assert f"porten {FIRST} is in use" in await service("rollback")
    assert (await status(service))["agent"] == f"porten/{FIRST}"
    assert f"porten {NEXT} is in use" in await service("rollback"), "a second time returns to it"


async def test_what_its_hub_hands_out_is_what_it_goes_over_to(service: Any, hub: Any) -> None:
    (service.root / "from-hub").write_text(f"{hub.url}\n")
    hub.hand_out(FIRST, service.wheels[FIRST].read_bytes())
    assert "installed already" in await service("upgrade")
    hub.hand_out(NEXT, service.wheels[NEXT].read_bytes())
    assert f"available  {NEXT}" in await service("upgrade", "--check")
    assert f"porten {NEXT} is in use, instead of {FIRST}" in await service("upgrade")
    assert service.current == NEXT
    hub.wheel = b"not what was signed"
    hub.word = hub.word.rpartition(".")[0] + ".AAAA"
    assert "not signed by this node's Hub" in await service("upgrade", code=1)
    assert (await status(service))["agent"] == f"porten/{NEXT}"


@pytest.mark.parametrize(("version", "why"), [(UNLOADABLE, "half of it is missing"), (LIES, "of some kind")])
async def test_what_fails_its_own_check_is_never_started(service: Any, version: str, why: str) -> None:
    pid = (await status(service))["pid"]
    said = await service("upgrade", "--from", service.wheels[version], code=1)
    assert "nothing was changed" in said
    assert why in said
    assert (await status(service))["pid"] == pid
    assert service.current == FIRST
    assert len(list((service.root / "versions").iterdir())) == 1, "what was made is gone"


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (DIES, "ended by itself"),
        (NEVER_DIALS, "has no session with its Hub"),
        (NEVER_LISTENS, "does not answer"),
    ],
)
async def test_what_does_not_come_up_sound_gives_way_to_what_did(
    service: Any, version: str, why: str
) -> None:
    said = await service("upgrade", "--from", service.wheels[version], "--wait", "15", code=1)
    assert why in said
    assert "the version before runs again" in said
    now = await status(service)
    assert (now["agent"], now["tunnel"]["state"]) == (f"porten/{FIRST}", "connected")
    assert service.current == FIRST


STEPS = ("looking", "making", "installing", "checking", "draining", "waiting")


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_it_leaves_a_node_that_starts(service: Any, step: str) -> None:
    upgrade = service.start("upgrade", "--from", service.wheels[NEVER_DIALS])
    assert upgrade.stdout is not None
    await asyncio.to_thread(lambda: next(line for line in upgrade.stdout if f"upgrade: {step}" in line))
    upgrade.kill()
    upgrade.wait()
    upgrade.stdout.close()
    assert service.current == FIRST
    for number in (signal.SIGKILL, signal.SIGKILL):  # the version on trial may have begun; it begins once
        pid = await until_running(service)
        os.kill(pid, number)
        await until_other(service, pid)
    now = await status(service)
    assert now["agent"] == f"porten/{FIRST}"
    said = await service("upgrade", "--from", service.wheels[NEXT])
    assert f"porten {NEXT} is in use, instead of {FIRST}" in said


async def until_running(service: Any) -> int:
    """The pid of the node once it answers."""
    while "pid" not in (found := await asyncio.to_thread(_peek, service)):
        await asyncio.sleep(0.2)
    return found["pid"]


async def until_other(service: Any, pid: int) -> None:
    while await until_running(service) == pid:
        await asyncio.sleep(0.2)


def _peek(service: Any) -> dict[str, Any]:
    with service.start("status", "--json") as process:
        said, _ = process.communicate()
    return json.loads(said) if process.returncode == 0 else {}


async def test_of_two_at_once_one_is_refused(service: Any) -> None:
    first = service.start("upgrade", "--from", service.wheels[NEXT])
    await asyncio.to_thread(first.stdout.readline)
    assert "another upgrade is under way" in await service("upgrade", "--from", service.wheels[NEXT], code=1)
    assert "another upgrade is under way" in await service("rollback", code=1)
    await asyncio.to_thread(first.communicate)
    assert first.returncode == 0
    assert service.current == NEXT


async def test_interrupted_in_a_trial_it_puts_the_version_before_back(service: Any) -> None:
    upgrade = service.start("upgrade", "--from", service.wheels[NEVER_DIALS])
    await asyncio.to_thread(lambda: next(line for line in upgrade.stdout if "waiting" in line))
    upgrade.send_signal(signal.SIGINT)
    said, _ = await asyncio.to_thread(upgrade.communicate)
    assert upgrade.returncode == 130, said
    assert "Cancelled" in said
    await until_running(service)
    assert (await status(service))["agent"] == f"porten/{FIRST}"
    assert service.current == FIRST


async def test_a_node_run_by_hand_is_left_alone(installed: Any) -> None:
    with installed.start("run", "--local-only") as node:
        await until_running(installed)
        said = await installed("upgrade", "--from", installed.wheels[NEXT])
        assert f"(pid {node.pid}) is still the one from before" in said
        assert "porten stop, then porten run" in said
        assert (await status(installed))["pid"] == node.pid
        assert installed.current == NEXT
        await installed("stop")
        node.communicate()


async def test_a_disk_that_is_too_small_for_it_leaves_nothing(installed: Any) -> None:
    """A limit on a file's size stands for the disk: pip meets an error of writing in the middle."""
    limited = installed.home / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 40\nexec {installed.home}/.local/bin/porten "$@"\n')
    limited.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        limited,
        *("upgrade", "--from", str(installed.wheels[NEXT])),
        env=installed.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 1, said
    assert b"nothing was changed" in said
    assert installed.current == FIRST
    assert len(list((installed.root / "versions").iterdir())) == 1


async def test_a_folder_of_wheels_needs_no_index(installed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    assert "neither a wheel" in await installed("upgrade", "--from", folder, code=1)
    for version in (NEXT, DIES):
        shutil.copy(installed.wheels[version], folder)
    assert "in use" in await installed("upgrade", "--from", folder, "--to", NEXT)
    assert "does not hold porten 9" in await installed(
        "upgrade", "--from", installed.wheels[NEXT], "--to", "9", code=1
    )
    assert installed.current == NEXT


async def test_another_unit_than_ours_is_refused_with_the_remedy(service: Any) -> None:
    unit = service.manager.unit
    unit.write_text(unit.read_text().replace("/launch", "/current/bin/porten"))
    assert "porten service install" in await service("upgrade", "--from", service.wheels[NEXT], code=1)
    assert service.current == FIRST
