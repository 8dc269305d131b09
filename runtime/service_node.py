"""The node that the machine's service runs: asked how it is, and brought over to another version.

Owns the order of a change while it runs: drain, start, watch, and the way back. Must not know where versions
come from. The service is told to start the new one once (`Versions.put_on_trial`): until that has shown
itself sound the current version stays what it was, so whatever is killed meanwhile, the next start is of one
that worked.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from runtime.control_client import ControlClient
from runtime.errors import DaemonUnreachable, RuntimeFault, UpgradeFailed
from runtime.health import Expected, expected_of, shortfall
from runtime.service import Service
from runtime.versions import Versions, program_of, runs_from

SOUND_S = 120.0
"""Until then the new version must be what the old one was; a Hub that restarts comes back sooner."""
_STOP_MARGIN_S = 60.0
# What was never sound gets less time to end by itself than what served until now.
_LEAVE_MARGIN_S = 10.0
_EVERY_S = 0.25

Tell = Callable[[str], None]


async def ask(state_dir: Path) -> dict[str, Any] | None:
    """The running node's document; None where none answers."""
    try:
        async with ControlClient.connect(state_dir) as client:
            return await client.status()
    except RuntimeFault:
        return None


class ServiceNode:
    """The node of an installed service.

    Args:
        service: who runs it.
        state_dir: where its control socket is.
        before: its document; None where it does not answer.
        stop_s: seconds within which it ends when told to, answers in flight included.
        sound_s: seconds within which it must be sound again.
    """

    def __init__(
        self,
        service: Service,
        state_dir: Path,
        before: dict[str, Any] | None,
        *,
        stop_s: float,
        sound_s: float = SOUND_S,
    ) -> None:
        self._service = service
        self._state_dir = state_dir
        self._before = before
        self._stop_s = stop_s
        self._sound_s = sound_s

    async def go_over(self, versions: Versions, new: Path, tell: Tell) -> None:
        """Have the service run `new`, and make it the current version once it is sound.

        Raises:
            UpgradeFailed: it is not; the version before runs again, or the message says what to do.
        """
        old = versions.current
        versions.put_on_trial(new)
        try:
            tell("draining: answers in flight finish first")
            await self._end(old if self._before is None else None)
            tell("waiting for the new version to be what the old one was")
            await self._until_sound(self._expected(new), given_up_at=old if self._before else None)
        except UpgradeFailed as failure:
            await self._go_back(versions, old, new, str(failure), tell)
        except BaseException:
            tell("cancelled: the version before is started again")
            versions.withdraw_trial()
            await self._leave(new)
            raise
        versions.use(new)

    async def _go_back(self, versions: Versions, old: Path, new: Path, why: str, tell: Tell) -> None:
        tell("it is not: putting the version before back")
        versions.withdraw_trial()
        try:
            await self._leave(new)
            await self._until_sound(self._expected(old))
        except UpgradeFailed as failure:
            raise UpgradeFailed(
                f"{why}; and with the version before {failure}: look at `porten logs` and `porten doctor`"
            ) from None
        raise UpgradeFailed(f"{why}; the version before runs again")

    def _expected(self, version: Path) -> Expected:
        return expected_of(self._before, program_of(version))

    async def _leave(self, version: Path) -> None:
        """End the node if it is of that version, so that the service starts the current one."""
        now = await ask(self._state_dir)
        if now is None or now.get("program") == program_of(version):
            await self._end(version)

    async def _end(self, stuck: Path | None) -> None:
        """Tell the node to come again, and return once its process has ended; one of `stuck` is made to."""
        before = await ask(self._state_dir)
        if before is None:
            if stuck is not None:
                await self._kill(stuck)
            return
        with suppress(DaemonUnreachable):  # it has ended meanwhile
            async with ControlClient.connect(self._state_dir) as client:
                await client.restart()
        end = time.monotonic() + self._stop_s + (_STOP_MARGIN_S if stuck is None else _LEAVE_MARGIN_S)
        while (await asyncio.to_thread(self._service.state)).pid == before["pid"]:
            if time.monotonic() > end:
                if stuck is None:
                    raise UpgradeFailed(f"the node (pid {before['pid']}) does not end")
                await self._kill(stuck)
                return
            await asyncio.sleep(_EVERY_S)

    async def _kill(self, version: Path) -> None:
        pid = (await asyncio.to_thread(self._service.state)).pid
        with suppress(psutil.Error, ProcessLookupError):
            if pid and runs_from(psutil.Process(pid), version):
                os.kill(pid, signal.SIGKILL)

    async def _until_sound(self, expected: Expected, *, given_up_at: Path | None = None) -> None:
        """Return once nothing is missing; where `given_up_at` answers instead, the trial is over."""
        end = time.monotonic() + self._sound_s
        given_up = None if given_up_at is None else program_of(given_up_at)
        while (lacks := shortfall(expected, now := await ask(self._state_dir))) is not None:
            if now is not None and now.get("program") == given_up and now["pid"] != self._pid_before:
                raise UpgradeFailed("the new version ended by itself")
            if time.monotonic() > end:
                raise UpgradeFailed(f"the node {lacks} after {self._sound_s:.0f} s")
            if now is None:
                await asyncio.to_thread(self._start_if_ended)
            await asyncio.sleep(_EVERY_S)

    @property
    def _pid_before(self) -> int | None:
        return None if self._before is None else self._before["pid"]

    def _start_if_ended(self) -> None:
        """The service starts by itself what it was told to start again; an edited unit may not."""
        if self._service.state().ended:
            self._service.start_again()
