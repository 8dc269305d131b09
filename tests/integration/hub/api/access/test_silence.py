"""Ten thousand connections that say nothing: the Hub answers others as before, and closes them."""

import asyncio
import logging
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.hub.churn.running_hub import running_hub

log = logging.getLogger(__name__)

WANTED = 10_000
HELD_S = 15.0
"""Seconds of looking while all of them are there; they are closed after 30."""
EVERY_S = 0.01
P99_S = 0.1


class Looks:
    """Asks /healthz again and again, and keeps how long each answer took, in seconds."""

    def __init__(self, client):
        self.client = client
        self.took = []

    async def run(self):
        while True:
            began = time.perf_counter()
            assert (await self.client.get("/healthz")).status_code == 200
            self.took.append(time.perf_counter() - began)
            await asyncio.sleep(EVERY_S)

    def taken(self):
        """What was measured since it was last taken: how many, p50, p99 and the worst, in milliseconds."""
        took, self.took = sorted(self.took), []
        return (
            len(took),
            *(round(took[len(took) * part // 100] * 1e3, 1) for part in (50, 99)),
            round(took[-1] * 1e3, 1),
        )


@pytest.mark.hostile
@pytest.mark.timeout(180)
async def test_those_who_say_nothing_keep_nobody_waiting(tmp_path):
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with running_hub(tmp_path) as hub, httpx.AsyncClient(base_url=hub.api, trust_env=False) as client:
        url, looks = httpx.URL(hub.api), Looks(client)
        looking = asyncio.create_task(looks.run())
        await asyncio.sleep(2)
        alone = looks.taken()
        peers = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("silent_peers.py"))),
            *(url.host, str(url.port), str(WANTED)),
            stdout=asyncio.subprocess.PIPE,
        )
        count = int((await peers.stdout.readline()).split()[1])
        opening = looks.taken()
        await asyncio.sleep(HELD_S)
        held = looks.taken()
        said = "%s: %d answers of /healthz, p50 %.1f ms, p99 %.1f ms, worst %.1f ms"
        for name, measured in (
            ("alone", alone),
            (f"while {count} connections are opened", opening),
            (f"while {count} connections say nothing", held),
        ):
            log.info(said, name, *measured)
        if count < WANTED:
            log.warning("the limit on open files allowed %d connections of %d", count, WANTED)
        ended = (await peers.stdout.readline()).decode().split()
        await peers.wait()
        assert ended == ["ended", str(count), "spoke", "0"]
        looking.cancel()
        assert held[2] < P99_S * 1e3
