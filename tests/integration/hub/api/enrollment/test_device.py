"""The device authorization grant over HTTP: RFC 8628's answers, and requests that make no sense."""

import json
import logging

import pytest

from tunnel.identity import decode_public_key, read_credential

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SECRET = "nobody-may-find-this"


async def test_a_machine_is_told_to_wait_and_then_who_it_is(bench, machine, approve, clock, refused):
    grant = await machine.ask()
    assert (grant["expires_in"], grant["interval"]) == (600, 5)
    assert grant["verification_uri"] == f"{bench.hub.addresses.api_url}/device"
    assert grant["verification_uri_complete"] == f"{grant['verification_uri']}?user_code={grant['user_code']}"
    assert refused(await machine.poll(grant["device_code"])) == (400, "authorization_pending")
    node = await approve(grant["user_code"])
    clock.now += 5
    answer = await machine.poll(grant["device_code"])
    assert answer.status_code == 200
    told = answer.json()
    assert (told["node_id"], told["name"]) == (node.id, "attic")
    assert told["hub"] == (await machine.http.get("/.well-known/porten")).json()
    credential = read_credential(told["credential"], decode_public_key(told["hub"]["public_key"]))
    assert (credential.node_id, credential.public_key) == (node.id, machine.public_key)
    assert (credential.owner_id, credential.region, credential.trust) == (
        node.organisation_id,
        "eu-de",
        "trusted",
    )
    assert credential.hub_id == told["hub"]["hub_id"]
    assert refused(await machine.poll(grant["device_code"])) == (400, "expired_token")


async def test_who_polls_too_fast_is_slowed_down(machine, clock, refused):
    grant = await machine.ask()
    await machine.poll(grant["device_code"])
    for interval in ("10", "15"):
        answer = await machine.poll(grant["device_code"])
        assert refused(answer) == (400, "slow_down")
        assert answer.headers["retry-after"] == interval
    clock.now += 15
    assert refused(await machine.poll(grant["device_code"])) == (400, "authorization_pending")


async def test_a_no_and_a_code_too_old_are_told_apart(bench, machine, operator, clock, refused):
    denied, late = await machine.ask(), await machine.ask()
    await bench.hub.enrollment.deny(denied["user_code"], operator)
    assert refused(await machine.poll(denied["device_code"])) == (400, "access_denied")
    clock.now += 600
    assert refused(await machine.poll(late["device_code"])) == (400, "expired_token")
    assert refused(await machine.poll("invented")) == (400, "expired_token")


SENSELESS_POLLS = [
    (f"grant_type=password&device_code={SECRET}", "unsupported_grant_type"),
    (f"grant_type=&device_code={SECRET}", "invalid_request"),
    (f"device_code={SECRET}", "invalid_request"),
    (f"grant_type={DEVICE_GRANT}", "invalid_request"),
    (f"grant_type={DEVICE_GRANT}&device_code=", "invalid_request"),
    (f"grant_type={DEVICE_GRANT}&device_code={SECRET}&device_code={SECRET}", "invalid_request"),
    (f"grant_type={DEVICE_GRANT}&grant_type=x&device_code={SECRET}", "invalid_request"),
    (f'{{"grant_type": "{DEVICE_GRANT}", "device_code": "{SECRET}"}}', "invalid_request"),
    (f"grant_type={DEVICE_GRANT}&device_code=%ff", "invalid_request"),
    ("é=é", "invalid_request"),
    ("&".join(f"f{number}={SECRET}" for number in range(21)), "invalid_request"),
    ("", "invalid_request"),
]


async def test_a_poll_that_makes_no_sense_is_told_why_without_being_quoted(machine, caplog, refused):
    caplog.set_level(logging.DEBUG)
    for body, error in SENSELESS_POLLS:
        answer = await machine.post("token", content=body.encode())
        assert refused(answer) == (400, error), body
        assert SECRET not in answer.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("endpoint", ["device_authorization", "join"])
async def test_what_is_no_public_key_enrolls_nobody(bench, machine, join_token, refused, endpoint):
    token, good = await join_token(), machine.public_key
    wrong = [
        "",
        good[:-1],
        good + "A",
        good + "\n",
        good + "=",
        "é" * 43,
        "+" + good[1:],
        " " + good[1:],
        None,
        7,
    ]
    for key in wrong:
        answer = await machine.post(endpoint, json=machine.says | {"public_key": key, "join_token": token})
        assert refused(answer) == (400, "invalid_request"), key
    assert await bench.hub.storage.nodes.list() == []
    assert (await machine.join(token)).status_code == 200, "the token was not used up"


def with_device(**said):
    return {"machine": {"devices": [{"kind": "cpu"} | said]}}


SENSELESS_WORDS = [
    b"",
    b"[]",
    b"null",
    b'{"public_key": "' + SECRET.encode(),
    b"\xff\xfe",
    b'{"x":' + b"[" * 30_000,
    {"name": SECRET * 20},
    {"name": 7},
    {"machine": SECRET},
    {"machine": {"hostname": [SECRET]}},
    {"machine": {"hostname": SECRET * 20}},
    {"machine": {"devices": [{"kind": "cpu"}] * 65}},
    {"machine": {"devices": [{"kind": "cpu", "name": "x" * 200}] * 60}},
    with_device(kind=SECRET * 2),
    with_device(memory_total=-1),
    with_device(memory_total=2**61),
    with_device(memory_total=SECRET),
    with_device(memory_total=1.5),
    with_device(memory_total=1e300),
    with_device(memory_total=True),
]


@pytest.mark.parametrize("endpoint", ["device_authorization", "join"])
async def test_a_machine_that_makes_no_sense_is_refused_without_being_quoted(
    machine, caplog, refused, endpoint
):
    caplog.set_level(logging.DEBUG)
    whole = machine.says | {"join_token": "pjt-x"}
    for said in SENSELESS_WORDS:
        body = said if isinstance(said, bytes) else json.dumps(whole | said).encode()
        answer = await machine.post(endpoint, content=body)
        assert refused(answer) == (400, "invalid_request"), said
        assert SECRET not in answer.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ['"\\ud800"', '"\\u0000\\u202e"', '"a\\r\\nb"', '""'])
async def test_a_name_that_no_person_would_type_is_made_fit_or_refused(bench, machine, join_token, name):
    body = json.dumps(machine.says | {"name": "NAME", "join_token": await join_token()})
    answer = await machine.post("join", content=body.replace('"NAME"', name).encode())
    nodes = await bench.hub.storage.nodes.list()
    assert (answer.status_code, len(nodes)) in ((200, 1), (400, 0))
    assert all(node.name.isprintable() and node.name for node in nodes)


async def test_an_integer_is_one_however_it_is_written(bench, machine, join_token):
    """So JSON Schema means it, and so the document that the Hub gives."""
    whole = machine.says | {"join_token": await join_token()}
    body = json.dumps(whole | with_device(memory_total="SIZE")).replace('"SIZE"', "8e9")
    assert (await machine.post("join", content=body.encode())).status_code == 200
    [node] = await bench.hub.storage.nodes.list()
    assert node.machine["devices"][0]["memory_total"] == 8_000_000_000


async def test_what_a_later_node_may_add_is_passed_over(machine):
    body = machine.says | {"later": 1, "machine": {"hostname": "x", "later": [{}]}}
    assert (await machine.post("device_authorization", json=body)).status_code == 200


async def test_nothing_is_enrolled_by_a_link(http):
    for endpoint in ("device_authorization", "token", "join", "leave", "rotate"):
        assert (await http.get(f"/enroll/v1/{endpoint}")).status_code == 405
