"""Making, seeing and revoking keys, as a person does."""

import httpx
import pytest
from playwright.async_api import Page, Route, expect

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def stored(portal, team):
    return await portal.hub.storage.keys.list(team.organisation.id)


async def make(page: Page, name: str) -> str:
    """Create a key with whatever else the form says; returns its secret."""
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{name} is ready")
    return await page.locator("#secret").inner_text()


async def test_the_preview_says_what_each_choice_means(portal, team) -> None:
    for name, region in (("fra-1", "eu-de-fra"), ("nyc-1", "us-east")):
        machine = await team.machine(name, region)
    await machine.connect()
    page = await team.visit("/keys")
    preview, name = page.locator("#preview"), team.organisation.name
    await expect(preview).to_contain_text(f"Runs only on machines of {name}, wherever they stand.")
    await expect(preview).to_contain_text("Right now 2 of your 2 nodes match, 1 online.")

    await page.get_by_label("European Union").check()
    await expect(preview).to_contain_text(f"Runs only on machines of {name}, standing in European Union.")
    await expect(preview).to_contain_text("Right now 1 of your 2 nodes matches, 0 online.")

    await page.get_by_label("Any node, public ones too").check()
    await expect(preview).to_contain_text("and on public ones, standing in European Union.")
    await expect(preview).to_contain_text("Other owners' machines may match too.")

    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Least trust class").select_option("confidential")
    await expect(preview).to_contain_text("of trust class confidential or above.")
    await expect(preview).to_contain_text("Right now none of your 2 nodes matches")


async def test_a_key_is_as_it_was_chosen_and_works(portal, team, pieces) -> None:
    machine = await team.machine("fra-1")
    await machine.connect()
    page = await team.visit("/keys")
    await page.get_by_label("Mine and shared with us").check()
    await page.get_by_label("Germany").check()
    await page.get_by_label("Switzerland").check()
    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Models it may use").fill(f"{pieces.model_id}\nother-model")
    await page.get_by_label("Least trust class").select_option(label="Verified")
    await page.get_by_label("Expires").select_option(label="After a week")
    secret = await make(page, "Support")

    (key,) = await stored(portal, team)
    assert (key.fleet, key.regions) == ("shared", {"eu-de", "ch"})
    assert (key.minimum_trust, key.models) == ("verified", {pieces.model_id, "other-model"})
    assert key.expires_at == pytest.approx(key.created_at + 7 * 86_400)
    async with httpx.AsyncClient(base_url=f"{portal.url}/v1", trust_env=False) as client:
        body = {"model": pieces.model_id, "messages": [{"role": "user", "content": "Hello"}]}
        answer = await client.post(
            "/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
        )
    assert (answer.status_code, answer.headers["x-porten-region"]) == (200, "eu-de-fra")


async def test_the_secret_can_be_copied(portal, team) -> None:
    page = await team.visit("/keys", permissions=["clipboard-read", "clipboard-write"])
    secret = await make(page, "Support")
    await page.get_by_role("button", name="Copy the key").click()
    await expect(page.locator("#copy-secret")).to_have_text("Copied")
    await expect(page.locator("#announcer")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == secret
    await page.get_by_role("button", name="Copy the curl command").click()
    await expect(page.locator("#copy-curl")).to_have_text("Copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl {portal.url}/v1/chat/completions \\\n")
    assert f'-H "Authorization: Bearer {secret}" \\\n' in copied


async def test_the_secret_is_gone_after_a_reload_and_no_second_key_is_made(portal, team) -> None:
    page = await team.visit("/keys")
    secret = await make(page, "Support")
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keys")
    await page.get_by_role("link", name="Overview", exact=True).click()
    await page.go_back()
    await expect(page.get_by_role("row", name="Support")).to_be_visible()
    assert secret not in await page.content()
    assert len(await stored(portal, team)) == 1


async def test_an_impatient_second_click_sends_nothing(team) -> None:
    page = await team.visit("/keys")
    sent: list[Route] = []

    async def hold(route: Route) -> None:  # as a Hub that takes its time
        sent.append(route)

    await page.route("**/keys", hold)
    await page.get_by_label("Name", exact=True).fill("Support")
    button = page.get_by_role("button", name="Create the key")
    await button.scroll_into_view_if_needed()
    box = await button.bounding_box()
    assert box is not None
    async with page.expect_request("**/keys"):
        await page.mouse.click(box["x"] + 9, box["y"] + 9)
    await page.mouse.click(box["x"] + 9, box["y"] + 9)
    await sent[0].continue_()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Support is ready")
    assert len(sent) == 1


async def test_mistakes_lead_to_their_fields_and_cost_nothing_that_was_typed(portal, team) -> None:
    page = await team.visit("/keys")
    await page.get_by_label("France").check()
    await page.get_by_label("Name", exact=True).fill(" ")
    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Models it may use").fill("no/model!")
    await page.get_by_role("button", name="Create the key").click()
    problems = page.get_by_role("alert")
    await expect(problems).to_be_focused()
    await problems.get_by_role("link", name="is no model id").click()
    models = page.get_by_label("Models it may use")
    await expect(models).to_be_focused()
    await expect(models).to_have_accessible_description(
        "Model ids, one a line. Leave empty for all of them. 'no/model!' is no model id. Write one id a line."
    )
    await expect(page.get_by_label("France")).to_be_checked()
    await expect(page.locator("#preview")).to_contain_text("standing in France")
    assert await stored(portal, team) == []


async def test_revoking_asks_first_and_is_said(portal, team) -> None:
    page = await team.visit("/keys")
    await make(page, "Support")
    await page.get_by_role("link", name="Done").click()
    await page.get_by_role("link", name="Revoke Support").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Revoke Support?")
    await page.get_by_role("link", name="Keep it").click()
    assert (await stored(portal, team))[0].revoked_at is None

    await page.get_by_role("link", name="Revoke Support").click()
    await page.get_by_role("button", name="Revoke this key").click()
    await expect(page.get_by_role("status").filter(has_text="Revoked.")).to_contain_text("Support is refused")
    row = page.get_by_role("row", name="Support")
    await expect(row).to_contain_text("Revoked")
    await expect(row.get_by_role("link")).to_have_count(0)
    assert (await stored(portal, team))[0].revoked_at is not None
