"""Results as a page and as Markdown, and the commands that read results."""

import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from benchmarks.cli import app
from benchmarks.figures.bounds import RATIO, Better, Bound, Figure
from benchmarks.figures.statistics import bootstrap_median
from benchmarks.reports.drawable import cdf
from benchmarks.reports.overlay import Named, sections
from benchmarks.reports.page import show
from benchmarks.reports.plotting import svg
from benchmarks.reports.result import Axis, Line, Made, Plot, Remark, Result, group, write

EVIL = "<script>alert(1)</script>_*|`$x$\"'"


def figure(key: str, values: list[float], unit: str = RATIO, bound: Bound | None = None) -> Figure:
    found = bootstrap_median(values, seed=0)
    return Figure(key=key, name=key, unit=unit, found=found, bound=bound, which_is_better=Better.LESS)


def plots() -> list[Plot]:
    steps = [float(step) for step in range(1, 30)]
    bars = Axis(name="", labels=["one", EVIL])
    ends: dict[str, Any] = {"low": [0.5, 1.0], "high": [2.0, 3.0]}
    return [
        Plot(
            key="ttft/cdf",
            title="TTFT",
            kind="cdf",
            x=Axis(name="TTFT", unit="ms", log=True),
            y=Axis(name="share"),
            lines=[cdf("all", steps)],
        ),
        Plot(
            key="load",
            title="Throughput against latency",
            kind="curve",
            x=Axis(name="requests", unit="/s"),
            y=Axis(name="TTFT", unit="ms", log=True),
            lines=[Line(name="p50", x=steps, y=steps, low=steps, high=[2 * each for each in steps])],
            marks={"knee": 20.0},
        ),
        Plot(
            key="time",
            title="In flight",
            kind="timeline",
            x=Axis(name="time", unit="s"),
            y=Axis(name="in flight"),
            lines=[Line(name=EVIL, x=steps, y=steps)],
        ),
        Plot(
            key="bars",
            title=EVIL,
            kind="bars",
            x=bars,
            y=Axis(name="CPU", unit="s"),
            lines=[Line(name="a", x=[0.0, 1.0], y=[1.0, 2.0], **ends), Line(name="_b", x=[1.0], y=[2.0])],
        ),
        Plot(
            key="bars/log",
            title="On a logarithmic axis",
            kind="bars",
            x=bars,
            y=Axis(name="CPU", unit="s", log=True),
            lines=[Line(name="", x=[0.0, 1.0], y=[1.0, 2.0], **ends)],
        ),
        Plot(key="none", title="Empty", kind="bars", x=Axis(name=""), y=Axis(name=""), lines=[]),
    ]


def result(scale: float = 1.0, **more: Any) -> Result:
    made = Made(at="2026-01-01T00:00:00+00:00", command=["porten-bench", EVIL], environment={"cpu": EVIL})
    values = [scale * each for each in (1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.0)]
    groups = [
        group("Ratios", [figure("c1/throughput_ratio", values, bound=Bound(0.97, at_least=True))]),
        group(EVIL, [figure("time", values, unit="ms")], sides=("engine", "node")),
    ]
    fields: dict[str, Any] = {
        "benchmark": "node",
        "made": made,
        "settings": {"seed": 5, "text": EVIL},
        "groups": groups,
        "plots": plots(),
        "remarks": [Remark(code="errors", text=f"3 x {EVIL}")],
    }
    return Result(**fields | more)


def written(directory: Path, name: str, found: Result) -> str:
    write(found, directory / name)
    return str(directory / name)


