"""What an endpoint's answers mean, and when it counts as lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.backends.external import MISSES, Health, Listed, Trouble, read_listing

OPENAI = json.dumps({"object": "list", "data": [{"id": "a/b"}, {"id": "c"}, {"x": 1}, 7]}).encode()
OLLAMA = json.dumps({"models": [{"name": "llama3.1:8b"}, {"name": "phi:latest"}]}).encode()
DOWN = Trouble("does not answer", "start it")
SLOW = Trouble("does not answer in time", "look at its log", is_clear=False)


def test_both_kinds_of_list_are_read() -> None:
    assert read_listing("openai", 200, OPENAI) == Listed(frozenset({"a/b", "c"}))
    assert read_listing("ollama", 200, OLLAMA) == Listed(frozenset({"llama3.1:8b", "phi:latest"}))


def test_a_model_that_ollama_has_others_run_is_not_served() -> None:
    """Its maker's cloud stands in the list beside what this machine runs."""
    cloud = {"name": "big:cloud", "remote_model": "big", "remote_host": "https://elsewhere.example:443"}
    listing = json.dumps({"models": [{"name": "phi:latest"}, cloud]}).encode()
    health = Health().after(read_listing("ollama", 200, listing))
    assert health.trouble_with("ollama", "phi") is None
    trouble = health.trouble_with("ollama", "big:cloud")
    assert trouble is not None
    assert trouble.reason == "passes the model on to a machine elsewhere"
    assert trouble.remedy


@pytest.mark.parametrize("kind", ["openai", "ollama"])
@pytest.mark.parametrize(
    ("status", "body", "said", "is_clear"),
    [
        (401, b"", "refuses the node's key", True),
        (403, b"", "refuses the node's key", True),
        (404, b"", "does not list its models", True),
        (503, b"", "answers with status 503", False),
        (307, b"", "answers with status 307", False),
        (200, b"<html>", "answers, but lists no models", True),
        (200, b"[]", "answers, but lists no models", True),
        (200, b'{"data": 7, "models": 7}', "answers, but lists no models", True),
        (200, b"[" * 100_000, "answers, but lists no models", True),
    ],
)
def test_what_is_no_list_is_trouble_with_a_remedy(
    kind: str, status: int, body: bytes, said: str, is_clear: bool
) -> None:
    found = read_listing(kind, status, body)
    assert isinstance(found, Trouble)
    assert (found.reason, found.is_clear) == (said, is_clear)
    assert found.remedy


@given(st.binary(max_size=200), st.sampled_from(["openai", "ollama"]))
def test_any_bytes_are_survived(body: bytes, kind: str) -> None:
    read_listing(kind, 200, body)


def test_nothing_is_served_that_was_not_seen() -> None:
    assert Health().trouble_with("openai", "a") is not None
    seen = Health().after(Listed(frozenset({"a"})))
    assert seen.trouble_with("openai", "a") is None
    missing = seen.trouble_with("openai", "b")
    assert missing is not None
    assert missing.reason == "does not have the model"
    assert "'b'" in missing.remedy


def test_a_clear_reason_counts_at_once_and_an_unclear_one_after_a_few() -> None:
    well = Health().after(Listed(frozenset({"a"})))
    assert well.after(DOWN).trouble_with("openai", "a") == DOWN
    health = well
    for _ in range(MISSES - 1):
        health = health.after(SLOW)
        assert health.trouble_with("openai", "a") is None
    assert health.after(SLOW).trouble_with("openai", "a") == SLOW
    assert health.after(Listed(frozenset({"a"}))) == well, "one good answer is enough to begin anew"


def test_an_endpoint_never_seen_well_is_not_given_the_benefit_of_the_doubt() -> None:
    assert Health().after(SLOW).trouble_with("openai", "a") == SLOW
    assert Health().after(DOWN).after(SLOW).trouble_with("openai", "a") == SLOW


@pytest.mark.parametrize(
    ("kind", "listed", "name", "is_there"),
    [
        ("ollama", "phi:latest", "phi", True),
        ("ollama", "phi", "phi:latest", True),
        ("ollama", "host:5000/phi:latest", "host:5000/phi", True),
        ("ollama", "phi:mini", "phi", False),
        ("openai", "phi:latest", "phi", False),
    ],
)
def test_a_name_without_a_tag_is_the_latest_of_ollamas(
    kind: str, listed: str, name: str, is_there: bool
) -> None:
    health = Health().after(Listed(frozenset({listed})))
    assert (health.trouble_with(kind, name) is None) == is_there
