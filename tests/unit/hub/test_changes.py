"""News reaches everybody, also past one that fails."""

import asyncio

import pytest

from hub.changes import Changes, KeyChanged, NodeRevoked


def test_everyone_is_told_in_order_until_they_leave():
    changes, heard = Changes(), []
    leave = changes.subscribe(lambda change: heard.append(("first", change)))
    changes.subscribe(lambda change: heard.append(("second", change)))
    changes.publish(KeyChanged("key_1"))
    leave()
    changes.publish(NodeRevoked("node_1"))
    assert heard == [
        ("first", KeyChanged("key_1")),
        ("second", KeyChanged("key_1")),
        ("second", NodeRevoked("node_1")),
    ]


def test_one_that_fails_stops_none_of_the_others_and_is_not_hidden():
    changes, heard = Changes(), []

    def fail(change):
        raise RuntimeError("broken")

    changes.subscribe(fail)
    changes.subscribe(heard.append)
    with pytest.raises(RuntimeError, match="broken"):
        changes.publish(NodeRevoked("node_1"))
    assert heard == [NodeRevoked("node_1")]


def test_what_is_held_is_told_at_the_end_and_after_an_error_never():
    changes, heard = Changes(), []
    changes.subscribe(heard.append)
    with changes.held():
        changes.publish(KeyChanged("key_1"))
        changes.publish(NodeRevoked("node_1"))
        assert heard == []
    assert heard == [KeyChanged("key_1"), NodeRevoked("node_1")]

    def fail():
        with changes.held():
            changes.publish(KeyChanged("key_2"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(heard) == 2


async def test_a_task_that_was_begun_while_news_was_held_is_heard_later_too():
    changes, heard, go = Changes(), [], asyncio.Event()
    changes.subscribe(heard.append)

    async def later():
        await go.wait()
        changes.publish(KeyChanged("key_1"))

    with changes.held():
        task = asyncio.create_task(later())
    go.set()
    await task
    assert heard == [KeyChanged("key_1")]
