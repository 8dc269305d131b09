"""The one result document: how figures are shown, written and read again."""

import io
import itertools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from benchmarks.errors import ResultUnreadable
from benchmarks.figures.bounds import RATIO, Better, Bound, Figure
from benchmarks.figures.statistics import Interval
from benchmarks.reports import page
from benchmarks.reports.result import (
    Axis,
    Group,
    Limit,
    Line,
    Made,
    Plot,
    Remark,
    Result,
    Value,
    group,
    read,
    to_json,
    write,
)

FIGURES = [
    Figure(
        key="c1/throughput_ratio",
        name="tokens/s",
        unit=RATIO,
        found=Interval(0.625, 0.5, 0.75, 0.95, (0.5, 0.625, 0.625, 0.625, 0.75)),
        bound=Bound(0.97, at_least=True),
        direct="100.0",
        via="62.5",
    ),
    Figure(key="cpu", name="CPU", unit="%", found=0.23, bound=Bound(0.5)),
    Figure(key="ttft", name="TTFT", unit="ms", found=None, bound=Bound(1.0)),
    Figure(key="rate", name="rate", unit="/s", found=1234.5, which_is_better=Better.MORE),
]


def result(**more: Any) -> Result:
    made = Made(at="2026-01-01T00:00:00+00:00", command=["porten-bench"], environment={"cpu": "one"})
    groups = [group("Engine on 2 of 2 cores", FIGURES, sides=("engine", "node"))]
    return Result(benchmark="node", made=made, settings={"seed": 5}, groups=groups, **more)


def shown(found: Result) -> str:
    text = io.StringIO()
    page.show(Console(file=text, width=140), found)
    return text.getvalue()


def test_figures_are_shown_beside_their_bounds() -> None:
    rows = {line.split("│")[1].strip(): line for line in shown(result()).splitlines() if "│" in line}
    cells = {name: [cell.strip() for cell in row.split("│")[2:-1]] for name, row in rows.items()}
    assert cells["tokens/s"] == ["100.0", "62.5", "0.625 x", "0.500 to 0.750", ">= 0.97", "missed"]
    assert cells["CPU"] == ["", "", "0.230 %", "", "<= 0.5", "kept"]
    assert cells["TTFT"] == ["", "", "-", "", "<= 1", ""]
    assert cells["rate"] == ["", "", "1,234 /s", "", "", ""]


def test_what_a_reader_must_know_is_shown() -> None:
    text = shown(
        result(
            remarks=[Remark(code="errors", text="3 x http_503: [full]")],
            refusals=[Remark(code="generator_saturated", text="the meter was the bottleneck")],
            interrupted=True,
        )
    )
    for words in (
        "Not to be believed",
        "the meter was the bottleneck",
        "3 x http_503: [full]",
        "Interrupted",
    ):
        assert words in text


def test_a_group_without_figures_is_not_shown() -> None:
    assert shown(msgspec.structs.replace(result(), groups=[group("Nothing came of it", [])])) == ""


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file, found = tmp_path / "result.json", result()
    write(found, file)
    assert read(file) == found
    by_key = {figure.key: figure for _, figure in read(file).figures()}
    assert by_key["c1/throughput_ratio"].values == [0.5, 0.625, 0.625, 0.625, 0.75]
    assert (by_key["cpu"].better, by_key["rate"].better) == (Better.LESS, Better.MORE)
    assert by_key["c1/throughput_ratio"].bound is not None
    assert by_key["c1/throughput_ratio"].bound.verdict == "missed"


def test_what_a_later_version_adds_does_not_hinder_reading(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(to_json(result()).replace(b'"settings"', b'"sun": {"spots": 3}, "settings"'))
    assert read(file).settings == {"seed": 5}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no result"),
        (b"[1, 2]", "is no result"),
        (b'{"schema": "other/1"}', "write one with --json"),
        (b"{}", "write one with --json"),
        (b'{"schema": "porten.bench/99"}', "measure again"),
        (b'{"schema": "porten.bench.serving/1"}', "measure again"),
        (b'{"schema": "porten.bench/1", "benchmark": "node"}', "is damaged"),
        (b"\xff\xfe", "is no result"),
    ],
)
def test_a_file_that_is_no_result_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(data)
    with pytest.raises(ResultUnreadable, match=words):
        read(file)


def test_two_figures_of_one_key_are_a_damaged_result(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(to_json(result()).replace(b'"key": "ttft"', b'"key": "cpu"'))
    with pytest.raises(ResultUnreadable, match="same key"):
        read(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultUnreadable, match="cannot read"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        (Line(name="", x=[1.0, 2.0], y=[1.0]), []),
        (Line(name="", x=[1.0], y=[1.0], low=[1.0]), []),
        (Line(name="", x=[1.0], y=[1.0], low=[1.0], high=[1.0, 2.0]), []),
        (Line(name="", x=[1.0], y=[1.0]), ["one"]),
        (Line(name="", x=[-1.0], y=[1.0]), ["one"]),
    ],
)
def test_a_plot_that_does_not_fit_together_is_a_damaged_result(
    tmp_path: Path, line: Line, labels: list[str]
) -> None:
    plot = Plot(
        key="p", title="P", kind="bars", x=Axis(name="", labels=labels), y=Axis(name=""), lines=[line]
    )
    write(result(plots=[plot]), tmp_path / "result.json")
    with pytest.raises(ResultUnreadable, match="does not fit together"):
        read(tmp_path / "result.json")


def test_two_plots_of_one_key_are_a_damaged_result(tmp_path: Path) -> None:
    plot = Plot(key="p", title="P", kind="bars", x=Axis(name=""), y=Axis(name=""), lines=[])
    write(result(plots=[plot, plot]), tmp_path / "result.json")
    with pytest.raises(ResultUnreadable, match="two plots"):
        read(tmp_path / "result.json")


README = (Path(__file__).parents[3] / "benchmarks" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("header", "documented"),
    [
        ("| field | holds |", (Result,)),
        ("| figure | holds |", (Value,)),
        ("| plot | holds |", (Plot,)),
    ],
)
def test_every_field_is_documented(header: str, documented: tuple[type[msgspec.Struct], ...]) -> None:
    rows = itertools.takewhile(lambda line: line[:1] == "|", README.split(header)[1].splitlines()[2:])
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    fields = {field.name for struct in documented for field in msgspec.structs.fields(struct)}
    assert told == fields


def test_every_part_of_a_field_is_documented() -> None:
    schema = README.split("## The schema")[1].split("\n## ")[0]
    for struct in (Made, Group, Limit, Remark, Axis, Line):
        for field in msgspec.structs.fields(struct):
            assert f"`{field.name}`" in schema, (struct.__name__, field.name)


def test_a_file_that_is_all_depth_is_told(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text('{"settings": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ResultUnreadable, match="no result"):
        read(file)


def test_no_name_is_taken_for_markup() -> None:
    found = Result(
        benchmark="serving",
        made=Made(at="", command=[], environment={}),
        settings={},
        groups=[group("[/]", [Figure(key="k", name="[/] [red]name", unit="[/x]", found=1.0, via="[/via]")],
                      sides=("[/a]", "b"))],
        refusals=[Remark(code="[/code]", text="[/text]")],
    )  # fmt: skip
    console = Console(record=True, width=200, file=io.StringIO())
    page.show(console, found)
    shown = console.export_text()
    assert all(text in shown for text in ("[/] [red]name", "[/x]", "[/via]", "[/a]", "[/code]", "[/text]"))
