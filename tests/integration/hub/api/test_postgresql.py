"""What PostgreSQL takes differently from SQLite, where callers can send it."""

import json
import secrets

import pytest

from benchmarks.stacks.portal_client import PortalClient
from hub.storage.records import Role

PASSWORD = "correct horse battery"


@pytest.fixture
def settings(postgres):
    name = f"hub_{secrets.token_hex(6)}"
    yield {"database_url": postgres.create(name)}
    postgres.drop(name)


@pytest.fixture
async def operator(bench):
    """The operator, signed in to the portal."""
    organisation = await bench.organisation()
    await bench.hub.accounts.create(
        organisation, email="op@ours.example", password=PASSWORD, role=Role.OPERATOR
    )
    async with PortalClient(bench.url) as client:
        await client.sign_in("op@ours.example", PASSWORD)
        yield client


@pytest.mark.parametrize("path", ["/nodes/%00", "/nodes/node_%00", "/keys/%00/revoke"])
async def test_a_name_with_a_nul_is_nobodys(operator, path):
    answer = await operator._http.get(path)
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/v1/models/%00", "/v1/models/a%00b/warming"])
async def test_and_no_models_either(bench, http, path):
    key = await bench.key(await bench.organisation())
    answer = await http.get(path, headers={"authorization": f"Bearer {key}"})
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_nor_does_a_question_with_one_find_anything(bench, http, operator):
    organisation = (await bench.hub.storage.organisations.by_name("Acme")).id
    issued = await bench.hub.admin_tokens.issue(
        None, organisation, name="ci", role=Role.OPERATOR, lifetime_s=60
    )
    token = {"authorization": f"Bearer {issued.secret}"}
    for path in ("keys", "nodes", "tokens", "join-tokens", "accounts", "organisations"):
        answer = await http.get(f"/admin/v1/{path}?after=%00", headers=token)
        assert answer.status_code == 200, path
    assert (await operator._http.get("/trust?saved=%00")).status_code == 200


async def test_what_a_node_answers_under_such_a_name_would_count_nowhere(bench, http):
    organisation = await bench.organisation()
    node = await bench.node(organisation, model="ti\0ny")
    key = {"authorization": f"Bearer {await bench.key(organisation)}"}
    body = {"model": "ti\0ny", "messages": []}
    answer = await http.post("/v1/chat/completions", json=body, headers=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert node.seen == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 150])
async def test_whatever_a_machine_calls_itself_it_is_no_fault_of_the_hubs(bench, http, name):
    asked = {"public_key": "A" * 43, "name": name, "machine": {"hostname": name, "os": name}}
    answer = await http.post("/enroll/v1/device_authorization", content=json.dumps(asked))
    assert answer.status_code in (200, 400)
