"""The node's own client against a real Hub: what one says the other understands."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.enrollment import HubApi, describe_machine
from runtime.errors import EnrollmentRefused, NodeRevoked
from tunnel.client import TunnelClient
from tunnel.identity import encode_public_key
from tunnel.messages import Status

KEY = Ed25519PrivateKey.generate()


async def test_a_code_becomes_an_identity_that_dials_in(bench, operator, clock, script):
    waits = []

    async def approved_meanwhile(seconds):
        waits.append(seconds)
        clock.now += seconds
        if len(waits) == 2:
            await bench.hub.enrollment.approve(grant.user_code, operator, name="attic", region="eu-de")

    async with HubApi.connect(bench.url) as api:
        description = await api.discover()
        grant = await api.start_device(KEY, "attic", describe_machine(KEY, ()))
        identity = await api.wait_for_approval(KEY, grant, sleep=approved_meanwhile)
    assert waits == [5, 5]
    assert (identity.hub.hub_id, identity.hub.name) == (description.hub_id, "attic")
    assert (identity.credential.region, identity.credential.public_key) == (
        "eu-de",
        encode_public_key(KEY.public_key()),
    )
    client = TunnelClient(
        urls=(identity.hub.tunnel_urls[0],),
        identity=identity.dialler(),
        instance_id="instance",
        handler=script.answer,
        status=lambda: Status(agent="x", accepting=True, devices=(), replicas=(), models=()),
        on_welcome=lambda _welcome: None,
        on_state=lambda _state: None,
        agent="x",
    )
    dialling = asyncio.create_task(client.run())
    await script.until(lambda: identity.hub.node_id in bench.hub.registry.snapshot(), "the node is here")
    async with HubApi.connect(bench.url) as api:
        await api.leave(identity)
    await script.until(lambda: identity.hub.node_id not in bench.hub.registry.snapshot(), "it is let go")
    await client.stop()
    await dialling


async def test_a_no_in_the_portal_and_a_code_too_old_end_the_waiting(bench, operator, clock):
    async def denied_meanwhile(seconds):
        await bench.hub.enrollment.deny(grant.user_code, operator)

    async def too_late(seconds):
        clock.now += 600

    async with HubApi.connect(bench.url) as api:
        grant = await api.start_device(KEY, "attic", {})
        with pytest.raises(EnrollmentRefused, match="refused in the portal"):
            await api.wait_for_approval(KEY, grant, sleep=denied_meanwhile)
        grant = await api.start_device(KEY, "attic", {})
        with pytest.raises(EnrollmentRefused, match="expired"):
            await api.wait_for_approval(KEY, grant, sleep=too_late)


async def test_a_join_token_is_exchanged_once_and_left_once(bench, join_token):
    token = await join_token()
    async with HubApi.connect(bench.url) as api:
        identity = await api.join(KEY, token, "attic", describe_machine(KEY, ()))
        with pytest.raises(EnrollmentRefused, match="JoinToken"):
            await api.join(KEY, token, "attic", {})
        await api.leave(identity)
        assert (await bench.hub.storage.nodes.get(identity.hub.node_id)).revoked_at is not None


async def test_a_node_that_the_hub_does_not_know_is_told_so(bench, join_token, tmp_path):
    async with HubApi.connect(bench.url) as api:
        identity = await api.join(KEY, await join_token(), "attic", {})
        bench.hub.enrollment._hub_id = "hub_other"
        with pytest.raises(NodeRevoked):
            await api.leave(identity)


async def test_a_hub_that_asks_to_wait_is_understood(bench, clock):
    async with HubApi.connect(bench.url) as api:
        for _ in range(20):
            await api.start_device(KEY, "attic", {})
        with pytest.raises(EnrollmentRefused, match=r"asks to wait \d+ s"):
            await api.start_device(KEY, "attic", {})
