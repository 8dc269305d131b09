"""The database away under load: known keys go on, everything else says so, and nothing is lost or doubled.

A real PostgreSQL hangs (SIGSTOP: connections are accepted and nothing answers) or is shut down (connections
are refused). For seconds in the usual tests; `make test-outage` has it away for two minutes.
"""

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from hub.keys import issue_key, mint
from hub.storage.repositories import Storage

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
ASKERS = 8
AWAY_S = 4.0
LONG_S = float(os.environ.get("PORTEN_OUTAGE_S", "120"))
SIGNED_IN = {"cookie": f"porten-session={'A' * 43}"}
OVER_S = 15.0
"""Within which whatever needs the database says that it is away: each wait for it is bounded."""


@pytest.fixture(params=["hangs", "refuses"])
def how(request):
    return request.param


@pytest.fixture
def settings(own_postgres):
    return {"database_url": own_postgres.create("hub")}


@pytest.fixture(autouse=True)
def impatience(request, monkeypatch):
    """The Hub gives its database up sooner than it does by itself, but for where minutes are spent anyway."""
    if request.node.get_closest_marker("outage") is None:
        monkeypatch.setattr("hub.serve.ANSWER_S", 4.0)
        monkeypatch.setattr("hub.storage.engine.CONNECT_S", 4.0)


def go_away(postgres, how):
    postgres.freeze() if how == "hangs" else postgres.stop()


def come_back(postgres, how):
    postgres.thaw() if how == "hangs" else postgres.start()


@dataclass
class Load:
    """Clients that ask without a pause, streamed and not, and what they were answered."""

    http: httpx.AsyncClient
    secret: str
    answered: dict[str, int] = field(default_factory=dict)
    failed: Counter = field(default_factory=Counter)
    _tasks: list[asyncio.Task] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._ask(bool(number % 2))) for number in range(ASKERS)]
        return self

    async def __aexit__(self, *_):
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self, stream):
        headers = {"authorization": f"Bearer {self.secret}"}
        while not self._stop.is_set():
            response = await self.http.post(CHAT, json=ASK | {"stream": stream}, headers=headers)
            if response.status_code == 200 and (not stream or "[DONE]" in response.text):
                self.answered[response.headers["x-request-id"]] = 3
            else:
                self.failed[response.json()["error"]["code"]] += 1

    async def more(self, count):
        """Wait until so many more were answered."""
        wanted = len(self.answered) + count
        async with asyncio.timeout(30):
            while len(self.answered) < wanted:
                await asyncio.sleep(0.01)


@pytest.fixture
def caught_up(bench, caplog):
    """Wait until the Hub has read all that was changed: an outage before that makes it believe nothing."""
    caplog.set_level("DEBUG", "hub.cluster.local")

    async def wait():
        async def read():
            now = await bench.hub.storage.settings.revision()
            return any(getattr(record, "revision", None) == now for record in caplog.records)

        await until_answered(read)

    return wait


@pytest.fixture
async def place(bench, http):
    organisation = await bench.organisation()
    node = await bench.node(organisation)
    return organisation, node


async def recorded(bench):
    return {
        each.request_id: each.completion_tokens for each in await bench.hub.storage.usage.list(limit=10**6)
    }


async def until_answered(call, seconds=30.0):
    """Call until it does not raise; for what comes back by itself."""
    async with asyncio.timeout(seconds):
        while not await call():
            await asyncio.sleep(0.1)


async def is_ready(http):
    return (await http.get("/readyz")).status_code == 200


async def outage(bench, http, postgres, how, place, away_s, caught_up):
    organisation, node = place
    secret = await bench.key(organisation)
    unused = await bench.key(organisation)
    await caught_up()
    async with Load(http, secret) as load:
        await load.more(50)
        session = bench.hub.registry.session(node.node_id)
        go_away(postgres, how)
        began = time.monotonic()
        await load.more(200)
        await everything_else_says_so(bench, http, unused)
        while time.monotonic() - began < away_s:
            await load.more(20)
            assert (await http.get("/healthz")).status_code == 200
        assert load.failed == {}
        assert bench.hub.registry.session(node.node_id) is session
        waiting = bench.hub.meter.waiting
        come_back(postgres, how)
        await until_answered(lambda: is_ready(http))
        await load.more(50)
        assert load.failed == {}
    assert waiting > 200
    await bench.hub.meter.flush()
    assert await recorded(bench) == load.answered
    assert bench.hub.meter.waiting == 0
    answer = await http.post(CHAT, json=ASK, headers={"authorization": f"Bearer {unused}"})
    assert answer.status_code == 200
    return load


