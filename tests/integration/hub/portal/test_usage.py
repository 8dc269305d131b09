"""The usage page: what is told apart and over which time, and that it is one's own only."""

import csv
import io

import pytest

from hub.quotas import Allowance
from hub.storage.records import Role, UsageRecord

HOUR, DAY = 3_600, 86_400


@pytest.fixture
async def used(portal):
    """A key of ours and one of a stranger, with usage of each; gives a way to add more."""
    mine, theirs = (await portal.key(name="assistant")).key, (await portal.key("Other", name="stranger")).key
    node = await portal.node(name="attic")
    count = iter(range(1_000))

    async def add(key=mine, back=0.0, **changes):
        values = {
            "node_id": node.id,
            "region": "eu-de",
            "model": "tiny",
            "prompt_tokens": 1_000,
            "cached_tokens": 10,
            "completion_tokens": 234,
            "ttft_ms": 1.0,
            "duration_ms": 2.0,
            "outcome": "ok",
        } | changes
        record = UsageRecord(
            request_id=f"req_{next(count)}",
            key_id=key.id,
            organisation_id=key.organisation_id,
            created_at=portal.clock() - back,
            **values,
        )
        await portal.hub.storage.usage.add([record])

    add.mine, add.theirs, add.node = mine, theirs, node
    return add


def rows_of(answer):
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.parametrize(
    ("by", "said"), [("key", "assistant"), ("model", "tiny"), ("region", "Germany"), ("node", "attic")]
)
async def test_it_is_told_apart_by(owner, used, by, said):
    await used()
    await used(used.theirs, model="secret model", region="us")
    page = (await owner.open(f"/usage?by={by}")).text
    assert f"By {by}" in page
    assert said in page
    assert "1,234" in page
    for hidden in ("stranger", "secret model", "United States", used.theirs.id):
        assert hidden not in page


async def test_a_node_of_somebody_else_goes_by_its_id_alone(portal, owner, used):
    other = await portal.node("Other", name="their machine")
    await used(node_id=other.id)
    page = (await owner.open("/usage?by=node")).text
    assert other.id in page
    assert "their machine" not in page
    assert "their machine" not in (await owner.open("/usage.csv?by=node")).text


async def test_it_is_told_over_the_time_that_was_asked_for(owner, used):
    for back in (0, 2 * HOUR, 3 * DAY, 40 * DAY):
        await used(back=back)
    for span, requests in (("day", 2), ("week", 3), ("month", 3), ("quarter", 4)):
        rows = rows_of(await owner.open(f"/usage.csv?span={span}&by=key"))
        assert sum(int(row["requests"]) for row in rows) == requests, span
        assert f"<dd>{requests}</dd>" in (await owner.open(f"/usage?span={span}")).text
    hours = rows_of(await owner.open("/usage.csv?span=day&by=key"))
    assert [row["key_name"] for row in hours] == ["assistant", "assistant"]
    assert hours[0]["start"] < hours[1]["start"]


async def test_one_key_by_itself(portal, owner, used):
    other = (await portal.key(name="batch")).key
    await used()
    await used(other, model="big")
    page = (await owner.open(f"/usage?key={other.id}")).text
    assert "of the key batch" in page
    assert "big" in page
    assert "tiny" not in page
    rows = rows_of(await owner.open(f"/usage.csv?key={other.id}&by=node"))
    assert [(row["model"], row["requests"]) for row in rows] == [("big", "1")], "nodes are not told by key"


async def test_what_failed_or_was_cancelled_is_said(owner, used):
    await used()
    await used(outcome="cancelled")
    await used(outcome="node_lost")
    assert "2 of them failed or cancelled" in (await owner.open("/usage")).text


@pytest.mark.parametrize("question", ["span=x&by=y&key=z", "span=day&by=node&key=%00", "key=key_none&by="])
async def test_what_makes_no_sense_is_as_at_first_sight(owner, used, question):
    await used()
    assert (await owner.open(f"/usage?{question}")).status_code == 200
    assert (await owner.open(f"/usage.csv?{question}")).status_code == 200


async def test_a_strangers_key_asks_nothing(owner, used):
    await used(used.theirs)
    page = (await owner.open(f"/usage?key={used.theirs.id}")).text
    assert "Nothing was used in this time" in page
    assert "stranger" not in page


async def test_budgets_are_shown_of_the_organisation_and_of_keys(portal, owner, used):
    organisation = used.mine.organisation_id
    await portal.hub.storage.organisations.set_limits(organisation, Allowance(monthly_tokens=1_234))
    await portal.key(name="thrifty", limits=Allowance(monthly_tokens=5_000))
    await used()
    await portal.hub.budgets.refresh()
    page = (await owner.open("/usage")).text
    for said in ("All keys of Acme", "1,234 of 1,234 tokens", "used up", "thrifty", "0 of 5,000 tokens"):
        assert said in page


async def test_names_that_people_gave_are_no_formulas_in_the_download(portal, owner, used):
    key = (await portal.key(name='=HYPERLINK("http://evil.example")')).key
    await used(key)
    [row] = rows_of(await owner.open(f"/usage.csv?key={key.id}&by=key"))
    assert row["key_name"].startswith("'=")


async def test_everybody_of_the_organisation_may_look(sign_in, used):
    await used()
    for role in (Role.MEMBER, Role.AUDITOR, Role.ADMIN):
        browser = await sign_in(role)
        assert "assistant" in (await browser.open("/usage")).text
        assert rows_of(await browser.open("/usage.csv"))


async def test_a_download_has_an_end(owner, used, monkeypatch):
    monkeypatch.setattr("hub.portal.usage.MOST_LINES", 2)
    for number in range(3):
        await used(model=f"model-{number}")
    answer = await owner.open("/usage.csv?by=model")
    assert (answer.status_code, "Choose a shorter time" in answer.text) == (422, True)
    assert len(rows_of(await owner.open("/usage.csv?by=node"))) == 1


async def test_more_groups_than_a_page_shows_are_in_the_download(owner, used):
    for number in range(53):
        await used(model=f"model-{number:02}", prompt_tokens=number)
    page = (await owner.open("/usage?by=model")).text
    assert "model-52" in page
    assert "model-00" not in page
    assert "all others are in the download" in page
    assert len(rows_of(await owner.open("/usage.csv?by=model"))) == 53
