"""Reading and checking a Hub's audit log in tests."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.evidence import LogCheck
from tunnel.identity import encode_public_key

NOW = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()


def public():
    return encode_public_key(Ed25519PrivateKey.generate().public_key())


async def log_of(storage):
    return [event async for event in storage.audit.chain()]


async def since(storage, sequence):
    return [event for event in await log_of(storage) if event.sequence > sequence]


async def check(storage, *elsewhere):
    """What a verification finds."""
    tokens = [*await storage.audit.checkpoints(), *elsewhere]
    looked = LogCheck("hub_1", tokens, [KEY.public_key()], await storage.audit.head())

    async def head_after():
        return (await storage.audit.head())[0]

    return await looked.over(storage.audit.chain(), head_after)