async def everything_else_says_so(bench, http, unused):
    """All at once, as they would come: none waits for longer than it may, and each says what is wrong."""
    strange = mint().secret
    async with asyncio.timeout(OVER_S):
        ready, page, form, known, unknown, models, messages, device = await asyncio.gather(
            http.get("/readyz"),
            http.get("/keys", headers=SIGNED_IN),
            http.get("/login", headers=SIGNED_IN),
            http.post(CHAT, json=ASK, headers={"authorization": f"Bearer {unused}"}),
            http.post(CHAT, json=ASK, headers={"authorization": f"Bearer {strange}"}),
            http.get("/v1/models", headers={"authorization": f"Bearer {unused}"}),
            http.post("/v1/messages", json=ASK | {"max_tokens": 1}, headers={"x-api-key": unused}),
            http.post("/enroll/v1/device_authorization", json={"public_key": "A" * 43, "name": "box"}),
        )
    assert (ready.status_code, ready.json()["database"], ready.json()["tunnel"]) == (503, False, True)
    for shown in (page, form):
        assert shown.status_code == 503
        assert "database does not answer" in shown.text
        assert "content-security-policy" in shown.headers
    assert messages.json()["type"] == "error", "Anthropic's own envelope"
    for refused in (known, unknown, models, messages):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
        assert "retry-after" in refused.headers
    assert (device.status_code, device.json()["error"]) == (503, "temporarily_unavailable")

    async def is_told():
        return "porten_hub_database_up 0.0" in (await http.get("/metrics")).text

    await until_answered(is_told)


async def test_known_keys_go_on_and_nothing_is_lost(bench, http, own_postgres, how, place, caught_up, caplog):
    await outage(bench, http, own_postgres, how, place, AWAY_S, caught_up)
    assert own_postgres.password not in caplog.text


@pytest.mark.outage
@pytest.mark.timeout(LONG_S + 240)
async def test_two_minutes(bench, http, own_postgres, how, place, caught_up):
    load = await outage(bench, http, own_postgres, how, place, LONG_S, caught_up)
    assert len(load.answered) > 8 * LONG_S


async def test_a_node_that_loses_its_line_comes_back_with_the_database(bench, http, own_postgres, how, place):
    _, node = place
    handshakes = bench.hub.metrics.tunnel.stats.handshakes
    welcomed = handshakes["welcomed"]
    go_away(own_postgres, how)
    await bench.hub.registry.session(node.node_id).close("lost")
    async with asyncio.timeout(30):
        while not handshakes["refused"] and not handshakes["timed_out"]:
            await asyncio.sleep(0.05)
    assert handshakes["welcomed"] == welcomed
    come_back(own_postgres, how)
    async with asyncio.timeout(60):
        while not bench.offers(node.node_id):
            await asyncio.sleep(0.05)


class TestGraceThatEnds:
    """After it nothing is believed: who was revoked meanwhile must not be served for ever."""

    @pytest.fixture
    def settings(self, own_postgres):
        return {"database_url": own_postgres.create("hub"), "database_outage_grace_s": 1.0}

    async def test_no_request_is_dispatched_any_more_until_it_is_known_again(
        self, bench, http, own_postgres, how, place
    ):
        organisation, node = place
        headers = {"authorization": f"Bearer {await bench.key(organisation)}"}

        async def ask():
            return await http.post(CHAT, json=ASK, headers=headers)

        assert (await ask()).status_code == 200
        go_away(own_postgres, how)
        async with asyncio.timeout(30):
            while bench.hub.registry.facts.get(node.node_id) is not None:
                await asyncio.sleep(0.05)
        seen = len(node.seen)
        refused = await ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
        assert len(node.seen) == seen
        come_back(own_postgres, how)

        async def served():
            return (await ask()).status_code == 200

        await until_answered(served)


async def test_what_was_revoked_by_another_process_is_obeyed_as_soon_as_it_can_be_seen(
    bench, http, own_postgres, config, place
):
    """Revoked in the last moment before the database falls silent: the first look after it finds out."""
    organisation, _ = place
    issued = await issue_key(bench.hub.storage, organisation, name="k", now=bench.hub.clock())
    headers = {"authorization": f"Bearer {issued.secret}"}

    async def code():
        return (await http.post(CHAT, json=ASK, headers=headers)).status_code

    assert await code() == 200
    own_postgres.stop()
    own_postgres.start()
    async with await Storage.open(config.database) as other:
        await other.keys.revoke(issued.key.id, now=1.0)

    async def refused():
        return await code() == 401

    await until_answered(refused)


async def test_a_revocation_of_which_nobody_knows_whether_it_was_stored_is_obeyed(
    bench, http, own_postgres, place, caught_up
):
    organisation, node = place
    headers = {"authorization": f"Bearer {await bench.key(organisation)}"}
    await caught_up()
    assert (await http.post(CHAT, json=ASK, headers=headers)).status_code == 200
    own_postgres.freeze()
    try:
        with pytest.raises(Exception, match="does not answer"):
            await bench.hub.enrollment.revoke(node.node_id)
        refused = await http.post(CHAT, json=ASK, headers=headers)
        assert refused.json()["error"]["code"] == "no_available_node"
    finally:
        own_postgres.thaw()
