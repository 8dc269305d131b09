"""The playground: what one waits for is told, an answer comes as it is written, a refusal says what to do."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Page, expect

from hub.keys import issue_key
from hub.quotas import Allowance
from hub.storage.records import Role
from tunnel.messages import Head, Trailers, Usage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass
class Engine:
    """What answers on a machine: a word at each turn of the test's hand."""

    words: tuple[str, ...] = ("one ", "two ", "<b>three</b>")
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, stream) -> None:
        body = b""
        while (piece := await stream.receive()) is not None:
            body += piece
        self.asked.append(json.loads(body))
        try:
            await self._write(stream)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _write(self, stream) -> None:
        for number, word in enumerate(self.words):
            await self.turn.acquire()
            if not number:
                await stream.send_head(Head(status=200, headers=(("content-type", "text/event-stream"),)))
            await stream.send(event(choices=[{"index": 0, "delta": {"content": word}}]))
        await self.turn.acquire()
        await stream.send(event(choices=[], usage=USAGE))
        counted = Usage(prompt_tokens=7, cached_tokens=0, completion_tokens=3)
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=counted))

    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            self.turn.release()


def event(**said: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk"} | said).encode() + b"\n\n"


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def key_of(team, **wish: Any):
    storage, now = team.portal.hub.storage, team.portal.hub.clock()
    return (await issue_key(storage, team.organisation.id, now=now, **{"name": "app"} | wish)).key


async def machine_of(team, engine: Engine, **report: Any):
    machine = await team.machine("fra-1")
    machine.answer = engine.answer
    await machine.connect()
    if report:
        await machine.report(**report)
    return machine


async def send(page: Page, words: str) -> None:
    await page.get_by_label("Your message").fill(words)
    await page.get_by_label("Your message").press("Enter")


async def test_an_answer_comes_word_by_word_and_says_where_from(team, engine, pieces) -> None:
    await key_of(team)
    await machine_of(team, engine)
    page = await team.visit("/playground", Role.MEMBER)
    await expect(page.get_by_label("Model")).to_have_value(pieces.model_id)
    await expect(page.get_by_text(f"Runs only on machines of {team.organisation.name}")).to_be_visible()
    await send(page, "Count.")
    await expect(page.get_by_role("button", name="Stop")).to_be_focused()
    answer = page.locator(".turn-assistant .turn-words")
    engine.go_on(1)
    await expect(answer).to_have_text("one")
    engine.go_on(2)
    await expect(answer).to_have_text("one two <b>three</b>")
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    engine.go_on(1)
    facts = page.locator(".turn-facts")
    await expect(facts).to_contain_text("7 asked, 3 answered")
    await expect(facts).to_contain_text("eu-de-fra")
    await expect(page.locator("#announcer")).to_have_text("The answer is complete. one two <b>three</b>")
    await expect(page.get_by_label("Your message")).to_be_focused()

    await send(page, "Again.")
    engine.go_on(4)
    await expect(page.locator(".turn-facts")).to_have_count(2)
    said = [(each["role"], each["content"]) for each in engine.asked[1]["messages"]]
    assert said == [("user", "Count."), ("assistant", "one two <b>three</b>"), ("user", "Again.")]
    await page.get_by_role("button", name="New conversation").click()
    await expect(page.locator(".turn")).to_have_count(0)
    await send(page, "Anew.")
    engine.go_on(4)
    await expect(page.locator(".turn-facts")).to_have_count(1)
    assert [each["content"] for each in engine.asked[2]["messages"]] == ["Anew."]


async def test_stop_ends_the_work_on_the_node_and_keeps_what_was_said(team, engine) -> None:
    await key_of(team)
    await machine_of(team, engine)
    page = await team.visit("/playground")
    await send(page, "Count.")
    engine.go_on(1)
    await expect(page.locator(".turn-assistant .turn-words")).to_have_text("one")
    await page.get_by_role("button", name="Stop").click()
    async with asyncio.timeout(5):
        await engine.cancelled.wait()
    await expect(page.get_by_text("You stopped it here.")).to_be_visible()
    await send(page, "Go on.")
    engine.go_on(4)
    await expect(page.locator(".turn-assistant")).to_have_count(2)
    assert [each["content"] for each in engine.asked[1]["messages"]] == ["Count.", "one ", "Go on."]


async def test_what_it_waits_for_is_told(team, engine, pieces) -> None:
    await key_of(team)
    loading = {"done_bytes": 30 * 2**20, "total_bytes": 120 * 2**20}
    machine = await machine_of(team, engine, models=(pieces.model(pieces.model_id, "cold", on_disk=False),))
    page = await team.visit("/playground")
    await expect(page.get_by_label("Model")).to_contain_text("loads on demand")
    await send(page, "Count.")
    await expect(page.locator("#phase")).to_have_text("Queued")
    await machine.report(models=(pieces.model(pieces.model_id, "warming", phase="downloading", **loading),))
    await expect(page.locator("#phase")).to_have_text("Downloading")
    await expect(page.locator("#phase-words")).to_contain_text("30.0 MiB of 120 MiB, 25 %")
    assert await page.locator("#phase-bar").get_attribute("value") == "25"
    await machine.report(models=(pieces.model(pieces.model_id, "warming", phase="loading"),))
    await expect(page.locator("#phase")).to_have_text("Loading")
    await machine.report(models=(pieces.model(pieces.model_id),))
    await expect(page.locator("#phase")).to_have_text("Waiting for the first word")
    engine.go_on(4)
    await expect(page.locator(".turn-facts")).to_be_visible()
    await expect(page.locator("#progress")).to_be_hidden()


async def test_a_refusal_counts_the_gates_and_leads_to_explain(team, pieces) -> None:
    key = await key_of(team)
    await team.machine("fra-1")  # which never dials in
    page = await team.visit("/playground")
    await expect(page.get_by_label("Model")).to_contain_text("on no node")
    await send(page, "Count.")
    refusal = page.locator(".turn-failed")
    await expect(refusal).to_contain_text("Of your own nodes: 1 offline.")
    await expect(page.get_by_label("Your message")).to_have_value("Count.")
    await refusal.get_by_role("link", name="Explain where this key may run").click()
    await expect(page).to_have_url(f"{team.portal.url}/keys/{key.id}/explain?model={pieces.model_id}&region=")
    await expect(page.get_by_text("permitted, but not connected")).to_be_visible()


async def test_a_region_narrows_the_question(team, engine) -> None:
    await key_of(team)
    await machine_of(team, engine)
    page = await team.visit("/playground")
    await page.get_by_label("Region").select_option("us")
    await expect(page.get_by_label("Model")).to_contain_text("on no node")
    await send(page, "Count.")
    await expect(page.locator(".turn-failed")).to_contain_text("1 not what the request's own headers ask for")


async def test_a_limit_of_the_key_is_a_limit_here(team, engine) -> None:
    await key_of(team, limits=Allowance(requests_per_minute=1))
    await machine_of(team, engine)
    page = await team.visit("/playground")
    engine.go_on(4)
    await send(page, "Count.")
    await expect(page.locator(".turn-facts")).to_be_visible()
    await send(page, "Again.")
    await expect(page.locator(".turn-failed")).to_contain_text("The Hub says to wait")
    assert len(engine.asked) == 1


async def test_whoever_was_signed_out_meanwhile_is_told(team, engine) -> None:
    await key_of(team)
    await machine_of(team, engine)
    page = await team.visit("/playground")
    await page.context.clear_cookies()
    await send(page, "Count.")
    await expect(page.locator(".turn-failed")).to_contain_text("sign in")
    assert engine.asked == []


async def test_who_sends_before_the_models_are_known_is_answered_once_they_are(team, engine, pieces) -> None:
    await key_of(team)
    await machine_of(team, engine)
    page, known = await team.visit("/nodes"), asyncio.Event()

    async def later(route) -> None:
        await known.wait()
        await route.continue_()

    await page.route("**/models?*", later)
    await page.goto("/playground")
    engine.go_on(4)
    await send(page, "Count.")
    await send(page, "Count.")
    await expect(page.get_by_label("Model")).to_have_text("Looking…")
    known.set()
    await expect(page.locator(".turn-facts")).to_be_visible()
    assert len(engine.asked) == 1
