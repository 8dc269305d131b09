"""Dispatch decisions by the hundred thousand: worlds drawn by chance, changed in mid-flight, all judged.

A world is a tree of regions (broken ones among them), nodes of some organisations, keys and wishes.
Everything in it comes of one seed, so that a violation is told with the number that repeats it. Every
decision is made twice: by `select_replica`, which looks at all nodes, and by the `Chooser` that requests
meet, out of an index that each change is told to. Whether each was right is the oracle's word, in both
directions: what was chosen may serve, and where nothing was chosen nothing could have.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from hub.affinity import RING_MASK
from hub.choosing import Asked, Chooser
from hub.offers import OfferIndex
from hub.policy import Fleet, Narrowing, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from hub.router import Candidate, ModelState, Refusal, Selection, grade, select_replica
from tests.unit.hub.oracle import broken, plain_key, plain_node, plain_wish

CODES = ["eu", "eu-de", "eu-de-fra", "eu-fr", "us", "us-ny", "x", "y"]
ORGANISATIONS = ["org_a", "org_b", "org_c", "org_d"]
MOSTLY = [*ORGANISATIONS, "org_a", "org_a", "org_b"]
PER_WORLD = 250
PER_ROUND = 25
MODEL = "m"
CROWDED = 10_000  # requests on a node that is full whatever its slots


class Violation(AssertionError):
    """A decision that the oracle does not agree with."""


@dataclass
class World:
    """What a decision depends on. Each thing is replaced as a whole when it changes.

    To the chooser it is what the registry is: it files nodes in the index as the registry does.
    """

    chance: Random
    regions: RegionTree = field(init=False)
    known: dict[str, Candidate] = field(init=False, default_factory=dict)
    keys: list[Policy | None] = field(init=False)
    wishes: list[Narrowing] = field(init=False)

    def __post_init__(self) -> None:
        self.index = OfferIndex()
        self.chooser = Chooser(self.index, self)
        self.regions = self.new_tree()
        for number in range(self.chance.randint(1, 12)):
            self.put(self.new_node(f"n{number}"))
        self.keys = [self.new_key() for _ in range(5)]
        self.wishes = [Narrowing()] * 4 + [self.new_wish() for _ in range(3)]

    @property
    def nodes(self) -> list[Candidate]:
        """All there are."""
        return list(self.known.values())

    def put(self, node: Candidate) -> None:
        """A node is so from here on."""
        self.known[node.facts.node_id] = node
        if not node.online:
            self.index.remove(node.facts.node_id)
        elif not node.reported:
            self.index.file_pending(node.facts)
        else:
            place = grade(node)
            self.index.file(node.facts, {} if place is None else {MODEL: place})

    def candidate(self, node_id: str, _model: str) -> Candidate | None:
        """A node as it is now."""
        return self.known.get(node_id)

    def own(self, organisation_id: str) -> Iterator[str]:
        """The nodes of an organisation."""
        return (name for name, node in self.known.items() if node.facts.owner_id == organisation_id)

    is_reading = False

    def refile(self, node_id: str, _model: str) -> None:
        """Every change was told: no node stands anywhere but where it belongs."""
        raise Violation(f"{node_id} is misfiled")

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
            draining=chance.choice([False] * 18 + [True, None]),
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
        chance, what = self.chance, self.chance.random()
        node = chance.choice(self.nodes)
        if what < 0.4:
            self.put(replace(node, facts=self.new_facts(node.facts.node_id)))
        elif what < 0.45:
            self.put(replace(node, facts=replace(node.facts, revoked=True)))
        elif what < 0.5:
            self.put(replace(node, facts=replace(node.facts, draining=not node.facts.draining)))
        elif what < 0.65:
            self.put(self.new_node(node.facts.node_id))
        elif what < 0.9:
            self.keys[chance.randrange(len(self.keys))] = self.new_key()
        else:
            self.regions = self.new_tree()


def able(node: Candidate) -> bool:
    """Whether a permitted node could serve, by what its fields say."""
    offered = node.model_state is not None and (node.fits or node.model_state is not ModelState.COLD)
    takes_work = node.accepting and node.facts.draining is False
    return node.online and node.reported and takes_work and offered and node.in_flight < CROWDED


def check(world: World, number: int, seen: Counter[str]) -> None:
    """Make one decision and judge it.

    Raises:
        Violation: it was wrong.
    """
    chance, policy, wish = world.chance, world.chance.choice(world.keys), world.chance.choice(world.wishes)
    tried = frozenset({"n0"}) if chance.random() < 0.1 else frozenset()
    home = chance.getrandbits(64) & RING_MASK if chance.random() < 0.3 else None
    verdicts = _verdicts(world, policy, wish)
    usable = {
        node.facts.node_id
        for node in world.nodes
        if able(node) and node.facts.node_id not in tried and not verdicts[node.facts.node_id]
    }
    options = {"exclude": tried, "tie_break": str(number), "affinity": home}
    scanned = select_replica(policy, MODEL, world.nodes, world.regions, wish, **options)
    asked = Asked(policy=policy, model=MODEL, narrowing=wish, **options)
    found = world.chooser.find(asked) or world.chooser.refusal(asked)
    for how, made in (("scanned", scanned), ("found", found)):
        try:
            _judge(world, policy, made, usable)
        except Violation as violation:
            raise Violation(f"{how}: {violation}; {policy} {wish} {verdicts}") from None
    for rules in verdicts.values():
        seen[rules[0] if rules else "permitted"] += 1
    seen["selected" if isinstance(scanned, Selection) else "refused"] += 1


def _verdicts(world: World, policy: Policy | None, wish: Narrowing) -> dict[str, list[str]]:
    """What the oracle says of each node."""
    key, asked, tree = plain_key(policy), plain_wish(wish), world.regions.parents
    return {name: broken(key, plain_node(node.facts), tree, asked) for name, node in world.known.items()}


def _judge(world: World, policy: Policy | None, made: Selection | Refusal, usable: set[str]) -> None:
    if isinstance(made, Refusal) and not usable:
        _check_counts(world, policy, made)
    elif isinstance(made, Refusal):
        raise Violation(f"refused, though {sorted(usable)} may serve")
    elif made.node_id not in usable:
        raise Violation(f"chose {made.node_id}")


def _check_counts(world: World, policy: Policy | None, made: Refusal) -> None:
    """Of anybody else's nodes nothing is counted, and each of one's own once."""
    own = sum(policy is not None and node.facts.owner_id == policy.organisation_id for node in world.nodes)
    if sum(made.counts.values()) != own:
        raise Violation(f"counts {dict(made.counts)} where {own} nodes are one's own")


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
