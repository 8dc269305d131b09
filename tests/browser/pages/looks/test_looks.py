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
async def sign_in_with_single_sign_on(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        return await sign_in(scene)


@state
async def single_sign_on_away(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        page = await sign_in(scene)
        await page.get_by_role("link", name="Sign in with Example ID").click()
        await page.get_by_role("heading", name="Single sign-on does not answer").wait_for()
        told = scene.portal.watch.complaints
        told[:] = [each for each in told if not each.startswith("502 ")]  # which is what is pictured
        return page


@state
async def account_not_connected(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        return await scene.nobody.visit("/account")


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
async def organisations(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/organisations", Role.OPERATOR)


@state
async def organisation_edit_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit(f"/organisations/{scene.acme.organisation.id}", Role.OPERATOR)
    await page.get_by_label("Tokens a minute").fill("plenty")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
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
async def regions(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions?saved=eu-de", Role.OPERATOR)


@state
async def regions_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/regions", Role.OPERATOR)
    await page.get_by_label("Code").fill("Berlin!")
    await page.get_by_role("button", name="Add the region").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def region_edit(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions/us-central", Role.OPERATOR)


@state
async def region_move(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/regions/eu-de", Role.OPERATOR)
    await page.get_by_label("Lies in").select_option("")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("button", name="Move the region").wait_for()
    return page


@state
async def region_remove(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions/jp/remove", Role.OPERATOR)


@state
async def region_confirm(scene: Any) -> pw.Page:
    return await scene.nobody.visit(f"/nodes/{scene.machines['far'].node_id}/region", Role.OPERATOR)


@state
async def trust(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/trust", Role.OPERATOR)


@state
async def trust_edit_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit(f"/trust/{scene.machines['idle'].node_id}", Role.OPERATOR)
    await page.get_by_label("Confidential").check()
    await page.get_by_label("Why").fill(" ")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def models_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/models")


@state
async def models(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models")


@state
async def models_none_like_that(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models?find=nothing&can=vision")


@state
async def model_of_nodes(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models/bge-m3")


@state
async def model_on_no_node(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/models/smollm2-135m-instruct")


@state
async def playground_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/playground", Role.MEMBER)


@state
async def playground(scene: Any) -> pw.Page:
    """Several turns, the last of which no node may answer."""
    page = await scene.acme.visit(f"/playground?key={scene.keys['app'].id}")
    await (
        page.get_by_role("combobox", name="Model")
        .locator("option", has_text="(ready)")
        .wait_for(state="attached")
    )
    for number, words in enumerate(
        ("Good morning. Who are you?", "Say that again, at greater length. " * 12)
    ):
        await page.get_by_label("Your message").fill(words)
        await page.get_by_role("button", name="Send").click()
        await page.locator(".turn-facts").nth(number).wait_for()
    await page.get_by_label("Region").select_option("us")
    await (
        page.get_by_role("combobox", name="Model")
        .locator("option", has_text="on no node")
        .wait_for(state="attached")
    )
    await page.get_by_label("Your message").fill("And over there?")
    await page.get_by_role("button", name="Send").click()
    await page.locator(".turn-failed").wait_for()
    return page


@state
async def playground_waiting(scene: Any) -> pw.Page:
    """A model that downloads, for as long as the picture takes: the request is held up in the browser."""
    page = await scene.acme.visit(f"/playground?key={scene.keys['app'].id}")
    told = {"phase": "downloading", "bytes_done": 31e8, "bytes_total": 18e9, "percent": 17.2, "eta_s": 214}
    await page.route("**/warming?*", lambda route: route.fulfill(json=told))
    await page.route("**/chat", lambda _route: None)
    await (
        page.get_by_role("combobox", name="Model")
        .locator("option", has_text="(ready)")
        .wait_for(state="attached")
    )
    await page.get_by_label("Your message").fill("Good morning. Who are you?")
    await page.get_by_role("button", name="Send").click()
    await page.get_by_text("17.2 %").wait_for()
    return page


@state
async def more_on_a_phone(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/usage", Role.OPERATOR, viewport=PHONE)
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("link", name="Audit").wait_for()
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
async def members(scene: Any) -> pw.Page:
    for role in (Role.ADMIN, Role.AUDITOR, Role.OPERATOR):
        await scene.acme.person(role)
    page = await scene.acme.visit("/members")
    await page.get_by_label("For whom").fill("Ada, who keeps the archive")
    await page.get_by_role("button", name="Make the link").click()
    await page.locator("#link").wait_for()
    return page


@state
async def members_for_auditors(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/members", Role.AUDITOR)


@state
async def members_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/members")
    await page.get_by_label("For whom").fill(" ")
    await page.get_by_role("button", name="Make the link").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def member(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/members/{await enrolled(scene, Role.ADMIN)}?done=role")


@state
async def member_out_of_reach(scene: Any) -> pw.Page:
    owner = await scene.portal.hub.storage.accounts.by_email(await scene.acme.person(Role.OWNER))
    return await scene.acme.visit(f"/members/{owner.id}", Role.ADMIN)


@state
async def member_remove(scene: Any) -> pw.Page:
    account = await scene.portal.hub.storage.accounts.by_email(await scene.acme.person(Role.MEMBER))
    return await scene.acme.visit(f"/members/{account.id}/remove")


@state
async def invitation(scene: Any) -> pw.Page:
    page = await members(scene)
    address = await page.locator("#link").text_content()
    stranger = await scene.portal.open()
    await stranger.goto(address)
    return stranger


@state
async def invitation_error(scene: Any) -> pw.Page:
    page = await invitation(scene)
    await page.get_by_label("E-mail").fill(await scene.acme.person())
    for label in ("Password", "The password again"):
        await page.get_by_label(label, exact=True).fill("a password that is long enough")
    await page.get_by_role("button", name="Create my account").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def invitation_used(scene: Any) -> pw.Page:
    page = await scene.portal.open()
    await page.goto("/invitation/piv-none")
    return page


@state
async def account(scene: Any) -> pw.Page:
    await scene.acme.sign_in(await scene.acme.person())
    return await scene.acme.visit("/account?done=password")


@state
async def account_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/account")
    await page.get_by_label("Present password").fill("not it")
    for label in ("New password", "The new password again"):
        await page.get_by_label(label, exact=True).fill("a password that is long enough")
    await page.get_by_role("button", name="Change the password").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def account_with_second_step(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/account", Role.ADMIN)
    await enrolled(scene, Role.ADMIN)
    await page.reload()
    return page


@state
async def second_step(scene: Any) -> pw.Page:
    return await scene.makers.visit("/account/second-step", Role.MEMBER)


@state
async def second_step_secret(scene: Any) -> pw.Page:
    page = await second_step(scene)
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Show the code to scan").click()
    await page.locator("#secret").wait_for()
    return page


@state
async def second_step_wrong(scene: Any) -> pw.Page:
    page = await second_step_secret(scene)
    await page.get_by_label("Code", exact=True).fill("12345")
    await page.get_by_role("button", name="Switch it on").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def recovery_codes(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/account/second-step", Role.AUDITOR)
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Show the code to scan").click()
    secret = await page.locator("#secret").text_content()
    await page.get_by_label("Code", exact=True).fill(scene.code_of(secret))
    await page.get_by_role("button", name="Switch it on").click()
    await page.locator("#codes").wait_for()
    return page


@state
async def sign_in_code(scene: Any) -> pw.Page:
    await enrolled(scene, Role.ADMIN)
    page = await scene.portal.open()
    await page.goto("/login")
    await page.get_by_label("E-mail").fill(await scene.acme.person(Role.ADMIN))
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Code").wait_for()
    return page


@state
async def sign_in_code_refused(scene: Any) -> pw.Page:
    page = await sign_in_code(scene)
    await page.get_by_label("Code").fill("12345")
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("alert").wait_for()
    return page


async def enrolled(scene: Any, role: Role) -> str:
    """An account of Acme with a second step; its id."""
    await scene.acme.visit("/", role)  # before there is one, its sign-in asks for no code
    hub = scene.portal.hub
    account = await hub.storage.accounts.by_email(await scene.acme.person(role))
    if not await hub.second_step.is_on(account.id):
        enrolment = await hub.second_step.begin(account)
        await hub.second_step.confirm(account, scene.code_of(enrolment.text))
    return account.id


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
    return [f"{rule}: {place['html']} {place.get('failureSummary', '')}" for rule, place in places]
