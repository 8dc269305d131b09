"""Everything that the portal can do, done by a program; what it changes counts for requests at once."""

import asyncio
import json

from hub.evidence import LogCheck, read_export
from hub.policy import TrustClass
from hub.storage.records import Role

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def chat(http, secret):
    """Status and, of a refusal, code of a request with an API key."""
    headers = {"authorization": f"Bearer {secret}"}
    answer = await http.post("/v1/chat/completions", json=CHAT, headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("code")


async def test_a_key_from_its_making_to_its_end(bench, http, owner):
    await bench.node(owner.token.organisation_id)
    made = await owner.post("/keys", {"name": "app", "regions": ["eu"], "limits": {"monthly_tokens": 10**6}})
    key, secret = made["key"], made["secret"]
    assert (key["fleet"], key["regions"], key["limits"]["monthly_tokens"]) == ("own", ["eu"], 10**6)
    assert await chat(http, secret) == (200, None)

    changed = await owner.patch(f"/keys/{key['id']}", {"regions": ["us"]})
    assert (changed["regions"], changed["name"], changed["limits"]) == (["us"], "app", key["limits"])
    assert await chat(http, secret) == (503, "no_available_node")
    why = await owner.get(f"/keys/{key['id']}/explain", model="tiny")
    assert [(each["permitted"], each["reason"]) for each in why["nodes"]] == [(False, "region")]
    assert why["others"] is None

    await owner.patch(f"/keys/{key['id']}", {"regions": []})
    rotated = await owner.post(f"/keys/{key['id']}/rotate", {"overlap_s": 60}, 200)
    for each in (secret, rotated["secret"]):
        assert await chat(http, each) == (200, None)
    assert rotated["key"]["previous_prefix"] == key["prefix"]
    ended = await owner.post(f"/keys/{key['id']}/revoke", status=200)
    assert (ended["active"], ended["revoked_at"] is None) == (False, False)
    for each in (secret, rotated["secret"]):
        assert await chat(http, each) == (401, "invalid_api_key")
    assert [each["id"] for each in (await owner.get("/keys"))["data"]] == [key["id"]]
    await owner.patch(f"/keys/{key['id']}", {"name": "again"}, 404)


async def test_a_key_whose_rules_cannot_be_read_is_not_widened_by_a_change_of_name(bench, owner):
    key = (await owner.post("/keys", {"name": "app"}))["key"]
    async with bench.hub.storage._engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE api_keys SET fleet = 'anything'")
    refused = await owner.patch(f"/keys/{key['id']}", {"name": "other"}, 422)
    assert refused["error"]["param"] == "fleet"
    rules = {"fleet": "own", "regions": [], "minimum_trust": "community"}
    assert (await owner.patch(f"/keys/{key['id']}", rules))["fleet"] == "own"


async def test_null_takes_away_and_what_is_not_said_stays(owner):
    wish = {"name": "app", "models": ["tiny"], "expires_at": "2100-01-01T00:00:00+01:00"}
    key = (await owner.post("/keys", wish))["key"]
    assert (key["models"], key["expires_at"]) == (["tiny"], "2099-12-31T23:00:00.000Z")
    same = await owner.patch(f"/keys/{key['id']}", {"name": "b"})
    assert (same["models"], same["expires_at"]) == (key["models"], key["expires_at"])
    freed = await owner.patch(f"/keys/{key['id']}", {"models": None, "expires_at": None})
    assert (freed["models"], freed["expires_at"]) == (None, None)


async def test_a_node_live_changed_and_ended(bench, owner, operator):
    node = await bench.node(owner.token.organisation_id)
    path = f"/nodes/{node.node_id}"
    shown = await owner.get(path)
    assert (shown["state"], shown["trust"], shown["region"]) == ("online", "trusted", "eu-de")
    assert [(each["model"], each["state"]) for each in shown["live"]["models"]] == [("tiny", "ready")]
    moved = await owner.patch(path, {"name": "attic", "region": "us", "sharing": {"kind": "public"}})
    assert (moved["name"], moved["region"], moved["region_confirmed"]) == ("attic", "us", False)
    assert moved["sharing"]["kind"] == "public"
    refused = await owner.patch(path, {"trust": "confidential"}, 422)
    assert refused["error"]["param"] == "trust"
    renamed = await operator.patch(path, {"name": "loft"})
    assert (renamed["region"], renamed["region_confirmed"]) == ("us", False)  # nobody said it
    await owner.patch(path, {"name": "attic"})
    raised = await operator.patch(path, {"trust": "verified", "region": "us"})
    assert (raised["trust"], raised["region_confirmed"], raised["name"]) == ("verified", True, "attic")
    assert (await owner.patch(path, {"region": None}))["region"] is None
    ended = await owner.post(f"{path}/revoke", status=200)
    assert (ended["state"], ended["live"]) == ("revoked", None)


async def test_a_job_for_a_node(bench, owner, operator):
    node = await bench.node(owner.token.organisation_id, features=("commands",))
    path = f"/nodes/{node.node_id}/jobs"
    given = await owner.post(path, {"action": "load", "model": "tiny"}, 202)
    assert (given["action"], given["model"]) == ("load", "tiny")
    assert [each["id"] for each in (await owner.get(path))["data"]] == [given["id"]]
    refused = await owner.post(path, {"action": "load", "model": "other"}, 422)
    assert refused["error"]["param"] == "model"
    await operator.post(path, {"action": "load", "model": "tiny"}, 404)
    assert len((await operator.get(path))["data"]) == 1


async def ask_to_join(http, number):
    body = {
        "public_key": "A" * 42 + "A",
        "name": "attic",
        "machine": {"hostname": f"attic{number}.example", "os": "Linux"},
    }
    return (await http.post("/enroll/v1/device_authorization", json=body)).json()


async def test_a_machine_is_looked_up_approved_or_refused(http, owner, operator):
    asked = await ask_to_join(http, 1)
    path = f"/enrollments/{asked['user_code']}"
    waiting = await owner.get(path)
    assert (waiting["name"], waiting["machine"]["hostname"]) == ("attic", "attic1.example")
    refused = await owner.post(f"{path}/approve", {"trust": "trusted"}, 422)
    assert refused["error"]["param"] == "trust"
    node = await owner.post(f"{path}/approve", {"region": "eu-de"})
    assert (node["name"], node["region_confirmed"]) == ("attic", False)
    assert node["organisation"] == owner.token.organisation_id
    await owner.post(f"{path}/approve", {}, 404)
    other = (await ask_to_join(http, 2))["user_code"]
    assert await operator.post(f"/enrollments/{other}/deny", status=200) == {"denied": True}
    await operator.get(f"/enrollments/{other}", 404)


async def test_a_join_token_of_an_owner_waits_for_the_operators_word(owner, operator):
    made = await owner.post("/join-tokens", {"region": "eu", "max_uses": 3})
    assert made["secret"].startswith("pjt-")
    assert (made["token"]["region_confirmed"], made["token"]["active"]) == (False, True)
    ended = await owner.post(f"/join-tokens/{made['token']['id']}/revoke", status=200)
    assert not ended["active"]
    theirs = await operator.ask(
        "POST", "/join-tokens", {"region": "eu"}, params={"organisation": owner.token.organisation_id}
    )
    assert theirs.json()["token"]["region_confirmed"]
    assert len((await owner.get("/join-tokens"))["data"]) == 2


async def test_regions_and_organisations_are_the_operators(operator, owner):
    region = {"code": "eu-de-ber", "parent": "eu-de", "name": "Berlin"}
    assert await operator.post("/regions", region) == region
    assert region in (await owner.get("/regions"))["data"]
    await operator.post("/regions", region, 409)
    await operator.post("/regions", {"code": "x", "parent": "nowhere", "name": "X"}, 422)
    made = await operator.post("/organisations", {"name": "Lab"})
    limits = {"limits": {"requests_per_minute": 5}}
    changed = await operator.patch(f"/organisations/{made['id']}", limits)
    assert changed["limits"]["requests_per_minute"] == 5
    assert {each["name"] for each in (await operator.get("/organisations"))["data"]} == {
        *("Porten", "Acme", "Lab")
    }
    assert [each["name"] for each in (await owner.get("/organisations"))["data"]] == ["Acme"]
    assert (await owner.get(f"/organisations/{owner.token.organisation_id}"))["name"] == "Acme"


async def test_regions_are_renamed_and_moved(bench, operator, owner):
    await operator.post("/regions", {"code": "eu-ber", "parent": "eu", "name": "Berlin"})
    renamed = await operator.patch("/regions/eu-ber", {"name": "Berlin and around"})
    assert renamed == {"code": "eu-ber", "parent": "eu", "name": "Berlin and around"}
    moved = await operator.patch("/regions/eu-ber", {"parent": "eu-de"})
    assert moved == renamed | {"parent": "eu-de"}
    assert moved in (await owner.get("/regions"))["data"]
    assert await operator.patch("/regions/eu-ber", {}) == moved
    assert (await operator.patch("/regions/eu-ber", {"parent": None}))["parent"] is None
    await operator.patch("/regions/eu", {"parent": "eu-de"}, 422)
    await operator.patch("/regions/eu", {"parent": "nowhere"}, 422)
    await operator.patch("/regions/eu", {"name": " "}, 422)
    await operator.patch("/regions/nowhere", {"name": "a"}, 404)
    await operator.patch("/regions/Not-A-Code", {"name": "a"}, 404)
    await owner.patch("/regions/eu", {"name": "a"}, 403)


async def test_a_region_that_lies_elsewhere_does_so_for_requests(bench, http, script, operator, owner):
    await bench.node(owner.token.organisation_id, region="eu-de")
    secret = (await owner.post("/keys", {"name": "app", "regions": ["us"]}))["secret"]
    assert await chat(http, secret) == (503, "no_available_node")
    await operator.patch("/regions/eu-de", {"parent": "us"})
    await script.until(lambda: bench.hub.registry.regions.contains("us", "eu-de"), "the tree is read again")
    assert await chat(http, secret) == (200, None)


async def test_a_region_that_nothing_names_is_removed(operator, owner):
    await operator.post("/regions", {"code": "us-ny", "parent": "us", "name": "New York"})
    assert (await owner.ask("DELETE", "/regions/us-ny")).status_code == 403
    used = await operator.ask("DELETE", "/regions/us")
    assert used.status_code == 422
    assert "1 region in it" in used.json()["error"]["message"]
    assert (await operator.ask("DELETE", "/regions/us-ny")).status_code == 204
    assert (await operator.ask("DELETE", "/regions/us-ny")).status_code == 404
    assert "us-ny" not in {each["code"] for each in (await owner.get("/regions"))["data"]}
    actions = [each["action"] for each in (await operator.get("/audit"))["data"]]
    assert actions[0] == "region.removed"


async def test_people_come_and_go(bench, owner):
    wish = {"email": "Ada@example.org", "password": "correct horse battery", "role": "auditor"}
    made = await owner.post("/accounts", wish)
    assert (made["email"], made["role"]) == ("ada@example.org", "auditor")
    signed_in = await bench.hub.accounts.sign_in(wish["email"], wish["password"], address="here")
    assert signed_in.id == made["id"]
    assert made in (await owner.get("/accounts"))["data"]
    assert (await owner.ask("DELETE", f"/accounts/{made['id']}")).status_code == 204
    assert (await owner.ask("DELETE", f"/accounts/{made['id']}")).status_code == 404
    await owner.post("/accounts", wish | {"role": "operator"}, 403)


async def test_tokens_make_and_end_tokens_that_may_no_more_than_they(programs, owner):
    made = await owner.post("/tokens", {"name": "ci", "role": "admin", "expires_in_s": 3600})
    headers = {"authorization": f"Bearer {made['secret']}"}
    assert (await owner.ask("GET", "/self", headers=headers)).json()["id"] == made["token"]["id"]
    admin = await programs.of(Role.ADMIN)
    await admin.post("/tokens", {"name": "up", "role": "owner"}, 403)
    await admin.post(f"/tokens/{owner.token.id}/revoke", status=403)
    member = await programs.of(Role.MEMBER)
    await member.post(f"/tokens/{made['token']['id']}/revoke", status=403)
    assert not (await member.post(f"/tokens/{member.token.id}/revoke", status=200))["active"]
    await member.get("/self", 401)
    await owner.post(f"/tokens/{made['token']['id']}/revoke", status=200)
    assert (await owner.ask("GET", "/self", headers=headers)).status_code == 401


async def test_usage_as_sums_and_as_csv(bench, http, owner):
    node = await bench.node(owner.token.organisation_id)
    made = await owner.post("/keys", {"name": "=app"})
    for _ in range(2):
        assert await chat(http, made["secret"]) == (200, None)
    await bench.usage(2)
    answer = await owner.get("/usage", by=["key", "model"], step="total")
    (found,) = answer["data"]
    assert found["group"] == {"key": made["key"]["id"], "model": "tiny"}
    assert (found["requests"], found["prompt_tokens"], found["start"]) == (2, 14, None)
    assert answer["names"] == {made["key"]["id"]: "=app"}
    hours = (await owner.get("/usage", by="node", step="hour"))["data"]
    assert {each["group"]["node"] for each in hours} == {node.node_id}
    text = (await owner.ask("GET", "/usage.csv", params={"by": "key", "step": "total"})).text
    assert text.splitlines()[1] == f"{made['key']['id']},'=app,2,14,4,6"
    for params in ({"by": ["model", "region"]}, {"by": ["key", "node"]}, {"from": "2026-02-30"}):
        await owner.get("/usage", 422, **params)


async def test_the_audit_log_names_the_token_that_did_it(owner, operator):
    key = (await owner.post("/keys", {"name": "app"}))["key"]
    found = await owner.get("/audit", action="key.created")
    (event,) = found["data"]
    assert (event["actor"], event["subject"]) == (owner.token.id, key["id"])
    assert found["names"][owner.token.id] == owner.token.name
    seen, after = [], None
    while True:
        part = await operator.get("/audit", limit=2, **({"after": after} if after else {}))
        seen += [each["sequence"] for each in part["data"]]
        if (after := part["next"]) is None:
            break
    assert seen == list(range(len(seen), 0, -1))


async def test_an_organisations_part_of_the_log_does_not_tell_how_much_others_do(owner, operator):
    for number in range(3):
        await owner.post("/keys", {"name": "app"})
        await operator.post("/organisations", {"name": f"Other {number}"})
    places = [each["sequence"] for each in (await operator.get("/audit"))["data"]]
    assert places == list(range(len(places), 0, -1))
    seen, after = [], None
    while True:
        part = await owner.get("/audit", limit=2, **({"after": after} if after else {}))
        seen += part["data"]
        if (after := part["next"]) is None:
            break
        assert not any(str(place) == after for place in places)
    assert [each["action"] for each in seen[:3]] == ["key.created"] * 3
    assert {(each["sequence"], each["previous_hash"]) for each in seen} == {(None, None)}
    assert (await owner.get("/audit", after="A" * 32))["data"] == []


async def test_the_log_as_a_whole_is_the_operators_and_holds_up(bench, owner, operator):
    await owner.post("/keys", {"name": "app"})
    whole = await operator.ask("GET", "/audit/export")
    assert whole.headers["content-type"].startswith("application/jsonl")
    export = read_export(whole.text)
    check = LogCheck(export.hub_id, export.checkpoints, [bench.hub.key.public_key()])

    async def events():
        for event in export.events:
            yield event

    assert await check.over(events()) == []
    assert len(export.events) > 3
    own = [json.loads(line) for line in (await owner.ask("GET", "/audit/export")).text.splitlines()]
    assert {each["organisation_id"] for each in own} == {owner.token.organisation_id}
    assert all(not {"sequence", "previous_hash", "batch"} & set(each) for each in own)
    assert {each["hash"] for each in own} < {event.hash for event in export.events}
    assert len(own) < len(whole.text.splitlines())


async def test_the_catalog_says_what_is_loaded(bench, owner):
    before = {each["id"]: each["ready"] for each in (await owner.get("/models"))["data"]}
    assert (before["tiny"], before["vectors"]) == (False, False)
    await bench.node(owner.token.organisation_id)
    after = {each["id"]: each["ready"] for each in (await owner.get("/models"))["data"]}
    assert (after["tiny"], after["vectors"]) == (True, False)


async def test_lists_come_in_pages(owner):
    made = {(await owner.post("/keys", {"name": f"k{number}"}))["key"]["id"] for number in range(5)}
    seen, after = [], None
    while True:
        part = await owner.get("/keys", limit=2, **({"after": after} if after else {}))
        seen += [each["id"] for each in part["data"]]
        if (after := part["next"]) is None:
            break
    assert seen == sorted(made)


async def test_an_operator_acts_for_other_organisations(programs, operator, owner):
    acme = owner.token.organisation_id
    answer = await operator.ask("POST", "/keys", {"name": "theirs"}, params={"organisation": acme})
    key = answer.json()["key"]
    assert key["organisation"] == acme
    assert [each["id"] for each in (await owner.get("/keys"))["data"]] == [key["id"]]
    assert (await operator.get("/keys"))["data"] == []
    assert len((await operator.get("/keys", organisation="all"))["data"]) == 1
    assert (await operator.get(f"/keys/{key['id']}/explain", model="tiny"))["others"] is not None
    assert (await operator.get("/keys", 404, organisation="org_" + "a" * 20))["error"]["code"] == "not_found"


async def test_trust_words_are_the_policys():
    from hub.api.admin.wire import Trust

    assert list(Trust.__args__) == [each.label for each in sorted(TrustClass)]


async def test_of_two_changes_at_once_neither_undoes_the_other(bench, programs):
    owner = await programs.of(Role.OWNER)
    key = (await owner.post("/keys", {"name": "app", "fleet": "any"}))["key"]
    for name in ("one", "two", "three", "four"):
        await owner.patch(f"/keys/{key['id']}", {"fleet": "any"})
        await asyncio.gather(
            owner.patch(f"/keys/{key['id']}", {"fleet": "own"}),
            owner.patch(f"/keys/{key['id']}", {"name": name}),
        )
        now = await owner.get(f"/keys/{key['id']}")
        assert (now["fleet"], now["name"]) == ("own", name)
