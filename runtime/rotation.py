"""Another key for this node: made, announced to the Hub, and taken up.

Owns the order of the steps. Each can be repeated: whoever is interrupted runs all of it again. Must not know
the command line, the files or the tunnel.
"""

from enum import StrEnum

from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.enrollment import HubApi
from runtime.errors import DaemonUnreachable
from runtime.identity import IdentityStore


class Taken(StrEnum):
    """When the node goes over to its new key."""

    NOW = "now"  # a session stands under it; the old one is worth nothing
    AT_THE_NEXT_SESSION = "next session"  # the node runs, and does not reach the Hub's tunnel
    AT_THE_NEXT_START = "next start"  # the node does not run, or without its Hub


async def rotate_key(config: NodeConfig) -> Taken:
    """Give the node another key.

    The Hub hears of the key after it is safe on the disk, and forgets the old one at the first session under
    the new one.

    Raises:
        NotEnrolled: there is no identity.
        NodeRevoked: the Hub does not know this node any more.
        EnrollmentRefused: the Hub cannot be reached, or did not take the key.
    """
    identity = IdentityStore(config.data_dir).with_next_key()
    assert identity.next_key is not None
    async with HubApi.connect(identity.hub.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy) as hub:
        await hub.announce(identity, identity.next_key)
    try:
        async with ControlClient.connect(config.state_dir) as node:
            return Taken(await node.take_up_key())
    except DaemonUnreachable:
        return Taken.AT_THE_NEXT_START
