"""What is another's and what never was cost the same work and get the same answer, wherever one can ask."""

import base64
import os
import re
import secrets
import statistics
import time

import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import node_keeping
from hub.keys import _ALPHABET, JOIN_TOKEN_PREFIX, SHOWN_CHARACTERS, _checksum, mint, rotate_key
from hub.policy import Fleet
from hub.portal.security import csrf_token, new_token
from hub.storage.records import NO_PASSWORD, Role
from hub.user_codes import draw_user_code
from tests.integration.hub.api.access.rules import ABSENT, CALLERS, ELSEWHERE, HOME, OK, Caller
from tests.integration.hub.api.access.table import ROWS
from tests.integration.hub.api.access.things import PASSWORD
from tests.integration.hub.api.access.work import counted, seen
from tests.integration.hub.api.access.world import IDS, nobodys

NAMED = re.compile(r"\{(\w+)\}")
STRANGER = Caller("token", Role.OWNER, ELSEWHERE)


# --- things with an id


def hidden() -> list:
    """Each route with an id, with everybody from whom what it names is hidden."""
    named = [row for row in ROWS if set(NAMED.findall(row.path)) & IDS]
    return [(row, caller) for row in named for caller in CALLERS if row.expects(caller) == ABSENT]


async def test_a_foreign_id_and_an_unknown_one_are_looked_up_alike_on_every_route(world, monkeypatch):
    wrong = []
    for row, caller in hidden():
        await world.ask(row, caller)  # a token's first use in a minute is noted, whatever it asks for
        looks = []
        for unknown in (False, True):
            with counted(world.bench.hub, monkeypatch) as work:
                answer = await world.ask(row, caller, unknown=unknown)
            looks.append((seen(answer, *_ids(answer)), work.statements))
        if looks[0] != looks[1]:
            differs = "answers" if looks[0][0] != looks[1][0] else "statements"
            wrong.append(f"{row.method} {row.path} by {caller}: the {differs} differ")
    assert wrong == []


def _ids(answer) -> list[str]:
    return re.findall(r"[a-z]+_[a-z2-7]{20}", answer.request.url.path)


def test_what_is_looked_at_has_not_become_little():
    """Of the groups of things that there are, each is among them."""
    assert {name for row, _ in hidden() for name in NAMED.findall(row.path)} & IDS == IDS


async def test_of_others_an_organisations_statements_read_nothing(world, monkeypatch):
    """Each finds its rows by an index: its time would else tell how many others have."""
    hub = world.bench.hub
    with counted(hub, monkeypatch) as work:
        for row in ROWS:
            for caller in (Caller("session", Role.OWNER), Caller("token", Role.OWNER), Caller("api key")):
                if row.method == "GET" and row.expects(caller) == OK:
                    await world.ask(row, caller)
        for name in ("keys", "nodes", "accounts", "tokens", "join-tokens"):
            headers = world.shown[Caller("token", Role.OWNER)]
            await world.browse("GET", f"/admin/v1/{name}?after=a", {}, headers=headers)
    steps = []
    async with hub.storage.database.read() as connection:
        for statement, parameters in dict(zip(work.statements, work.parameters, strict=True)).items():
            if statement.startswith("SELECT"):
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", tuple(parameters))
                steps += [(str(row[3]), statement) for row in rows]
    assert len(steps) > 50
    assert [each for each in steps if _walks(each[0])] == []


OF_EVERYBODY = ("regions", "CONSTANT ROW", "anon_", "(subquery")
"""What belongs to nobody, and what has been found by an index before."""


def _walks(step: str) -> bool:
    """Whether a step of a plan goes through rows of a table one by one, whoever's they are."""
    if step.startswith("SCAN "):
        return not step.removeprefix("SCAN ").startswith(OF_EVERYBODY)
    return step.startswith("SEARCH ") and "=?" not in step


# --- signing in


@pytest.mark.parametrize("fresh", [True, False])
async def test_signing_in_hashes_as_much_whether_there_is_an_account_or_not(world, monkeypatch, fresh):
    hub = world.bench.hub
    somebody = world.people[Caller("session", Role.OWNER)].account.email
    storage, home, now = hub.storage, world.homes[HOME], time.time()
    without = {"password_hash": NO_PASSWORD, "role": Role.MEMBER, "now": now}
    await storage.accounts.create(home, email="sso@a.example", **without)
    await hub.accounts._decoy_hash()
    looks = {}
    for email in (somebody, "nobody@a.example", "sso@a.example"):
        if fresh:
            hub.accounts._decoy = None
        calls = {name: (PasswordHasher, name) for name in ("hash", "verify")}
        visit = new_token()
        form = {"email": email, "password": "wrong " + PASSWORD, "csrf_token": csrf_token(visit)}
        with counted(hub, monkeypatch, **calls) as work:
            answer = await world.browse("POST", "/login", {"porten-visit": visit}, data=form)
        looks[email] = (seen(answer, email, csrf_token(visit)), work.statements, work.calls)
    assert looks[somebody][2]["verify"] == 1
    assert looks[somebody] == looks["nobody@a.example"] == looks["sso@a.example"]


