"""The playground: a request like any other, but for who may make it and how that is known."""

import asyncio
import json

import pytest

from benchmarks.stacks.portal_client import read_forms
from hub.changes import KeyChanged
from hub.errors import StorageUnavailable
from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.portal.security import PAGE_HEADERS
from hub.quotas import Allowance
from hub.storage.records import Role
from tunnel.identity import read_credential
from tunnel.messages import Head, ModelStatus, ReplicaStatus, Trailers, Usage
from tunnel.receipts import Receipt, ReceiptSigner

MODEL = "smollm2-135m-instruct"
ASKED = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello, this is a secret."}],
    "stream": True,
}


def offer(name=MODEL, **changes):
    values = {"digest": None, "size_bytes": 2**20, "on_disk": True, "fits": True, "context_length": 512}
    values |= {"capabilities": ("chat",), "phase": "", "done_bytes": 0, "total_bytes": 0, "state": "ready"}
    return ModelStatus(model=name, **values | changes)


def replica(name=MODEL):
    return ReplicaStatus(
        id="r", model=name, state="ready", slots=4, running=0, waiting=0, tokens_per_second=9, phase=""
    )


class Answering:
    """A node's side: answers with a word, and keeps what it was sent."""

    def __init__(self):
        self.opened, self.bodies = [], []
        self.hold = asyncio.Event()
        self.hold.set()
        self.ended = asyncio.Event()

    async def __call__(self, stream):
        body = b""
        while (piece := await stream.receive()) is not None:
            body += piece
        self.opened.append(stream.open)
        self.bodies.append(body)
        try:
            await self.hold.wait()
            await stream.send_head(Head(status=200, headers=(("content-type", "text/event-stream"),)))
            usage = Usage(prompt_tokens=5, cached_tokens=0, completion_tokens=1)
            await stream.send(b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n')
            await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=usage))
        except asyncio.CancelledError:
            self.ended.set()
            raise


@pytest.fixture
def answering():
    return Answering()


@pytest.fixture
async def node(portal, connect, answering):
    found = await portal.node()
    await connect(found, answering, models=(offer(),), replicas=(replica(),))
    return found


async def ask(browser, key_id, body=None, **headers):
    sent = {"content-type": "application/json", "x-csrf-token": await browser.token()} | headers
    content = json.dumps(ASKED if body is None else body)
    return await browser.http.post(f"/playground/{key_id}/chat", content=content, headers=sent)


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.MEMBER])
async def test_it_is_answered_counted_and_written_down_as_of_the_key(portal, node, answering, sign_in, role):
    key, browser = (await portal.key()).key, await sign_in(role)
    answer = await ask(browser, key.id)
    assert answer.status_code == 200
    assert "Hi" in answer.text
    assert answer.headers["x-porten-node"] == node.id
    assert dict(PAGE_HEADERS).items() <= dict(answer.headers).items()
    assert (answering.opened[0].path, json.loads(answering.bodies[0])) == ("/v1/chat/completions", ASKED)
    await portal.hub.meter.flush()
    [record] = await portal.hub.storage.usage.list()
    assert (record.key_id, record.organisation_id) == (key.id, key.organisation_id)
    assert (record.prompt_tokens, record.completion_tokens, record.outcome) == (5, 1, "ok")
    assert portal.hub.budgets.tokens.used(key.id, portal.clock()) == 6
    await portal.hub.journal.flush()
    [event] = await portal.hub.storage.audit.page(actions=["playground.asked"])
    account = await portal.account(role)
    assert (event.actor, event.subject) == (account.id, key.id)
    assert event.facts()["reference"] == record.request_id
    assert "secret" not in event.details
    page = await (await sign_in(Role.OWNER)).open("/audit")
    assert "Asked in the playground" in page.text


async def test_it_is_no_use_of_the_secret(portal, node, owner):
    key = (await portal.key()).key
    assert (await ask(owner, key.id)).status_code == 200
    await portal.hub.key_use.note()
    assert (await portal.hub.storage.keys.get(key.id)).last_used_at is None


