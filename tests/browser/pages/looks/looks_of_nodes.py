"""Pages in their states: signing in, the overview, nodes and keys."""

from typing import Any

import playwright.async_api as pw

from hub.placement import PlacementChange
from hub.policy import PRIVATE, Sharing, SharingKind
from hub.storage.records import Role
from tests.browser.pages.looks.states import States

STATES = States()


@STATES.add
async def sign_in(scene: Any) -> pw.Page:
    page = await scene.portal.open()
    await page.goto("/login")
    return page


@STATES.add
async def sign_in_refused(scene: Any) -> pw.Page:
    page = await sign_in(scene)
    await page.get_by_label("E-mail").fill("nobody@acme.example")
    await page.get_by_label("Password").fill("not it")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def sign_in_with_single_sign_on(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        return await sign_in(scene)


@STATES.add
async def single_sign_on_away(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        page = await sign_in(scene)
        await page.get_by_role("link", name="Sign in with Example ID").click()
        await page.get_by_role("heading", name="Single sign-on does not answer").wait_for()
        told = scene.portal.watch.complaints
        told[:] = [each for each in told if not each.startswith("502 ")]  # which is what is pictured
        return page


@STATES.add
async def account_not_connected(scene: Any) -> pw.Page:
    with scene.single_sign_on():
        return await scene.nobody.visit("/account")


@STATES.add
async def overview_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/")


@STATES.add
async def overview(scene: Any) -> pw.Page:
    return await scene.acme.visit("/")


@STATES.add
async def nodes_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes")


@STATES.add
async def nodes(scene: Any) -> pw.Page:
    return await scene.acme.visit("/nodes")


@STATES.add
async def nodes_of_everyone(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes?of=all", Role.OPERATOR)


@STATES.add
async def node_busy(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}?saved=1", Role.OPERATOR)


@STATES.add
async def node_offline_unconfirmed(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['far'].node_id}")


@STATES.add
async def node_revoked(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['gone'].node_id}")


@STATES.add
async def node_draining(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['resting'].node_id}")


@STATES.add
async def node_draining_for_members(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['resting'].node_id}", Role.MEMBER)


@STATES.add
async def node_changed_meanwhile(scene: Any) -> pw.Page:
    node_id = scene.machines["old"].node_id
    page = await scene.acme.visit(f"/nodes/{node_id}")
    owner = await scene.portal.hub.storage.accounts.by_email(await scene.acme.person(Role.OWNER))
    await scene.portal.hub.enrollment.place(node_id, owner, PlacementChange(sharing=PRIVATE))
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    public = PlacementChange(sharing=Sharing(SharingKind.PUBLIC))
    await scene.portal.hub.enrollment.place(node_id, owner, public)
    return page


@STATES.add
async def node_for_members(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}", Role.MEMBER)


@STATES.add
async def node_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}")
    await page.get_by_label("Named organisations").check()
    await page.get_by_label("Organisations it is shared with").fill("everybody")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def node_revoke(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}/revoke")


@STATES.add
async def keys_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/keys")


@STATES.add
async def keys(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys?revoked={scene.keys['leaked'].id}")


@STATES.add
async def keys_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/keys")
    await page.get_by_label("Name", exact=True).fill(" ")
    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Models it may use").fill("no/model!")
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def keys_for_members(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/keys", Role.MEMBER)


@STATES.add
async def key_created(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/keys")
    await page.get_by_label("Name", exact=True).fill("Support assistant")
    await page.get_by_label("European Union").check()
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("heading", name="Support assistant is ready").wait_for()
    return page


@STATES.add
async def key_revoke(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['batch'].id}/revoke")


@STATES.add
async def key_explain(scene: Any) -> pw.Page:
    path = f"/keys/{scene.keys['batch'].id}/explain"
    return await scene.acme.visit(f"{path}?model=qwen2.5-32b-instruct&region=eu-de")


@STATES.add
async def key_explain_served(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['app'].id}/explain?model=smollm2-135m-instruct")


@STATES.add
async def key_edit(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['batch'].id}")


@STATES.add
async def key_edit_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/keys/{scene.keys['app'].id}")
    await page.get_by_label("Tokens a minute").fill("plenty")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def key_rotate(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['app'].id}/rotate")


@STATES.add
async def key_rotated(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/keys/{scene.keys['batch'].id}/rotate")
    await page.get_by_role("button", name="Make a new secret").click()
    await page.locator("#secret").wait_for()
    return page
