"""The program that this node's Hub hands out: which it is, and the file.

Owns what must be so before it is installed: the Hub's key, pinned at enrollment, has signed for exactly these
bytes, and they are newer than what is installed. Must not know how a program is installed.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from packaging.version import InvalidVersion, Version

from runtime.config import NodeConfig
from runtime.errors import EnrollmentRefused, IdentityInvalid, NotEnrolled, UpgradeRefused
from runtime.hub_http import MAX_ANSWER_BYTES, HubHttp
from runtime.identity import IdentityStore
from tunnel.errors import HandoutInvalid
from tunnel.handout import Handout, read_handout
from tunnel.identity import decode_public_key

_OTHERWISE = "`porten upgrade --to VERSION` asks pip's index, `--from` takes a file"


async def newest(config: NodeConfig) -> Handout:
    """Which program the Hub hands out.

    Raises:
        UpgradeRefused: there is no Hub to ask, it hands nothing out, or did not sign for it.
    """
    async with _hub(config) as (hub, key):
        return await _word(hub, key)


async def fetch_newer(config: NodeConfig, installed: str, folder: Path) -> Path | None:
    """Put the Hub's program into a folder, where it is newer than the version that is installed.

    Raises:
        UpgradeRefused: it is older, cannot be had, or is not what the Hub has signed for.
    """
    async with _hub(config) as (hub, key):
        handout = await _word(hub, key)
        if not is_newer(handout.version, installed):
            return None
        answer = await hub.send("GET", f"/install/{handout.file}")
        hub.require_ok(answer)
    if hashlib.sha256(answer.content).hexdigest() != handout.sha256:
        raise UpgradeRefused("nothing was changed: the Hub handed out another file than it has signed for")
    target = folder / handout.file
    target.write_bytes(answer.content)
    return target


def is_newer(offered: str, installed: str) -> bool:
    """Whether it is another version than what is installed (PEP 440).

    Raises:
        UpgradeRefused: it is an older one: whoever wants to go back says so.
    """
    try:
        there, here = Version(offered), Version(installed)
    except InvalidVersion as error:
        raise UpgradeRefused(f"nothing was changed: {error}") from None
    if there < here:
        raise UpgradeRefused(
            f"nothing was changed: the Hub hands out {offered}, and {installed} is installed; {_OTHERWISE}"
        )
    return there > here


@asynccontextmanager
async def _hub(config: NodeConfig) -> AsyncIterator[tuple[HubHttp, Ed25519PublicKey]]:
    """The Hub, and the key that was pinned; every failure of the two is a refusal to upgrade."""
    try:
        facts = IdentityStore(config.data_dir).load().hub
        url = config.hub_url or facts.hub_url
        async with HubHttp.connect(url, ca_file=config.hub_ca_file, proxy=config.proxy) as hub:
            yield hub, decode_public_key(facts.public_key)
    except (EnrollmentRefused, NotEnrolled, IdentityInvalid) as error:
        raise UpgradeRefused(f"nothing was changed: {error}; {_OTHERWISE}") from None


async def _word(hub: HubHttp, key: Ed25519PublicKey) -> Handout:
    answer = await hub.send("GET", "/install/program")
    if answer.status_code == 404:
        raise EnrollmentRefused(f"the Hub at {hub.url} is too old to hand out a program")
    hub.require_ok(answer)
    try:
        return read_handout(answer.text[:MAX_ANSWER_BYTES], key)
    except HandoutInvalid as error:
        raise EnrollmentRefused(f"what {hub.url} says was not signed by this node's Hub: {error}") from None
