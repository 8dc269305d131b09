"""Looks at the owner's wishes and the machine, and gives it back: the shell around `runtime.yielding`.

One task looks; a look can also be asked for, as when the owner pauses. Must not know requests or the tunnel.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from runtime import devices
from runtime.config import NodeConfig
from runtime.errors import RuntimeFault
from runtime.hours import Hours
from runtime.pause import Pause, PauseFile
from runtime.supervisor import Supervisor
from runtime.surroundings import Surroundings
from runtime.yield_gate import YieldGate
from runtime.yielding import Cause, Reading, Stage, Step, Yielding

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class OwnerWatch:
    """Closes and opens the gate, and unloads models.

    Args:
        supervisor: whose models are unloaded.
        gate: what is closed to new requests.
        pause_file: the owner's pause.
        surroundings: what the machine tells.
        hours: when the node may work; None is always.
        minded: the causes that count, beside the owner's pause and the hours.
        cpu_limit: share of the CPU that others may keep busy.
        on_change: called when what the node accepts has changed.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        gate: YieldGate,
        *,
        pause_file: PauseFile,
        surroundings: Surroundings,
        hours: Hours | None = None,
        minded: frozenset[Cause] = frozenset(),
        cpu_limit: float | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._supervisor = supervisor
        self._gate = gate
        self._pause_file = pause_file
        self._surroundings = surroundings
        self._hours = hours
        self._minded = minded
        self._decision = Yielding(cpu_limit=cpu_limit)
        self._on_change = on_change
        self._pause: Pause | None = None
        self._one_look = asyncio.Lock()
        self._unloading: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def configured(
        cls, config: NodeConfig, supervisor: Supervisor, gate: YieldGate, on_change: Callable[[], None]
    ) -> "OwnerWatch":
        """The watch over this machine that the settings ask for."""
        minded = {
            Cause.GPU: config.yield_gpu,
            Cause.CPU: config.yield_cpu_percent is not None,
            Cause.BATTERY: config.yield_on_battery,
            Cause.HEAT: config.yield_when_hot,
        }
        return cls(
            supervisor,
            gate,
            pause_file=PauseFile(config.state_dir),
            surroundings=Surroundings(devices.detect(), gpu_reserve=config.vram_budget_mb is None),
            hours=None if config.schedule is None else Hours.parse(config.schedule),
            minded=frozenset(cause for cause, is_minded in minded.items() if is_minded),
            cpu_limit=None if config.yield_cpu_percent is None else config.yield_cpu_percent / 100,
            on_change=on_change,
        )

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._pause_s())
        finally:
            tasks = list(self._unloading.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """Take a reading, and do what follows from it."""
        async with self._one_look:
            reading = await asyncio.to_thread(self._read)
            steps = self._decision.look(reading, asyncio.get_running_loop().time())
            self._follow(steps)

    async def pause(self, until: float | None) -> None:
        """Pause, kept over a restart; returns once nothing new is let in."""
        await asyncio.to_thread(self._pause_file.write, Pause(until))
        await self.look()

    async def resume(self) -> None:
        """End the owner's pause; what else keeps the node from serving goes on doing so."""
        await asyncio.to_thread(self._pause_file.clear)
        await self.look()

    def describe(self) -> dict[str, Any]:
        """The part of the status document."""
        return {
            "stage": self._decision.stage.value,
            "causes": [cause.value for cause in self._decision.causes],
            "reason": self._reason(),
            "paused_until": self._pause.until if self._pause else None,
        }

    def _read(self) -> Reading:
        seen = self._supervisor.snapshot()
        around, minded = self._surroundings, self._minded
        self._pause = self._pause_file.read()
        return Reading(
            paused=self._pause is not None,
            off_hours=self._hours is not None and not self._hours.contains(_local_time()),
            on_battery=Cause.BATTERY in minded and around.on_battery(),
            degrees_left=around.degrees_left() if Cause.HEAT in minded else None,
            gpus=around.gpus(seen) if Cause.GPU in minded else (),
            cpu_others=around.cpu_others(seen) if Cause.CPU in minded else None,
            loaded=bool(seen.replicas),
        )

    def _follow(self, steps: tuple[Step, ...]) -> None:
        reason, before = self._reason(), self._gate.reason
        if reason is None:
            self._gate.open()
        elif reason != before:
            self._gate.close(reason)
        if self._decision.stage is Stage.DRAINING:
            self._unload_all()
        if steps or reason != before:
            fields = {"event": "yield", "stage": self._decision.stage.value, "reason": reason}
            logger.info("gives its machine back" if reason else "takes up work", extra=fields)
            self._on_change()

    def _reason(self) -> str | None:
        """Why it yields, with when it is over where that is known."""
        reason = self._decision.reason
        if reason is None:
            return None
        if Cause.SCHEDULE in self._decision.causes and self._hours is not None:
            return f"{reason}, until {self._hours.next_begin(_local_time())}"
        if Cause.OWNER in self._decision.causes and self._pause and self._pause.until:
            return f"{reason}, until {datetime.fromtimestamp(self._pause.until).astimezone():%a %H:%M}"
        return reason

    def _unload_all(self) -> None:
        for model in {replica.model for replica in self._supervisor.snapshot().replicas}:
            if model not in self._unloading:
                self._unloading[model] = asyncio.create_task(self._unload(model), name=f"yield {model}")

    async def _unload(self, model: str) -> None:
        try:
            await self._supervisor.unload(model)
        except RuntimeFault as fault:  # a model is looked at again at the next look
            logger.warning("not unloaded", extra={"event": "yield_unload_failed", "reason": str(fault)})
        finally:
            del self._unloading[model]

    def _pause_s(self) -> float:
        """Until the next look: sooner where a pause runs out."""
        until = self._pause.until if self._pause else None
        return LOOK_EVERY_S if until is None else min(LOOK_EVERY_S, max(0.05, until - time.time()))


def _local_time() -> datetime:
    return datetime.now().astimezone()
