"""What a node must be again after an upgrade."""

from typing import Any

import pytest

from runtime.findings import Finding, failed, ok
from runtime.health import expected_of, new_failures, shortfall


def document(**changes: Any) -> dict[str, Any]:
    return {
        "program": "/p/2",
        "accepting": True,
        "reason": None,
        "tunnel": {"state": "connected"},
        "models": [{"model": "a", "fits": True}, {"model": "b", "fits": False}],
    } | changes


EXPECTED = expected_of(document(program="/p/1"), "/p/2")


def test_the_same_under_another_program_is_sound() -> None:
    assert shortfall(EXPECTED, document()) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"program": "/p/1"}, "/p/1"),
        ({"reason": "stopping"}, "stopping"),
        ({"tunnel": {"state": "refused"}}, "refused"),
        ({"models": [{"model": "a", "fits": True}]}, "does not offer b"),
        ({"models": [{"model": "a", "fits": False}, {"model": "b", "fits": False}]}, "no place for a"),
        ({"accepting": False, "reason": "no engine"}, "no engine"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in (shortfall(EXPECTED, document(**changes)) or "")


def test_silence_is_never_sound() -> None:
    assert shortfall(EXPECTED, None) == "does not answer"


def test_a_node_that_was_not_well_need_not_become_so() -> None:
    ill = document(program="/p/1", accepting=False, reason="no engine", tunnel={"state": "refused"})
    assert shortfall(expected_of(ill, "/p/2"), ill | {"program": "/p/2"}) is None
    assert shortfall(expected_of(None, "/p/2"), ill | {"program": "/p/2"}) is None


@pytest.mark.parametrize(
    ("before", "is_new"), [(ok("disk", ""), True), (failed("disk", "", ""), False), (ok("other", ""), False)]
)
def test_only_what_got_worse_speaks_against_a_version(before: Finding, is_new: bool) -> None:
    after = [{"subject": "disk", "verdict": "failed", "found": "full"}]
    assert new_failures([before], after) == (["disk: full"] if is_new else [])
