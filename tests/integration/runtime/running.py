"""The real `porten`, run as its users run it."""

import asyncio
import os
import sys
from pathlib import Path

PORTEN = Path(sys.executable).with_name("porten")


class Process:
    """A running `porten` and the lines it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def said(self, text: str) -> str:
        """Wait for a line that holds `text`, and give it."""
        async with asyncio.timeout(30), self._changed:
            while not (found := [line for line in self.lines if text in line]):
                assert not self._reader.done(), self.output
                await self._changed.wait()
        return found[0]

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            # A wait that was given up must not end the reading: whoever cleans up waits again.
            await asyncio.shield(self._reader)
            return await self.process.wait()


class Porten:
    """Starts `porten` in a home of its own."""

    program = PORTEN

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings: dict[str, str] = {
            "PORTEN_LOCAL_PORT": "0",
            "PORTEN_DATA_DIR": str(home / "data"),
            "PORTEN_YIELD_ON_BATTERY": "false",  # whoever tests on a train tests the rest
        }
        self.started: list[Process] = []

    async def start(self, *arguments: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
        process = await asyncio.create_subprocess_exec(
            PORTEN,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=clean | {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)} | self.settings,
        )
        self.started.append(Process(process))
        return self.started[-1]

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end."""
        process = await self.start(*arguments)
        assert await process.ended() == code, process.output
        return process.output

    async def run(self, *arguments: str) -> Process:
        process = await self.start("run", *arguments)
        await process.said("node started")
        return process