async def test_guessing_ends_alike_for_addresses_with_and_without_an_account(world):
    somebody = world.people[Caller("session", Role.OWNER)].account.email
    visit, statuses = new_token(), {}
    for email in (somebody, "nobody@a.example"):
        form = {"email": email, "password": "wrong", "csrf_token": csrf_token(visit)}
        number = next(world.numbers)
        headers = {"cookie": f"porten-visit={visit}", "x-forwarded-for": f"10.9.0.{number % 250 + 1}"}
        answers = [await world.http.post("/login", data=form, headers=headers) for _ in range(7)]
        statuses[email] = [seen(answer, email, csrf_token(visit)) for answer in answers]
    assert statuses[somebody] == statuses["nobody@a.example"]
    assert statuses[somebody][-1][0] == 429


# --- secrets


async def test_a_key_that_opens_nothing_is_looked_up_as_one_that_never_was(world, monkeypatch):
    hub, home, now = world.bench.hub, world.homes[HOME], time.time()
    storage = hub.storage
    dead = {name: await world.bench.key(home) for name in ("revoked", "expired", "rotated")}
    keys = {each.prefix: each for each in await storage.keys.list(home)}
    found = {name: keys[secret[:SHOWN_CHARACTERS]] for name, secret in dead.items()}
    await storage.keys.revoke(found["revoked"].id, now=now)
    await storage.keys.replace_rules(found["expired"], **_rules(found["expired"]), expires_at=now - 1)
    await rotate_key(storage, found["rotated"], now=now, overlap_s=0)
    alive = await world.bench.key(home)
    dead["never"] = mint().secret
    dead["of a known prefix"] = _with_prefix(alive[:SHOWN_CHARACTERS])
    looks = {}
    for name, secret in dead.items():
        for which in ("first", "again"):
            with counted(hub, monkeypatch) as work:
                headers = {"authorization": f"Bearer {secret}"}
                answer = await world.http.get("/v1/models", headers=headers)
            looks[name, which] = (seen(answer), work.statements)
    assert len(looks["never", "first"][1]) == 1
    assert [name for name, look in looks.items() if look != looks["never", "first"]] == []


def public_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def _rules(key):
    names = ("name", "regions", "models", "limits")
    rules = {name: getattr(key, name) for name in names}
    return rules | {"fleet": key.policy.fleet, "minimum_trust": key.policy.minimum_trust}


def _with_prefix(prefix: str) -> str:
    """A well-formed key that begins as another does."""
    body = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(42 - len(prefix)))
    return body + _checksum(body)


async def test_a_signature_is_checked_whoever_is_named_and_whether_there_is_such_a_node(world, monkeypatch):
    """Who leaves or takes another key is asked for by its id, which others may have seen in an answer."""
    hub = world.bench.hub
    gone = await world.make_node()
    await hub.enrollment.revoke(gone.id)
    nodes = {"enrolled": world.things["node_id"], "revoked": gone.id, "never": nobodys(gone.id)}
    for endpoint in ("leave", "rotate"):
        looks = {}
        for name, node_id in nodes.items():
            headers = {"authorization": f"Bearer {_signed_by_nobody(node_id, hub.hub_id, endpoint)}"}
            with counted(hub, monkeypatch, verified=(node_keeping, "verify")) as work:
                answer = await world.browse("POST", f"/enroll/v1/{endpoint}", {}, headers=headers)
            looks[name] = (seen(answer), work.statements, work.calls)
        assert looks["enrolled"][0][0] == 401
        assert looks["enrolled"][2] == {"verified": 1}
        assert looks["enrolled"] == looks["revoked"] == looks["never"]


def _signed_by_nobody(node_id: str, hub_id: str, endpoint: str) -> str:
    now = int(time.time())
    claims = {"sub": node_id, "aud": hub_id, "iat": now, "exp": now + 30, "public_key": "A" * 43}
    key = Ed25519PrivateKey.generate()
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": f"porten-{endpoint}+jwt"})


@pytest.mark.parametrize("how", ["used up", "revoked", "expired"])
async def test_a_join_token_that_admits_nobody_is_one_that_never_was(world, monkeypatch, how):
    hub, home = world.bench.hub, world.homes[HOME]
    made = await hub.enrollment.create_join_token(home, region=None)
    if how == "revoked":
        await hub.storage.join_tokens.revoke(made.token.id, now=time.time())
    elif how == "used up":
        assert (await _joins(world, made.secret)).status_code == 200
    else:
        monkeypatch.setattr(hub.enrollment, "_clock", lambda: made.token.expires_at)
    looks = []
    for secret in (made.secret, mint(JOIN_TOKEN_PREFIX).secret):
        with counted(hub, monkeypatch) as work:
            looks.append((seen(await _joins(world, secret)), work.statements))
    assert looks[0][0][0] == 401
    assert looks[0] == looks[1]


