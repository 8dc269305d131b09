"""Every page in every state worth seeing: pictures of it, no barrier in it, nothing beyond its edge."""

from pathlib import Path
from typing import Any

import playwright.async_api as pw
import pytest
from axe_playwright_python.async_playwright import Axe

from tests.browser.pages.looks import looks_of_models, looks_of_nodes, looks_of_people
from tests.browser.pages.looks.states import PHONE

STATES = looks_of_nodes.STATES | looks_of_models.STATES | looks_of_people.STATES

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

PICTURES = Path(__file__).parents[4] / "reports" / "screenshots"
WIDE = {"width": 1280, "height": 800}
VIEWS = (("light", "wide", WIDE), ("light", "phone", PHONE), ("dark", "phone", PHONE), ("dark", "wide", WIDE))
# Everything once; where only colours and widths differ, what depends on them.
EXAMINED = {
    ("light", "wide"): {"reporter": "v2"},
    ("dark", "phone"): {"runOnly": ["color-contrast", "link-in-text-block", "target-size"]},
}
AXE = Axe()
NARROW = (320, 820)  # as narrow as WCAG 2.2, 1.4.10 asks for; where there is just room for the rail
# What reaches past the edge of the page or of the card it stands in.
BEYOND = """() => [...document.querySelectorAll("main *, .rail *")].filter((one) => {
  const around = one.closest(".card, .rail, main");
  return one.checkVisibility() && one.getBoundingClientRect().right > around.getBoundingClientRect().right + 1
    && !one.closest(".visually-hidden");
}).concat(document.documentElement.scrollWidth > innerWidth ? [document.documentElement] : [])
  .map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("name", STATES)
async def test_a_page_is_fit_to_be_seen(name: str, scene: Any) -> None:
    page = await STATES[name](scene)
    await page.evaluate(AXE.axe_script)
    for scheme, label, size in VIEWS:
        await page.emulate_media(color_scheme=scheme)
        await show_whole(page, size)
        await page.screenshot(path=PICTURES / f"{name}-{label}-{scheme}.png", animations="allow")
        assert await page.evaluate(BEYOND) == [], label
        if rules := EXAMINED.get((scheme, label)):
            assert await barriers(page, rules) == []
    for width in NARROW:
        await page.set_viewport_size({"width": width, "height": 640})
        assert await page.evaluate(BEYOND) == [], width


async def show_whole(page: pw.Page, size: dict[str, int]) -> None:
    """Make the window as high as the page, so that what sticks to its edges is where it belongs."""
    await page.set_viewport_size(size)
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.set_viewport_size(size | {"height": max(height, size["height"])})
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def barriers(page: pw.Page, rules: dict[str, Any]) -> list[str]:
    """What keeps people from using the page, each with its first place."""
    found = await page.evaluate("(rules) => axe.run({resultTypes: ['violations'], ...rules})", rules)
    places = [(each["id"], each["nodes"][0]) for each in found["violations"]]
    return [f"{rule}: {place['html']} {place.get('failureSummary', '')}" for rule, place in places]
