"""Who may run where, by BEHAVIOUR's words alone: the brute-force judge that the Hub's policy is held to.

Nothing of the Hub decides here. Values are the plain words that people write and rows store; where
something lies is a set of pairs grown to a fixed point; whom a node is lent to is a set as well; and the
rules are a table of which every row is always looked at. `plain_key` and `plain_node` translate the Hub's
own records, and nothing more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

TRUST = ("community", "verified", "trusted", "confidential")
"""The classes, from the least to the most."""
FLEETS = {"own": {"mine"}, "shared": {"mine", "lent to us"}, "any": {"mine", "lent to us", "lent to all"}}
"""What a node must be to an organisation for its key to reach it."""


@dataclass(frozen=True)
class Key:
    """The rules of a key; `organisation` is whose it is."""

    organisation: str
    fleet: str
    regions: frozenset[str]
    least_trust: str


@dataclass(frozen=True)
class Machine:
    """A node; `trust` and `sharing` are None where nobody can read them."""

    id: str
    owner: str
    region: str | None
    confirmed: bool
    trust: str | None
    sharing: str | None
    lent_to: frozenset[str]
    revoked: bool


@dataclass(frozen=True)
class Wish:
    """What a request's own headers ask for."""

    region: str | None = None
    node: str | None = None


NO_WISH = Wish()


@dataclass(frozen=True)
class Case:
    """One question."""

    key: Key
    machine: Machine
    inside: frozenset[tuple[str, str]]
    wish: Wish

    def stands_in(self, region: str) -> bool:
        """A place counts once it is confirmed."""
        return self.machine.confirmed and (self.machine.region, region) in self.inside


def inside(tree: Mapping[str, str | None]) -> frozenset[tuple[str, str]]:
    """Every pair (place, region around it): each known code itself, its parent, that one's parent, and on."""
    return _closure(frozenset(tree.items()))


@lru_cache(maxsize=10_000)
def _closure(tree: frozenset[tuple[str, str | None]]) -> frozenset[tuple[str, str]]:
    known = {code for code, _ in tree}
    pairs = {(code, code) for code in known} | {(code, parent) for code, parent in tree if parent in known}
    while True:
        grown = pairs | {(low, high) for low, middle in pairs for other, high in pairs if middle == other}
        if grown == pairs:
            return frozenset(pairs)
        pairs = grown


def relations(machine: Machine, organisation: str) -> set[str]:
    """What a node is to an organisation; without an owner or a readable sharing rule, nothing to anybody."""
    if not machine.id or not machine.owner or machine.sharing is None:
        return set()
    found = {
        "mine": machine.owner == organisation,
        "lent to us": machine.sharing == "organisations" and organisation in machine.lent_to,
        "lent to all": machine.sharing == "public",
    }
    return {name for name, holds in found.items() if holds}


RULES: Mapping[str, Callable[[Case], bool]] = {
    "revoked": lambda case: not case.machine.revoked,
    "owner": lambda case: bool(FLEETS[case.key.fleet] & relations(case.machine, case.key.organisation)),
    "region": lambda case: not case.key.regions or any(map(case.stands_in, case.key.regions)),
    "trust": lambda case: case.machine.trust in TRUST[TRUST.index(case.key.least_trust) :],
    "narrowed": lambda case: (
        case.wish.node in (None, case.machine.id)
        and (case.wish.region is None or case.stands_in(case.wish.region))
    ),
}
"""By gate, in the documented order: what must hold."""


def broken(
    key: Key | None, machine: Machine, tree: Mapping[str, str | None], wish: Wish = NO_WISH
) -> list[str]:
    """Every rule that running there would break, in the gates' order; none where it may run."""
    if key is None:
        return ["policy"]
    case = Case(key, machine, inside(tree), wish)
    return [name for name, holds in RULES.items() if not holds(case)]


def plain_key(policy: object) -> Key | None:
    """A `hub.policy.Policy` in plain words."""
    if policy is None:
        return None
    least = policy.minimum_trust.name.lower()
    return Key(policy.organisation_id, policy.fleet.value, frozenset(policy.regions), least)


def plain_node(facts: object) -> Machine:
    """A `hub.policy.NodeFacts` in plain words."""
    return Machine(
        id=facts.node_id,
        owner=facts.owner_id,
        region=facts.region,
        confirmed=facts.region_confirmed,
        trust=None if facts.trust is None else facts.trust.name.lower(),
        sharing=None if facts.sharing is None else facts.sharing.kind.value,
        lent_to=frozenset() if facts.sharing is None else facts.sharing.organisations,
        revoked=facts.revoked,
    )


def plain_wish(narrowing: object) -> Wish:
    """A `hub.policy.Narrowing` in plain words."""
    return Wish(narrowing.region, narrowing.node_id)


def judge(policy: object, facts: object, tree: object, narrowing: object | None = None) -> list[str]:
    """`broken` for the Hub's own records."""
    wish = NO_WISH if narrowing is None else plain_wish(narrowing)
    return broken(plain_key(policy), plain_node(facts), tree.parents, wish)
