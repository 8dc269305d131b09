"""Several results laid over each other: a section for each benchmark, a column and a line for each result.

Pure. Owns what belongs together by its key, and the names of results. Must not know how it is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reports.result import Axis, Line, Plot, PlotKind, Remark, Result, Value


@dataclass(frozen=True, slots=True)
class Named:
    """A result, and what it is called beside others."""

    name: str
    result: Result


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, with what each result says of it; `shown` is the first that has it."""

    shown: Value
    values: tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that belong together. Its sides are named where there is one result alone."""

    title: str
    sides: tuple[str, ...]
    rows: tuple[Row, ...]
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a drawing: of which result, and which of that result's lines."""

    name: str
    owner: int
    place: int
    line: Line


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked x of a drawing, and of which result it is."""

    name: str
    owner: int
    at: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """Plots of one key over each other."""

    key: str
    title: str
    kind: PlotKind
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """All results of one benchmark."""

    benchmark: str
    members: tuple[Named, ...]
    tables: tuple[Table, ...]
    drawings: tuple[Drawing, ...]

    @property
    def parts(self) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
        """The tables that tell what was found, and those that tell it in detail."""
        first = tuple(each for each in self.tables if not each.detail)
        return first, tuple(each for each in self.tables if each.detail)

    def is_narrow(self, tables: Sequence[Table]) -> bool:
        """Whether these tables are so narrow, and so many, that two fit beside each other."""
        return len(tables) > 1 and len(self.members) <= 2 and not any(each.sides for each in tables)

    @property
    def refusals(self) -> tuple[tuple[str, Remark], ...]:
        """Why figures are not to be believed, each with its result's name."""
        return tuple((each.name, refusal) for each in self.members for refusal in each.result.refusals)

    @property
    def remarks(self) -> tuple[tuple[str, Remark], ...]:
        """What else to know, each with its result's name."""
        return tuple((each.name, remark) for each in self.members for remark in _remarks(each.result))


def named(paths: Sequence[Path], results: Sequence[Result]) -> list[Named]:
    """Results by the names of their files, with as much of the folder as tells them apart."""
    return [Named(_name(path, paths), result) for path, result in zip(paths, results, strict=True)]


def sections(results: Sequence[Named]) -> list[Section]:
    """A section for each benchmark, in the order in which they come."""
    benchmarks = dict.fromkeys(each.result.benchmark for each in results)
    return [
        _section(name, [each for each in results if each.result.benchmark == name]) for name in benchmarks
    ]


def _name(path: Path, paths: Sequence[Path]) -> str:
    for parts in range(1, len(path.parts) + 1):
        name = "/".join(path.with_suffix("").parts[-parts:])
        if sum("/".join(other.with_suffix("").parts[-parts:]) == name for other in paths) == 1:
            return name
    return str(path.with_suffix(""))


def _section(benchmark: str, members: Sequence[Named]) -> Section:
    return Section(benchmark, tuple(members), tuple(_tables(members)), tuple(_drawings(members)))


def _remarks(result: Result) -> Iterator[Remark]:
    if result.interrupted:
        yield Remark(code="interrupted", text="It was interrupted: this is what was complete by then.")
    if result.made.quick:
        yield Remark(code="quick", text="It was made with --quick: it shows that it works, and no figures.")
    yield from result.remarks


def _tables(members: Sequence[Named]) -> Iterator[Table]:
    """Groups in the order of the first result that has them; what they hold is matched by its keys."""
    found = [{figure.key: figure for _, figure in each.result.figures()} for each in members]
    told: set[str] = set()
    for each in members:
        for group in each.result.groups:
            figures = [figure for figure in group.figures if figure.key not in told]
            told.update(figure.key for figure in figures)
            rows = tuple(Row(figure, tuple(one.get(figure.key) for one in found)) for figure in figures)
            if rows:
                sides = tuple(group.sides) if len(members) == 1 else ()
                yield Table(group.title, sides, rows, group.detail)


def _drawings(members: Sequence[Named]) -> Iterator[Drawing]:
    plots = [(owner, plot) for owner, each in enumerate(members) for plot in each.result.plots]
    for key in dict.fromkeys((plot.key, plot.kind, plot.y.unit) for _, plot in plots):
        same = [(owner, plot) for owner, plot in plots if (plot.key, plot.kind, plot.y.unit) == key]
        yield _drawing(same, members)


def _drawing(plots: Sequence[tuple[int, Plot]], members: Sequence[Named]) -> Drawing:
    first, many = plots[0][1], len(members) > 1
    labels = list(dict.fromkeys(label for _, plot in plots for label in plot.x.labels))
    return Drawing(
        key=first.key,
        title=first.title,
        kind=first.kind,
        x=Axis(name=first.x.name, unit=first.x.unit, log=first.x.log, labels=labels),
        y=first.y,
        series=tuple(
            Series(_of(members[owner], line.name, many=many), owner, place, _moved(line, plot.x, labels))
            for owner, plot in plots
            for place, line in enumerate(plot.lines)
        ),
        marks=tuple(Mark(name, owner, at) for owner, plot in plots for name, at in plot.marks.items()),
    )


def _of(member: Named, name: str, *, many: bool) -> str:
    return f"{member.name}: {name}" if many and name else member.name if many else name


def _moved(line: Line, axis: Axis, labels: Sequence[str]) -> Line:
    """The line, its x by where its labels stand among those of all."""
    if not axis.labels:
        return line
    places = [float(labels.index(axis.labels[int(x)])) for x in line.x]
    return Line(name=line.name, x=places, y=line.y, low=line.low, high=line.high)
