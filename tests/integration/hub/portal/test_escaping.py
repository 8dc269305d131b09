"""Nothing that people, machines or nodes say becomes markup: each page is built as its tame twin is."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from hub.storage.records import Role, UsageRecord
from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}&lt;b&gt;",
    "</title></textarea><svg onload=alert(1)>",
]


@dataclass
class House:
    """An organisation in which everything that can have a name is called the same."""

    name: str
    browser: Any
    pages: dict[str, str]
    """Paths by what they are, with this organisation's ids in them."""


def said_by_a_node(name):
    model = {"digest": name, "size_bytes": 1, "on_disk": True, "fits": True, "context_length": 1}
    model |= {"capabilities": (name,), "phase": name, "done_bytes": 1, "total_bytes": 4}
    return {
        "agent": name,
        "reason": name,
        "devices": (
            DeviceStatus(
                id=name,
                kind="cpu",
                name=name,
                memory_total=4,
                memory_used_by_others=1,
                memory_budget=2,
                memory_reserved=1,
            ),
        ),
        "models": tuple(
            ModelStatus(model=f"{state} {name}", state=state, **model)
            for state in ("ready", "warming", "cold")
        ),
        "replicas": (
            ReplicaStatus(
                id=name,
                model=name,
                state=name,
                slots=1,
                running=0,
                waiting=0,
                tokens_per_second=1,
                phase=name,
            ),
        ),
    }


@pytest.fixture
def furnish(portal, sign_in, connect, ask):
    async def furnish(name):
        browser = await sign_in(Role.OWNER, name)
        machine = dict.fromkeys(("hostname", "os", "arch", "fingerprint", "agent"), name)
        devices = [{"kind": name[:32], "name": name}]
        node = await portal.node(name, name=name, machine=machine | {"devices": devices})
        key = (await portal.key(name, name=name, models={name})).key
        await connect(node, **said_by_a_node(name))
        counts = {
            "prompt_tokens": 1,
            "cached_tokens": 0,
            "completion_tokens": 1,
            "ttft_ms": 1.0,
            "duration_ms": 1.0,
        }
        used = {"key_id": key.id, "organisation_id": node.organisation_id, "node_id": node.id, "region": None}
        record = UsageRecord(
            request_id=f"req_{node.id}", model=name, outcome="ok", created_at=portal.clock(), **used, **counts
        )
        await portal.hub.storage.usage.add([record])
        code = (await ask(name, devices=devices, **machine))["user_code"]
        pages = {
            "overview": "/",
            "nodes": "/nodes",
            "live": "/nodes/live",
            "node": f"/nodes/{node.id}",
            "revoke node": f"/nodes/{node.id}/revoke",
            "keys": "/keys",
            "revoke key": f"/keys/{key.id}/revoke",
            "usage": "/usage",
            "models": "/models",
            "playground": f"/playground?model={quote(name)}",
            "approve": f"/device?user_code={code}",
        }
        return House(name, browser, pages)

    return furnish


@pytest.fixture
async def tame(furnish):
    return await furnish("tame")


@pytest.mark.parametrize("nasty", NASTY)
async def test_names_are_shown_and_build_nothing(tame, furnish, markup, nasty):
    house = await furnish(nasty)
    for kind, path in house.pages.items():
        page, twin = await house.browser.open(path), await tame.browser.open(tame.pages[kind])
        assert (page.status_code, twin.status_code) == (200, 200), kind
        read, expected = markup(page.text), markup(twin.text)
        assert nasty in read.said, kind
        assert (read.tags, read.attributes) == (expected.tags, expected.attributes), kind
        assert all(source.startswith("/static/") for source in read.scripts)


@pytest.mark.parametrize("nasty", NASTY)
async def test_what_was_typed_wrong_is_shown_again_and_builds_nothing(tame, markup, nasty):
    code = tame.pages["approve"].partition("=")[2]
    placement = {"region": nasty, "sharing": nasty, "organisations": nasty}
    forms = {
        "/keys": dict.fromkeys(("fleet", "regions", "minimum_trust", "models", "expires"), nasty),
        tame.pages["node"]: placement,
        "/device": placement | {"user_code": code, "action": nasty},
    }
    for path, fields in forms.items():
        send = tame.browser.save if path == tame.pages["node"] else tame.browser.post
        answer = await send(path, fields | {"name": nasty})
        wrong = {name: value.replace(nasty, "?") for name, value in fields.items()}
        twin = await send(path, wrong | {"name": "x"})
        assert (answer.status_code, twin.status_code) == (422, 422), path
        read, expected = markup(answer.text), markup(twin.text)
        assert nasty in read.said
        assert (read.tags, read.attributes) == (expected.tags, expected.attributes), path


@pytest.mark.parametrize("nasty", NASTY)
async def test_the_sign_in_page_shows_what_was_typed_and_builds_nothing(visit, markup, nasty):
    browser = await visit()
    answer, twin = await browser.sign_in(nasty, nasty), await browser.sign_in("x", "x")
    read, expected = markup(answer.text), markup(twin.text)
    assert (read.tags, read.attributes) == (expected.tags, expected.attributes)
    assert nasty in read.said
    page = markup((await browser.open("/login", params={"next": f"/{nasty}"})).text)
    assert (page.tags, page.scripts) == (markup((await browser.open("/login")).text).tags, page.scripts)
    for path in (f"/{nasty}", f"/static/{nasty}"):
        assert "<img" not in (await browser.open(path)).text


@pytest.mark.parametrize("nasty", NASTY)
async def test_an_operator_sees_every_organisations_names_as_words(operator, furnish, markup, nasty):
    house = await furnish(nasty)
    for path in ("/nodes?of=all", "/organisations", "/trust"):
        read = markup((await operator.open(path)).text)
        assert nasty in read.said, path
        assert {"img", "svg"} & set(read.tags) <= {"svg"}
        assert not [name for _, name in read.attributes if name.startswith("on")]
    read = markup((await operator.open(house.pages["node"])).text)
    assert read.said.count(nasty) > 5


async def test_the_preview_answers_in_json_that_no_browser_reads_as_a_page(sign_in):
    browser = await sign_in(Role.OWNER, NASTY[0])
    answer = await browser.open("/keys/preview", params={"regions": NASTY[1]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert NASTY[0] in answer.json()["rule"]
