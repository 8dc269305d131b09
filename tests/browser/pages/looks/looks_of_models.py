"""Pages in their states: the Hub's own, admin tokens, models and the playground."""

from typing import Any

import playwright.async_api as pw

from hub.storage.records import Role
from tests.browser.pages.looks.states import PHONE, States

STATES = States()


@STATES.add
async def organisations(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/organisations", Role.OPERATOR)


@STATES.add
async def organisation_edit_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit(f"/organisations/{scene.acme.organisation.id}", Role.OPERATOR)
    await page.get_by_label("Tokens a minute").fill("plenty")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def admin_tokens_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/admin-tokens")


@STATES.add
async def admin_tokens(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/admin-tokens")
    for name, role in (("Provisioning in the second data centre", "admin"), ("Reports", "auditor")):
        await page.get_by_label("Name", exact=True).fill(name)
        await page.get_by_label("Role").select_option(role)
        await page.get_by_role("button", name="Create the token").click()
        await page.get_by_role("link", name="Done").click()
        await page.get_by_role("heading", name="Create a token").wait_for()
    return page


@STATES.add
async def regions(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions?saved=eu-de", Role.OPERATOR)


@STATES.add
async def regions_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/regions", Role.OPERATOR)
    await page.get_by_label("Code").fill("Berlin!")
    await page.get_by_role("button", name="Add the region").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def region_edit(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions/us-central", Role.OPERATOR)


@STATES.add
async def region_move(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/regions/eu-de", Role.OPERATOR)
    await page.get_by_label("Lies in").select_option("")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("button", name="Move the region").wait_for()
    return page


@STATES.add
async def region_remove(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/regions/jp/remove", Role.OPERATOR)


@STATES.add
async def region_confirm(scene: Any) -> pw.Page:
    return await scene.nobody.visit(f"/nodes/{scene.machines['far'].node_id}/region", Role.OPERATOR)


@STATES.add
async def trust(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/trust", Role.OPERATOR)


@STATES.add
async def trust_edit_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit(f"/trust/{scene.machines['idle'].node_id}", Role.OPERATOR)
    await page.get_by_label("Confidential").check()
    await page.get_by_label("Why").fill(" ")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def models_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/models")


@STATES.add
async def models(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models")


@STATES.add
async def models_none_like_that(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models?find=nothing&can=vision")


@STATES.add
async def model_of_nodes(scene: Any) -> pw.Page:
    return await scene.acme.visit("/models/bge-m3")


@STATES.add
async def model_on_no_node(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/models/smollm2-135m-instruct")


@STATES.add
async def playground_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/playground", Role.MEMBER)


@STATES.add
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


@STATES.add
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


@STATES.add
async def more_on_a_phone(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/usage", Role.OPERATOR, viewport=PHONE)
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("link", name="Audit").wait_for()
    return page


@STATES.add
async def admin_token_created(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/admin-tokens")
    await page.get_by_label("Name", exact=True).fill("Provisioning")
    await page.get_by_role("button", name="Create the token").click()
    await page.locator("#secret").wait_for()
    return page
