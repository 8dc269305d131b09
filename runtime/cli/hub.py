"""`porten login`, `porten logout` and `porten rotate-key`: joining a Hub, leaving it, another key for it."""

import asyncio
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated
from urllib.parse import urlsplit

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime import devices
from runtime.cli.terminal import console, say, settings
from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.enrollment import DeviceGrant, HubApi, describe_machine, fingerprint, suggested_name
from runtime.errors import (
    AlreadyEnrolled,
    ConfigInvalid,
    DaemonUnreachable,
    HubUnreachable,
    NodeRevoked,
    RuntimeFault,
)
from runtime.identity import Identity, IdentityStore
from runtime.listening import LOOPBACK_NAMES
from runtime.membership import join
from runtime.rotation import Taken, rotate_key

LOGIN_EXAMPLES = """Examples:

porten login --hub https://hub.example.org

With a JoinToken nobody needs to approve it:

porten login --hub https://hub.example.org --join-token pjt-…
"""

INTERRUPTED = 130
WHEN = {
    Taken.NOW: "The node uses its new key; the old one is worth nothing.",
    Taken.AT_THE_NEXT_SESSION: "The Hub knows the new key; the running node uses it once it reaches the Hub.",
    Taken.AT_THE_NEXT_START: "The Hub knows the new key; the next `porten run` uses it. Do so within a day.",
}


def login(
    context: typer.Context,
    *,
    hub: Annotated[
        str | None, typer.Option(help="Address of the Hub; the setting hub_url otherwise.")
    ] = None,
    join_token: Annotated[
        str | None, typer.Option(help="Enroll with this JoinToken; no approval in the portal is needed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to suggest; the host name otherwise.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Enroll this machine with a Hub: shows a code, and waits until somebody approves it in the portal."""
    config = settings(context, hub_url=hub, join_token=join_token, node_name=name)
    _require_new(config)
    try:
        identity = asyncio.run(_enroll(config, browse=not no_browser))
    except KeyboardInterrupt:
        say("\nCancelled; nothing was changed on this machine.")
        raise typer.Exit(INTERRUPTED) from None
    region = identity.credential.region or "no region yet"
    say(f"Enrolled as {identity.hub.name} ({identity.hub.node_id}), {region}, {identity.credential.sharing}.")
    say("Next: porten run")


def logout(
    context: typer.Context,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Forget the Hub even if it cannot be told; revoke the node in the portal."
        ),
    ] = False,
) -> None:
    """Leave the Hub: the node is revoked there, its identity here is deleted, a running node stops."""
    config = settings(context)
    asyncio.run(_leave(config, force=force))


def rotate(context: typer.Context) -> None:
    """Give this node another key. A running node goes over to it without a cut. Safe to repeat."""
    say(WHEN[asyncio.run(_rotate(settings(context)))])


async def _rotate(config: NodeConfig) -> Taken:
    async with _spinner("Changing the key"):
        return await rotate_key(config)


def _require_new(config: NodeConfig) -> None:
    store = IdentityStore(config.data_dir)
    if store.exists():
        facts = store.load().hub
        raise AlreadyEnrolled(
            f"this machine is enrolled with {facts.hub_url} as {facts.name}: run `porten logout` first"
        )
    if config.hub_url is None:
        raise ConfigInvalid("which Hub? Name it: porten login --hub https://hub.example.org")


async def _enroll(config: NodeConfig, *, browse: bool) -> Identity:
    assert config.hub_url is not None
    _warn_of_clear_text(config.hub_url)
    if config.join_token is not None:
        return await join(config, config.join_token.get_secret_value())
    key = Ed25519PrivateKey.generate()
    machine = describe_machine(key, devices.detect())
    async with HubApi.connect(config.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy) as hub:
        grant = await hub.start_device(key, suggested_name(config.node_name), machine)
        _show(grant, key, browse=browse)
        async with _spinner("Waiting for the approval"):
            identity = await hub.wait_for_approval(key, grant)
    IdentityStore(config.data_dir).save(identity)
    return identity


def _show(grant: DeviceGrant, key: Ed25519PrivateKey, *, browse: bool) -> None:
    say(f"\n  Open   {grant.verification_uri}")
    say(f"  Code   {grant.user_code}\n")
    if grant.verification_uri_complete:
        say(f"  or, with the code filled in: {grant.verification_uri_complete}")
    say(f"  This machine's fingerprint: {fingerprint(key)}")
    say(f"  The code is good for {grant.expires_in / 60:.0f} minutes.\n")
    if browse and sys.stdout.isatty():
        webbrowser.open(grant.verification_uri_complete or grant.verification_uri)


def _warn_of_clear_text(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in (*LOOPBACK_NAMES, "::1"):
        console(error=True).print(f"warning: {parts.hostname} is reached without encryption; use https://")


@asynccontextmanager
async def _spinner(text: str) -> AsyncIterator[None]:
    terminal = console()
    if not terminal.is_terminal:
        say(f"{text} …")
        yield
        return
    with terminal.status(text):
        yield


async def _leave(config: NodeConfig, *, force: bool) -> None:
    store = IdentityStore(config.data_dir)
    identity = store.load()
    await _tell_daemon(config)
    try:
        async with HubApi.connect(
            identity.hub.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy
        ) as hub:
            await hub.leave(identity)
        said = f"Left {identity.hub.hub_url}."
    except NodeRevoked:
        said = f"{identity.hub.hub_url} had revoked this node already."
    except HubUnreachable as error:
        if not force:
            raise HubUnreachable(f"{error}; `porten logout --force` forgets it on this side only") from None
        said = "The Hub was not told: revoke this node in its portal."
    store.remove()
    say(f"{said} The identity on this machine is deleted.")
    await _stop_daemon(config)


async def _tell_daemon(config: NodeConfig) -> None:
    with suppress(RuntimeFault):  # one that does not run, or cannot be told, is stopped or restarted later
        async with ControlClient.connect(config.state_dir) as client:
            await client.expect_leave()


async def _stop_daemon(config: NodeConfig) -> None:
    try:
        async with ControlClient.connect(config.state_dir) as client:
            await client.shutdown()
    except DaemonUnreachable:
        return
    say("The running node stops.")