async def test_auditors_use_nothing(portal, node, answering, sign_in):
    key, auditor = (await portal.key()).key, await sign_in(Role.AUDITOR)
    assert 'href="/playground"' not in (await auditor.open("/")).text
    for path in (
        "/playground",
        f"/playground/{key.id}/models",
        f"/playground/{key.id}/warming?model={MODEL}",
    ):
        assert (await auditor.open(path)).status_code == 403, path
    assert (await ask(auditor, key.id)).status_code == 403
    assert answering.opened == []


async def test_a_key_of_another_organisation_is_not_there(portal, node, answering, owner, operator):
    foreign = (await portal.key("Eve", fleet=Fleet.ANY)).key
    for browser in (owner, operator):
        nobodys = await ask(browser, "key_" + "a" * 20)
        theirs = await ask(browser, foreign.id)
        assert (theirs.status_code, theirs.text) == (404, nobodys.text)
        for path in ("models", "warming"):
            assert (await browser.open(f"/playground/{foreign.id}/{path}")).status_code == 404
        assert foreign.name not in (await browser.open("/playground")).text
    assert answering.opened == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": ""},
        {"x-csrf-token": "0" * 64},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
    ],
)
async def test_what_no_script_of_ours_sent_is_not_taken(portal, node, answering, owner, headers):
    key = (await portal.key()).key
    answer = await ask(owner, key.id, **headers)
    assert answer.status_code == 400
    assert "That form was not accepted" in answer.text
    assert answering.opened == []


async def test_a_key_that_ended_is_refused_as_its_secret_is(portal, node, answering, owner, clock):
    revoked, expiring = (await portal.key()).key, (await portal.key(expires_at=clock() + 60)).key
    assert (await ask(owner, expiring.id)).status_code == 200
    await portal.hub.storage.keys.revoke(revoked.id, now=clock())
    portal.hub.changes.publish(KeyChanged(revoked.id))
    clock.ahead = 61
    for key in (revoked, expiring):
        answer = await ask(owner, key.id)
        assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
        assert key.id not in [form.fields.get("key") for form in read_forms(answer.text)]
        assert f'value="{key.id}"' not in (await owner.open("/playground")).text
    assert len(answering.opened) == 1


async def test_the_keys_own_list_of_models_and_limits_hold(portal, node, answering, owner):
    other = (await portal.key(models={"other"})).key
    answer = await ask(owner, other.id)
    assert (answer.status_code, code_of(answer)) == (403, "model_not_allowed")
    tight = (await portal.key(limits=Allowance(requests_per_minute=1))).key
    assert (await ask(owner, tight.id)).headers["x-ratelimit-remaining-requests"] == "0"
    answer = await ask(owner, tight.id)
    assert (answer.status_code, code_of(answer)) == (429, "rate_limit_exceeded")
    assert int(answer.headers["retry-after"]) > 0
    small = (await portal.key(limits=Allowance(monthly_tokens=5))).key
    assert (await ask(owner, small.id)).status_code == 200
    assert code_of(await ask(owner, small.id)) == "quota_exceeded", "the first has used 6"
    assert len(answering.opened) == 2


async def test_the_ceiling_of_the_organisation_holds(portal, node, answering, owner):
    key = (await portal.key()).key
    await portal.hub.storage.organisations.set_limits(key.organisation_id, Allowance(monthly_tokens=5))
    assert (await ask(owner, key.id)).status_code == 200
    assert code_of(await ask(owner, key.id)) == "quota_exceeded"
    assert len(answering.opened) == 1


@pytest.mark.parametrize(
    ("rules", "gate"),
    [({"regions": ["us"]}, "outside the key's regions"), ({"minimum_trust": TrustClass.TRUSTED}, "below")],
)
async def test_the_keys_policy_decides(portal, node, answering, owner, rules, gate):
    key = (await portal.key(**rules)).key
    answer = await ask(owner, key.id)
    assert (answer.status_code, code_of(answer)) == (503, "no_available_node")
    assert gate in answer.json()["error"]["message"]
    assert answering.opened == []
    await portal.hub.journal.flush()
    [event] = await portal.hub.storage.audit.page(actions=["request.refused"])
    assert (event.actor, event.facts()["code"]) == (key.id, "no_available_node")


