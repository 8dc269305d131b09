"""What `porten doctor` says of one thing that it looked at. Values only."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is: a warning leaves the node serving."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in words for the owner; what is not well has a remedy."""

    verdict: Verdict
    subject: str
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """Nothing is to be done."""
    return Finding(Verdict.OK, subject, found)


def warning(subject: str, found: str, remedy: str) -> Finding:
    """The node serves all the same."""
    return Finding(Verdict.WARNING, subject, found, remedy)


def failed(subject: str, found: str, remedy: str) -> Finding:
    """Something must be done."""
    return Finding(Verdict.FAILED, subject, found, remedy)


def gigabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB"
