"""Join tokens and leaving over HTTP: who is let in, who may go, and one answer for everybody else."""

import logging
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel.identity import read_credential


async def test_a_join_token_enrolls_as_often_as_it_says(bench, machine, join_token, operator, refused):
    token = await join_token(uses=2, region_confirmed=True)
    told = [(await machine.join(token)).json() for _ in range(2)]
    assert refused(await machine.join(token)) == (401, "invalid_grant")
    credential = read_credential(told[0]["credential"], bench.hub.key.public_key())
    assert (credential.node_id, credential.region) == (told[0]["node_id"], "eu-de")
    assert (credential.owner_id, credential.trust) == (operator.organisation_id, "community")
    nodes = await bench.hub.storage.nodes.list()
    assert {node.id for node in nodes} == {each["node_id"] for each in told}
    assert all(node.machine["hostname"] == "attic.example" for node in nodes)


async def test_every_join_token_that_admits_nobody_gets_one_answer(bench, machine, join_token, clock):
    used, expired, revoked = await join_token(), await join_token(expires_in_s=60), await join_token(uses=77)
    assert (await machine.join(used)).status_code == 200
    [stored] = [each for each in await bench.hub.storage.join_tokens.list() if each.max_uses == 77]
    await bench.hub.storage.join_tokens.revoke(stored.id, now=clock())
    clock.now += 60
    wrong = (used, expired, revoked, revoked[:-1], "pjt-x", "", "é", "x" * 200)
    answers = [await machine.join(token) for token in wrong]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}


@pytest.fixture
async def joined(bench, machine, join_token):
    """What a machine was told that has joined."""
    return (await machine.join(await join_token())).json()


async def test_a_node_leaves_by_its_own_key(bench, machine, joined):
    farewell = machine.farewell(joined["node_id"], bench.hub.hub_id)
    assert (await machine.leave(farewell)).status_code == 204
    assert (await bench.hub.storage.nodes.get(joined["node_id"])).revoked_at is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"key": Ed25519PrivateKey.generate()},
        {"key": None},
        {"aud": "hub_other"},
        {"sub": "node_none"},
        {"sub": {"nested": [1]}},
        {"typ": "porten-node+jwt"},
        {"exp": int(time.time()) + 3_600},
        {"iat": 1, "exp": 61},
        {"iat": "soon"},
        {"iat": float("nan")},
    ],
)
async def test_nobody_is_sent_away_by_another(bench, machine, joined, refused, changes):
    forged = machine.farewell(joined["node_id"], bench.hub.hub_id, **changes)
    assert refused(await machine.leave(forged)) == (401, "invalid_client")
    assert (await bench.hub.storage.nodes.get(joined["node_id"])).revoked_at is None


async def test_a_farewell_is_a_bearer_token_of_its_own_kind(bench, machine, joined, refused):
    farewell = machine.farewell(joined["node_id"], bench.hub.hub_id)
    wrong = [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {farewell}"},
        {"authorization": farewell},
    ]
    wrong += [
        {"authorization": f"Bearer {text}"} for text in (joined["credential"], "x", "a.b.c", "." * 4_000)
    ]
    for headers in wrong:
        assert refused(await machine.post("leave", headers=headers)) == (401, "invalid_client"), headers
    twice = [("authorization", f"Bearer {farewell}"), ("authorization", "Bearer x")]
    answer = await machine.http.post("/enroll/v1/leave", headers=twice)
    assert refused(answer) == (400, "invalid_request")
    assert (await bench.hub.storage.nodes.get(joined["node_id"])).revoked_at is None


async def test_nothing_secret_is_in_any_log_line(bench, machine, join_token, approve, clock, caplog):
    caplog.set_level(logging.DEBUG)
    token, grant = await join_token(), await machine.ask()
    joined = (await machine.join(token)).json()
    await approve(grant["user_code"])
    enrolled = (await machine.poll(grant["device_code"])).json()
    farewell = machine.farewell(joined["node_id"], bench.hub.hub_id)
    assert (await machine.leave(farewell)).status_code == 204
    assert (await machine.join(token)).status_code == 401
    lines = "\n".join(str(vars(record)) for record in caplog.records)
    assert "enrollment.approved" in lines
    codes = (grant["device_code"], grant["user_code"], grant["user_code"].replace("-", ""))
    for secret in (token, *codes, joined["credential"], enrolled["credential"], farewell):
        assert secret not in lines
