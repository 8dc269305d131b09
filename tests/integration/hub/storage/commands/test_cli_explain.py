"""`porten-hub explain`: node by node, why a key's request may run there or not."""

import json
import re

import pytest

from hub.policy import PRIVATE, TrustClass


@pytest.fixture
def fleet(hub, ask):
    """Nodes of two organisations by their names, and a key for Europe."""
    others = hub("organisations", "create", "Others").stdout.strip()
    hub("keys", "create", "--name", "app", "--region", "eu", "--model", "tiny")

    async def add(storage):
        ours = (await storage.organisations.by_name("Ours")).id
        places = {"near": ("eu-de", True, ours), "far": ("us", True, ours), "new": ("eu", False, ours)}
        for name, (region, confirmed, owner) in (places | {"theirs": ("eu", True, others)}).items():
            node = await storage.nodes.create(
                owner,
                name=name,
                public_key=name,
                region=region,
                region_confirmed=confirmed,
                trust=TrustClass.COMMUNITY,
                sharing=PRIVATE,
                machine={},
                now=1,
            )
            places[name] = node.id
        return places

    return ask(add)


def explain(hub, *words, key="app", model="tiny"):
    return json.loads(hub("explain", "--key", key, "--model", model, *words, "--json").stdout)


def test_a_key_is_explained_node_by_node(hub, fleet):
    shown = hub("explain", "--key", "app", "--model", "tiny")
    for line in (
        r"near +Ours +permitted",
        r"far +Ours +region +it stands in us, and the key asks for eu",
        r"new +Ours +region +its region eu counts once an operator confirms it",
        r"theirs +Others +owner +it is another organisation's",
    ):
        assert re.search(line, shown.stdout), line
    assert "only the running Hub knows" in shown.stderr
    assert "the catalog has no model 'tiny'" in shown.stderr
    found = explain(hub)
    assert found["judged"] == "policy"
    assert found["key"]["name"] == "app"
    assert {node["name"]: node["gate"] for node in found["nodes"]} == {
        "near": None,
        "far": "region",
        "new": "region",
        "theirs": "owner",
    }
    assert {node["permitted"] for node in found["nodes"] if node["gate"]} == {False}
    assert found["nodes"][0]["id"] == fleet["near"]


def test_what_a_request_asks_for_itself_is_explained(hub, fleet):
    gates = {node["name"]: node["gate"] for node in explain(hub, "--region", "eu-fr")["nodes"]}
    assert gates == {"near": "narrowed", "far": "region", "new": "region", "theirs": "owner"}
    (only,) = explain(hub, "--node", fleet["near"])["nodes"]
    assert (only["name"], only["gate"]) == ("near", None)
    assert explain(hub, "--node", "node_none")["nodes"] == []
    assert (
        "is not an id such as node_"
        in hub("explain", "--key", "app", "--model", "m", "--node", "near", status=2).stderr
    )


def test_a_revoked_node_is_explained_when_it_is_asked_for(hub, fleet):
    hub("nodes", "revoke", fleet["near"])
    assert "near" not in {node["name"] for node in explain(hub)["nodes"]}
    (only,) = explain(hub, "--node", fleet["near"])["nodes"]
    assert only["gate"] == "revoked"


def test_a_key_that_refuses_by_itself_is_said_so(hub, fleet):
    assert explain(hub)["key_refuses"] is None
    assert "model_not_allowed" in explain(hub, model="other")["key_refuses"]
    assert "Refused before any node is looked at" in hub("explain", "--key", "app", "--model", "other").stderr
    hub("keys", "revoke", explain(hub)["key"]["id"])
    assert "invalid_api_key" in explain(hub)["key_refuses"]


def test_a_key_is_named_by_its_id_its_beginning_or_its_name(hub, fleet, ask):
    (key,) = ask(lambda storage: storage.keys.list())
    for named in (key.id, key.prefix, f"{key.prefix}…", "app"):
        assert explain(hub, key=named)["key"]["id"] == key.id
    assert "no such key: nobody" in hub("explain", "--key", "nobody", "--model", "m", status=1).stderr
    hub("keys", "create", "--name", "app")
    two = hub("explain", "--key", "app", "--model", "m", status=2).stderr
    assert "2 keys are called that" in two
    assert key.id in two
    hub("keys", "revoke", key.id)
    assert explain(hub)["key"]["id"] != key.id, "of several, the one that still works is meant"


def test_a_secret_is_not_taken_and_not_repeated(hub, fleet):
    secret = hub("keys", "create", "--name", "other").stdout.strip()
    for typed in (secret, secret[:-1], f" {secret}"):
        refused = hub("explain", "--key", typed, "--model", "m", status=2)
        assert "that is a secret" in refused.stderr
        assert secret[16:-1] not in refused.output
