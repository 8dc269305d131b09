"""Two keys of one node in the database: which count, and the moment at which the old one ends."""

import asyncio
from dataclasses import replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from hub.storage import migrate
from hub.storage.repositories import Storage

NOW = 1_700_000_000.0
UNTIL = NOW + 60


@pytest.fixture
async def node(storage, make_node):
    """A node that has announced its next key, good for a minute."""
    node = await make_node(public_key="old")
    assert await storage.nodes.set_next_key(node, "next", expires_at=UNTIL)
    return await storage.nodes.get(node.id)


async def test_both_keys_are_active_until_the_next_one_lapses(node):
    assert node.active_keys(NOW) == node.active_keys(UNTIL - 1) == ("old", "next")
    assert node.active_keys(UNTIL) == ("old",)
    assert replace(node, next_key_expires_at=None).active_keys(NOW) == ("old",)
    assert replace(node, revoked_at=NOW).active_keys(NOW) == ()


async def test_a_session_under_the_old_key_leaves_the_next_one_waiting(storage, node):
    begun = await storage.nodes.begin_session(node.id, "old", now=NOW)
    assert begun == replace(node, generation=1, last_seen_at=NOW) == await storage.nodes.get(node.id)


async def test_the_first_session_under_the_next_key_ends_the_old_one(storage, node):
    await storage.nodes.begin_session(node.id, "old", now=NOW)
    begun = await storage.nodes.begin_session(node.id, "next", now=NOW)
    assert begun == await storage.nodes.get(node.id)
    assert (begun.public_key, begun.generation, begun.active_keys(NOW)) == ("next", 2, ("next",))
    assert (begun.next_public_key, begun.next_key_expires_at) == (None, None)
    assert await storage.nodes.begin_session(node.id, "old", now=NOW) is None
    assert (await storage.nodes.begin_session(node.id, "next", now=UNTIL)).generation == 3


async def test_a_key_that_has_lapsed_or_is_foreign_begins_nothing(storage, node):
    assert await storage.nodes.begin_session(node.id, "next", now=UNTIL) is None
    assert await storage.nodes.begin_session(node.id, "foreign", now=NOW) is None
    assert await storage.nodes.get(node.id) == node
    assert (await storage.nodes.begin_session(node.id, "old", now=UNTIL)).generation == 1


async def test_of_sessions_at_the_same_moment_none_under_the_old_key_is_newer(storage, node, database_url):
    async with await Storage.open(database_url) as other:
        keys = ["old", "next", "old", "old"] * 5
        begun = await asyncio.gather(
            *(each.nodes.begin_session(node.id, key, now=NOW) for key in keys for each in (storage, other))
        )
    by_key = [(begun.generation, begun.public_key) for begun in begun if begun is not None]
    assert len(by_key) >= 10
    promoted = min(generation for generation, key in by_key if key == "next")
    assert {key for generation, key in by_key if generation >= promoted} == {"next"}


async def test_a_key_is_announced_only_by_a_node_that_still_is_what_it_was(storage, node):
    await storage.nodes.begin_session(node.id, "next", now=NOW)
    assert not await storage.nodes.set_next_key(node, "third", expires_at=UNTIL)
    now = await storage.nodes.get(node.id)
    await storage.nodes.revoke(node.id, now=NOW)
    assert not await storage.nodes.set_next_key(now, "third", expires_at=UNTIL)
    assert (await storage.nodes.get(node.id)).next_public_key is None


async def test_a_revoked_node_begins_nothing_under_either_key(storage, node):
    await storage.nodes.revoke(node.id, now=NOW)
    for key in ("old", "next"):
        assert await storage.nodes.begin_session(node.id, key, now=NOW) is None


async def test_an_older_database_gets_room_for_the_key_and_keeps_its_nodes(database_url):
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))

    def as_it_was(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with await Storage.open(database_url) as storage:
        async with storage._engine.begin() as connection:
            await connection.run_sync(as_it_was)
            await connection.execute(text("INSERT INTO organisations VALUES ('org_a', 'Ours', 1)"))
            await connection.execute(
                text(
                    "INSERT INTO nodes VALUES ('node_a', 'org_a', 'box', 'old', NULL, FALSE, 'community', "
                    "'private', '[]', '{}', 7, 1, NULL, NULL)"
                )
            )
        await storage.migrate()
        node = await storage.nodes.get("node_a")
        assert (node.active_keys(NOW), node.next_public_key, node.generation) == (("old",), None, 7)
        assert await storage.nodes.set_next_key(node, "next", expires_at=UNTIL)
        assert (await storage.nodes.begin_session("node_a", "next", now=NOW)).generation == 8
