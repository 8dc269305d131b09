"""What PostgreSQL takes differently from SQLite, where callers can send it."""

import json
import secrets

import pytest

from benchmarks.portal_client import PortalClient
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


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 150])
async def test_whatever_a_machine_calls_itself_it_is_no_fault_of_the_hubs(bench, http, name):
    asked = {"public_key": "A" * 43, "name": name, "machine": {"hostname": name, "os": name}}
    answer = await http.post("/enroll/v1/device_authorization", content=json.dumps(asked))
    assert answer.status_code in (200, 400)
