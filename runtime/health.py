"""What a node must be again after its program was changed. Pure: status documents in, words out.

Owns what counts as sound. Must not know how a node is asked, or what follows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.findings import Finding, Verdict

_CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the node was before, as far as the change of its program must leave it so.

    Attributes:
        program: the environment that it shall run from.
        was_connected: it had a session with its Hub.
        was_accepting: it took requests.
        models: what it offered, and whether that fitted.
    """

    program: str
    was_connected: bool = False
    was_accepting: bool = False
    models: Mapping[str, bool] = field(default_factory=dict)


def expected_of(before: Mapping[str, Any] | None, program: str) -> Expected:
    """The node as its document showed it; of one that did not answer nothing but that it runs."""
    if before is None:
        return Expected(program)
    return Expected(
        program=program,
        was_connected=before["tunnel"]["state"] == _CONNECTED,
        was_accepting=before["accepting"],
        models={view["model"]: view["fits"] for view in before["models"]},
    )


def shortfall(expected: Expected, now: Mapping[str, Any] | None) -> str | None:
    """What the node lacks first, in words that go on from "the node"; None where it is sound."""
    if now is None:
        return "does not answer"
    return next(_shortfalls(expected, now), None)


def _shortfalls(expected: Expected, now: Mapping[str, Any]) -> Iterator[str]:
    if now.get("program") != expected.program:
        yield f"runs from {now.get('program')}"
    if now["reason"] == "stopping":
        yield "is stopping"
    if expected.was_connected and now["tunnel"]["state"] != _CONNECTED:
        yield f"has no session with its Hub ({now['tunnel']['state']})"
    fits = {view["model"]: view["fits"] for view in now["models"]}
    if lost := sorted(expected.models.keys() - fits.keys()):
        yield f"does not offer {', '.join(lost)} any more"
    if lost := sorted(model for model, did in expected.models.items() if did and not fits.get(model)):
        yield f"finds no place for {', '.join(lost)} any more"
    if expected.was_accepting and not now["accepting"]:
        yield f"takes no requests ({now['reason']})"


def new_failures(before: Iterable[Finding], after: Iterable[Mapping[str, str]]) -> list[str]:
    """What `porten doctor` of the other version finds wrong that this one looked at and found well.

    What only the other looks at says nothing against it.
    """
    was_well = {finding.subject for finding in before if finding.verdict is not Verdict.FAILED}
    return [
        f"{finding['subject']}: {finding['found']}"
        for finding in after
        if finding["verdict"] == Verdict.FAILED and finding["subject"] in was_well
    ]
