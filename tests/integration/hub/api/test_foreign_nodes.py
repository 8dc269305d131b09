"""A model that only another organisation's private nodes have: asked for, it is a model that nobody has.

The same answer, the same statements, and no wait in any line, whatever state those nodes are in; by the list
of models and the page of one as by a request.
"""

import pytest

from hub.policy import Fleet
from hub.queueing import WaitingRoom
from hub.router import FULL
from hub.storage.records import Role
from tests.integration.hub.api.access.work import counted, seen

STATES = {"ready": {}, "warming": {"state": "warming"}, "cold": {"state": "cold"}, "full": {"slots": 1}}
OF_THE_KEY = "WHERE api_keys.hash = "
"""The caller's own key is read again after any change of anything, such as a node that was made here."""
UNLISTED = "theirs/secret-model"
"""What the catalog has not: only a node's own word makes it exist."""


def requests(model, node_id):
    """What can be asked about a model."""
    chat = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    narrow = {"x-porten-node": node_id}
    return [
        ("POST", "/v1/chat/completions", chat, {}),
        ("POST", "/v1/chat/completions", chat | {"stream": True}, {}),
        ("POST", "/v1/chat/completions", chat, narrow),
        ("POST", "/v1/chat/completions", chat, {"x-porten-region": "eu-de"}),
        ("POST", "/v1/completions", {"model": model, "prompt": "hi"}, {}),
        ("POST", "/v1/responses", {"model": model, "input": "hi"}, {}),
        ("POST", "/v1/messages", chat | {"max_tokens": 1}, {}),
        ("GET", "/v1/models", None, {}),
        ("GET", "/v1/models", None, narrow),
        ("GET", f"/v1/models/{model}", None, {}),
        ("GET", f"/v1/models/{model}/warming", None, {}),
    ]


@pytest.fixture
async def asked(bench, http, monkeypatch):
    """Ask all of it with keys of every fleet; gives the answers, the statements, and the waits."""
    mine = await bench.organisation("Mine")
    keys = [await bench.key(mine, fleet=fleet) for fleet in Fleet]
    token = await bench.hub.admin_tokens.issue(None, mine, name="a", role=Role.OWNER, lifetime_s=999)
    ids = [each.id for each in await bench.hub.storage.keys.list(mine)]

    async def everything(node_id):
        looks = []
        for model in ("tiny", UNLISTED):
            for secret in keys:
                for method, path, body, narrow in requests(model, node_id):
                    headers = {"authorization": f"Bearer {secret}"} | narrow
                    looks.append(await look(method, path, node_id, json=body, headers=headers))
            for key_id in ids:
                path = f"/admin/v1/keys/{key_id}/explain?model={model}"
                headers = {"authorization": f"Bearer {token.secret}"}
                looks.append(await look("GET", path, node_id, headers=headers))
        return looks

    async def look(method, path, node_id, **options):
        with counted(bench.hub, monkeypatch, waits=(WaitingRoom, "wait")) as work:
            answer = await http.request(method, path, **options)
        asked = [each for each in work.statements if OF_THE_KEY not in each]
        return method, path, seen(answer, node_id), asked, dict(work.calls)

    return everything


async def test_whatever_others_have_it_is_as_if_nobody_had_it(bench, asked):
    await asked("warm")
    before = await asked("node_" + "a" * 20)
    theirs = await bench.organisation("Theirs")
    nodes = [await bench.node(theirs, model=model, **said) for said in STATES.values() for model in MODELS]
    full = nodes[-2:]
    for node in full:
        fill(bench.hub.registry, node)
    after = await asked(full[0].node_id)
    for one, other in zip(before, after, strict=True):
        assert one == other
    assert {name for look in after for name in look[4]} == set(), "nobody waited in a line"
    assert {look[2][0] for look in after if look[1] == "/v1/chat/completions"} == {404, 503}


MODELS = ("tiny", UNLISTED)


def fill(registry, node):
    """Let a node have as many requests as it takes."""
    while registry._index.grade_of(node.node_id, node.model) != FULL:
        registry.occupy(node.node_id, node.model)
