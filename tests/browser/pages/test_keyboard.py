"""The portal without a mouse: everything is reached in order, and where one is can be seen."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# Everything that can be operated, in the order it is read; of a group of radios, the one that is chosen.
FIND_STOPS = """() => {
  const operable = "a[href], button, input:not([type=hidden]), select, textarea, summary";
  const isStop = (one) => one.checkVisibility() && (one.type !== "radio" || one.checked);
  window.stops = [...document.querySelectorAll(operable)].filter(isStop);
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
  return window.stops.length;
}"""
DESCRIBE_FOCUS = """() => {
  const one = document.activeElement;
  const ring = getComputedStyle(one.closest(".choice") ?? one);
  const box = one.getClientRects()[0];
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return {
    stop: window.stops.indexOf(one),
    what: one.outerHTML.slice(0, 120),
    ringed: ring.outlineStyle !== "none" && parseFloat(ring.outlineWidth) >= 2,
    uncovered: one.contains(top),
  };
}"""


async def walk(page: Page) -> list[dict[str, Any]]:
    """Press Tab through the whole page; returns each place that was reached."""
    count = await page.evaluate(FIND_STOPS)
    reached = []
    for _ in range(count):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate(DESCRIBE_FOCUS))
    return reached


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 700}])
async def test_tab_reaches_everything_in_order_and_shows_where_it_is(team, viewport) -> None:
    node = await team.machine("fra-1")
    await node.connect()
    code = await team.stranger("fra-2").ask()
    page = await team.visit("/keys", viewport=viewport)
    await page.get_by_label("Name", exact=True).fill("Support")
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("heading", name="Support is ready").wait_for()
    node_page = f"/nodes/{node.node_id}"
    paths = [
        "/",
        "/playground",
        "/models",
        "/nodes",
        node_page,
        f"{node_page}/revoke",
        "/keys",
        "/usage",
        "/device",
    ]
    for path in (None, *paths, f"/device?user_code={code}"):
        if path is not None:
            await page.goto(path)
        reached = await walk(page)
        assert [place["stop"] for place in reached] == list(range(len(reached))), path
        assert [place["what"] for place in reached if not place["ringed"]] == [], path
        assert [place["what"] for place in reached if not place["uncovered"]] == [], path


async def test_the_first_tab_leads_past_the_tabs_to_the_page(team) -> None:
    page = await team.visit("/keys")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the page")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("main").get_by_role("link", name="admin tokens")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()


async def test_a_key_is_made_with_the_keyboard_alone(portal, team) -> None:
    page = await team.visit("/keys")
    for key in ("Tab", "Enter", "Tab", "Tab"):
        await page.keyboard.press(key)
    await page.keyboard.type("Support")
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowDown")
    while "European Union" not in await page.evaluate("document.activeElement.parentElement.textContent"):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.locator("#preview")).to_contain_text("standing in European Union.")
    while await page.evaluate("document.activeElement.type") != "submit":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Support is ready")
    (key,) = await portal.hub.storage.keys.list(team.organisation.id)
    assert (key.name, key.fleet, key.regions) == ("Support", "shared", {"eu"})


async def test_what_is_behind_more_on_a_phone_is_reached_and_left_without_a_mouse(team) -> None:
    page = await team.visit("/nodes", viewport={"width": 390, "height": 700})
    more, usage = page.get_by_role("button", name="More"), page.get_by_role("link", name="Usage")
    await expect(usage).to_be_hidden()
    await more.focus()
    await page.keyboard.press("Enter")
    await expect(usage).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(usage).to_be_hidden()
    await expect(more).to_be_focused()
    await page.keyboard.press("Enter")
    for _ in range(2):  # Keys, Usage
        await page.keyboard.press("Tab")
    await expect(usage).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Usage")
