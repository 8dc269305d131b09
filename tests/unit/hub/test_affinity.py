"""The key of a conversation: the same for its later turns, another for everybody else's."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.affinity import RING_MASK, conversation_key, distance, nearest, position
from hub.policy import NodeFacts
from hub.router import Candidate, ModelState

SECRET = b"s" * 32
SYSTEM = {"role": "system", "content": 'You answer "briefly" to the user. ' * 40}
FIRST = {"role": "user", "content": "Where does the river Elbe begin, and how long is it until the sea?"}
ANSWER = {"role": "assistant", "content": "In the Giant Mountains; 1,094 km."}
SECOND = {"role": "user", "content": "And the Danube?"}


def key(*messages, organisation="org_a", model="tiny", secret=SECRET, **fields):
    body = json.dumps({"model": model, "messages": list(messages), **fields}).encode()
    return conversation_key(secret, organisation, model, body)


@pytest.mark.parametrize("system", [(), (SYSTEM,)], ids=["without a system prompt", "with one"])
def test_later_turns_of_a_conversation_have_its_key(system):
    begun = key(*system, FIRST, temperature=1)
    assert begun == key(*system, FIRST, ANSWER, SECOND, temperature=1)
    assert begun == key(*system, FIRST, ANSWER, SECOND, ANSWER, SECOND, stream=True)


def test_a_short_first_turn_counts_as_a_whole():
    hello = {"role": "user", "content": "Hi"}
    assert key(SYSTEM, hello) == key(SYSTEM, hello, ANSWER, SECOND, max_tokens=3)


def test_conversations_under_one_system_prompt_differ():
    assert key(SYSTEM, FIRST) != key(SYSTEM, SECOND)


def test_organisations_models_and_hubs_have_keys_of_their_own():
    keys = {
        key(SYSTEM, FIRST),
        key(SYSTEM, FIRST, organisation="org_b"),
        key(SYSTEM, FIRST, model="large"),
        key(SYSTEM, FIRST, secret=b"other"),
    }
    assert len(keys) == 4


@pytest.mark.parametrize("padding", ["", "x" * 100_000])
def test_a_cache_key_of_the_callers_own_goes_before_what_is_said(padding):
    named = {"prompt_cache_key": "session-7", "padding": padding}
    assert key(FIRST, **named) == key(SECOND, **named)
    assert key(FIRST, **named) != key(FIRST, prompt_cache_key="session-8", padding=padding)
    assert key(FIRST, **named) != key(FIRST, prompt_cache_key="session-7", organisation="org_b")


def test_what_is_said_about_a_cache_key_is_none():
    said = {"role": "user", "content": 'Use "prompt_cache_key": "x" and "messages" here.'}
    assert key(SYSTEM, FIRST, said) == key(SYSTEM, FIRST, SECOND)


@pytest.mark.parametrize("name", ["prompt", "input"])
def test_other_endpoints_go_by_the_beginning_of_their_text(name):
    def of(text, **more):
        return conversation_key(SECRET, "org_a", "m", json.dumps({"model": "m", name: text, **more}).encode())

    long = "A story of some length, which begins like this. " * 10
    assert of(long, user="anna") == of(long + "And goes on.", user="bert")
    assert of(long) != of("Another " + long)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_body_has_a_place_on_the_ring_and_always_the_same(body):
    place = conversation_key(SECRET, "org_a", "m", body)
    assert 0 <= place <= RING_MASK
    assert place == conversation_key(SECRET, "org_a", "m", body)


def candidates(count):
    facts = (NodeFacts(f"node_{n}", "org_a", None, False, None, None) for n in range(count))
    return [Candidate(each, ModelState.READY) for each in facts]


def test_the_ring_closes():
    nodes = candidates(5)
    places = sorted(position(each.facts.node_id) for each in nodes)
    (first, second) = nearest(nodes, places[-1] + 1)
    assert [position(each.facts.node_id) for each in (first, second)] == places[:2]
    assert distance(places[0], places[-1]) == (places[0] - places[-1]) % 2**64


@settings(deadline=None)
@given(st.integers(0, RING_MASK), st.integers(0, 19))
def test_a_node_that_goes_moves_nobody_elses_conversations(place, gone):
    nodes = candidates(20)
    (before, _) = nearest(nodes, place)
    rest = [each for number, each in enumerate(nodes) if number != gone]
    (after, _) = nearest(rest, place)
    assert after is before or before is nodes[gone]
