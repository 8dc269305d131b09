"""A machine asks to join, and a person decides about it in a browser."""

import pytest
from playwright.async_api import expect

from hub.storage.records import Role
from tunnel.identity import read_credential

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_a_typed_code_shows_the_machine_and_lets_it_in(portal, team) -> None:
    machine = team.stranger("ber-gpu-1")
    code = await machine.ask()
    page = await team.visit("/", Role.OPERATOR)
    await page.get_by_role("link", name="Add node").click()
    await page.get_by_label("Code shown on the machine").fill(code.replace("-", " ").lower())
    await page.keyboard.press("Enter")

    facts = page.get_by_role("region", name="The machine that is asking")
    for said in ("ber-gpu-1", "Debian GNU/Linux 12 on x86_64", machine.fingerprint, "127.0.0.1"):
        await expect(facts).to_contain_text(said)
    await expect(page.get_by_text("If somebody sent you the code or a link, refuse.")).to_be_visible()
    await page.get_by_label("Region").select_option(label="Frankfurt (eu-de-fra)")
    await page.get_by_label("Verified").check()
    await page.get_by_role("button", name="Approve").click()

    await expect(page.get_by_role("heading", level=1)).to_have_text("Approved")
    await expect(page.get_by_role("definition").first).to_have_text("Frankfurt")
    credential = read_credential((await machine.hear())["credential"], portal.hub.key.public_key())
    assert (credential.region, credential.trust) == ("eu-de-fra", "verified")
    await machine.connect()
    await page.get_by_role("link", name="See the nodes").click()
    await expect(page.get_by_role("row", name="ber-gpu-1")).to_contain_text("Online")


async def test_a_refused_machine_hears_it_and_leaves_nothing(portal, team) -> None:
    machine = team.stranger("not-ours")
    page = await team.visit(f"/device?user_code={await machine.ask()}")
    await page.get_by_role("button", name="Refuse").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Refused")
    assert (await machine.hear())["error"] == "access_denied"
    assert await portal.hub.storage.nodes.list(team.organisation.id) == []


async def test_a_code_works_once(team) -> None:
    code = await team.stranger("ber-gpu-1").ask()
    page = await team.visit(f"/device?user_code={code}")
    await page.get_by_role("button", name="Approve").click()
    await page.goto(f"/device?user_code={code}")
    await expect(page.get_by_role("alert")).to_contain_text("No machine is waiting under this code")
    field = page.get_by_label("Code shown on the machine")
    await expect(field).to_have_value(code)
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_be_focused()


async def test_an_owner_s_region_waits_for_the_operator(portal, team) -> None:
    machine = team.stranger("ber-gpu-1")
    page = await team.visit(f"/device?user_code={await machine.ask()}")
    await expect(page.get_by_role("group", name="Trust class")).to_have_count(0)
    await page.get_by_label("Region").select_option("eu-de")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_text("Germany, once the Hub's operator confirms it")).to_be_visible()
    await machine.hear()
    await page.goto(f"/nodes/{machine.node_id}")
    await expect(page.get_by_text("The region Germany is not confirmed.")).to_be_visible()

    operator = await team.visit(f"/nodes/{machine.node_id}", Role.OPERATOR)
    await operator.get_by_role("button", name="Save").click()
    await expect(operator.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("is not confirmed.")).to_have_count(0)


async def test_organisations_are_asked_for_only_when_it_is_shared_with_some(team, new_team) -> None:
    friends = await new_team("Friends")
    page = await team.visit(f"/device?user_code={await team.stranger('ber-gpu-1').ask()}")
    named = page.get_by_label("Organisations it is shared with")
    await expect(named).to_be_hidden()
    await page.get_by_label("Named organisations").check()
    await named.fill("everybody")
    await page.get_by_role("button", name="Approve").click()
    problem = page.get_by_role("alert").get_by_role("link")
    await expect(problem).to_have_text("'everybody' is no organisation id. Write one id a line.")
    await problem.click()
    await expect(named).to_be_focused()
    await named.fill(friends.organisation.id)
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_text(f"Shared with {friends.organisation.id}")).to_be_visible()
