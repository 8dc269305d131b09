"""What people may decide about a node: its name, region, trust class and sharing.

Owns the rule of who decides what. Only an operator's word makes a region count (unless the Hub is set to
trust owners) and only an operator raises a trust class, since other organisations' keys rely on both. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from hub.errors import InvalidInput, NotAllowed, Outdated
from hub.identifiers import checked_name
from hub.policy import PRIVATE, RegionTree, Sharing, SharingKind, TrustClass
from hub.storage.records import Authority, Node


@dataclass(frozen=True, slots=True)
class Placement:
    """What the Hub holds about a node, as decided by an account that may decide it."""

    name: str
    region: str | None
    region_confirmed: bool
    trust: TrustClass
    sharing: Sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementChange:
    """What somebody wants to be another; what is not said stays.

    ``region`` may be wished away, so ``says_region`` tells whether it is said. What cannot be read of a node
    and is not said becomes the narrowest. ``seen`` is what `rules_seen` said of the node that it rests on,
    where it rests on one.
    """

    name: str | None = None
    region: str | None = None
    says_region: bool = False
    trust: TrustClass | None = None
    sharing: Sharing | None = None
    seen: str | None = None

    def of(self, node: Node) -> Placement:
        """What the node is to be."""
        return Placement(
            name=self.name or node.name,
            region=self.region if self.says_region else node.region,
            region_confirmed=node.region_confirmed,
            trust=self.trust or node.trust or TrustClass.COMMUNITY,
            sharing=self.sharing or node.sharing or PRIVATE,
        )


def rules_seen(node: Node) -> str:
    """Names, as hex, the rules that somebody saw of a node: another as soon as one of them has changed."""
    trust = None if node.trust is None else node.trust.label
    sharing = node.sharing and (node.sharing.kind.value, sorted(node.sharing.organisations))
    return hashlib.sha256(msgspec.json.encode((node.region, trust, sharing))).hexdigest()


def check_seen(node: Node, seen: str | None) -> None:
    """Hold a change to the rules that it rests on, so that nobody brings back what was narrowed meanwhile.

    Args:
        node: as it is.
        seen: what `rules_seen` said of it; ``None`` where the change rests on no look at it.

    Raises:
        Outdated: its rules are others by now.
    """
    if seen is not None and seen != rules_seen(node):
        raise Outdated("node")


def require_manager(account: Authority) -> None:
    """Let only those on who may approve and change nodes.

    Raises:
        NotAllowed: the account's role does not reach this far.
    """
    if not account.role.may_manage:
        raise NotAllowed("only operators, owners and administrators may approve and change nodes")


def require_operator(account: Authority) -> None:
    """Let only those on whose word counts for the whole Hub.

    Raises:
        NotAllowed: the account's role does not reach this far.
    """
    if not account.is_operator:
        raise NotAllowed("only operators of this Hub may decide that")


def placement_of(node: Node) -> Placement:
    """What the Hub holds about a node now.

    Raises:
        InvalidInput: its trust class or its sharing rule cannot be read.
    """
    if node.trust is None or node.sharing is None:
        raise InvalidInput("node", "what is stored of it cannot be read: save it on its own page first")
    return Placement(node.name, node.region, node.region_confirmed, node.trust, node.sharing)


def decide(
    account: Authority,
    asked: Placement,
    *,
    node: Node | None,
    regions: RegionTree,
    organisations: Collection[str],
    says_region: bool = True,
) -> Placement:
    """Check what an account asks for, and decide whether its region is confirmed.

    Args:
        account: who asks; an operator's choice of region is a confirmed one.
        asked: the wish; its ``region_confirmed`` is not looked at.
        node: the node as it is, ``None`` for a new one. What does not change needs nobody's leave.
        regions: the operator's tree.
        organisations: ids that exist, for sharing.
        says_region: the account says the region, which an operator confirms by it; else it merely stays.

    Raises:
        InvalidInput: a field cannot be accepted.
    """
    if asked.region is not None and asked.region not in regions:
        raise InvalidInput("region", f"there is no region {asked.region!r} on this Hub")
    before = TrustClass.COMMUNITY if node is None else node.trust
    if asked.trust is not before and not account.is_operator:
        raise InvalidInput("trust", "only an operator of this Hub sets the trust class")
    return Placement(
        name=checked_name(asked.name),
        region=asked.region,
        region_confirmed=_is_confirmed(account, asked.region, node, says_region=says_region),
        trust=asked.trust,
        sharing=_checked_sharing(asked.sharing, organisations),
    )


def _is_confirmed(account: Authority, region: str | None, node: Node | None, *, says_region: bool) -> bool:
    if region is None:
        return False
    unchanged = node is not None and node.region == region
    stays = unchanged and node is not None and node.region_confirmed
    return stays or (account.is_operator and says_region)


def _checked_sharing(sharing: Sharing, organisations: Collection[str]) -> Sharing:
    if sharing.kind is not SharingKind.ORGANISATIONS:
        return Sharing(sharing.kind)
    if not sharing.organisations:
        raise InvalidInput("organisations", "name at least one organisation to share with")
    for organisation in sorted(sharing.organisations):
        if organisation not in organisations:
            raise InvalidInput("organisations", f"there is no organisation {organisation!r} on this Hub")
    return sharing
