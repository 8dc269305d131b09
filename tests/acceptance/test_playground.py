"""Somebody asks the real model in a real browser: it loads, the answer streams, and its receipt holds."""

from collections.abc import AsyncIterator

import playwright.async_api as pw
import pytest
import pytest_asyncio

from benchmarks.stacks.stack import MODEL, OPERATOR, Stack

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

WATCH = """() => {
  window.phases = [];
  window.lengths = [];
  new MutationObserver(() => {
    const phase = document.getElementById("phase").textContent;
    if (phase && phase !== window.phases.at(-1)) window.phases.push(phase);
    const turns = [...document.querySelectorAll(".turn-assistant .turn-words")];
    const words = turns.at(-1)?.textContent.length ?? 0;
    if (words && words !== window.lengths.at(-1)) window.lengths.push(words);
  }).observe(document.querySelector("main"), { subtree: true, childList: true, characterData: true });
}"""
LONG_MS = 60_000  # the engine starts and reads the model, on a machine that may be busy


@pytest_asyncio.fixture(loop_scope="module")
async def page(stack: Stack, chromium: str) -> AsyncIterator[pw.Page]:
    """The playground, with the operator signed in."""
    async with pw.async_playwright() as player:
        browser = await player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(base_url=stack.hub.api_url)
        await page.goto("/login?next=/playground")
        await page.get_by_label("E-mail").fill(OPERATOR)
        await page.get_by_label("Password").fill(stack.hub.password)
        await page.get_by_role("button", name="Sign in").click()
        await pw.expect(page.get_by_role("combobox", name="Model")).to_have_value(MODEL)
        await page.evaluate(WATCH)
        yield page
        await browser.close()


async def send(page: pw.Page, words: str) -> None:
    await page.get_by_label("Your message").fill(words)
    await page.get_by_role("button", name="Send").click()


async def test_a_real_answer_streams_and_says_where_it_came_from(stack: Stack, page: pw.Page) -> None:
    await page.get_by_label("Longest answer, in tokens").fill("40")
    await send(page, "Tell me a short story about a dog.")
    facts = page.locator(".turn-facts")
    await pw.expect(facts).to_contain_text("answered", timeout=LONG_MS)
    answer = await page.locator(".turn-assistant .turn-words").inner_text()
    assert len(answer) > 20
    lengths = await page.evaluate("window.lengths")
    assert len(lengths) >= 3, "it came in pieces"
    assert lengths == sorted(lengths)
    phases = await page.evaluate("window.phases")
    assert phases[0] == "Queued"
    assert set(phases) <= {"Queued", "Downloading", "Loading", "Waiting for the first word"}
    await pw.expect(facts.locator(".pill")).to_have_text("Holds")
    await pw.expect(facts.get_by_role("link", name=stack.node.name)).to_be_visible()
    await pw.expect(facts).to_contain_text("Germany")
    await pw.expect(facts).to_contain_text("tokens/s")


async def test_stop_leaves_what_was_written_and_the_next_question_is_answered(page: pw.Page) -> None:
    await send(page, "Write a very long story about a sailor, with many chapters.")
    words = page.locator(".turn-assistant .turn-words")
    await pw.expect(words).not_to_be_empty(timeout=LONG_MS)
    await page.get_by_role("button", name="Stop").click()
    await pw.expect(page.get_by_text("You stopped it here.")).to_be_visible()
    await page.get_by_label("Longest answer, in tokens").fill("5")
    await send(page, "And now?")
    await pw.expect(page.locator(".turn-assistant").nth(1)).to_contain_text("answered", timeout=LONG_MS)
