"""Where a node stands and who may use it: the fields that approving and changing a node share.

Pure. Owns the fields' names, defaults (the safe side) and every complaint about them. Only an operator's word
sets a trust class: what anybody else posts there is not even read. Knows nothing of storage.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from hub.identifiers import NAME_LIMIT
from hub.policy import RegionAuthority, RegionTree, Sharing, SharingKind, TrustClass
from hub.portal.forms import Form
from hub.portal.presenting import bytes_text, trust_text
from hub.storage.records import Node
from tunnel.identity import fingerprint

MAX_ORGANISATIONS = 100
CHANGED: Mapping[str, str] = MappingProxyType(
    {
        "name": "Somebody has changed this node since this page was opened, so nothing was saved. "
        "Below is what holds now: change it again."
    }
)
"""What a form says that was open meanwhile."""
_BETWEEN = re.compile(r"[\s,]+")
_ORGANISATION = re.compile(r"org_[a-z2-7]{20}")
_DEVICE_KINDS = {"cpu": "CPU", "cuda": "NVIDIA GPU", "metal": "Apple GPU"}


@dataclass(frozen=True, slots=True)
class PlacementForm:
    """The fields as they stand in the form."""

    name: str
    region: str = ""
    trust: str = TrustClass.COMMUNITY.label
    sharing: str = SharingKind.PRIVATE.value
    organisations: str = ""

    @property
    def trust_words(self) -> str:
        """The trust class for those who cannot choose it."""
        try:
            return trust_text(TrustClass.parse(self.trust))
        except ValueError:
            return trust_text(None)

    @classmethod
    def of_node(cls, node: Node) -> "PlacementForm":
        """Show what is stored; what cannot be read is shown as the safest choice."""
        trust = node.trust or TrustClass.COMMUNITY
        sharing = node.sharing or Sharing()
        organisations = "\n".join(sorted(sharing.organisations))
        return cls(node.name, node.region or "", trust.label, sharing.kind.value, organisations)

    def typed(self, form: Form, *, may_set_trust: bool) -> "PlacementForm":
        """Keep what was typed, and what is here already where nothing was."""
        return replace(
            self,
            name=form.get("name", self.name),
            region=form.get("region", self.region),
            trust=form.get("trust", self.trust) if may_set_trust else self.trust,
            sharing=form.get("sharing", self.sharing),
            organisations=form.get("organisations", self.organisations),
        )


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What a sound form asks for; whether the visitor may decide it is `hub.placement`'s rule."""

    name: str
    region: str | None
    trust: TrustClass
    sharing: Sharing


def read_placement(
    typed: PlacementForm, regions: RegionTree
) -> tuple[PlacementRequest | None, dict[str, str]]:
    """Read the fields; returns what they ask for, or None with one sentence for each to put right."""
    errors: dict[str, str] = {}
    if not typed.name:
        errors["name"] = "Give the node a name."
    elif len(typed.name) > NAME_LIMIT or not typed.name.isprintable():
        errors["name"] = f"The name must be printable and at most {NAME_LIMIT} characters long."
    if typed.region and typed.region not in regions:
        errors["region"] = f"There is no region {typed.region[:40]!r} on this Hub. Choose from the list."
    trust = _trust(typed.trust, errors)
    sharing = _sharing(typed, errors)
    if errors or trust is None or sharing is None:
        return None, errors
    return PlacementRequest(typed.name, typed.region or None, trust, sharing), {}


def _trust(text: str, errors: dict[str, str]) -> TrustClass | None:
    try:
        return TrustClass.parse(text)
    except ValueError:
        errors["trust"] = "Choose a trust class from the list."
        return None


def _sharing(typed: PlacementForm, errors: dict[str, str]) -> Sharing | None:
    try:
        kind = SharingKind(typed.sharing)
    except ValueError:
        errors["sharing"] = "Choose who may use the node."
        return None
    if kind is not SharingKind.ORGANISATIONS:
        return Sharing(kind)
    named = frozenset(name for name in _BETWEEN.split(typed.organisations) if name)
    wrong = sorted(name for name in named if not _ORGANISATION.fullmatch(name))
    if not named:
        errors["organisations"] = "Name at least one organisation, or choose private."
    elif wrong:
        errors["organisations"] = f"{wrong[0][:40]!r} is no organisation id. Write one id a line."
    elif len(named) > MAX_ORGANISATIONS:
        errors["organisations"] = f"At most {MAX_ORGANISATIONS} organisations."
    return Sharing(kind, named)


def region_hint(authority: RegionAuthority, *, is_operator: bool) -> str:
    """Say what choosing a region does."""
    if is_operator:
        return "Where the machine stands. As operator you confirm it by saving."
    if authority is RegionAuthority.OWNER:
        return "Where the machine stands. Keys rely on it, so it must be true."
    return "Where the machine stands. It counts once the Hub's operator confirms it."


@dataclass(frozen=True, slots=True)
class MachineView:
    """What a machine said about itself: shown, never judged."""

    hostname: str
    system: str
    devices: tuple[str, ...]
    fingerprint: str
    agent: str


def machine_view(machine: Mapping[str, Any], public_key: str) -> MachineView:
    """Describe a machine; anything missing or of the wrong kind is left out.

    The fingerprint is of the key it sent, whatever it says of it: who phishes for an approval may claim any.
    """
    devices = machine.get("devices")
    system = " on ".join(part for part in (_text(machine, "os"), _text(machine, "arch")) if part)
    return MachineView(
        hostname=_text(machine, "hostname"),
        system=system or "unknown",
        devices=tuple(_device(device) for device in devices if isinstance(device, Mapping))
        if isinstance(devices, list | tuple)
        else (),
        fingerprint=fingerprint(public_key) if public_key else "",
        agent=_text(machine, "agent"),
    )


def _text(values: Mapping[str, Any], name: str) -> str:
    # Somebody decides by these words: what prints as nothing, or turns text around, is left out.
    value = values.get(name)
    return "".join(filter(str.isprintable, value)) if isinstance(value, str) else ""


def _device(device: Mapping[str, Any]) -> str:
    kind = _text(device, "kind")
    memory = device.get("memory_total")
    parts = [_DEVICE_KINDS.get(kind, kind), _text(device, "name")]
    if isinstance(memory, int) and memory > 0:
        parts.append(bytes_text(memory))
    return ", ".join(part for part in parts if part)
