"""Limits over a real Hub: who is refused, what every answer tells, and that Retry-After is true."""

import asyncio
import re

import openai
import pytest

from hub import serve
from hub.changes import KeyChanged
from hub.keys import change_key, rotate_key
from hub.policy import Fleet, TrustClass
from hub.quotas import Allowance
from hub.storage.rollups import By
from tunnel.messages import Head

CHAT = "/v1/chat/completions"
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def body(**changes):
    return {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10} | changes


def seconds(text):
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


def told(response):
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in response.headers.items()
        if name.startswith("x-ratelimit-")
    }


class Timer:
    """The Hub's seconds, which a test can let pass."""

    def __init__(self, real):
        self.real, self.ahead = real, 0.0

    def __call__(self):
        return self.real() + self.ahead


@pytest.fixture
def timer(bench):
    limits = bench.hub.limits
    limits._timer = Timer(limits._timer)
    return limits._timer


@pytest.fixture
async def ask(bench, http):
    """Makes a key with limits; asks with it."""
    organisation = await bench.organisation()
    node = await bench.node(organisation)

    class Ask:
        owner, machine, secret = organisation, node, ""

        async def key(self, limits, **changes):
            self.secret = await bench.key(organisation, limits=limits, **changes)
            return self

        async def __call__(self, secret=None, **changes):
            headers = {"authorization": f"Bearer {secret or self.secret}"}
            return await http.post(CHAT, json=body(**changes), headers=headers)

    return Ask()


async def stored_key(bench, organisation_id):
    [key] = await bench.hub.storage.keys.list(organisation_id)
    return key


async def test_a_key_without_limits_is_told_none(bench, ask):
    await ask.key(Allowance())
    response = await ask()
    assert (response.status_code, told(response)) == (200, {})


async def test_every_answer_tells_what_is_left(bench, ask, http):
    await ask.key(Allowance(requests_per_minute=60, tokens_per_minute=10_000))
    for left, request in enumerate([body(), body(stream=True), body(model="nobody-has-it"), body(model=3)]):
        response = await http.post(CHAT, json=request, headers={"authorization": f"Bearer {ask.secret}"})
        found = told(response)
        assert (found["limit-requests"], found["limit-tokens"]) == ("60", "10000"), request
        assert int(found["remaining-requests"]) == 60 - 1 - left
        assert 0 < seconds(found["reset-requests"]) <= 1 + left
        assert int(found["remaining-tokens"]) <= 10_000
    assert response.status_code == 400


async def test_requests_a_minute_are_refused_beyond_and_retry_after_is_true(bench, ask, timer):
    await ask.key(Allowance(requests_per_minute=2))
    assert [(await ask()).status_code for _ in range(2)] == [200, 200]
    response = await ask()
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert "This key may make 2 requests a minute" in error["message"]
    wait = int(response.headers["retry-after"])
    assert 28 <= wait <= 30
    assert told(response)["remaining-requests"] == "0"
    assert seconds(told(response)["reset-requests"]) == pytest.approx(60, abs=2)
    timer.ahead += wait - 2
    assert (await ask()).status_code == 429
    timer.ahead += 2
    assert (await ask()).status_code == 200


async def test_tokens_are_those_that_were_used_and_not_those_that_were_reserved(bench, ask, timer):
    await ask.key(Allowance(tokens_per_minute=600))
    first = await ask(max_tokens=900)
    assert first.status_code == 200
    assert int(told(first)["remaining-tokens"]) < 100, "while it runs, what it may take is set aside"
    second = await ask(max_tokens=900)
    assert second.status_code == 200, "the first used 10 tokens of the 512 that its context has"
    left = bench.hub.limits.standings(await read(bench, ask.secret))[1].left
    assert 580 <= left <= 600, "and time fills it up again"


async def read(bench, secret):
    return (await bench.hub.admission.authenticate(f"Bearer {secret}")).key


async def test_a_request_over_its_tokens_waits_and_then_passes(bench, ask, timer, script):
    async def verbose(stream, request):
        used = script.usage.__class__(prompt_tokens=100, cached_tokens=0, completion_tokens=1_400)
        await script.answer(Spent(stream, used), request)

    ask.machine.script = verbose
    await ask.key(Allowance(tokens_per_minute=1_000))
    assert (await ask()).status_code == 200
    response = await ask()
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert told(response)["remaining-tokens"] == "0", "it is in debt"
    wait = int(response.headers["retry-after"])
    assert 30 < wait <= 33
    timer.ahead += wait
    assert (await ask()).status_code == 200


