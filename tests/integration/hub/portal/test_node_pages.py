"""A list of more nodes than a page holds."""

import re

import pytest

from hub.portal.node_list import PAGE_NODES

COUNT = PAGE_NODES + 7


@pytest.fixture
async def many(portal):
    return [await portal.node(name=f"Box-{number:03}") for number in range(COUNT)]


def names(page):
    return re.findall(r"Box-\d{3}", page.text)


async def test_a_page_holds_so_many_and_the_next_the_rest(owner, many):
    first, second = await owner.open("/nodes"), await owner.open("/nodes?page=2")
    assert names(first) == [f"Box-{number:03}" for number in range(PAGE_NODES)]
    assert names(second) == [f"Box-{number:03}" for number in range(PAGE_NODES, COUNT)]
    assert "page 1 of 2" in first.text
    assert 'rel="next"' in first.text
    assert 'rel="prev"' not in first.text
    assert 'href="/nodes"' in second.text
    assert f"0 of {COUNT} nodes online" in first.text


async def test_those_online_come_first_wherever_their_names_stand(owner, many, connect):
    await connect(many[-1])
    page = await owner.open("/nodes")
    assert names(page)[0] == f"Box-{COUNT - 1:03}"
    assert f"1 of {COUNT} nodes online" in page.text
    assert f"1 of your {COUNT} nodes is online" in (await owner.open("/")).text


@pytest.mark.parametrize(("text", "found"), [("x-00", 10), ("BOX-05", 7), ("nothing", 0)])
async def test_nodes_are_found_by_name(owner, many, text, found):
    page = await owner.open("/nodes", params={"find": text})
    assert len(names(page)) == found
    assert ("No node is called that" in page.text) is (not found)
    assert f'value="{text}"' in page.text


async def test_a_node_is_found_by_its_id(owner, many):
    assert names(await owner.open("/nodes", params={"find": many[3].id})) == ["Box-003"]


async def test_what_keeps_a_page_fresh_asks_for_the_same_page(owner, many):
    page = await owner.open("/nodes", params={"find": "box", "page": "2"})
    [address] = re.findall(r'data-refresh="([^"]+)"', page.text)
    fresh = await owner.open(address.replace("&amp;", "&"))
    assert names(fresh) == names(page) != []


@pytest.mark.parametrize("page", ["0", "-1", "99", "x", "1e3", "9" * 30, "%00"])
async def test_a_page_that_is_not_there_is_the_nearest(owner, many, page):
    answer = await owner.open(f"/nodes?page={page}")
    assert answer.status_code == 200
    assert names(answer)
