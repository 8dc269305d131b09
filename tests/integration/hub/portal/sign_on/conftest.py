"""Single sign-on through a real OpenID provider, in a process of its own, and browsers that use both."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.permissions import Role
from tests.integration.hub.portal.sign_on.oidc_server import CLIENT_ID, CLIENT_SECRET

SERVER = Path(__file__).with_name("oidc_server.py")
ADA = {"sub": "ada-at-the-provider", "email": "Ada@acme.example", "email_verified": True, "groups": ["staff"]}
PLAIN = {"fault": "", "user": ADA, "in_token": True, "auth_method": "client_secret_basic"}
CALLBACK = "/login/single-sign-on/callback"


@dataclass
class Provider:
    """The provider's process, as tests tell it what to do."""

    issuer: str

    def set(self, **said: Any) -> dict[str, int]:
        """Change what it does from now on; how often each of its documents was asked for."""
        url = f"{self.issuer}/control"
        return httpx.post(url, json=said, trust_env=False, verify=False, timeout=10).json()


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    command = [sys.executable, "-W", "ignore", str(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            yield Provider(running.stdout.readline().strip())
        finally:
            running.kill()


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
    secret = tmp_path / "oidc-secret"
    secret.write_text(f"{CLIENT_SECRET}\n")
    secret.chmod(0o600)
    return {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret_file": secret,
        "oidc_name": "Acme ID",
        "oidc_rules": tuple(rules),
        "oidc_email_domains": ("acme.example",),
    }


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
