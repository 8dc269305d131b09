"""What a page may load and run, as a real browser enforces it.

Every test of this folder fails if a page breaks its policy, calls another host or ends in an error: see
`well_behaved`. Here it is tried that this would be noticed.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hub.storage.records import Role

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

INLINE_SCRIPT = """() => {
  const script = document.createElement("script");
  script.textContent = "window.owned = true";
  document.body.append(script);
  return window.owned === true;
}"""
INLINE_HANDLER = """() => {
  document.body.insertAdjacentHTML("beforeend", `<img src="" onerror="window.owned = true">`);
  document.body.lastElementChild.dispatchEvent(new Event("error"));
  return window.owned === true;
}"""
FOREIGN_IMAGE = """() => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(true);
  image.onerror = () => done(false);
  image.src = "http://elsewhere.invalid/pixel.png";
})"""
FOREIGN_FORM = """() => {
  const form = document.createElement("form");
  form.action = "http://elsewhere.invalid/";
  document.body.append(form);
  form.submit();
  return false;
}"""


@pytest.mark.parametrize(
    ("deed", "directive"),
    [
        (INLINE_SCRIPT, "script-src-elem inline"),
        (INLINE_HANDLER, "script-src-attr inline"),
        (FOREIGN_IMAGE, "img-src http://elsewhere.invalid/pixel.png"),
        (FOREIGN_FORM, "form-action http://elsewhere.invalid/?"),
    ],
)
async def test_the_browser_refuses_and_says_so(portal, team, deed: str, directive: str) -> None:
    page = await team.visit("/keys")
    noted = portal.watch.complaints
    async with page.expect_console_message(lambda message: directive in message.text):
        assert await page.evaluate(deed) is False
    assert f"console: refused by the page's policy: {directive}" in noted
    noted.clear()


async def test_a_call_to_another_host_would_be_noticed(portal, team) -> None:
    page = await team.visit("/device")
    await page.route("http://elsewhere.invalid/", lambda route: route.abort())
    async with page.expect_event("requestfailed"):
        await page.evaluate("setTimeout(() => location.assign('http://elsewhere.invalid/'))")
    assert portal.watch.complaints == ["asked another host: http://elsewhere.invalid/"]
    portal.watch.complaints.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def framing_site(portal) -> AsyncIterator[str]:
    """Another site on this machine, whose only page has ours in a frame; gives its address."""
    page = f"<link rel=icon href='data:,'><iframe src='{portal.url}/login'></iframe>".encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + page)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as site:
        yield f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}/"


async def test_no_other_site_can_put_a_page_in_a_frame(portal, framing_site: str) -> None:
    page = await portal.open()
    async with page.expect_console_message(lambda message: "frame-ancestors 'none'" in message.text):
        await page.goto(framing_site)
    assert page.frames[1].url == "chrome-error://chromewebdata/"
    portal.watch.complaints.clear()


async def test_every_page_keeps_its_policy(portal, team) -> None:
    node = await team.machine("fra-1")
    await node.connect()
    code = await team.stranger("fra-2").ask()
    page = await team.visit("/", Role.OPERATOR)
    for path in (
        *("/", "/nodes", "/nodes?of=all", "/keys", "/usage", "/device", f"/device?user_code={code}"),
        *(f"/nodes/{node.node_id}", f"/nodes/{node.node_id}/revoke"),
    ):
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
    assert portal.watch.complaints == []
