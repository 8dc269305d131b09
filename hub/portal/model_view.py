"""A model as people see it: what it is, and how it stands among an organisation's nodes.

Pure: takes catalog entries, counts and what nodes reported. Knows nothing of requests or templates.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hub.portal.node_view import percent_of
from hub.portal.presenting import bytes_text, counted, number_text
from hub.tallies import Tally
from models.catalog import HuggingFaceSource, ModelSpec, WheelSource
from tunnel.messages import ModelStatus

CAPABILITIES = ("chat", "completions", "embeddings", "rerank", "tools", "vision", "responses", "messages")
"""What a list can be narrowed to: the catalog's words, and the protocols that engines speak beside."""
FORMATS = {"gguf": "GGUF", "safetensors": "safetensors"}
_QUANTISATION = re.compile(
    r"(?<![A-Za-z0-9])(I?Q\d(?:_[A-Z0-9]{1,3})*|BF16|F16|F32|FP16|FP8|INT8|INT4|MXFP4|AWQ|GPTQ)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a model is, as far as anybody says it; empty where nobody does."""

    name: str
    form: str
    quantisation: str
    size: str
    context: str
    capabilities: tuple[str, ...]
    license: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """One way in which some of its nodes stand, in words; `tone` is a pill's."""

    words: str
    tone: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model of the list.

    Attributes:
        id: its id.
        traits: what it is.
        standings: how its nodes stand; none for one that no connected node names.
        on_disk: on how many nodes its weights are.
        phase: of the load that is furthest, if any, with `percent` where the node can tell.
        nodes: how many nodes of its own an organisation may use for it; 0 where none is connected.
    """

    id: str
    traits: Traits
    standings: tuple[Standing, ...]
    on_disk: str
    phase: str | None
    percent: int | None
    nodes: int


def traits_of(model: str, spec: ModelSpec | None, report: ModelStatus | None) -> Traits:
    """Describe a model by the catalog, and where that says nothing by a node's word."""
    size = report.size_bytes if report and report.size_bytes else spec.size_bytes if spec else None
    context = report.context_length if report and report.context_length else None
    context = context or (spec.context_length if spec else None)
    said = {*(spec.capabilities if spec else ()), *(report.capabilities if report else ())}
    return Traits(
        name=spec.name if spec else model,
        form=FORMATS.get(spec.format, spec.format) if spec else "",
        quantisation=quantisation(model, spec),
        size=bytes_text(size) if size else "",
        context=f"{number_text(context)} tokens" if context else "",
        capabilities=tuple(sorted(said, key=_order)),
        license=spec.license if spec else "",
        description=spec.description if spec else "",
    )


def _order(capability: str) -> tuple[int, str]:
    place = CAPABILITIES.index(capability) if capability in CAPABILITIES else len(CAPABILITIES)
    return place, capability


def quantisation(model: str, spec: ModelSpec | None) -> str:
    """Read how the weights are quantised out of the names that they go by; empty where none says it."""
    for text in (*_files(spec), spec.name if spec else "", model):
        if match := _QUANTISATION.search(text):
            return match[1].upper()
    return ""


def _files(spec: ModelSpec | None) -> Iterable[str]:
    match spec.source if spec else None:
        case WheelSource(member=member):
            yield member.rpartition("/")[2]
        case HuggingFaceSource(file=file, files=files, repository=repository):
            yield from (*([file] if file else []), *files, repository)


def standings(tally: Tally) -> tuple[Standing, ...]:
    """Say how many nodes stand how, the readiest first."""
    ways = (
        (tally.ready, "ready", "good"),
        (tally.full, "ready, busy", "good"),
        (tally.warming, "loading", "warn"),
        (tally.cold, "on demand", "off"),
        (tally.unable, "not now", "bad"),
    )
    return tuple(Standing(f"{number_text(count)} {words}", tone) for count, words, tone in ways if count)


def model_view(model: str, spec: ModelSpec | None, tally: Tally, reports: Sequence[ModelStatus]) -> ModelView:
    """Join the catalog, the counts and what the readiest nodes said.

    Args:
        model: its id.
        spec: its entry, where the Hub's catalog has one.
        tally: how its nodes stand.
        reports: of some of them, the readiest first: all of them where they are few.
    """
    loading = max(
        (each for each in reports if each.state == "warming"),
        key=lambda each: _fraction(each) or 0,
        default=None,
    )
    return ModelView(
        id=model,
        traits=traits_of(model, spec, reports[0] if reports else None),
        standings=standings(tally),
        on_disk=_on_disk(sum(each.on_disk for each in reports), len(reports), tally.nodes),
        phase=(loading.phase or "loading") if loading else None,
        percent=percent_of(_fraction(loading)) if loading else None,
        nodes=tally.nodes,
    )


def _on_disk(found: int, looked_at: int, nodes: int) -> str:
    if not nodes:
        return ""
    if looked_at < nodes:
        return f"on disk on {found} of the {looked_at} nodes nearest to ready"
    if not found:
        return "not downloaded"
    return "on disk" if found == nodes else f"on disk on {found} of {counted(nodes, 'node')}"


def _fraction(report: ModelStatus) -> float | None:
    return report.done_bytes / report.total_bytes if report.total_bytes > 0 else None


def matches(view: ModelView, text: str, capability: str) -> bool:
    """Whether a filter shows a model: part of its id or name, in any case, and what it can do."""
    wanted = text.casefold()
    named = wanted in view.id.casefold() or wanted in view.traits.name.casefold()
    return named and (not capability or capability in view.traits.capabilities)