class Spent:
    """A stream whose trailers say what a test wants."""

    def __init__(self, stream, usage):
        self._stream, self._usage = stream, usage

    def __getattr__(self, name):
        return getattr(self._stream, name)

    async def send(self, data, *, fin=False, trailers=None):
        if trailers is not None:
            trailers = trailers.__class__(usage=self._usage)
        await self._stream.send(data, fin=fin, trailers=trailers)


@pytest.mark.parametrize("end", ["fails", "cancelled", "no node"])
async def test_whatever_becomes_of_a_request_its_reservation_comes_back(bench, ask, http, script, end):
    await ask.key(Allowance(tokens_per_minute=600, monthly_tokens=600))
    key = await read(bench, ask.secret)

    async def thinks(stream, request):
        if end == "fails":
            stream.reset(script.reset.ENGINE_ERROR)
            return
        await asyncio.Event().wait()

    ask.machine.script = thinks
    if end == "cancelled":
        asking = asyncio.create_task(ask(max_tokens=900))
        await ask.machine.started.wait()
        assert bench.hub.limits.standings(key)[1].left < 100
        asking.cancel()
        await asyncio.wait([asking])
        await ask.machine.cancelled.wait()
    else:
        narrowed = {"x-porten-region": "us"} if end == "no node" else {}
        response = await http.post(
            CHAT, json=body(max_tokens=900), headers={"authorization": f"Bearer {ask.secret}"} | narrowed
        )
        assert response.status_code in (502, 503)
    quota = bench.hub.limits._quotas[key.id]
    await script.until(lambda: quota.reserving == 0, "the reservation ended")
    assert quota.reserved == 0
    assert bench.hub.limits.standings(key)[1].left == 600


async def test_a_budget_is_refused_as_such_and_until_the_next_month(bench, ask):
    await ask.key(Allowance(monthly_tokens=60))
    assert (await ask()).status_code == 200
    response = await ask(max_tokens=50)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (429, "quota_exceeded")
    assert "has 50 left" in error["message"]
    assert 0 < int(response.headers["retry-after"]) <= 31 * 86_400
    assert (await ask(max_tokens=1)).status_code == 200, "what is left may still be used"


async def test_an_organisations_ceiling_is_over_all_of_its_keys(bench, ask):
    await bench.hub.storage.organisations.set_limits(ask.owner, Allowance(requests_per_minute=2))
    first = await bench.key(ask.owner)
    second = await bench.key(ask.owner)
    answers = [await ask(secret) for secret in (first, second, first)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Your organisation may make 2 requests" in answers[-1].json()["error"]["message"]
    assert told(answers[0])["limit-requests"] == "2"
    stranger = await bench.organisation("Elsewhere")
    assert (await ask(await bench.key(stranger))).status_code == 503, "no node, and no limit"


async def test_requests_at_once(bench, ask, script):
    async def thinks(stream, request):
        await asyncio.Event().wait()

    ask.machine.script = thinks
    await ask.key(Allowance(concurrent_requests=1, requests_per_minute=100))
    first = asyncio.create_task(ask())
    await ask.machine.started.wait()
    response = await ask()
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "1 requests under way" in response.json()["error"]["message"]
    assert told(response)["remaining-requests"] == "99", "what is refused costs none"
    first.cancel()
    await asyncio.wait([first])


async def test_openais_client_understands_the_refusal(bench, ask):
    await ask.key(Allowance(requests_per_minute=1))
    async with bench.client(ask.secret) as client:
        messages = [{"role": "user", "content": "hello"}]
        raw = await client.chat.completions.with_raw_response.create(model="tiny", messages=messages)
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="tiny", messages=messages)
    assert caught.value.code == "rate_limit_exceeded"
    assert 50 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_a_changed_key_is_obeyed_at_once(bench, ask):
    await ask.key(Allowance(requests_per_minute=1))
    assert (await ask()).status_code == 200
    assert (await ask()).status_code == 429
    key = await stored_key(bench, ask.owner)
    rules = {
        "name": "x",
        "now": bench.hub.clock(),
        "fleet": Fleet.OWN,
        "regions": (),
        "minimum_trust": TrustClass.COMMUNITY,
        "models": None,
        "expires_at": None,
    }
    changed = await change_key(bench.hub.storage, key, limits=Allowance(requests_per_minute=50), **rules)
    bench.hub.changes.publish(KeyChanged(key.id))
    assert (await ask()).status_code == 200
    assert await change_key(bench.hub.storage, changed, limits=Allowance(), **rules | {"models": {"other"}})
    bench.hub.changes.publish(KeyChanged(key.id))
    refused = await ask()
    assert (refused.status_code, told(refused)) == (403, {})


