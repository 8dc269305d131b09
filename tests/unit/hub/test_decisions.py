"""A million dispatch decisions against the oracle, by chance and yet repeatable (`make test-policy`).

`PORTEN_PROOF_SEED=<n>` begins with another seed than a new one; `PORTEN_PROOF_DECISIONS` makes fewer or more.
"""

import logging
import os
import secrets
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from hub import router
from hub.policy import Gate, permits
from tests.unit.hub.decisions import Violation, run

DECISIONS = int(os.environ.get("PORTEN_PROOF_DECISIONS", "1000000"))
BATCH = 25_000
log = logging.getLogger(__name__)


def test_a_seed_repeats_itself():
    assert run(7, 600) == run(7, 600)
    assert run(7, 600) != run(8, 600)


@pytest.mark.parametrize("gate", [gate for gate in Gate if gate is not Gate.POLICY])
def test_a_gate_that_stands_open_is_found(monkeypatch, gate):
    """The proof itself is tried: with one gate gone it must not pass."""
    unlocked = {
        Gate.REVOKED: lambda policy, node, tree, wish: (policy, replace(node, revoked=False), tree, wish),
        Gate.OWNER: lambda policy, node, tree, wish: (
            policy,
            replace(node, owner_id=policy.organisation_id) if policy else node,
            tree,
            wish,
        ),
        Gate.REGION: lambda policy, node, tree, wish: (
            policy and replace(policy, regions=frozenset()),
            node,
            tree,
            wish,
        ),
        Gate.TRUST: lambda policy, node, tree, wish: (
            policy,
            replace(node, trust=node.trust and max(type(node.trust))),
            tree,
            wish,
        ),
        Gate.NARROWED: lambda policy, node, tree, _wish: (policy, node, tree),
    }[gate]
    monkeypatch.setattr(router, "permits", lambda *asked: permits(*unlocked(*asked)))
    with pytest.raises(Violation, match="seed 1, decision"):
        run(1, 20_000)


def test_some_decisions_are_right_in_every_run():
    seen = run(secrets.randbits(32), 5_000)
    assert seen["selected"] > 20
    assert seen["refused"] > 20


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_a_million_decisions_are_right():
    seed = int(os.environ.get("PORTEN_PROOF_SEED") or secrets.randbits(32))
    log.info("seed %d: PORTEN_PROOF_SEED=%d repeats it", seed, seed)
    seeds = range(seed, seed + -(-DECISIONS // BATCH))
    seen: Counter[str] = Counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        for found in workers.map(run, seeds, [BATCH] * len(seeds)):
            seen += found
    log.info("decisions: %s", dict(seen))
    assert seen["selected"] + seen["refused"] >= DECISIONS
    for answer in ("selected", "refused", "permitted", *Gate):
        assert seen[answer] > 1000, f"{answer} was hardly tried: {dict(seen)}"