async def _joins(world, secret):
    machine = {"join_token": secret, "public_key": public_key(), "name": "a", "machine": {}}
    return await world.browse("POST", "/enroll/v1/join", {}, json=machine)


async def test_a_machine_that_another_organisation_took_is_one_that_never_waited(world, monkeypatch):
    hub = world.bench.hub
    grant = await hub.enrollment.start_device(public_key(), "a", {}, "192.0.2.1")
    owner, stranger = Caller("token", Role.OWNER), world.shown[STRANGER]
    approval = f"/admin/v1/enrollments/{grant.user_code}/approve"
    taken = await world.browse("POST", approval, {}, json={}, headers=world.shown[owner])
    assert taken.status_code == 201
    for method, act in (("GET", ""), ("POST", "/approve"), ("POST", "/deny")):
        looks = []
        for code in (draw_user_code(), grant.user_code, draw_user_code()):
            path, body = f"/admin/v1/enrollments/{code}{act}", {"json": {}} if method == "POST" else {}
            with counted(hub, monkeypatch) as work:
                answer = await world.browse(method, path, {}, headers=stranger, **body)
            looks.append((seen(answer, code), work.statements))
        assert looks[1][0][0] == 404
        assert looks[1] == looks[2], (method, act)


async def test_an_idempotency_key_of_anothers_is_one_that_nobody_used(world, monkeypatch):
    """With the same request or another; nor does one that is under way there hold anybody up."""
    hub = world.bench.hub
    owner, stranger = world.shown[Caller("token", Role.OWNER)], world.shown[STRANGER]
    used = {"idempotency-key": "used"}
    first = await world.browse("POST", "/admin/v1/keys", {}, json={"name": "a"}, headers=owner | used)
    assert first.status_code == 201
    looks = []
    for key in ("warm", "used", "unused"):
        with counted(hub, monkeypatch) as work:
            headers = stranger | {"idempotency-key": key}
            answer = await world.browse("POST", "/admin/v1/keys", {}, json={"name": "a"}, headers=headers)
        assert answer.status_code == 201
        looks.append((answer.headers.get("idempotency-replayed"), work.statements))
    assert looks[1] == looks[2]
    assert looks[1][0] is None


# --- by the clock


ASKED, ASKED_OF_HASHES = 41, 9
MARGIN_S = 0.025
"""What a request costs more by a wait for a place or a hash of a password is far beyond it, and the median of
the differences of so many pairs, asked one after the other, within it, however busy the machine is."""


async def test_by_the_clock_none_of_it_is_seen(world, monkeypatch):
    """Of real hashes, and over the line: what no count above would have thought of."""
    hub, http = world.bench.hub, world.http
    somebody = world.people[Caller("session", Role.OWNER)].account
    monkeypatch.setattr(hub.accounts, "_hasher", PasswordHasher())
    await hub.accounts.change_password(somebody.id, PASSWORD, keep_session=None)
    hub.accounts._decoy = None
    revoked = await world.bench.key(world.homes[HOME])
    (key,) = [each for each in await hub.storage.keys.list(world.homes[HOME]) if each.prefix == revoked[:16]]
    await hub.storage.keys.revoke(key.id, now=time.time())
    mine = await world.bench.key(world.homes[ELSEWHERE], fleet=Fleet.ANY)

    def with_key(secret, model="tiny"):
        body = {"model": model, "messages": []}
        return http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"})

    def to_node(node_id):
        headers = {"authorization": f"Bearer {mine}", "x-porten-node": node_id}
        return http.post("/v1/chat/completions", json={"model": "tiny", "messages": []}, headers=headers)

    def signing_in(email):
        visit = new_token()
        form = {"email": email, "password": "wrong " + PASSWORD, "csrf_token": csrf_token(visit)}
        return world.browse("POST", "/login", {"porten-visit": visit}, data=form)

    node_id = next(iter(world.bench.nodes))
    pairs = {
        "a model": (lambda: with_key(mine), lambda: with_key(mine, "vectors")),
        "a node": (lambda: to_node(node_id), lambda: to_node(nobodys(node_id))),
        "a key": (lambda: with_key(revoked), lambda: with_key(mint().secret)),
        "an account": (lambda: signing_in(somebody.email), lambda: signing_in("nobody@a.example")),
    }
    for name, pair in pairs.items():
        count = ASKED_OF_HASHES if name == "an account" else ASKED
        times = [(await _took(pair[0]), await _took(pair[1])) for _ in range(count)]
        usual = statistics.median(time for each in times for time in each)
        difference = statistics.median(one - other for one, other in times)
        assert abs(difference) < max(MARGIN_S, usual / 2), name


async def _took(ask) -> float:
    began = time.perf_counter()
    answer = await ask()
    assert answer.status_code >= 400
    return time.perf_counter() - began
