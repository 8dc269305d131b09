"""Those who ask meanwhile, one request after the other for each key, and what each was answered."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.integration.hub.churn.machines import MODEL
from tests.unit.hub.oracle import Wish

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
CHAT = "/v1/chat/completions"
CODES = {"ok", "no_available_node", "invalid_api_key", "overloaded", "node_lost", "engine_error"}
"""What may become of a request while nodes come and go; anything else is a fault."""


@dataclass(frozen=True)
class Asked:
    """One request; times of the event loop, `node_id` as the answer names it."""

    request_id: str
    key_id: str
    wish: Wish
    begin: float
    end: float
    code: str
    node_id: str | None


@dataclass
class Askers:
    """Asks with keys until told to stop. `draw_wish` says what each request asks for on top."""

    http: httpx.AsyncClient
    chance: Random
    draw_wish: Callable[[], Wish]
    asked: list[Asked] = field(default_factory=list)
    retired: dict[str, float] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep_asking(self, key_id: str, secret: str) -> None:
        """Ask with one key until it is retired: some time after it was revoked, for that must be refused."""
        loop = asyncio.get_running_loop()
        while not self.over.is_set() and loop.time() < self.retired.get(key_id, math.inf):
            await self.ask(key_id, secret, self.draw_wish())
            await asyncio.sleep(self.chance.uniform(0, 0.02))

    async def ask(self, key_id: str, secret: str, wish: Wish) -> Asked:
        """Ask once, and keep what came of it."""
        headers = {"authorization": f"Bearer {secret}"}
        headers |= {"x-porten-region": wish.region} if wish.region else {}
        headers |= {"x-porten-node": wish.node} if wish.node else {}
        loop = asyncio.get_running_loop()
        begin = loop.time()
        answer = await self.http.post(CHAT, json=ASK, headers=headers)
        end = loop.time()
        code = "ok" if answer.status_code == 200 else answer.json()["error"]["code"]
        assert code in CODES, f"{code}: {answer.text}"
        node_id = answer.headers.get("x-porten-node")
        assert (node_id is not None) == (code == "ok")
        found = Asked(answer.headers["x-request-id"], key_id, wish, begin, end, code, node_id)
        self.asked.append(found)
        self.codes[code] += 1
        return found
