"""The one result document that every command of ``porten-bench`` writes, and its reading.

Owns the schema ``porten.bench/1``: what is comparable (figures), what can be drawn (plots), and what a reader
must know (refusals, remarks). What breaks a reader raises the number; new fields with a default do not. No
key, prompt or answer is in it. Must not know what is measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from benchmarks.errors import ResultUnreadable
from benchmarks.figures.bounds import Better, Bound, Figure
from benchmarks.figures.statistics import Interval

SCHEMA: Final = "porten.bench/1"
_FAMILY: Final = "porten.bench/"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The bound of a figure, in its unit, and what the figure says of it."""

    value: float
    at_least: bool = False
    verdict: str | None = None


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One figure as it is written.

    Attributes:
        key: what the figure is called by programs; unique and stable within its benchmark.
        name: what people call it, within its group.
        unit: of all numbers here; ``x`` for a ratio of two sides that took turns.
        better: whether less or more of it is better, or neither.
        value: none where nothing could be measured.
        low: lower end of the interval of the value, where there is one.
        high: its upper end.
        confidence: with which the value lies within the interval.
        values: one of each round or batch, of which the value is the median.
        bound: what it is to keep.
        direct: what the side that it is measured against reached, in words.
        via: what the measured side reached, in words.
        objective: what it counts as good, where it counts that.
    """

    key: str
    name: str
    unit: str
    better: Better
    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    values: list[float] = []
    bound: Limit | None = None
    direct: str = ""
    via: str = ""
    objective: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that belong together: a load, a part.

    Attributes:
        sides: names of the two, where one thing was measured against another.
        detail: other groups tell the same in short; it is shown after everything else.
    """

    title: str
    figures: list[Value]
    sides: list[str] = []
    detail: bool = False


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plot: as many x as y, and as many lower and upper ends of y, or none."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] = []
    high: list[float] = []


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What an axis tells, and in which unit; of bars, `labels` are the names of x = 0, 1, 2 and on."""

    name: str
    unit: str = ""
    log: bool = False
    labels: list[str] = []


PlotKind = Literal["cdf", "curve", "timeline", "bars"]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """What can be drawn of a result.

    Attributes:
        key: what the plot is called by programs, as a figure is: plots of one key are laid over each other.
        kind: a distribution (y from 0 to 1), one quantity by another, something over seconds, or bars.
        marks: x positions to be marked, by their name: the end of the warm-up, the knee.
    """

    key: str
    title: str
    kind: PlotKind
    x: Axis
    y: Axis
    lines: list[Line]
    marks: dict[str, float] = {}


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a reader must know, with a stable code for programs."""

    code: str
    text: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """How a result came about.

    Attributes:
        at: ISO 8601, UTC.
        command: the command line; it never holds a key.
        environment: machine and versions.
        quick: it was made to show that it works, with too few rounds for figures.
    """

    at: str
    command: list[str]
    environment: dict[str, object]
    quick: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole result.

    Attributes:
        schema: ``porten.bench/1``.
        benchmark: the command: serving, overhead, tunnel.
        settings: everything that decided the measurement.
        refusals: why the figures are not to be believed. Empty in a sound result.
        remarks: what else to know: failures, a meter near its limit, counts that were guessed.
        interrupted: it was stopped before its end, and holds what was complete by then.
        details: of this benchmark alone; free of form.
    """

    schema: str = SCHEMA
    benchmark: str
    made: Made
    settings: dict[str, object]
    groups: list[Group]
    plots: list[Plot] = []
    refusals: list[Remark] = []
    remarks: list[Remark] = []
    interrupted: bool = False
    details: dict[str, object] = {}

    def figures(self) -> Iterator[tuple[Group, Value]]:
        """Every figure with its group."""
        return ((group, figure) for group in self.groups for figure in group.figures)


class _Named(msgspec.Struct):
    schema: str = ""


def group(title: str, figures: list[Figure], *, sides: tuple[str, str] | None = None) -> Group:
    """Figures as they are written; ``sides`` where one thing was measured against another."""
    return Group(title=title, figures=[value(figure) for figure in figures], sides=list(sides or ()))


def value(figure: Figure) -> Value:
    """One figure as it is written."""
    found = figure.found
    interval = found if isinstance(found, Interval) else None
    return Value(
        key=figure.key,
        name=figure.name,
        unit=figure.unit,
        better=figure.better,
        value=interval.median if interval else found if isinstance(found, int | float) else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        confidence=interval.confidence if interval else None,
        values=list(interval.values) if interval else [],
        bound=_limit(figure, figure.bound),
        direct=figure.direct,
        via=figure.via,
        objective=figure.objective,
    )


def _limit(figure: Figure, bound: Bound | None) -> Limit | None:
    if bound is None:
        return None
    return Limit(value=bound.limit, at_least=bound.at_least, verdict=figure.verdict)


def to_json(result: Result) -> bytes:
    """The document, indented, since people look into it too, with a line end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def write(result: Result, path: Path) -> None:
    """Write the document.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_bytes(to_json(result))


def read(path: Path) -> Result:
    """Read a document that some version of ``porten-bench`` wrote.

    Raises:
        ResultUnreadable: it is not there, is none, or is of a schema that this version does not know.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultUnreadable(f"cannot read {path}: {error.strerror}") from error
    try:
        schema = msgspec.json.decode(data, type=_Named).schema
    except (msgspec.DecodeError, RecursionError) as error:
        raise ResultUnreadable(f"{path} is no result of porten-bench: {error}") from error
    if schema != SCHEMA:
        raise ResultUnreadable(_other_schema(path, schema))
    try:
        result = msgspec.json.decode(data, type=Result)
    except msgspec.DecodeError as error:
        raise ResultUnreadable(f"{path} is damaged: {error}") from error
    _check_keys(path, result)
    return result


def _check_keys(path: Path, result: Result) -> None:
    for what, keys in (
        ("figures", [figure.key for _, figure in result.figures()]),
        ("plots", [plot.key for plot in result.plots]),
    ):
        if len(set(keys)) != len(keys):
            raise ResultUnreadable(f"{path} is damaged: two {what} have the same key")
    for plot in result.plots:
        if not all(_is_even(line) and _is_labelled(line, plot.x.labels) for line in plot.lines):
            raise ResultUnreadable(
                f"{path} is damaged: a line of the plot {plot.key!r} does not fit together"
            )


def _is_even(line: Line) -> bool:
    ends = [end for end in (line.low, line.high) if end]
    return len(ends) != 1 and all(len(each) == len(line.x) for each in (line.y, *ends))


def _is_labelled(line: Line, labels: list[str]) -> bool:
    return not labels or all(0 <= x < len(labels) for x in line.x)


def _other_schema(path: Path, schema: str) -> str:
    if not schema.startswith(_FAMILY) and not schema.startswith("porten.bench."):
        return f"{path} is no result of porten-bench: write one with --json FILE"
    return (
        f"{path} has schema {schema!r}, and this version reads {SCHEMA!r}: measure again, or use that version"
    )
