"""What is true of every page: who gets to it, what it carries, and what stands at no address of ours."""

import re
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.stacks.portal_client import read_forms
from hub.portal.assets import ASSETS
from hub.portal.security import PAGE_HEADERS
from hub.storage.records import Role

OPEN_TO_ALL = {
    "/login",
    "/login/code",
    "/login/single-sign-on",
    "/login/single-sign-on/callback",
    "/invitation/{token}",
    "/static/{name}",
}


@pytest.fixture
def pages(routes, filled):
    """Every page that is looked at, with ids that exist put in."""
    return sorted(filled(path) for method, path in routes if method == "GET" and path not in OPEN_TO_ALL)


async def test_every_page_asks_to_sign_in_and_comes_back(portal, visit, pages):
    account = await portal.account(Role.OWNER)
    assert len(pages) >= 9
    for path in [*pages, "/device?user_code=BCDF-GHJK", "/nodes?of=all&x=%26", "/keys?revoked=%22%3E"]:
        browser = await visit()
        answer = await browser.open(path)
        assert answer.status_code == 303, path
        asked = urlsplit(answer.headers["location"])
        assert asked.path == "/login"
        assert unquote(asked.query) == f"next={path}"
        assert dict(PAGE_HEADERS).items() <= dict(answer.headers).items()
        page = await browser.open(answer.headers["location"])
        [form] = read_forms(page.text)
        signed_in = await browser.sign_in(account.email, next=form.fields["next"])
        assert signed_in.headers["location"] == path, path
        assert (await browser.open(path)).status_code in (200, 404)


async def test_every_page_is_shown_uncached_and_runs_nothing_foreign(owner, pages, markup):
    for path in [*pages, "/login", "/nothing", "/nodes/node_none", "/static/none.css"]:
        answer = await owner.open(path)
        assert dict(PAGE_HEADERS).items() <= dict(answer.headers).items(), path
        assert answer.headers["cache-control"] == "no-store"
        if answer.headers.get("content-type", "").startswith("text/html"):
            read = markup(answer.text)
            assert all(source.startswith("/static/") for source in read.scripts), path
            assert not {name for _, name in read.attributes if name.startswith("on") or name == "style"}
            assert not {"iframe", "object", "embed", "base", "style"} & set(read.tags)


async def test_what_is_no_page_is_said_on_a_page(visit, owner):
    for browser in (await visit(), owner):
        for path in ("/nothing", "/nodes/x/y", "/keys/", "/login/", "/%00", "/static/", "/.git/config"):
            answer = await browser.open(path)
            assert answer.status_code == 404, path
            assert "There is no such page" in answer.text


async def test_files_are_served_by_name_only_and_may_be_kept(visit):
    browser = await visit()
    page = await browser.open("/login")
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        answer = await browser.open(address)
        name = urlsplit(address).path.removeprefix("/static/")
        assert answer.content == ASSETS[name].body
        assert answer.headers["content-type"] == ASSETS[name].kind
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "immutable" not in (await browser.open(f"/static/{name}?v=old")).headers["cache-control"]
    for path in (
        "/static/..%2fpages.py",
        "/static/%2e%2e/forms.py",
        "/static/portal.css%00",
        "/static/PORTAL.CSS",
    ):
        answer = await browser.open(path)
        assert answer.status_code == 404, path
        assert b"import" not in answer.content


class TestUnderAName:
    """The world reaches this Hub under another address than it listens on."""

    @pytest.fixture
    def settings(self):
        return {"public_url": "https://hub.example"}

    async def test_the_installer_knows_the_hub_it_came_from(self, visit):
        answer = await (await visit()).open("/install.sh")
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/x-shellscript; charset=utf-8",
        )
        assert answer.text.startswith("#!/bin/sh\n")
        assert "\nHUB_URL_DEFAULT=https://hub.example\n" in answer.text


async def test_the_installer_knows_the_hubs_own_address_and_pages_show_how_to_run_it(portal, visit, owner):
    for browser in (await visit(headers={"host": "evil.example"}), owner):
        script = await browser.open("/install.sh")
        assert f"\nHUB_URL_DEFAULT={portal.hub.addresses.api_url}\n" in script.text
    assert f"curl -fsSL {portal.hub.addresses.api_url}/install.sh | sh" in (await owner.open("/device")).text
