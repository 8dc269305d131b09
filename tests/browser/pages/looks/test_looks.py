"""Every page in every state worth seeing: pictures of it, no barrier in it, nothing beyond its edge."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import playwright.async_api as pw
import pytest
from axe_playwright_python.async_playwright import Axe

from hub.storage.records import Role

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

PICTURES = Path(__file__).parents[4] / "reports" / "screenshots"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
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

State = Callable[[Any], Awaitable[pw.Page]]
STATES: dict[str, State] = {}


def state(build: State) -> State:
    """Add a state, named as its function."""
    STATES[build.__name__.replace("_", "-")] = build
    return build


@state
async def sign_in(scene: Any) -> pw.Page:
    page = await scene.portal.open()
    await page.goto("/login")
    return page


@state
async def sign_in_refused(scene: Any) -> pw.Page:
    page = await sign_in(scene)
    await page.get_by_label("E-mail").fill("nobody@acme.example")
    await page.get_by_label("Password").fill("not it")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def overview_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/")


@state
async def overview(scene: Any) -> pw.Page:
    return await scene.acme.visit("/")


@state
async def nodes_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes")


@state
async def nodes(scene: Any) -> pw.Page:
    return await scene.acme.visit("/nodes")


@state
async def nodes_of_everyone(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes?of=all", Role.OPERATOR)


@state
async def node_busy(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}?saved=1", Role.OPERATOR)


@state
async def node_offline_unconfirmed(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['far'].node_id}")


@state
async def node_revoked(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['gone'].node_id}")


@state
async def node_for_members(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}", Role.MEMBER)


@state
async def node_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}")
    await page.get_by_label("Named organisations").check()
    await page.get_by_label("Organisations it is shared with").fill("everybody")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def node_revoke(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}/revoke")


@state
async def keys_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/keys")


@state
async def keys(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys?revoked={scene.keys['leaked'].id}")


@state
async def keys_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/keys")
    await page.get_by_label("Name", exact=True).fill(" ")
    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Models it may use").fill("no/model!")
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def keys_for_members(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/keys", Role.MEMBER)


@state
async def key_created(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/keys")
    await page.get_by_label("Name", exact=True).fill("Support assistant")
    await page.get_by_label("European Union").check()
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("heading", name="Support assistant is ready").wait_for()
    return page


@state
async def key_revoke(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['batch'].id}/revoke")


@state
async def key_explain(scene: Any) -> pw.Page:
    path = f"/keys/{scene.keys['batch'].id}/explain"
    return await scene.acme.visit(f"{path}?model=qwen2.5-32b-instruct&region=eu-de")


@state
async def key_explain_served(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['app'].id}/explain?model=smollm2-135m-instruct")


@state
async def key_edit(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['batch'].id}")


@state
async def key_edit_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/keys/{scene.keys['app'].id}")
    await page.get_by_label("Tokens a minute").fill("plenty")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def key_rotate(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['app'].id}/rotate")


@state
async def key_rotated(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/keys/{scene.keys['batch'].id}/rotate")
    await page.get_by_role("button", name="Make a new secret").click()
    await page.locator("#secret").wait_for()
    return page


@state
async def admin_tokens_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/admin-tokens")


@state
async def admin_tokens(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/admin-tokens")
    for name, role in (("Provisioning in the second data centre", "admin"), ("Reports", "auditor")):
        await page.get_by_label("Name", exact=True).fill(name)
        await page.get_by_label("Role").select_option(role)
        await page.get_by_role("button", name="Create the token").click()
        await page.get_by_role("link", name="Done").click()
        await page.get_by_role("heading", name="Create a token").wait_for()
    return page


@state
async def admin_token_created(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/admin-tokens")
    await page.get_by_label("Name", exact=True).fill("Provisioning")
    await page.get_by_role("button", name="Create the token").click()
    await page.locator("#secret").wait_for()
    return page


@state
async def usage_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/usage")


@state
async def usage(scene: Any) -> pw.Page:
    return await scene.acme.visit("/usage")


@state
async def audit(scene: Any) -> pw.Page:
    await scene.portal.hub.journal.flush()
    return await scene.acme.visit("/audit")


@state
async def audit_filtered(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/audit?action=key.revoked")


@state
async def audit_of_everyone(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/audit", Role.OPERATOR)


@state
async def usage_by_hour_of_one_key(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/usage?span=week&by=model&key={scene.keys['app'].id}")
    await page.get_by_text("The numbers over time").click()
    return page


@state
async def usage_by_node(scene: Any) -> pw.Page:
    return await scene.acme.visit("/usage?by=node")


@state
async def nodes_paged(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes?of=all&find=a", Role.OPERATOR)


@state
async def device(scene: Any) -> pw.Page:
    return await scene.acme.visit("/device")


@state
async def device_unknown(scene: Any) -> pw.Page:
    return await scene.acme.visit("/device?user_code=BCDFGHJK")


@state
async def device_approve(scene: Any) -> pw.Page:
    code = await scene.makers.stranger("ber-workstation-7").ask()
    return await scene.makers.visit(f"/device?user_code={code}", Role.OPERATOR)


@state
async def device_approved(scene: Any) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="Approved").wait_for()
    return page


@state
async def device_refused(scene: Any) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Refuse").click()
    await page.get_by_role("heading", name="Refused").wait_for()
    return page


@state
async def not_found(scene: Any) -> pw.Page:
    return await scene.acme.visit("/nowhere")


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
    return [f"{rule}: {place['html']} {place['failureSummary']}" for rule, place in places]
