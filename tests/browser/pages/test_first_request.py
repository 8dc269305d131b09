"""From an empty organisation to the first answer, following what the overview says."""

import httpx
import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def expect_next(page: Page, step: str) -> None:
    await expect(page.locator(".step-next h3")).to_have_text(step)


async def test_the_overview_leads_to_the_first_answer(portal, team, pieces) -> None:
    page = await team.visit("/")
    await expect(page.get_by_text("No machine has joined yet.")).to_be_visible()
    await expect_next(page, "Connect a machine you own")
    await expect(page.locator("#command-1")).to_have_text(f"curl -fsSL {portal.url}/install.sh | sh")

    machine = team.stranger("lab-7")
    code = await machine.ask()
    await page.get_by_role("link", name="Enter a code").click()
    await page.get_by_label("Code shown on the machine").fill(code)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("link", name="Overview", exact=True).click()
    await expect_next(page, "Start the node")

    await machine.hear()
    await machine.connect()
    await page.reload()
    await expect_next(page, "Create a key")
    await page.get_by_role("link", name="Create a key").click()
    await page.get_by_label("Name", exact=True).fill("First")
    await page.get_by_role("button", name="Create the key").click()
    secret = await page.locator("#secret").inner_text()
    await page.goto("/usage")
    await expect(page.get_by_role("heading", name="Nothing was used in this time")).to_be_visible()

    await ask(portal, pieces.model_id, secret)
    await portal.hub.meter.flush()
    await page.goto("/")
    await expect(page.get_by_role("heading", name="Everything is set up")).to_be_visible()
    await page.get_by_role("link", name="See the usage").click()
    await page.get_by_role("link", name="Model", exact=True).click()
    await expect(page.get_by_role("row", name=pieces.model_id)).to_have_text(
        f"{pieces.model_id} 1,290 1 1,234 200 56", use_inner_text=False
    )
    await expect(page.locator(".bars g")).to_have_count(30)
    await expect(page.locator(".bars .bar-prompt")).to_have_count(1)


async def ask(portal, model: str, secret: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    async with httpx.AsyncClient(base_url=portal.url, trust_env=False) as client:
        answer = await client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
        )
    assert answer.status_code == 200


async def test_the_overview_follows_what_happens_elsewhere(team) -> None:
    page = await team.visit("/", clock=True)
    await page.get_by_role("button", name="Copy").first.click()
    machine = await team.machine("lab-7")
    await machine.connect()
    await page.clock.run_for(5000)
    await expect(page.get_by_text("Your node is online.")).to_be_visible()
    await expect_next(page, "Create a key")
