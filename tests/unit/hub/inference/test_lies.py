"""What a node may say is bounded where it is read; what it says all the same harms nobody else."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import NodeFacts, Policy, RegionTree, Sharing, TrustClass
from hub.router import Candidate, ModelState, Selection, select_replica
from tunnel.errors import ProtocolViolation
from tunnel.messages import MAX_TOKENS, Trailers, decode_message


@pytest.mark.parametrize("lie", [-1, MAX_TOKENS + 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("name", ["prompt_tokens", "cached_tokens", "completion_tokens"])
def test_counts_that_cannot_be_are_a_violation(name, lie):
    usage = {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1} | {name: lie}
    with pytest.raises(ProtocolViolation):
        decode_message(Trailers, msgspec.msgpack.encode({"usage": usage}))


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), min_size=2, max_size=5),
)
def test_any_speed_can_be_ranked(speeds):
    candidates = [
        Candidate(
            NodeFacts(f"n{number}", "org_a", "eu", True, TrustClass.VERIFIED, Sharing()),
            ModelState.READY,
            tokens_per_second=speed,
        )
        for number, speed in enumerate(speeds)
    ]
    chosen = select_replica(Policy("org_a"), "m", candidates, RegionTree({"eu": None}))
    assert isinstance(chosen, Selection)


def test_a_lie_about_speed_ranks_last():
    honest, liar = (
        Candidate(
            NodeFacts(name, "org_a", "eu", True, TrustClass.VERIFIED, Sharing()),
            ModelState.READY,
            tokens_per_second=speed,
        )
        for name, speed in (("honest", 20.0), ("liar", math.inf))
    )
    chosen = select_replica(Policy("org_a"), "m", [liar, honest], RegionTree({"eu": None}))
    assert chosen.node_id == "honest"