def invoke(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


class Page(HTMLParser):
    """Elements of a page, each opened and closed as it should be."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


# --- the page


def with_detail() -> Result:
    """Its first group tells in detail what the other tells in short."""
    first, second = result().groups
    return result(groups=[msgspec.structs.replace(first, title="Every step", detail=True), second])


def test_detail_is_folded_behind_what_was_found(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", with_detail())
    assert invoke("report", file).exit_code == 0
    text = (tmp_path / "a.html").read_text()
    Page(text)
    folded = text.index('<details class="detail">')
    assert text.rindex("<figure>") < folded < text.index("<caption>Every step")
    assert text.index("<caption>&lt;script") < text.index("<figure>")
    assert invoke("report", file, "--markdown", str(tmp_path / "a.md")).exit_code == 0
    text = (tmp_path / "a.md").read_text()
    assert text.rindex("![") < text.index("### Every step") < text.index("### How it was made")


def test_a_terminal_shows_detail_after_what_was_found() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    show(console, with_detail())
    text = console.export_text()
    assert text.index("<script>") < text.index("Every step") < text.index("3 x ")


def test_equal_lines_of_two_results_are_both_seen() -> None:
    (section,) = sections([Named("before", result()), Named("after", result())])
    for drawing in section.drawings[:3]:
        widths = re.findall(r"stroke: (#0072b2|#d55e00); stroke-width: ([\d.]+)", svg(drawing))
        below, above = (
            {float(width) for colour, width in widths if colour == each} for each in ("#0072b2", "#d55e00")
        )
        assert max(below) > max(above) + 1


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    directory = tmp_path_factory.mktemp("report")
    refused = result(1.1, refusals=[Remark(code="generator_saturated", text="the meter was slow")])
    files = [written(directory, "a.json", result()), written(directory, "b.json", refused)]
    done = invoke("report", *files)
    assert done.exit_code == 0, done.output
    return Page((directory / "a.html").read_text())


def test_the_page_needs_nothing_from_elsewhere(page: Page) -> None:
    for tag in ("script", "link", "img", "iframe", "object", "use-elsewhere"):
        assert page.all(tag) == []
    for tag, attributes in page.seen:
        for name, text in attributes.items():
            if name in {"href", "src", "xlink:href", "action"}:
                assert (text or "").startswith("#"), (tag, name, text)
            assert not name.startswith("on")
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_id_is_of_one_element_and_every_reference_leads_to_one(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(set(ids)) == len(ids)
    references = {
        reference
        for _, attributes in page.seen
        for text in attributes.values()
        for reference in re.findall(r"(?:url\(#|^#)([\w.-]+)", text or "")
    }
    assert references - {"0072b2"} <= set(ids)
    assert references


def test_what_makes_a_result_doubtful_comes_first(page: Page) -> None:
    texts = [text.strip() for text in page.texts if text.strip()]
    assert texts.index("Not to be believed") < texts.index("To know") < texts.index("Ratios")
    assert any("the meter was slow" in text for text in texts)


def test_tables_have_headers_and_plots_have_words(page: Page) -> None:
    assert all("scope" in each for each in page.all("th"))
    assert len(page.all("caption")) == 2
    drawings = [each for each in page.all("div") if each.get("role") == "img"]
    assert len(drawings) == len(page.all("figcaption")) == len(plots())
    assert all(each["aria-label"] for each in drawings)
    assert len(page.all("svg")) == 2 * len(plots())


def test_names_from_files_are_text(page: Page) -> None:
    assert sum(EVIL in text for text in page.texts) >= 4
    assert any(EVIL in (each.get("aria-label") or "") for each in page.all("div"))


def test_colours_are_the_pages_own(page: Page) -> None:
    styles = " ".join(str(attributes.get("style")) for _, attributes in page.seen)
    assert "var(--plot-0, #0072b2)" in styles
    assert not re.search(r"(?<!, )#(0072b2|24292f|d0d7de)", styles, re.IGNORECASE)


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", result(plots=plots()[1:4]))
    pages = [invoke("report", file, "--html", "-").stdout for _ in range(2)]
    assert pages[0] == pages[1]
    assert pages[0].startswith("<!doctype html>")


# --- Markdown


def test_markdown_names_its_pictures_which_lie_beside_it(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", result())
    done = invoke("report", file, "--markdown", str(tmp_path / "figures.md"))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "figures.md").read_text()
    named = re.findall(r"^!\[.*\]\((\S+)\)$", text, re.MULTILINE)
    assert set(named) == {path.name for path in tmp_path.glob("*.svg")}
    assert len(named) == len(plots())
    for name in named:
        assert (tmp_path / name).read_text().startswith("<svg ")
    assert "| c1/throughput\\_ratio | 1.000 x | 0.990 to 1.010 | ≥ 0.97 | kept |" in text
    command = f"`porten-bench {EVIL.replace('`', chr(39))}`"
    assert command in text, "as code, in which nothing is markup"
    assert "<script>" not in text.replace(command, "")
    assert not (tmp_path / "a.html").exists()


# --- the commands


def test_compare_ends_by_what_it_was_to_fail_on(tmp_path: Path) -> None:
    first, second = written(tmp_path, "a.json", result()), written(tmp_path, "b.json", result(1.2))
    assert invoke("compare", first, second).exit_code == 0
    assert invoke("compare", first, second, "--fail-on", "worse").exit_code == 4
    assert invoke("compare", second, first, "--fail-on", "worse", "--figure", "time").exit_code == 0
    assert invoke("compare", second, first, "--fail-on", "different").exit_code == 4
    assert invoke("compare", first, second, "--fail-on", "worse", "--margin", "30%").exit_code == 0
    assert invoke("compare", first, second, "--fail-on", "untold").exit_code == 0


def test_compare_writes_json_and_markdown(tmp_path: Path) -> None:
    first, second = written(tmp_path, "a.json", result()), written(tmp_path, "b.json", result(1.2))
    done = invoke("compare", first, second, "--json", "-", "--markdown", str(tmp_path / "c.md"))
    told = json.loads(done.stdout)
    verdicts = {row["key"]: row["verdict"] for row in told["rows"]}
    assert verdicts == {"c1/throughput_ratio": "better", "time": "worse"}
    assert "b.json against a.json" in (tmp_path / "c.md").read_text()
    assert "2 figures" in done.stderr


def test_a_refused_result_is_compared_and_not_believed(tmp_path: Path) -> None:
    refused = result(1.2, refusals=[Remark(code="r", text="the meter was slow")])
    first, second = written(tmp_path, "a.json", result()), written(tmp_path, "b.json", refused)
    done = invoke("compare", first, second, "--fail-on", "worse")
    assert (done.exit_code, "the meter was slow" in done.output) == (3, True)


@pytest.mark.parametrize("margin", ["5", "-1%", "100%", "much", "%", ""])
def test_a_margin_is_a_share(tmp_path: Path, margin: str) -> None:
    file = written(tmp_path, "a.json", result())
    done = invoke("compare", file, file, f"--margin={margin}")
    assert (done.exit_code, "--margin" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot read"),
        (b"no json", "is no result"),
        (b'{"schema": "porten.bench.serving/1"}', "measure again"),
        (b'{"schema": "porten.compare/1"}', "write one with --json"),
        (b'{"schema": "porten.bench/2"}', "measure again"),
        (b'{"schema": "porten.bench/1", "groups": 5}', "is damaged"),
    ],
)
def test_what_is_no_result_is_one_clear_line(tmp_path: Path, data: bytes | None, words: str) -> None:
    good, bad = written(tmp_path, "a.json", result()), tmp_path / "bad.json"
    if data is not None:
        bad.write_bytes(data)
    for arguments in (("compare", good, str(bad)), ("report", good, str(bad))):
        done = invoke(*arguments)
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr


def test_results_of_two_benchmarks_are_one_clear_line(tmp_path: Path) -> None:
    first, second = (
        written(tmp_path, "a.json", result()),
        written(tmp_path, "b.json", result(benchmark="hub")),
    )
    done = invoke("compare", first, second)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "only results of one command" in done.stderr


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "a.json", result())
    monkeypatch.delitem(sys.modules, "benchmarks.reports.plotting", raising=False)
    monkeypatch.delattr("benchmarks.reports.plotting", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke("report", file)
    assert done.exit_code == 1
    assert "porten[plots]" in done.stderr
    assert not (tmp_path / "a.html").exists()


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", result(plots=[]))
    done = invoke("report", file, "--html", str(tmp_path / "none" / "page.html"))
    assert (done.exit_code, "cannot write" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["compare", "report", "policy", "routing"])
def test_help_teaches_with_an_example(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert f"porten-bench {command} " in done.output


def test_codes_from_files_are_no_markup_in_markdown(tmp_path: Path) -> None:
    mark = Remark(code="<script>", text="<script>")
    file = written(tmp_path, "a.json", result(remarks=[mark], refusals=[mark]))
    assert invoke("report", file, "--markdown", str(tmp_path / "a.md")).exit_code == 0
    text = (tmp_path / "a.md").read_text()
    assert "- **\\<script\\>** (a): \\<script\\>" in text
    assert "> **Not to be believed** (a, \\<script\\>): \\<script\\>" in text


def test_a_logarithmic_plot_of_nothing_above_zero_is_drawn(tmp_path: Path) -> None:
    axis = Axis(name="a", log=True)
    nothing = Plot(key="k", title="T", kind="curve", x=axis, y=axis, lines=[Line(name="l", x=[0.0], y=[0.0])])
    file = written(tmp_path, "a.json", result(plots=[nothing]))
    assert invoke("report", file, "--html", str(tmp_path / "a.html")).exit_code == 0
