"""Signing in and out, and what each role sees, as people meet it."""

import pytest
from playwright.async_api import expect

from hub.storage.records import Role

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def fill_in(page, email: str, password: str) -> None:
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def test_somebody_signs_in_and_out(portal, team, pieces) -> None:
    page = await portal.open()
    await page.goto("/")
    await fill_in(page, await team.person(), pieces.password)
    await expect(page.get_by_role("heading", level=1)).to_have_text(team.organisation.name)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to Porten")
    await page.goto("/nodes")
    await expect(page).to_have_url(f"{portal.url}/login?next=/nodes")


async def test_signing_in_leads_to_the_page_that_was_asked_for(portal, team, pieces) -> None:
    code = await team.stranger("lab-7").ask()
    page = await portal.open()
    await page.goto(f"/device?user_code={code}")
    await fill_in(page, await team.person(), pieces.password)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Let this machine in?")
    await expect(page.get_by_role("img", name=f"Code {code}")).to_be_visible()


async def test_a_wrong_password_is_explained_where_it_is_typed(portal, team, pieces) -> None:
    page = await portal.open()
    await page.goto("/login")
    email = await team.person()
    await fill_in(page, email, "something else entirely")
    await expect(page.get_by_role("alert")).to_contain_text("E-mail or password is wrong")
    await expect(page.get_by_label("E-mail")).to_have_value(email)
    await expect(page.get_by_label("Password")).to_be_focused()
    await page.keyboard.type(pieces.password)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(team.organisation.name)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
async def test_those_who_only_look_are_offered_no_change(team, role: Role) -> None:
    node = await team.machine("lab-7")
    page = await team.visit(f"/nodes/{node.node_id}", role)
    await expect(page.get_by_role("heading", level=1)).to_have_text("lab-7")
    await expect(page.get_by_role("link", name="Revoke this node")).to_have_count(0)
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)
    await page.goto("/keys")
    await expect(page.get_by_role("button", name="Create the key")).to_have_count(0)
    code = await team.stranger("lab-8").ask()
    await page.goto(f"/device?user_code={code}")
    await expect(page.get_by_text("You may not approve machines.")).to_be_visible()
    await expect(page.get_by_role("button", name="Approve")).to_have_count(0)


async def test_a_wrong_address_leads_back(team) -> None:
    page = await team.visit()
    await page.goto("/no/such/page")
    await expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
    await page.get_by_role("link", name="Go to the overview").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(team.organisation.name)
