"""The nodes as people see them: live, changed, revoked."""

import pytest
from playwright.async_api import expect

from hub.storage.records import Role
from tunnel.identity import read_credential

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

NEXT_REFRESH_MS = 5000


async def test_a_new_organisation_is_told_what_to_do(portal, team) -> None:
    page = await team.visit("/nodes")
    await expect(page.get_by_role("heading", name="No machine has joined yet")).to_be_visible()
    await expect(page.locator("#install-command")).to_have_text(f"curl -fsSL {portal.url}/install.sh | sh")
    await page.get_by_role("link", name="Enter it").click()
    await expect(page.get_by_label("Code shown on the machine")).to_be_focused()


async def test_the_first_machine_appears_by_itself(team) -> None:
    page = await team.visit("/nodes", clock=True)
    machine = await team.machine("fra-1")
    await machine.connect()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(page.get_by_role("row", name="fra-1")).to_contain_text("Online")
    await expect(page.get_by_text("No machine has joined yet")).to_have_count(0)


async def test_the_list_follows_machines_that_come_and_go(team, pieces) -> None:
    machine = await team.machine("fra-1")
    page = await team.visit("/nodes", clock=True)
    row = page.get_by_role("row", name="fra-1")
    await expect(row).to_contain_text("Offline")

    await machine.connect()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(row).to_contain_text("Online")
    await expect(row).to_contain_text(pieces.model_id)
    await expect(row.get_by_role("img")).to_have_accessible_name(
        "NVIDIA L40S: 21.0 GiB held by models, 6.0 GiB used by others, of 48.0 GiB; models may take 40.0 GiB"
    )
    await page.clock.run_for(100)  # the announcement waits for a frame
    await expect(page.locator("#announcer")).to_have_text("1 of 1 node online")

    await machine.leave()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(row).to_contain_text("Offline")


async def test_the_list_stays_still_under_the_keyboard(team) -> None:
    machine = await team.machine("fra-1")
    page = await team.visit("/nodes", clock=True)
    link = page.get_by_role("link", name="fra-1")
    await link.focus()
    await machine.connect()
    for _ in range(2):  # when the second answer is here, the first was dealt with
        async with page.expect_response("**/nodes/live"):
            await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(link).to_be_focused()
    await expect(page.get_by_role("row", name="fra-1")).to_contain_text("Offline")
    await page.get_by_role("link", name="Add a node").focus()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(page.get_by_role("row", name="fra-1")).to_contain_text("Online")


async def test_a_node_s_page_follows_a_model_that_loads(team, pieces) -> None:
    machine = await team.machine("fra-1")
    await machine.connect()
    page = await team.visit(f"/nodes/{machine.node_id}", clock=True)
    now, models = (page.get_by_role("region", name=name) for name in ("Now", "Models"))
    for done in (20, 80):
        loading = pieces.model("qwen-32b", "warming", phase="downloading", done_bytes=done, total_bytes=100)
        await machine.report(models=(loading,))
        await page.clock.run_for(NEXT_REFRESH_MS)
        await expect(models).to_contain_text(f"downloading {done} %")
        await expect(models.get_by_role("progressbar")).to_have_js_property("value", done)
    await machine.leave()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(now).to_contain_text("It is not connected.")
    await expect(models).to_contain_text("They are shown while the node is connected.")
    await expect(page.locator("#state")).to_contain_text("Offline")


async def test_what_is_typed_outlives_a_refresh(team) -> None:
    machine = await team.machine("fra-1")
    page = await team.visit(f"/nodes/{machine.node_id}", clock=True)
    await page.get_by_label("Name", exact=True).fill("half a na")
    await machine.connect()
    await page.clock.run_for(NEXT_REFRESH_MS)
    await expect(page.locator("#state")).to_contain_text("Online")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("half a na")
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()


async def test_a_changed_region_reaches_the_node(portal, team, pieces) -> None:
    machine = await team.machine("fra-1")
    await machine.connect()
    page = await team.visit(f"/nodes/{machine.node_id}", Role.OPERATOR)
    await page.get_by_label("Region").select_option("us-east")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    await expect(page.get_by_label("Region")).to_have_value("us-east")
    await pieces.until(lambda: len(machine.welcomes) == 2, "the node is welcomed anew")
    credential = read_credential(machine.welcomes[-1].credential, portal.hub.key.public_key())
    assert credential.region == "us-east"


async def test_revoking_asks_first_and_then_cuts_the_connection(team, pieces) -> None:
    machine = await team.machine("fra-1")
    await machine.connect()
    page = await team.visit(f"/nodes/{machine.node_id}")
    await page.get_by_role("link", name="Revoke this node").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Revoke fra-1?")
    await page.get_by_role("link", name="Keep it").click()
    assert machine.live is not None

    await page.get_by_role("link", name="Revoke this node").click()
    await page.get_by_role("button", name="Revoke this node").click()
    await expect(page.locator("#state")).to_contain_text("Revoked")
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)
    await pieces.until(lambda: machine.live is None, "the connection is cut")
    await page.goto("/nodes")
    await expect(page.get_by_role("row", name="fra-1")).to_have_count(0)


async def test_only_operators_see_other_organisations(team, new_team) -> None:
    others = await new_team("Elsewhere")
    theirs = await others.machine("secret-lab-1")
    page = await team.visit("/nodes?of=all")
    await expect(page.get_by_role("heading", name="No machine has joined yet")).to_be_visible()
    await page.goto(f"/nodes/{theirs.node_id}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")

    operator = await team.visit("/nodes", Role.OPERATOR)
    await operator.get_by_role("link", name="Show the nodes of every organisation").click()
    await expect(operator.get_by_role("row", name="secret-lab-1")).to_contain_text("Elsewhere")
