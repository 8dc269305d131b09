"""A real `porten-hub serve` in a process of its own, made by a real `porten-hub init`."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

OPERATOR, PASSWORD = "operator@hub.example", "correct horse battery"
_PROGRAM = "from hub.cli import main; main()"
_CATALOG = """
[[models]]
id = "tiny"
name = "Tiny"
context_length = 512
slots = 2
capabilities = ["chat"]
[models.source]
kind = "file"
path = "/nowhere/tiny.gguf"
"""


@dataclass(frozen=True)
class RunningHub:
    """Where it is; `log` is the file that its log goes to."""

    data_dir: Path
    api: str
    tunnel: str
    log: Path
    process: asyncio.subprocess.Process

    @property
    def database(self) -> str:
        """The URL of its database."""
        return f"sqlite+aiosqlite:///{self.data_dir / 'hub.db'}"


@contextlib.asynccontextmanager
async def running_hub(directory: Path) -> AsyncIterator[RunningHub]:
    """Make a Hub in `directory` and serve until the block ends; it must end well."""
    data_dir, catalog, log = directory / "hub", directory / "catalog.toml", directory / "hub.log"
    catalog.write_text(_CATALOG)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
    environ = clean | {
        "PORTEN_HUB_DATA_DIR": str(data_dir),
        "PORTEN_HUB_CATALOG": str(catalog),
        "PORTEN_HUB_PORT": "0",
        "PORTEN_HUB_TUNNEL_PORT": "0",
        "PORTEN_HUB_QUEUE_TIMEOUT_S": "1",
        "PORTEN_HUB_DRAIN_S": "1",
    }
    await _init(environ)
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, "serve"),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=written,
        )
        try:
            async with asyncio.timeout(30):
                words = (await process.stdout.readline()).decode().split()
            assert words[:1] == ["listening"], log.read_text()
            addresses = dict(word.split("=", 1) for word in words[1:])
            yield RunningHub(data_dir, addresses["api"], addresses["tunnel"], log, process)
            assert process.returncode is None, "the Hub ended by itself"
            process.terminate()
            async with asyncio.timeout(30):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _init(environ: dict[str, str]) -> None:
    words = ("init", "--email", OPERATOR, "--organisation", "Porten", "--password-file", "-")
    making = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, *words),
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await making.communicate(f"{PASSWORD}\n".encode())
    assert making.returncode == 0, said.decode()
