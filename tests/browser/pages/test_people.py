"""From an invitation to a second step, as people meet it: a link, a QR code that a phone reads, a code."""

import re
from base64 import b32decode
from urllib.parse import parse_qs, urlsplit

import numpy as np
import playwright.async_api as pw
import pytest
import zxingcpp
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from playwright.async_api import expect

from hub.storage.records import Role

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# What a camera sees of the picture: its colours as the page has them, one number for each pixel.
PIXELS = """(svg) => {
  const size = svg.viewBox.baseVal.width, scale = 4;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = getComputedStyle(svg.querySelector("rect")).fill;
  pen.fillRect(0, 0, size, size);
  const path = svg.querySelector("path");
  pen.fillStyle = getComputedStyle(path).fill;
  pen.fill(new Path2D(path.getAttribute("d")));
  return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, at) => at % 4 === 0);
}"""


async def scan(page: pw.Page) -> TOTP:
    """Read the QR code as an authenticator app does."""
    grey = await page.locator("svg.qr").evaluate(PIXELS)
    side = round(len(grey) ** 0.5)
    [found] = zxingcpp.read_barcodes(np.array(grey, dtype=np.uint8).reshape(side, side))
    [secret] = parse_qs(urlsplit(found.text).query)["secret"]
    return TOTP(b32decode(secret), 6, SHA1(), 30)


async def fill_in(page: pw.Page, **fields: str) -> None:
    for label, value in fields.items():
        await page.get_by_label(label.replace("_", " "), exact=True).fill(value)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_from_an_invitation_to_a_second_step(portal, team, pieces, scheme) -> None:
    owner = await team.visit("/members")
    await fill_in(owner, For_whom="Ada")
    await owner.get_by_label("Auditor").check()
    await owner.get_by_role("button", name="Make the link").click()
    link = await owner.locator("#link").text_content()
    page = await portal.open(color_scheme=scheme)
    await page.goto(link)
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Join {team.organisation.name}")
    email, password = f"ada-{scheme}@{team.domain}", pieces.password
    await fill_in(page, **{"E-mail": email, "Password": password, "The_password_again": password})
    await page.get_by_role("button", name="Create my account").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(team.organisation.name)
    await page.get_by_role("link", name="Account").click()
    await expect(page.get_by_role("row", name=re.compile("Chrome on Linux This one"))).to_be_visible()
    await page.get_by_role("link", name="Set it up").click()
    await fill_in(page, Password=password)
    await page.get_by_role("button", name="Show the code to scan").click()
    app = await scan(page)
    now = portal.hub.clock()
    await fill_in(page, Code=app.generate(now).decode())
    await page.get_by_role("button", name="Switch it on").click()
    codes = (await page.locator("#codes").text_content()).split()
    assert len(codes) == 10
    await page.get_by_role("button", name="Sign out").click()
    await fill_in(page, **{"E-mail": email, "Password": password})
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("One more step")
    await expect(page.get_by_label("Code")).to_be_focused()
    await page.reload()
    await fill_in(page, Code=app.generate(now).decode())
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("was used before")
    await fill_in(page, Code=codes[0])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(team.organisation.name)


async def test_a_member_is_removed_while_looking_at_a_page(portal, team, pieces) -> None:
    member = await team.visit("/nodes", Role.MEMBER)
    owner = await team.visit("/members")
    await owner.get_by_role("link", name=f"Change {await team.person(Role.MEMBER)}").click()
    await owner.get_by_role("link", name="Remove this member").click()
    await owner.get_by_role("button", name="Remove this member").click()
    await expect(owner.get_by_role("status").filter(has_text="Removed")).to_be_visible()
    await member.get_by_role("link", name="Keys").click()
    await expect(member.get_by_role("heading", level=1)).to_have_text("Sign in to Porten")