async def test_the_question_may_narrow_and_never_widen(portal, node, answering, owner):
    key = (await portal.key(regions=["eu"])).key
    assert code_of(await ask(owner, key.id, **{"x-porten-region": "us"})) == "no_available_node"
    assert (await ask(owner, key.id, **{"x-porten-region": "eu-de"})).status_code == 200
    assert len(answering.opened) == 1


async def test_anothers_node_answers_only_where_the_key_lets_it(portal, answering, owner, connect):
    foreign = await portal.node("Eve", sharing=Sharing(SharingKind.PUBLIC))
    await connect(foreign, answering, models=(offer(),), replicas=(replica(),))
    own, wide = (await portal.key()).key, (await portal.key(fleet=Fleet.ANY)).key
    assert code_of(await ask(owner, own.id)) == "no_available_node"
    assert (await ask(owner, wide.id)).status_code == 200
    told = {key.id: await owner.open(f"/playground/{key.id}/models") for key in (own, wide)}
    states = {
        key: {each["id"]: each["state"] for each in said.json()["models"]} for key, said in told.items()
    }
    assert (states[own.id][MODEL], states[wide.id][MODEL]) == ("away", "ready")
    assert foreign.id not in told[wide.id].text


async def sign_out(portal, browser, account):
    await browser.post("/logout")


async def remove(portal, browser, account):
    await portal.hub.storage.members.remove(account.id, by=None)


async def demote(portal, browser, account):
    await portal.hub.storage.members.change_role(account.id, Role.AUDITOR, by=None)


async def lose_the_database(portal, browser, account):
    async def nobody_answers(*_asked, **_more):
        raise StorageUnavailable("the database does not answer")

    portal.hub.storage.sessions.get = nobody_answers


async def stay(portal, browser, account):
    """Nothing happens."""


@pytest.mark.parametrize("happens", [sign_out, remove, demote, lose_the_database, stay])
async def test_who_asks_is_looked_at_again_when_a_node_is_free(
    portal, node, answering, sign_in, visit, happens
):
    """The node is full; meanwhile who asked is signed out, removed, or may not ask any more."""
    key, browser, account = (
        (await portal.key()).key,
        await sign_in(Role.MEMBER),
        await portal.account(Role.MEMBER),
    )
    other = await visit(cookies=dict(browser.http.cookies))
    room = [portal.hub.registry.occupy(node.id, MODEL) for _ in range(16)]
    asking = asyncio.create_task(ask(browser, key.id))
    waiting = portal.hub.dispatcher.places.waiting
    await portal.until(lambda: len(waiting) == 1, "it waits for a node")
    await happens(portal, other, account)
    for place in room:
        place.release()
    answer = await asking
    if happens is stay:
        assert answer.status_code == 200
        return
    assert answering.opened == []
    error = answer.json()["error"]
    if happens is lose_the_database:
        assert (answer.status_code, error["code"]) == (503, "database_unavailable")
        return
    assert (answer.status_code, error["code"], error["param"]) == (401, "invalid_api_key", "session")
    assert "Reload the page" in error["message"]


async def test_a_browser_that_leaves_ends_the_work(portal, node, answering, owner):
    key = (await portal.key()).key
    answering.hold.clear()
    asking = asyncio.create_task(ask(owner, key.id))
    await portal.until(lambda: answering.opened, "the node was asked")
    asking.cancel()
    async with asyncio.timeout(5):
        await answering.ended.wait()


async def test_nothing_that_is_said_is_kept(portal, node, owner, caplog):
    key = (await portal.key()).key
    assert (await ask(owner, key.id)).status_code == 200
    await portal.hub.meter.flush()
    await portal.hub.journal.flush()
    stored = await portal.hub.storage.usage.list(), await portal.hub.storage.audit.page()
    assert "this is a secret" not in repr(stored) + caplog.text


