"""The audit page: who may read what, how it reads, and how one finds something in it."""

import re

import pytest

from hub.storage.records import Role


@pytest.fixture
async def history(portal, sign_in):
    """Something done by everybody who can do something."""
    owner = await sign_in(Role.OWNER)
    await owner.post("/keys", {"name": "assistant", "fleet": "own"})
    node = await portal.node()
    await owner.save(f"/nodes/{node.id}", {"name": "attic", "region": "us", "sharing": "private"})
    operator = await sign_in(Role.OPERATOR, "Porten")
    await operator.save(f"/nodes/{node.id}", {"name": "attic", "region": "us", "trust": "trusted"})
    return node


async def words(browser, path="/audit"):
    page = await browser.open(path)
    assert page.status_code == 200, page.text
    return page.text


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.AUDITOR])
async def test_who_may_read_it_sees_the_organisations_own(portal, sign_in, history, role):
    stranger = await sign_in(Role.OWNER, "Mallory")
    await stranger.post("/keys", {"name": "key of mallory", "fleet": "own"})
    page = await words(await sign_in(role))
    assert "API key created" in page
    assert "Node changed" in page
    assert "owner@acme.example" in page
    assert "Signed in" in page
    assert "mallory" not in page.lower()
    theirs = await words(stranger)
    for hidden in (history.id, "attic", "acme", "assistant"):
        assert hidden not in theirs.lower()


async def test_an_operator_sees_all_of_it(portal, sign_in, history):
    await (await sign_in(Role.OWNER, "Mallory")).post("/keys", {"name": "key of mallory", "fleet": "own"})
    page = await words(await sign_in(Role.OPERATOR, "Porten"))
    for seen in (
        "owner@acme.example",
        "owner@mallory.example",
        "key of mallory",
        "Database brought up to date",
    ):
        assert seen in page


async def test_a_member_does_not_read_it(sign_in, history):
    member = await sign_in(Role.MEMBER)
    answer = await member.open("/audit")
    assert answer.status_code == 403
    assert "Your role does not read the audit log" in answer.text
    assert 'href="/audit"' not in (await member.open("/")).text
    assert 'href="/audit"' in (await (await sign_in(Role.AUDITOR)).open("/")).text


async def test_an_operators_person_and_address_are_not_shown_to_an_organisation(owner, history):
    page = await words(owner, "/audit?action=node.changed")
    assert "Another organisation&#39;s account" in page
    assert "operator@porten.example" not in page
    rows = page.split("<tr>")[2:]
    [foreign] = [row for row in rows if "Another organisation" in row]
    [own] = [row for row in rows if "owner@acme.example" in row]
    assert "127.0.0.1" in own
    assert "127.0.0.1" not in foreign


async def test_the_filter_shows_one_kind(owner, history):
    page = await words(owner, "/audit?action=key.created")
    assert "API key created" in page.split("<tbody>")[1]
    assert "Node changed" not in page.split("<tbody>")[1]
    assert '<option value="key.created" selected>' in page
    assert "Node changed" in (await words(owner, "/audit?action=nothing")).split("<tbody>")[1]


async def test_pages_go_back_to_the_beginning(owner, monkeypatch):
    """By places that say nothing of how much others do."""
    monkeypatch.setattr("hub.portal.audit.PAGE", 4)
    for number in range(9):
        await owner.post("/keys", {"name": f"key {number}", "fleet": "own"})
    seen, path = [], "/audit"
    while path:
        page = await words(owner, path)
        assert "No. " not in page
        rows = page.split("<tbody>")[1].split("</tr>")
        seen += [name[1] for row in rows if (name := re.search(r"key (\d)", row))]
        older = re.search(r'href="(/audit\?[^"]*before=[\w-]{32})">Older', page)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == list("876543210")


async def test_an_operator_sees_where_in_the_chain_an_event_stands(portal, sign_in):
    page = await words(await sign_in(Role.OPERATOR), "/audit")
    numbers = [int(number) for number in re.findall(r"No\. (\d+)", page)]
    assert numbers == [event.sequence for event in await portal.hub.storage.audit.page(limit=50)]


async def test_a_refused_sign_in_and_a_refused_request_are_there(portal, owner, visit):
    stranger = await visit()
    assert (await stranger.sign_in("owner@acme.example", "wrong")).status_code == 401
    assert (await stranger.sign_in("nobody@acme.example", "wrong")).status_code == 401
    secret = (await portal.key()).secret
    body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "zanzibar"}]}
    asked = await stranger.http.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
    )
    assert asked.status_code == 503
    await portal.hub.journal.flush()
    page = await words(owner)
    assert page.count("Sign-in refused") == 2, "one row, and one choice of the filter"
    assert "Request refused" in page.split("<tbody>")[1]
    assert asked.headers["x-request-id"] in page
    assert "zanzibar" not in page
    assert "nobody@acme.example" not in page


async def test_where_nothing_has_happened_it_says_what_will_be_here(portal, sign_in):
    auditor = await sign_in(Role.AUDITOR)
    page = await words(auditor, "/audit?action=key.revoked")
    assert "No event like that" in page
    assert 'href="/audit"' in page


@pytest.mark.parametrize(
    "query", ["before=x", "before=-1", "before=%ff%00", "before=" + 32 * "A", "action=", "x=1"]
)
async def test_an_address_that_makes_no_sense_shows_the_newest(owner, query):
    assert "Signed in" in (await words(owner, f"/audit?{query}")).split("<tbody>")[1]


async def test_what_was_erased_reads_so(portal, owner, history):
    assert await portal.hub.storage.erasure.address("127.0.0.1")
    page = await words(owner, "/audit?action=key.created")
    row = page.split("<tbody>")[1].split("</tr>")[0]
    assert "erased" in row
    assert "127.0.0.1" not in row
