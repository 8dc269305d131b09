"""From a launch specification to an engine that answers. Owns marks, logs and readiness; decides nothing."""

import asyncio
import contextlib
import logging
from pathlib import Path

from runtime.backends.base import Backend, Endpoint, LaunchSpec
from runtime.engine_http import EngineClient
from runtime.errors import EngineFailed
from runtime.process import EngineProcess, owner_of, sweep

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25
_CHECK_TIMEOUT_S = 5.0


class Launcher:
    """Starts engines on behalf of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._owner = owner_of(state_dir)
        self._logs = state_dir / "engines"

    async def end_strays(self) -> None:
        """End what an earlier node of this state directory left running."""
        await asyncio.to_thread(sweep, self._owner)

    def log_of(self, model_id: str) -> Path:
        """Where the model's engine logs; the start before has `.1` appended."""
        return self._logs / f"{model_id.replace('/', ',')}.log"

    async def start(self, launch: LaunchSpec, model_id: str) -> EngineProcess:
        """Start the process; the caller must `stop` it in the end.

        Raises:
            EngineFailed: it cannot be executed.
        """
        return await EngineProcess.start(launch, owner=self._owner, log=self.log_of(model_id))

    async def ready(self, process: EngineProcess, launch: LaunchSpec, backend: Backend) -> Endpoint:
        """Wait until the engine answers.

        Raises:
            EngineFailed: it ended, or took too long; the reason is fit to be shown to a requester.
        """
        try:
            async with asyncio.timeout(launch.start_timeout_s):
                said = await process.announcement()
                endpoint = Endpoint(said.host, said.port, headers=launch.headers)
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
