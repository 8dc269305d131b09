"""What a change means for keys, counted against a look at each key by itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.effects import Effect, Reach, of_move, of_node, of_regions
from hub.policy import Fleet, NodeFacts, RegionTree, Sharing, SharingKind, TrustClass, permits
from hub.portal.effect_words import effect_words, reach_words
from hub.storage.records import ApiKey

TREE = RegionTree({"eu": None, "eu-de": "eu", "eu-de-fra": "eu-de", "us": None})
NODE = NodeFacts("n", "org_a", "eu-de", True, TrustClass.VERIFIED, Sharing())


def key(number=0, organisation="org_a", **changes):
    values = {
        "id": f"key_{number}",
        "organisation_id": organisation,
        "name": "k",
        "prefix": "p",
        "hash": str(number),
        "fleet": "own",
        "regions": frozenset(),
        "minimum_trust": "community",
        "models": None,
        "created_at": 0.0,
    }
    return ApiKey(**values | changes)


KEYS = st.lists(
    st.builds(
        key,
        st.integers(0, 10**6),
        st.sampled_from(["org_a", "org_b", "org_c"]),
        fleet=st.sampled_from([*[fleet.value for fleet in Fleet], "everything"]),
        regions=st.frozensets(st.sampled_from(["eu", "eu-de", "eu-de-fra", "us", "mars"]), max_size=2),
        minimum_trust=st.sampled_from(["community", "verified", "trusted"]),
    ),
    max_size=12,
)
FACTS = st.builds(
    NodeFacts,
    st.just("n"),
    st.sampled_from(["org_a", "org_b"]),
    st.sampled_from(["eu", "eu-de", "us", None]),
    st.booleans(),
    st.sampled_from(TrustClass),
    st.sampled_from([Sharing(kind, frozenset({"org_c"})) for kind in SharingKind]),
)


def reach(keys):
    return Reach(len(keys), len({each.organisation_id for each in keys}))


@given(KEYS, FACTS, FACTS)
def test_who_gains_and_loses_a_node_is_who_the_predicate_says(keys, before, after):
    gain = [k for k in keys if permits(k.policy, after, TREE) and not permits(k.policy, before, TREE)]
    lose = [k for k in keys if permits(k.policy, before, TREE) and not permits(k.policy, after, TREE)]
    effect = of_node(keys, before, after, TREE)
    assert (effect.gain, effect.lose) == (reach(gain), reach(lose))
    assert effect.is_none is (not gain and not lose)


@given(KEYS, st.sampled_from([None, "us"]))
def test_a_move_touches_just_the_keys_that_a_node_there_shows_it_touches(keys, parent):
    after = RegionTree({**TREE.parents, "eu-de": parent})
    effect = of_move(keys, "eu-de", TREE, after)
    here = [replace(NODE, owner_id=k.organisation_id, trust=TrustClass.CONFIDENTIAL) for k in keys]
    pairs = list(zip(keys, here, strict=True))
    gain = [k for k, n in pairs if permits(k.policy, n, after) and not permits(k.policy, n, TREE)]
    lose = [k for k, n in pairs if permits(k.policy, n, TREE) and not permits(k.policy, n, after)]
    assert effect == Effect(reach(gain), reach(lose))


@given(KEYS)
def test_a_region_is_matched_by_keys_that_ask_for_a_place_and_would_take_a_node_there(keys):
    found = of_regions(keys, TREE)
    assert set(found) == set(TREE.parents)
    for code, each in found.items():
        here = replace(NODE, region=code, trust=TrustClass.CONFIDENTIAL)
        takes = [k for k in keys if permits(k.policy, replace(here, owner_id=k.organisation_id), TREE)]
        assert each == reach([k for k in takes if k.regions])


@pytest.mark.parametrize(
    ("effect", "lines"),
    [
        (Effect(Reach(), Reach()), ("For no key it makes a difference whether it may use it.",)),
        (Effect(Reach(3, 2), Reach()), ("3 keys of 2 organisations may use it from then on.",)),
        (Effect(Reach(), Reach(1, 1)), ("1 key of 1 organisation no longer uses it: it counts at once.",)),
    ],
)
def test_it_is_said_in_a_sentence(effect, lines):
    assert effect_words(effect, "it") == lines
    assert reach_words(Reach()) == "No key"
