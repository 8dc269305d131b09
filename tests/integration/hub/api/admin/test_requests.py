"""How requests are taken: who is let in, what a body may be, once or again; and nothing is told of others."""

import asyncio
import json
import logging

import pytest

from hub.keys import mint
from hub.storage.records import Role

CODES = ("message", "type", "param", "code")
ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For what is refused before any database is asked."""


def refused(answer, status, code, param=None):
    """The envelope, whole."""
    body = answer.json()
    assert (answer.status_code, body["error"]["code"], body["error"]["param"]) == (status, code, param)
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == set(CODES)
    assert answer.headers["cache-control"] == "no-store"
    return body["error"]["message"]


async def test_nobody_without_a_token_of_this_kind(bench, http, owner):
    key = await bench.key(owner.token.organisation_id)
    revoked = await owner.post("/tokens", {"name": "gone"})
    await owner.post(f"/tokens/{revoked['token']['id']}/revoke", status=200)
    bad = ["", "Bearer", f"Basic {owner.secret}", f"Bearer {key}", f"Bearer {mint('padm-').secret}"]
    bad += [f"Bearer {owner.secret}x", f"Bearer {revoked['secret']}", "Bearer " + "a" * 5000]
    words = set()
    for each in bad:
        answer = await http.get("/admin/v1/self", headers={"authorization": each} if each else {})
        words.add(refused(answer, 401, "invalid_admin_token"))
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len(words) == 1
    api = await http.get("/v1/models", headers={"authorization": f"Bearer {owner.secret}"})
    assert (api.status_code, api.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_refused_token_is_in_the_audit_log_and_guessing_ends(bench, http, owner):
    for _ in range(20):
        headers = {"authorization": f"Bearer {mint('padm-').secret}"}
        refused(await http.get("/admin/v1/self", headers=headers), 401, "invalid_admin_token")
    answer = await http.get("/admin/v1/self", headers={"authorization": f"Bearer {owner.secret}"})
    refused(answer, 429, "rate_limit_exceeded")
    assert 0 < int(answer.headers["retry-after"]) <= 600
    await bench.hub.journal.flush()
    events = await bench.hub.storage.audit.page(actions=["admin_token.refused"])
    assert [event.facts()["count"] for event in events] == [20]


@ON_SQLITE
@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b'{"name": "\xff"}', 400, "invalid_json", None),
        (b'{"name": "\\ud800"}', 400, "invalid_json", None),
        (b'{"name": NaN}', 400, "invalid_json", None),
        (b"[" * 50_000, 400, "invalid_json", None),
        (b"[" * 900 + b"]" * 900, 400, "invalid_json", None),
        (b"[]", 400, "invalid_value", "body"),
        (b"", 400, "missing_required_parameter", "body"),
        (b"{}", 400, "missing_required_parameter", "name"),
        (b'{"name": 5}', 400, "invalid_value", "name"),
        (b'{"name": ""}', 400, "invalid_value", "name"),
        (b'{"name": "a\\u0000b"}', 422, "not_acceptable", "name"),
        (b'{"name": "a", "nmae": 1}', 400, "unknown_parameter", "nmae"),
        (b'{"name": "a", "regions": ["mars"]}', 422, "not_acceptable", "regions"),
        (b'{"name": "a", "expires_at": 1700000000}', 400, "invalid_value", "expires_at"),
        (b'{"name": "a", "expires_at": "2026-13-01T00:00:00Z"}', 400, "invalid_value", "expires_at"),
        (b'{"name": "a", "expires_at": "2020-01-01T00:00:00Z"}', 422, "not_acceptable", "expires"),
        (b'{"name": "a", "expires_at": "9999-12-31T23:59:59-23:59"}', 422, "not_acceptable", "expires_at"),
        (b'{"name": "a", "limits": {"monthly_tokens": "5"}}', 400, "invalid_value", "limits.monthly_tokens"),
        (b" " * (64 * 1024 + 1), 413, "request_too_large", None),
    ],
)
async def test_what_a_body_may_not_be(http, owner, content, status, code, param):
    headers = {"authorization": f"Bearer {owner.secret}", "content-type": "application/json"}
    refused(await http.post("/admin/v1/keys", content=content, headers=headers), status, code, param)
    assert (await owner.get("/keys"))["data"] == []


async def test_a_body_is_json_and_a_header_is_there_once(http, owner):
    kinds = ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"})
    for kind in kinds:
        headers = {"authorization": f"Bearer {owner.secret}"} | kind
        answer = await http.post("/admin/v1/keys", content=b'{"name": "a"}', headers=headers)
        refused(answer, 415, "unsupported_media_type")
    twice = [("authorization", f"Bearer {owner.secret}"), ("authorization", "Bearer x")]
    refused(await http.get("/admin/v1/self", headers=twice), 400, "invalid_value", "authorization")


async def test_an_integer_is_one_however_it_is_written(owner):
    """So JSON Schema means it; what has a fraction, is text or a truth value is none."""
    limits = {"requests_per_minute": 5.0, "monthly_tokens": 1e6}
    made = await owner.post("/keys", {"name": "a", "limits": limits})
    assert made["key"]["limits"] | limits == made["key"]["limits"]
    assert (await owner.post("/join-tokens", {"max_uses": 2.0}))["token"]["max_uses"] == 2
    for value in (1.5, "1", True, 1e300, None):
        refused(
            await owner.ask("POST", "/join-tokens", {"max_uses": value}), 400, "invalid_value", "max_uses"
        )


async def test_unknown_addresses_and_methods_get_the_envelope(http, owner):
    for path in ("/admin/v1/nothing", "/admin/", "/admin/v1/keys/", "/admin/v1//keys"):
        answer = await owner.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    answer = await owner.http.put("/admin/v1/keys", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_what_is_anothers_and_what_is_not_there_look_alike(bench, owner, stranger):
    node = await bench.node(owner.token.organisation_id)
    key = (await owner.post("/keys", {"name": "app"}))["key"]["id"]
    join = (await owner.post("/join-tokens", {}))["token"]["id"]
    made = await owner.post("/accounts", {"email": "a@b.example", "password": "correct horse battery"})
    theirs = {
        "key": (key, ["GET", "PATCH", "POST/rotate", "POST/revoke", "GET/explain?model=tiny"], "keys"),
        "node": (node.node_id, ["GET", "PATCH", "POST/revoke", "GET/jobs", "POST/jobs"], "nodes"),
        "jt": (join, ["POST/revoke"], "join-tokens"),
        "acct": (made["id"], ["PATCH", "POST/sign-out", "POST/reset-second-step", "DELETE"], "accounts"),
        "atk": (owner.token.id, ["POST/revoke"], "tokens"),
        "org": (owner.token.organisation_id, ["GET"], "organisations"),
    }
    bodies = {"POST/jobs": {"action": "load", "model": "tiny"}, "PATCH": {"name": "b"}, "POST/rotate": {}}
    for kind, (identifier, asked, group) in theirs.items():
        for each in asked:
            method, _, rest = each.partition("/")
            body = {"role": "auditor"} if (kind, each) == ("acct", "PATCH") else bodies.get(each)
            answers = [
                await stranger.ask(method, f"/{group}/{name}{'/' if rest else ''}{rest}", body)
                for name in (identifier, f"{kind}_" + "a" * 20)
            ]
            words = {refused(answer, 404, "not_found") for answer in answers}
            assert len(words) == 1, (kind, each)
            assert len({len(answer.content) for answer in answers}) == 1
    for path in ("/keys", "/nodes", "/join-tokens", "/accounts", "/tokens", "/organisations", "/audit"):
        text = (await stranger.ask("GET", path)).text
        assert not [name for name, _, _ in theirs.values() if name in text], path
        for whose in (owner.token.organisation_id, "org_" + "a" * 20, "all"):
            if path not in ("/organisations", "/audit"):
                answer = await stranger.ask("GET", path, params={"organisation": whose})
                refused(answer, 404, "not_found")
    assert (await owner.get(f"/keys/{key}"))["active"]


async def test_roles_may_what_they_may(programs, owner):
    for role in (Role.MEMBER, Role.AUDITOR):
        looker = await programs.of(role)
        await looker.get("/keys")
        await looker.post("/keys", {"name": "a"}, 403)
        await looker.post("/regions", {"code": "x", "name": "x"}, 403)
        for path in ("/audit", "/accounts", "/tokens"):
            await looker.get(path, 200 if role is Role.AUDITOR else 403)
    await owner.post("/regions", {"code": "x", "name": "x"}, 403)
    await owner.post("/organisations", {"name": "x"}, 403)


async def test_a_repeated_request_is_done_once_and_answered_alike(owner):
    first = await owner.ask("POST", "/keys", {"name": "app"}, headers={"idempotency-key": '"one"'})
    again = await owner.ask("POST", "/keys", {"name": "app"}, headers={"idempotency-key": "one"})
    assert (first.status_code, first.headers.get("idempotency-replayed")) == (201, None)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.content == first.content
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len((await owner.get("/keys"))["data"]) == 1
    other = await owner.ask("POST", "/keys", {"name": "b"}, headers={"idempotency-key": "one"})
    refused(other, 422, "idempotency_key_reused", "Idempotency-Key")
    elsewhere = await owner.ask("POST", "/tokens", {"name": "app"}, headers={"idempotency-key": "one"})
    refused(elsewhere, 422, "idempotency_key_reused", "Idempotency-Key")


@ON_SQLITE
@pytest.mark.parametrize("key", ["", '""', "a b", '"a', "a" * 256, "é".encode().decode("latin-1"), '"a\\"b"'])
async def test_what_is_no_idempotency_key(owner, key):
    headers = {"idempotency-key": key.encode("latin-1")}
    refused(
        await owner.ask("POST", "/keys", {"name": "a"}, headers=headers),
        400,
        "invalid_value",
        "Idempotency-Key",
    )
    assert (await owner.get("/keys"))["data"] == []


async def test_a_refusal_is_repeated_too_and_what_is_malformed_costs_no_key(owner):
    headers = {"idempotency-key": "one"}
    malformed = await owner.ask("POST", "/regions", {"nonsense": 1}, headers=headers)
    assert malformed.status_code in (400, 403)
    first = await owner.ask("POST", "/keys", {"name": "a", "regions": ["mars"]}, headers=headers)
    again = await owner.ask("POST", "/keys", {"name": "a", "regions": ["mars"]}, headers=headers)
    assert (first.status_code, again.content) == (422, first.content)
    assert again.headers["idempotency-replayed"] == "true"


async def test_two_at_once_are_done_once(bench, owner, monkeypatch):
    entered, go = asyncio.Event(), asyncio.Event()
    create = bench.hub.storage.keys.create

    async def slow(*args, **named):
        entered.set()
        await go.wait()
        return await create(*args, **named)

    monkeypatch.setattr(bench.hub.storage.keys, "create", slow)
    headers = {"idempotency-key": "one"}
    first = asyncio.create_task(owner.ask("POST", "/keys", {"name": "a"}, headers=headers))
    await entered.wait()
    second = await owner.ask("POST", "/keys", {"name": "a"}, headers=headers)
    refused(second, 409, "idempotency_key_in_use", "Idempotency-Key")
    assert second.headers["retry-after"] == "1"
    go.set()
    assert (await first).status_code == 201
    assert len((await owner.get("/keys"))["data"]) == 1


async def test_an_answer_outlives_the_process(config, script, programs, owner):
    """The same database, another Hub over it: the answer, its secret included, is the one given before."""
    headers = {"idempotency-key": "one"}
    first = await owner.ask("POST", "/keys", {"name": "a"}, headers=headers)
    hub = programs.bench.hub
    from hub.idempotency import Idempotency

    hub.idempotency = Idempotency(hub.storage, hub.key, hub.clock)
    again = await owner.ask("POST", "/keys", {"name": "a"}, headers=headers)
    assert json.loads(again.content)["secret"] == json.loads(first.content)["secret"]


async def test_a_key_made_under_an_idempotency_key_works_at_once(bench, http, owner):
    """Those who keep copies hear of it once it is stored, not before."""
    await bench.node(owner.token.organisation_id)
    made = await owner.post("/keys", {"name": "a"}, idempotency_key="one")
    headers = {"authorization": f"Bearer {made['secret']}"}
    assert (await http.get("/v1/models", headers=headers)).json()["data"]
    await owner.post(f"/keys/{made['key']['id']}/revoke", status=200, idempotency_key="two")
    assert (await http.get("/v1/models", headers=headers)).status_code == 401


async def test_no_secret_is_in_any_log(owner, caplog):
    caplog.set_level(logging.DEBUG)
    made = await owner.post("/keys", {"name": "a"}, idempotency_key="my-idempotency-key")
    wish = {"email": "a@b.example", "password": "correct horse battery"}
    await owner.post("/accounts", wish)
    for hidden in (made["secret"], owner.secret, wish["password"], "my-idempotency-key"):
        assert hidden not in caplog.text


async def test_the_database_gone_is_said_and_nothing_done(bench, owner, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def gone(*_args, **_named):
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(bench.hub.storage.keys, "page", gone)
    answer = await owner.ask("GET", "/keys")
    refused(answer, 503, "storage_unavailable")
    assert answer.headers["retry-after"] == "5"


async def test_a_fault_of_ours_says_nothing_of_itself(bench, owner, monkeypatch):
    def broken(*_args, **_named):
        raise ValueError("a secret in an exception")

    monkeypatch.setattr(bench.hub.storage.keys, "page", broken)
    answer = await owner.ask("GET", "/keys")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


async def test_a_token_that_ends_while_a_body_comes_does_nothing(bench, programs):
    owner = await programs.of(Role.OWNER)
    reading = asyncio.Event()

    async def body():
        yield b'{"name":'
        await reading.wait()
        yield b' "app"}'

    headers = {"content-type": "application/json"}
    asked = asyncio.create_task(owner.ask("POST", "/keys", content=body(), headers=headers))
    await until_used(bench, owner.token.id)
    await bench.hub.storage.admin_tokens.revoke(owner.token.id, now=bench.hub.clock())
    reading.set()
    assert (await asked).status_code == 401
    assert await bench.hub.storage.keys.list() == []


async def until_used(bench, token_id):
    """Wait until the token has let its program in."""
    async with asyncio.timeout(10):
        while (await bench.hub.storage.admin_tokens.get(token_id)).last_used_at is None:
            await asyncio.sleep(0.01)
