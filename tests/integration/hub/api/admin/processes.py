"""Real Hub processes on one database, with the moment at which one of them is killed.

They are forked from a process that has imported the Hub, since to import it takes longer than all that is
tested. Where a moment is named, the Hub kills itself there: no other process could hit it.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from hub import idempotency
from hub.admin_tokens import AdminTokenService
from hub.config import HubConfig
from hub.serve import run
from hub.storage import credentials
from hub.storage import idempotency as kept
from hub.storage.records import Role
from hub.storage.repositories import Storage

MOMENTS = {
    "before the act": (credentials.ApiKeys, "create", False),
    "when the act is done": (kept.IdempotencyRecords, "add", False),
    "when its answer is kept": (kept.IdempotencyRecords, "add", True),
    "when both are committed": (idempotency.Idempotency, "once", True),
}
"""A call, and whether it is after it or before."""

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([__name__])


def serve(config: HubConfig, says: Connection, moment: str) -> None:
    """What a Hub process does: say where it listens, and serve until it is ended."""
    os.dup2(says.fileno(), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if moment:
        _die(*MOMENTS[moment])
    sys.exit(run(config))


def _die(where: type, name: str, after: bool) -> None:
    done = getattr(where, name)

    async def died(*given: object, **named: object) -> None:
        if after:
            await done(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(where, name, died)


class HubProcess:
    """A Hub that runs; ``http`` asks it with an admin token."""

    def __init__(self, process: BaseProcess, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    async def make_key(self, name: str) -> httpx.Response:
        """Make an API key once, whoever is asked and however often."""
        headers = {"idempotency-key": f'"make {name}"'}
        return await self.http.post("/admin/v1/keys", json={"name": name}, headers=headers)

    async def killed(self) -> None:
        """Wait until it has died of SIGKILL."""
        await asyncio.to_thread(self.process.join, 20)
        assert self.process.exitcode == -signal.SIGKILL


@contextlib.asynccontextmanager
async def running(config: HubConfig, token: str, *, die: str = "") -> AsyncIterator[HubProcess]:
    """A Hub with these settings, until the block ends; ``die`` is the moment at which it kills itself."""
    hears, says = _FORKING.Pipe(duplex=False)
    process = _FORKING.Process(target=serve, args=(config, says, die))
    process.start()
    says.close()
    try:
        with os.fdopen(os.dup(hears.fileno())) as lines:
            async with asyncio.timeout(30):
                words = (await asyncio.to_thread(lines.readline)).split()
        api = dict(word.split("=", 1) for word in words[1:])["api"]
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=api, headers=headers, timeout=30, trust_env=False) as http:
            yield HubProcess(process, http)
    finally:
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        hears.close()


async def prepared(database: str) -> tuple[str, str]:
    """Make the schema, an organisation and its token; returns its id and the token's secret."""
    async with await Storage.open(database) as storage:
        await storage.migrate()
        home = await storage.organisations.create("Acme", now=time.time())
        tokens = AdminTokenService(storage, time.time)
        issued = await tokens.issue(None, home.id, name="ci", role=Role.OWNER, lifetime_s=9999)
        return home.id, issued.secret


def data_dir_like(config: HubConfig, directory: Path) -> HubConfig:
    """The settings of a second Hub with the same key, in a folder of its own."""
    directory.mkdir(mode=0o700)
    found = config.model_copy(update={"data_dir": directory})
    found.key_file.touch(mode=0o600)
    found.key_file.write_bytes(config.key_file.read_bytes())
    return found