async def test_a_rotated_key_has_two_secrets_and_one_count(bench, ask, script):
    await ask.key(Allowance(requests_per_minute=3))
    old = ask.secret
    assert (await ask(old)).status_code == 200
    key = await stored_key(bench, ask.owner)
    rotated = await rotate_key(bench.hub.storage, key, now=bench.hub.clock(), overlap_s=3600)
    bench.hub.changes.publish(KeyChanged(key.id))
    assert [(await ask(secret)).status_code for secret in (old, rotated.secret, old)] == [200, 200, 429]
    await bench.hub.key_use.note()
    used = await stored_key(bench, ask.owner)
    assert used.previous_used_at is not None
    again = await rotate_key(bench.hub.storage, used, now=bench.hub.clock(), overlap_s=0)
    bench.hub.changes.publish(KeyChanged(key.id))
    assert [(await ask(secret)).status_code for secret in (old, rotated.secret)] == [401, 401]
    assert (await ask(again.secret)).status_code == 429


async def test_a_use_that_a_limit_refused_is_a_use(bench, ask):
    await ask.key(Allowance(requests_per_minute=1))
    await ask()
    await bench.hub.key_use.note()
    before = (await stored_key(bench, ask.owner)).last_used_at
    assert (await ask()).status_code == 429
    await bench.hub.key_use.note()
    assert (await stored_key(bench, ask.owner)).last_used_at > before


async def test_what_was_streamed_before_a_client_left_is_counted(bench, ask, http, script):
    async def talks(stream, request):
        await stream.send_head(Head(status=200, headers=script.sse))
        for word in ("one", "two", "three", "four"):
            await stream.send(script.chunk(word))
        await asyncio.Event().wait()

    ask.machine.script = talks
    await ask.key(Allowance(tokens_per_minute=1_000))
    headers = {"authorization": f"Bearer {ask.secret}"}
    async with http.stream("POST", CHAT, json=body(stream=True), headers=headers) as response:
        seen = b""
        async for piece in response.aiter_bytes():
            seen += piece
            if seen.count(b"data: ") == 4:
                break
    [record] = await bench.usage(1)
    assert (record.outcome, record.completion_tokens, record.prompt_tokens) == ("cancelled", 4, 0)
    assert bench.hub.limits.standings(await read(bench, ask.secret))[1].left >= 996


async def test_a_months_budget_survives_a_restart_and_counts_what_is_still_in_the_spool(
    config, script, monkeypatch
):
    """The minute does not survive, the month does: the database, and what it had not taken yet."""

    async def spends(stream, request):
        used = script.usage.__class__(prompt_tokens=600, cached_tokens=0, completion_tokens=400)
        await script.answer(Spent(stream, used), request)

    async def spend(client):
        messages = [{"role": "user", "content": "x"}]
        await client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)

    async with script.bench_on(config) as bench:
        organisation = await bench.organisation()
        secret = await bench.key(organisation, limits=Allowance(monthly_tokens=2_001))
        (await bench.node(organisation)).script = spends
        async with bench.client(secret) as client:
            await spend(client)
            await bench.usage(1)
            monkeypatch.setattr(bench.hub.meter, "_try_flush", lambda: asyncio.sleep(0, 60.0))
            await spend(client)
            with pytest.raises(openai.RateLimitError):
                await spend(client)
    assert list(config.spool_dir.glob("*.jsonl"))
    async with serve.running(config) as server:
        hub = server.hub
        assert not list(config.spool_dir.glob("*.jsonl"))
        [key] = await hub.storage.keys.list()
        now = hub.clock()
        assert (hub.budgets.tokens.used(key.id, now), hub.budgets.tokens.used(organisation, now)) == (
            2_000,
            2_000,
        )
        url = f"{hub.addresses.api_local}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=secret, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as caught:
                await spend(client)
        assert caught.value.code == "quota_exceeded"
        sums = await hub.storage.usage.sums(organisation, since=0, until=now + 86_400, by=(By.KEY,))
        assert [(each.group, each.requests, each.tokens) for each in sums] == [((key.id,), 2, 2_000)]
