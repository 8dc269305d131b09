"""The predicate that keeps Porten's promise: may a key's request run on this node?

Owns owner, region, trust class, sharing and narrowing, and nothing else does: every path that chooses a node
asks :func:`permits` at the moment of choice. It must not know sockets, storage, the clock, load or liveness.

It is total and it fails closed. Whatever is missing, unknown or of the wrong type refuses; there is no
argument that widens what a policy allows, and a narrowing can only take away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Fleet(StrEnum):
    """Whose nodes a key may use, from narrow to wide."""

    OWN = "own"
    SHARED = "shared"
    ANY = "any"


class TrustClass(IntEnum):
    """How far a node is trusted; the order is the meaning."""

    COMMUNITY = 1
    VERIFIED = 2
    TRUSTED = 3
    CONFIDENTIAL = 4

    @classmethod
    def parse(cls, text: str) -> TrustClass:
        """Read a class by its name, in any case.

        Raises:
            ValueError: there is no such class.
        """
        try:
            return cls[text.upper()]
        except KeyError:
            known = ", ".join(trust.label for trust in cls)
            raise ValueError(f"unknown trust class {text!r}; known: {known}") from None

    @property
    def label(self) -> str:
        """The name as people and stored rows write it."""
        return self.name.lower()


class SharingKind(StrEnum):
    """To whom a node's owner lends it."""

    PRIVATE = "private"
    ORGANISATIONS = "organisations"
    PUBLIC = "public"


class RegionAuthority(StrEnum):
    """Whose word makes a node's region count."""

    OPERATOR = "operator"
    OWNER = "owner"


class Gate(StrEnum):
    """What refused, in the order in which it is looked at."""

    POLICY = "policy"
    REVOKED = "revoked"
    OWNER = "owner"
    REGION = "region"
    TRUST = "trust"
    NARROWED = "narrowed"


@dataclass(frozen=True, slots=True)
class Sharing:
    """An owner's sharing rule; ``organisations`` counts only with the kind of that name."""

    kind: SharingKind = SharingKind.PRIVATE
    organisations: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, kind: str, organisations: Collection[str] = ()) -> Sharing:
        """Read a rule from its stored or posted parts.

        Raises:
            ValueError: there is no such kind.
        """
        return cls(SharingKind(kind), frozenset(organisations))


PRIVATE = Sharing()
"""The rule of a node whose owner said nothing."""


@dataclass(frozen=True, slots=True)
class RegionTree:
    """The operator's regions: each code with the code it lies in, ``None`` for a root."""

    parents: Mapping[str, str | None] = field(default_factory=dict)

    def __contains__(self, region: object) -> bool:
        return region in self.parents

    def contains(self, ancestor: str, region: str) -> bool:
        """Whether ``region`` is ``ancestor`` or lies in it. An unknown code lies and holds nowhere.

        A parent that is itself unknown ends the walk, and a cycle (which storage refuses, but a broken table
        could hold) ends it too: the walk is never longer than the tree.
        """
        if ancestor not in self.parents:
            return False
        here: str | None = region
        for _ in range(len(self.parents)):
            if here is None or here not in self.parents:
                return False
            if here == ancestor:
                return True
            here = self.parents[here]
        return False


@dataclass(frozen=True, slots=True)
class Policy:
    """The access rules of a key. No regions means anywhere."""

    organisation_id: str
    fleet: Fleet = Fleet.OWN
    regions: frozenset[str] = frozenset()
    minimum_trust: TrustClass = TrustClass.COMMUNITY


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the Hub holds about a node. Nothing in here was said by the node itself.

    ``trust`` and ``sharing`` are ``None`` where the stored value could not be read: it then serves nobody.
    ``draining`` is no rule of access and no gate: it says that the node is to get no new work, and
    :func:`hub.router.why_unable` obeys it.
    """

    node_id: str
    owner_id: str
    region: str | None
    region_confirmed: bool
    trust: TrustClass | None
    sharing: Sharing | None
    revoked: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What one request asks for on top of its key's policy (``X-Porten-Region``, ``X-Porten-Node``)."""

    region: str | None = None
    node_id: str | None = None


NO_NARROWING = Narrowing()


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the first gate that refused (``None`` when permitted)."""

    permitted: bool
    gate: Gate | None = None

    def __bool__(self) -> bool:
        return self.permitted


_PERMITTED = Decision(permitted=True)
_REFUSED = {gate: Decision(permitted=False, gate=gate) for gate in Gate}


def permits(  # noqa: PLR0911 - one return a gate, in their order
    policy: Policy | None, node: NodeFacts, regions: RegionTree, narrowing: Narrowing = NO_NARROWING
) -> Decision:
    """Decide whether a request under ``policy`` may run on ``node``.

    Args:
        policy: the key's rules; ``None`` where they are missing or could not be read.
        node: what the Hub holds about the node.
        regions: the operator's tree.
        narrowing: what the request itself asked for.
    """
    if policy is None or not _is_sound(
        policy.organisation_id, policy.fleet, policy.regions, policy.minimum_trust
    ):
        return _REFUSED[Gate.POLICY]
    if node.revoked is not False:
        return _REFUSED[Gate.REVOKED]
    if not _is_in_fleet(policy, node):
        return _REFUSED[Gate.OWNER]
    if policy.regions and not any(_lies_in(node, region, regions) for region in policy.regions):
        return _REFUSED[Gate.REGION]
    if not isinstance(node.trust, TrustClass) or node.trust < policy.minimum_trust:
        return _REFUSED[Gate.TRUST]
    if not _is_asked_for(node, regions, narrowing):
        return _REFUSED[Gate.NARROWED]
    return _PERMITTED


def read_policy(
    organisation_id: str, fleet: str, regions: Collection[str] | None, minimum_trust: str
) -> Policy | None:
    """Build a policy from stored text; ``None``, which refuses everything, where any part makes no sense."""
    if not organisation_id or regions is None or not all(isinstance(region, str) for region in regions):
        return None
    try:
        return Policy(organisation_id, Fleet(fleet), frozenset(regions), TrustClass.parse(minimum_trust))
    except ValueError:
        return None


def _is_sound(organisation_id: object, fleet: object, regions: object, minimum_trust: object) -> bool:
    # Taken as plain objects: what a type annotation promises is exactly what is checked here.
    return (
        bool(organisation_id)
        and isinstance(fleet, Fleet)
        and isinstance(regions, frozenset)
        and isinstance(minimum_trust, TrustClass)
    )


def _is_in_fleet(policy: Policy, node: NodeFacts) -> bool:
    sharing = node.sharing
    if not node.node_id or not node.owner_id or not isinstance(sharing, Sharing):
        return False
    if node.owner_id == policy.organisation_id:
        return True
    if policy.fleet is Fleet.OWN:
        return False
    if sharing.kind is SharingKind.ORGANISATIONS:
        return policy.organisation_id in sharing.organisations
    return policy.fleet is Fleet.ANY and sharing.kind is SharingKind.PUBLIC


def _lies_in(node: NodeFacts, region: str, regions: RegionTree) -> bool:
    return node.region_confirmed is True and node.region is not None and regions.contains(region, node.region)


def _is_asked_for(node: NodeFacts, regions: RegionTree, narrowing: Narrowing) -> bool:
    if narrowing.node_id is not None and narrowing.node_id != node.node_id:
        return False
    return narrowing.region is None or _lies_in(node, narrowing.region, regions)
