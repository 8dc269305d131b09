"""From a launch specification to an engine that answers. Owns marks, logs and readiness; decides nothing."""

import asyncio
import contextlib
import logging
import os
import secrets
import select
import subprocess
import sys
from pathlib import Path

from runtime.backends.base import Backend, Endpoint, LaunchSpec
from runtime.engine_http import EngineClient
from runtime.errors import EngineFailed
from runtime.process import RUN_MARK, EngineProcess, owner_of, sweep

logger = logging.getLogger(__name__)

_GUARDIAN = Path(__file__).with_name("guardian.py")
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25
_CHECK_TIMEOUT_S = 5.0


class Launcher:
    """Starts engines on behalf of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._owner = owner_of(state_dir)
        self._logs = state_dir / "engines"
        self._run = secrets.token_hex(10)
        self._guardian: int | None = None

    async def end_strays(self) -> None:
        """End what an earlier node of this state directory left running."""
        await asyncio.to_thread(sweep, self._owner)

    async def guard(self) -> None:
        """See that a guardian watches over this run's engines, so that they end if the node is killed."""
        if sys.platform == "linux" and not _is_read(self._guardian):
            self.unguard()
            await asyncio.to_thread(self._start_guardian)

    def _start_guardian(self) -> None:
        self._guardian = _start_guardian(f"{RUN_MARK}={self._run}")

    def unguard(self) -> None:
        """Let the guardian go: it ends what is left of this run."""
        if self._guardian is not None:
            os.close(self._guardian)
            self._guardian = None

    def log_of(self, model_id: str) -> Path:
        """Where the model's engine logs; the start before has `.1` appended."""
        return self._logs / f"{model_id.replace('/', ',')}.log"

    async def start(self, launch: LaunchSpec, model_id: str) -> EngineProcess:
        """Start the process; the caller must `stop` it in the end.

        Raises:
            EngineFailed: it cannot be executed.
        """
        return await EngineProcess.start(launch, owner=self._owner, run=self._run, log=self.log_of(model_id))

    async def ready(self, process: EngineProcess, launch: LaunchSpec, backend: Backend) -> Endpoint:
        """Wait until the engine answers.

        Raises:
            EngineFailed: it ended, or took too long; the reason is fit to be shown to a requester.
        """
        try:
            async with asyncio.timeout(launch.start_timeout_s):
                said = await process.announcement()
                endpoint = Endpoint(
                    said.host,
                    said.port,
                    headers=launch.headers,
                    texts_at_once=launch.texts_at_once,
                    most_text_bytes=launch.most_text_bytes,
                    protocols=launch.protocols,
                )
                await self._await_ready(endpoint, launch.ready_path)
        except TimeoutError:
            raise EngineFailed(f"the engine was not ready in {launch.start_timeout_s:.0f} s") from None
        except EngineFailed as error:
            reason = backend.explain(await asyncio.to_thread(process.log_tail))
            raise EngineFailed(f"{error}: {reason}" if reason else str(error)) from error
        return endpoint

    async def answers(self, endpoint: Endpoint, path: str = "/health") -> bool:
        """Whether the engine says it can serve, asked once."""
        client = EngineClient(endpoint.host, endpoint.port)
        with contextlib.closing(client):
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT_S):
                    response = await client.request("GET", endpoint.base_path + path, endpoint.headers)
                    with contextlib.closing(response):
                        return response.status == 200
            except (EngineFailed, TimeoutError):
                return False

    async def _await_ready(self, endpoint: Endpoint, path: str) -> None:
        pause_s = _FIRST_PAUSE_S
        while not await self.answers(endpoint, path):
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)


def _start_guardian(mark: str) -> int | None:
    """Start one and return the pipe whose end is its signal; None where it cannot be started. Blocks briefly.

    It makes itself independent and its first process ends at once: there is nothing to wait for later.
    """
    reading, writing = os.pipe()
    try:
        command = [sys.executable, "-I", "-S", str(_GUARDIAN), mark]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
        subprocess.run(  # noqa: S603 - our own script
            command,
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(writing)
        fields = {"event": "guardian_missing", "reason": str(error)}
        logger.warning("nobody watches over the engines if this node is killed", extra=fields)
        return None
    finally:
        os.close(reading)
    return writing


def _is_read(pipe: int | None) -> bool:
    """Whether somebody still holds the other end."""
    if pipe is None:
        return False
    poll = select.poll()
    poll.register(pipe, select.POLLERR)
    return not any(event & select.POLLERR for _, event in poll.poll(0))
