"""Jobs that the Hub gives the node: load, unload or pull a model, each answered by events.

Owns the tasks they run in. Must not know how a job is carried out.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from models.errors import ModelsError
from runtime.errors import RuntimeFault
from runtime.progress import LoadProgress
from tunnel.messages import Command, Event

logger = logging.getLogger(__name__)

MAX_JOBS = 16
_MAX_ERROR_CHARACTERS = 300


class ModelActions(Protocol):
    """What is used of `runtime.supervisor.Supervisor`."""

    async def load(self, model_id: str, *, on_progress: Callable[[LoadProgress], None] | None = None) -> None:
        """Make a model ready."""

    async def unload(self, model_id: str) -> None:
        """Stop a model's engines."""

    async def pull(self, model_id: str, *, on_progress: Callable[[LoadProgress], None] | None = None) -> None:
        """Bring a model onto the disk."""


class Commands:
    """Runs the Hub's jobs beside each other."""

    def __init__(self, actions: ModelActions, send: Callable[[Event], None]) -> None:
        self._actions = actions
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, command: Command) -> None:
        """Begin a job; its end is told by an event."""
        if len(self._tasks) >= MAX_JOBS:
            self._send(Event(job=command.job, phase="failed", done=0, total=0, error="too many jobs at once"))
            return
        task = asyncio.create_task(self._run(command), name=f"{command.action} {command.model}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End all jobs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, command: Command) -> None:
        def tell(progress: LoadProgress) -> None:
            self._tell(command, progress.phase, progress)

        try:
            if command.action == "unload":
                await self._actions.unload(command.model)
            elif command.action == "load":
                await self._actions.load(command.model, on_progress=tell)
            else:
                await self._actions.pull(command.model, on_progress=tell)
        except (RuntimeFault, ModelsError) as error:
            self._tell(command, "failed", error=str(error)[:_MAX_ERROR_CHARACTERS])
        else:
            self._tell(command, "done")

    def _tell(
        self, command: Command, phase: str, progress: LoadProgress | None = None, error: str | None = None
    ) -> None:
        done, total = (progress.done_bytes, progress.total_bytes or 0) if progress else (0, 0)
        self._send(Event(job=command.job, phase=phase, done=done, total=total, error=error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            fields = {"event": "command_failed", "error": type(error).__name__}
            logger.error("a job of the Hub failed", extra=fields, exc_info=error)
