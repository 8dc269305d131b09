"""Single sign-on through a real OpenID provider, in a process of its own, and browsers that use both."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hub.permissions import Role
from tests.integration.hub.portal.sign_on.provider import (
    CALLBACK,
    PLAIN,
    Provider,
    running_provider,
    settings_for,
)


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def provider(process) -> Provider:
    process.set(**PLAIN, asked={})
    return process


@pytest.fixture
def rules() -> list[str]:
    """The operator's rules; a test may override them."""
    return ["chiefs=Acme:owner", "staff=Acme:member", "elsewhere=Other:member", "lost=Nowhere:member"]


@pytest.fixture
def settings(provider, rules, tmp_path) -> dict[str, Any]:
    return settings_for(provider, rules, tmp_path)


@pytest.fixture
async def acme(portal, provider) -> Any:
    """The organisation that the rules name, with an owner of its own."""
    provider.set(redirect_uris=[portal.url + CALLBACK])
    await portal.account(Role.OWNER)
    await portal.organisation("Other")
    return await portal.organisation()


@pytest.fixture
def at_provider(acme, portal):
    """Follows a browser from the Hub to the provider and back to the Hub's callback; returns its address."""

    async def at_provider(browser, start="/login/single-sign-on"):
        """`start` is a page that sends there, or the whole address at the provider."""
        url = start
        if start.startswith("/"):
            going = await browser.open(start)
            assert going.status_code == 303, going.text
            url = going.headers["location"]
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=20) as there:
            back = await there.get(url)
        assert back.status_code == 302, back.text
        assert back.headers["location"].startswith(portal.url + CALLBACK)
        return back.headers["location"].removeprefix(portal.url)

    return at_provider


@pytest.fixture
def sign_on(visit, at_provider):
    """Signs in through the provider in a fresh browser; returns it and the Hub's answer."""

    async def sign_on(browser=None, start="/login/single-sign-on"):
        browser = browser or await visit()
        return browser, await browser.open(await at_provider(browser, start))

    return sign_on


@pytest.fixture
def refusal():
    """What a page says that lets nobody in."""

    def refusal(browser, answer, status=403):
        assert answer.status_code == status, (answer.status_code, answer.headers)
        assert browser.session is None
        return re.sub(r"\s+", " ", answer.text.partition("<main")[2])

    return refusal
