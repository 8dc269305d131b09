"""Which identity the daemon runs with: the one on disk, or one gained with a JoinToken.

Owns that decision and keeping the Hub's addresses fresh. Must not know the command line.
"""

import asyncio
import logging

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime import devices
from runtime.config import NodeConfig
from runtime.enrollment import HubApi, HubDescription, describe_machine, suggested_name
from runtime.errors import ConfigInvalid, EnrollmentRefused, NotEnrolled
from runtime.identity import Identity, IdentityStore

logger = logging.getLogger(__name__)

REFRESH_TIMEOUT_S = 3.0
HOW_TO_ENROLL = (
    "this machine is not enrolled with a Hub: run `porten login --hub URL`, set join_token, "
    "or serve this machine alone with `porten run --local-only`"
)


async def current_identity(config: NodeConfig) -> Identity:
    """The identity to run with, its Hub's addresses as the Hub gives them now.

    Raises:
        NotEnrolled: there is none, and no JoinToken to get one.
        IdentityInvalid: the one on disk is damaged.
        EnrollmentRefused: the Hub does not take the JoinToken.
    """
    store = IdentityStore(config.data_dir)
    if store.exists():
        return await _refreshed(config, store, store.load())
    if config.join_token is None:
        raise NotEnrolled(HOW_TO_ENROLL)
    return await join(config, config.join_token.get_secret_value())


async def join(config: NodeConfig, token: str) -> Identity:
    """Enroll with a JoinToken and keep the identity.

    Raises:
        EnrollmentRefused: the Hub does not take the token.
    """
    if config.hub_url is None:
        raise ConfigInvalid("hub_url is not set: a JoinToken alone does not say which Hub it is for")
    key = Ed25519PrivateKey.generate()
    name = suggested_name(config.node_name)
    async with HubApi.connect(config.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy) as hub:
        machine = describe_machine(key, devices.detect())
        identity = await hub.join(key, token, name, machine)
    IdentityStore(config.data_dir).save(identity)
    fields = {"event": "enrolled", "node_id": identity.hub.node_id, "hub": identity.hub.hub_url}
    logger.info("enrolled with a JoinToken", extra=fields)
    return identity


async def _refreshed(config: NodeConfig, store: IdentityStore, identity: Identity) -> Identity:
    """The same identity with the tunnel's addresses of today; a Hub away or changed leaves the old ones."""
    url = config.hub_url or identity.hub.hub_url
    try:
        async with (
            asyncio.timeout(REFRESH_TIMEOUT_S),
            HubApi.connect(url, ca_file=config.hub_ca_file, proxy=config.proxy) as hub,
        ):
            found = await hub.discover()
    except (EnrollmentRefused, TimeoutError) as error:
        fields = {"event": "hub_refresh_failed", "reason": str(error) or "no answer in time"}
        logger.warning("the Hub cannot be asked for its addresses", extra=fields)
        return identity
    return _adopt(store, identity, url, found)


def _adopt(store: IdentityStore, identity: Identity, url: str, found: HubDescription) -> Identity:
    known = identity.hub
    if (found.hub_id, found.public_key) != (known.hub_id, known.public_key) or not found.tunnel_urls:
        fields = {"event": "hub_is_another", "hub": url, "expected": known.hub_id}
        logger.warning("another Hub than the one this node belongs to answers there", extra=fields)
        return identity
    facts = msgspec.structs.replace(known, hub_url=url, tunnel_urls=found.tunnel_urls)
    if facts == known:
        return identity
    renewed = Identity.checked(identity.key, identity.token, facts, identity.next_key)
    store.save_hub(renewed)
    return renewed
