"""Pages in their states: usage, the audit log, machines that join, members and accounts."""

from typing import Any

import playwright.async_api as pw

from hub.storage.records import Role
from tests.browser.pages.looks.states import States

STATES = States()


@STATES.add
async def usage_empty(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/usage")


@STATES.add
async def usage(scene: Any) -> pw.Page:
    return await scene.acme.visit("/usage")


@STATES.add
async def audit(scene: Any) -> pw.Page:
    await scene.portal.hub.journal.flush()
    return await scene.acme.visit("/audit")


@STATES.add
async def audit_filtered(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/audit?action=key.revoked")


@STATES.add
async def audit_of_everyone(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/audit", Role.OPERATOR)


@STATES.add
async def usage_by_hour_of_one_key(scene: Any) -> pw.Page:
    page = await scene.acme.visit(f"/usage?span=week&by=model&key={scene.keys['app'].id}")
    await page.get_by_text("The numbers over time").click()
    return page


@STATES.add
async def usage_by_node(scene: Any) -> pw.Page:
    return await scene.acme.visit("/usage?by=node")


@STATES.add
async def nodes_paged(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/nodes?of=all&find=a", Role.OPERATOR)


@STATES.add
async def device(scene: Any) -> pw.Page:
    return await scene.acme.visit("/device")


@STATES.add
async def device_unknown(scene: Any) -> pw.Page:
    return await scene.acme.visit("/device?user_code=BCDFGHJK")


@STATES.add
async def device_approve(scene: Any) -> pw.Page:
    code = await scene.makers.stranger("ber-workstation-7").ask()
    return await scene.makers.visit(f"/device?user_code={code}", Role.OPERATOR)


@STATES.add
async def device_approved(scene: Any) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="Approved").wait_for()
    return page


@STATES.add
async def device_refused(scene: Any) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Refuse").click()
    await page.get_by_role("heading", name="Refused").wait_for()
    return page


@STATES.add
async def members(scene: Any) -> pw.Page:
    for role in (Role.ADMIN, Role.AUDITOR, Role.OPERATOR):
        await scene.acme.person(role)
    page = await scene.acme.visit("/members")
    await page.get_by_label("For whom").fill("Ada, who keeps the archive")
    await page.get_by_role("button", name="Make the link").click()
    await page.locator("#link").wait_for()
    return page


@STATES.add
async def members_for_auditors(scene: Any) -> pw.Page:
    return await scene.nobody.visit("/members", Role.AUDITOR)


@STATES.add
async def members_error(scene: Any) -> pw.Page:
    page = await scene.nobody.visit("/members")
    await page.get_by_label("For whom").fill(" ")
    await page.get_by_role("button", name="Make the link").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def member(scene: Any) -> pw.Page:
    return await scene.acme.visit(f"/members/{await enrolled(scene, Role.ADMIN)}?done=role")


@STATES.add
async def member_out_of_reach(scene: Any) -> pw.Page:
    owner = await scene.portal.hub.storage.accounts.by_email(await scene.acme.person(Role.OWNER))
    return await scene.acme.visit(f"/members/{owner.id}", Role.ADMIN)


@STATES.add
async def member_remove(scene: Any) -> pw.Page:
    account = await scene.portal.hub.storage.accounts.by_email(await scene.acme.person(Role.MEMBER))
    return await scene.acme.visit(f"/members/{account.id}/remove")


@STATES.add
async def invitation(scene: Any) -> pw.Page:
    page = await members(scene)
    address = await page.locator("#link").text_content()
    stranger = await scene.portal.open()
    await stranger.goto(address)
    return stranger


@STATES.add
async def invitation_error(scene: Any) -> pw.Page:
    page = await invitation(scene)
    await page.get_by_label("E-mail").fill(await scene.acme.person())
    for label in ("Password", "The password again"):
        await page.get_by_label(label, exact=True).fill("a password that is long enough")
    await page.get_by_role("button", name="Create my account").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def invitation_used(scene: Any) -> pw.Page:
    page = await scene.portal.open()
    await page.goto("/invitation/piv-none")
    return page


@STATES.add
async def account(scene: Any) -> pw.Page:
    await scene.acme.sign_in(await scene.acme.person())
    return await scene.acme.visit("/account?done=password")


@STATES.add
async def account_error(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/account")
    await page.get_by_label("Present password").fill("not it")
    for label in ("New password", "The new password again"):
        await page.get_by_label(label, exact=True).fill("a password that is long enough")
    await page.get_by_role("button", name="Change the password").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def account_with_second_step(scene: Any) -> pw.Page:
    page = await scene.acme.visit("/account", Role.ADMIN)
    await enrolled(scene, Role.ADMIN)
    await page.reload()
    return page


@STATES.add
async def second_step(scene: Any) -> pw.Page:
    return await scene.makers.visit("/account/second-step", Role.MEMBER)


@STATES.add
async def second_step_secret(scene: Any) -> pw.Page:
    page = await second_step(scene)
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Show the code to scan").click()
    await page.locator("#secret").wait_for()
    return page


@STATES.add
async def second_step_wrong(scene: Any) -> pw.Page:
    page = await second_step_secret(scene)
    await page.get_by_label("Code", exact=True).fill("12345")
    await page.get_by_role("button", name="Switch it on").click()
    await page.get_by_role("alert").wait_for()
    return page


@STATES.add
async def recovery_codes(scene: Any) -> pw.Page:
    page = await scene.makers.visit("/account/second-step", Role.AUDITOR)
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Show the code to scan").click()
    secret = await page.locator("#secret").text_content()
    await page.get_by_label("Code", exact=True).fill(scene.code_of(secret))
    await page.get_by_role("button", name="Switch it on").click()
    await page.locator("#codes").wait_for()
    return page


@STATES.add
async def sign_in_code(scene: Any) -> pw.Page:
    await enrolled(scene, Role.ADMIN)
    page = await scene.portal.open()
    await page.goto("/login")
    await page.get_by_label("E-mail").fill(await scene.acme.person(Role.ADMIN))
    await page.get_by_label("Password").fill("a password that is long enough")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Code").wait_for()
    return page


@STATES.add
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


@STATES.add
async def not_found(scene: Any) -> pw.Page:
    return await scene.acme.visit("/nowhere")