async def test_which_models_there_are_is_said_for_each_key(portal, owner, connect):
    node = await portal.node()
    models = (
        offer(),
        offer("own-model"),
        offer("later", state="cold"),
        offer("vectors", capabilities=("embeddings",)),
        offer("huge", state="cold", fits=False),
    )
    await connect(node, models=models)
    key = (await portal.key(regions=["eu"])).key
    told = (await owner.open(f"/playground/{key.id}/models")).json()
    assert told["rule"] == "Runs only on machines of Acme, standing in Europe."
    states = {each["id"]: each["state"] for each in told["models"]}
    assert states == {MODEL: "ready", "own-model": "ready", "later": "cold", "huge": "unable"}
    [one] = (await owner.open(f"/playground/{(await portal.key(models={'later'})).key.id}/models")).json()[
        "models"
    ]
    assert one["id"] == "later"
    answer = await owner.open(f"/playground/{key.id}/models?region=us")
    assert {each["state"] for each in answer.json()["models"]} == {"away"}
    assert (await owner.open(f"/playground/{key.id}/models?region=%0d%0a")).status_code == 400


async def test_how_far_a_model_is(portal, owner, connect):
    node = await portal.node()
    loading = offer(state="warming", phase="downloading", done_bytes=1, total_bytes=4)
    await connect(node, models=(loading,))
    key, foreign = (await portal.key()).key, (await portal.key(regions=["us"])).key
    told = (await owner.open(f"/playground/{key.id}/warming?model={MODEL}")).json()
    assert (told["phase"], told["bytes_done"], told["bytes_total"], told["percent"]) == (
        "downloading",
        1,
        4,
        25.0,
    )
    for address in (
        f"{foreign.id}/warming?model={MODEL}",
        f"{key.id}/warming?model=none",
        f"{key.id}/warming",
    ):
        assert (await owner.open(f"/playground/{address}")).json() == {"phase": "queued"}


def receipt_of(portal, node, key, **changes):
    """A receipt as the node would sign it, or somebody who would like to be one."""
    token = portal.hub.enrollment.credential_for(node)
    credential = read_credential(token, portal.hub.key.public_key())
    said = {
        "request_id": "req_1",
        "key_id": key.id,
        "policy_hash": "v1:0",
        "node_id": node.id,
        "owner_id": node.organisation_id,
        "region": node.region,
        "model": MODEL,
        "model_digest": None,
        "issued_at": int(portal.clock()),
    }
    signer = ReceiptSigner(portal.keys[node.id], credential, token)
    return signer.sign(Receipt(**said | changes))


async def test_a_receipt_is_judged_and_names_only_ones_own_nodes(portal, owner):
    key, mine, theirs = (await portal.key()).key, await portal.node(), await portal.node("Eve", name="hidden")
    answer = await owner.post("/playground/verdict", {"receipt": receipt_of(portal, mine, key)})
    assert answer.json() == {
        "holds": True,
        "words": "It holds: signed by the node, for which this Hub vouches.",
        "node": {"name": "attic", "link": f"/nodes/{mine.id}"},
        "region": "Germany",
        "model": MODEL,
    }
    answer = await owner.post("/playground/verdict", {"receipt": receipt_of(portal, theirs, key)})
    assert answer.json()["node"] == {"name": theirs.id, "link": None}
    assert "hidden" not in answer.text


@pytest.mark.parametrize("wrong", ["", "x", "a.b.c", "é", "x" * 60_000])
async def test_what_is_no_receipt_does_not_hold(owner, wrong):
    answer = await owner.post("/playground/verdict", {"receipt": wrong})
    assert answer.json()["holds"] is False


async def test_a_receipt_of_a_machine_that_no_hub_vouches_for_does_not_hold(portal, owner):
    key, node = (await portal.key()).key, await portal.node()
    answer = await owner.post("/playground/verdict", {"receipt": receipt_of(portal, node, key, region="us")})
    assert answer.json()["holds"] is False


async def test_the_page_begins_with_the_narrowest_key_or_the_one_named(portal, owner):
    page = await owner.open("/playground")
    assert "There is no key to ask under yet" in page.text
    wide, narrow = (await portal.key(fleet=Fleet.ANY)).key, (await portal.key()).key
    newest = (await portal.key(fleet=Fleet.SHARED)).key
    assert f'value="{narrow.id}" selected' in (await owner.open("/playground")).text
    for key in (wide, newest):
        page = await owner.open(f"/playground?key={key.id}&model=x%22y&region=eu-de")
        assert f'value="{key.id}" selected' in page.text
        assert 'data-wanted="x&#34;y"' in page.text
        assert 'value="eu-de" selected' in page.text
