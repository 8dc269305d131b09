"""The OpenID provider's process, and what the Hub is told of it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

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


@contextlib.contextmanager
def running_provider() -> Iterator[Provider]:
    """Start it, and end it."""
    command = [sys.executable, "-W", "ignore", str(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            yield Provider(running.stdout.readline().strip())
        finally:
            running.kill()


def settings_for(provider: Provider, rules: list[str], folder: Path) -> dict[str, Any]:
    """The Hub's settings for it; the secret is put into a file of this folder."""
    secret = folder / "oidc-secret"
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
