"""Dispatch decisions by the hundred thousand: worlds drawn by chance, changed in mid-flight, each choice
judged.

A world is a tree of regions (broken ones among them), nodes of some organisations, keys and wishes.
Everything in it comes of one seed, so that a violation is told with the number that repeats it. Every
decision goes through `select_replica`; whether it was right is the oracle's word, in both directions: what
was chosen may serve, and where nothing was chosen nothing could have.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from hub.policy import Fleet, Narrowing, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from hub.router import Candidate, ModelState, Refusal, Selection, select_replica
from tests.unit.hub.oracle import broken, plain_key, plain_node, plain_wish

CODES = ["eu", "eu-de", "eu-de-fra", "eu-fr", "us", "us-ny", "x", "y"]
ORGANISATIONS = ["org_a", "org_b", "org_c", "org_d"]
MOSTLY = [*ORGANISATIONS, "org_a", "org_a", "org_b"]
PER_WORLD = 250
PER_ROUND = 25
CROWDED = 10_000  # requests on a node that is full whatever its slots


class Violation(AssertionError):
    """A decision that the oracle does not agree with."""


@dataclass
class World:
    """What a decision depends on. Each thing is replaced as a whole when it changes."""

    chance: Random
    tree: RegionTree = field(init=False)
    nodes: list[Candidate] = field(init=False)
    keys: list[Policy | None] = field(init=False)
    wishes: list[Narrowing] = field(init=False)

    def __post_init__(self) -> None:
        self.tree = self.new_tree()
        self.nodes = [self.new_node(f"n{number}") for number in range(self.chance.randint(1, 12))]
        self.keys = [self.new_key() for _ in range(5)]
        self.wishes = [Narrowing()] * 4 + [self.new_wish() for _ in range(3)]

    def new_tree(self) -> RegionTree:
        """Mostly a proper tree; sometimes with cycles, lost parents and codes that are missing."""
        chance = self.chance
        if chance.random() < 0.6:
            proper = ["eu", "eu-de", "eu-de-fra", "eu-fr", "us", "us-ny"]
            return RegionTree({code: code.rpartition("-")[0] or None for code in proper})
        held = chance.sample(CODES, chance.randint(1, len(CODES)))
        return RegionTree({code: chance.choice([*CODES, "gone", None]) for code in held})

    def new_facts(self, node_id: str) -> NodeFacts:
        chance = self.chance
        lent_to = frozenset(chance.sample(ORGANISATIONS, chance.randint(0, 2)))
        return NodeFacts(
            node_id=node_id,
            owner_id=chance.choice(MOSTLY),
            region=chance.choice([*CODES, "eu-de", "eu-de-fra", "us", "gone", None]),
            region_confirmed=chance.random() < 0.8,
            trust=chance.choice([*TrustClass, *TrustClass, None]),
            sharing=chance.choice([*(Sharing(kind, lent_to) for kind in SharingKind)] * 3 + [None]),
            revoked=chance.random() < 0.03,
        )

    def new_node(self, node_id: str) -> Candidate:
        chance = self.chance
        return Candidate(
            self.new_facts(node_id),
            chance.choice([*ModelState, ModelState.READY, None]),
            fits=chance.random() < 0.8,
            in_flight=CROWDED if chance.random() < 0.1 else 0,
            accepting=chance.random() < 0.9,
            tokens_per_second=chance.choice([None, 1.0, 50.0, float("nan")]),
            online=chance.random() < 0.9,
            reported=chance.random() < 0.9,
        )

    def new_key(self) -> Policy | None:
        chance = self.chance
        if chance.random() < 0.05:
            return None
        return Policy(
            chance.choice(MOSTLY),
            chance.choice([*Fleet, Fleet.ANY, Fleet.ANY]),
            frozenset(chance.sample([*CODES, "eu", "us", "gone"], chance.choice([0, 0, 0, 1, 1, 2]))),
            chance.choice([TrustClass.COMMUNITY, TrustClass.COMMUNITY, *TrustClass]),
        )

    def new_wish(self) -> Narrowing:
        region = self.chance.choice([None, *CODES, "nowhere"])
        return Narrowing(region, self.chance.choice([None, None, "n0", "n1", "n99"]))

    def change(self) -> None:
        """Something happens between two requests: a node, a key or the tree is another from here on."""
        chance = self.chance
        what = chance.random()
        if what < 0.4:
            place = chance.randrange(len(self.nodes))
            node_id = self.nodes[place].facts.node_id
            self.nodes[place] = replace(self.nodes[place], facts=self.new_facts(node_id))
        elif what < 0.45:
            place = chance.randrange(len(self.nodes))
            revoked = replace(self.nodes[place].facts, revoked=True)
            self.nodes[place] = replace(self.nodes[place], facts=revoked)
        elif what < 0.65:
            place = chance.randrange(len(self.nodes))
            self.nodes[place] = self.new_node(self.nodes[place].facts.node_id)
        elif what < 0.9:
            self.keys[chance.randrange(len(self.keys))] = self.new_key()
        else:
            self.tree = self.new_tree()


def able(node: Candidate) -> bool:
    """Whether a permitted node could serve, by what its fields say."""
    offered = node.model_state is not None and (node.fits or node.model_state is not ModelState.COLD)
    return node.online and node.reported and node.accepting and offered and node.in_flight < CROWDED


def check(world: World, number: int, seen: Counter[str]) -> None:
    """Make one decision and judge it.

    Raises:
        Violation: it was wrong.
    """
    chance = world.chance
    policy, wish = chance.choice(world.keys), chance.choice(world.wishes)
    tried = frozenset({"n0"}) if chance.random() < 0.1 else frozenset()
    made = select_replica(policy, "m", world.nodes, world.tree, wish, exclude=tried, tie_break=str(number))
    key, asked, tree = plain_key(policy), plain_wish(wish), world.tree.parents
    verdicts = {node.facts.node_id: broken(key, plain_node(node.facts), tree, asked) for node in world.nodes}
    usable = {
        node.facts.node_id
        for node in world.nodes
        if able(node) and node.facts.node_id not in tried and not verdicts[node.facts.node_id]
    }
    for rules in verdicts.values():
        seen[rules[0] if rules else "permitted"] += 1
    seen["selected" if isinstance(made, Selection) else "refused"] += 1
    if isinstance(made, Selection):
        if made.node_id not in usable:
            raise Violation(f"chose {made.node_id}, which breaks {verdicts[made.node_id]}: {policy} {wish}")
    elif usable:
        raise Violation(f"refused, though {sorted(usable)} may serve: {policy} {wish}")
    else:
        _check_counts(world, policy, made)


def _check_counts(world: World, policy: Policy | None, made: Refusal) -> None:
    """Of anybody else's nodes nothing is counted, and each of one's own once."""
    own = sum(policy is not None and node.facts.owner_id == policy.organisation_id for node in world.nodes)
    if sum(made.counts.values()) != own:
        raise Violation(f"counts {dict(made.counts)} where {own} nodes are one's own: {policy}")


def run(seed: int, decisions: int) -> Counter[str]:
    """Judge as many decisions, in worlds that all come of this seed.

    Returns:
        How often a node was permitted or first refused by each gate, and how many decisions chose or refused.

    Raises:
        Violation: one was wrong; it names the seed.
    """
    seen: Counter[str] = Counter()
    chance = Random(seed)
    world = World(chance)
    for number in range(decisions):
        if number % PER_WORLD == 0:
            world = World(chance)
        elif number % PER_ROUND == 0:
            world.change()
        try:
            check(world, number, seen)
        except Violation as violation:
            raise Violation(f"seed {seed}, decision {number}: {violation}") from None
    return seen
