"""The portal in a browser that runs no scripts: all of it works, and nothing idle is shown."""

import pytest
from playwright.async_api import expect

from hub.keys import looks_valid

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_a_key_is_made(portal, team) -> None:
    page = await team.visit("/keys", java_script_enabled=False)
    await expect(page.locator("#preview")).to_be_hidden()  # it could not follow the choices
    await page.get_by_label("Name", exact=True).fill("Support")
    await page.get_by_label("Germany").check()
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Support is ready")
    await expect(page.get_by_text("standing in Germany.")).to_be_visible()
    assert looks_valid(await page.locator("#secret").inner_text())
    await expect(page.get_by_role("button", name="Copy the key")).to_be_hidden()
    (key,) = await portal.hub.storage.keys.list(team.organisation.id)
    assert key.regions == {"eu-de"}


async def test_a_machine_is_let_in_and_shared(team, new_team) -> None:
    friends = await new_team("Friends without scripts")
    machine = team.stranger("fra-1")
    code = await machine.ask()
    page = await team.visit("/device", java_script_enabled=False)
    await page.get_by_label("Code shown on the machine").fill(code)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Region").select_option("eu-de")
    await page.get_by_label("Named organisations").check()
    await page.get_by_label("Organisations it is shared with").fill(friends.organisation.id)
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Approved")
    await machine.hear()
    await machine.connect()
    await page.get_by_role("link", name="See the nodes").click()
    await expect(page.get_by_role("row", name="fra-1")).to_contain_text("Shared with Friends without scripts")


async def test_a_node_is_revoked(portal, team) -> None:
    machine = await team.machine("fra-1")
    page = await team.visit("/nodes", java_script_enabled=False)
    await page.get_by_role("link", name="fra-1").click()
    await page.get_by_role("link", name="Revoke this node").click()
    await page.get_by_role("button", name="Revoke this node").click()
    await expect(page.get_by_text("This node was revoked.")).to_be_visible()
    assert (await portal.hub.storage.nodes.get(machine.node_id)).revoked_at is not None
