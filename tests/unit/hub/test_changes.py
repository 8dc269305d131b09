"""News reaches everybody, also past one that fails."""

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
