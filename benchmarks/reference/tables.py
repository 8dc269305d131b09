"""Results as Markdown tables: the page of all figures, and the few that other pages tell.

Pure. A page's table stands between two marks, and is written anew with the figures: what is claimed is what
was measured. Must not know how it was measured.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.reference.suite import Measurement
from benchmarks.reports.page import number
from benchmarks.reports.result import Group, Result, Value

_MARK: Final = re.compile(r"(<!-- figures: begin[^>]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure that a page tells: what it says, and where it was measured."""

    says: str
    result: str
    key: str


CLAIMS: Final = (
    Claim(
        "a node before a real model: tokens/s, one core left to it",
        "node",
        "1_cores_free/c4/throughput_ratio",
    ),
    Claim(
        "a node before a real model: added to the time to the first token", "node", "one_by_one/added_ttft_ms"
    ),
    Claim(
        "Hub, tunnel and node: added to the time to the first token",
        "overhead",
        "one_by_one/hub/added_ttft_ms",
    ),
    Claim("nginx, for comparison", "overhead", "one_by_one/nginx/added_ttft_ms"),
    Claim("LiteLLM, for comparison", "overhead", "one_by_one/litellm/added_ttft_ms"),
    Claim("the Hub's processor time for 1,000 requests", "hub", "requests/hub_cpu_s_per_1000"),
    Claim("the Hub's processor time for 100,000 chunks", "hub", "chunks/hub_cpu_s_per_100k"),
    Claim(
        "requests a second with Hub, node, engine and generator on two cores",
        "hub",
        "requests/requests_per_s",
    ),
    Claim("the Hub's memory with 1,000 nodes connected", "hub", "memory/hub_rss_mb"),
    Claim("a choice among 10,000 nodes, slowest hundredth", "policy", "decision/10000+0/hot_p99_us"),
    Claim("a model that is not loaded, against the engine's bare start", "cold-load", "cold/ratio"),
    Claim("one model in another's place, to the first token", "cold-load", "swap/s"),
    Claim("an idle node's processor time, its model loaded", "node", "idle/cpu_percent"),
)


def page(suite: Sequence[Measurement], results: Mapping[str, Result]) -> str:
    """Every figure of the results, in the suite's order."""
    lines = [
        "# Figures",
        "",
        "Written by `make bench` from the files beside it: change nothing here. What each figure means is in",
        "[the benchmarks' README](../README.md). *Kept*, *missed*, *unclear*: what its interval says of its",
        "bound.",
    ]
    for each in suite:
        if each.name in results:
            lines += ["", *_result(each, results[each.name])]
    return "\n".join(lines) + "\n"


def _result(measured: Measurement, result: Result) -> Iterator[str]:
    yield f"## {measured.about}"
    yield ""
    yield f"`{_command(result)}`, {result.made.at[:10]}; [{measured.name}.json]({measured.name}.json)  "
    yield _machine(result)
    for group in result.groups:
        if group.figures:
            yield ""
            yield f"**{group.title}**"
            yield ""
            yield from _group(group)
    for remark in (*result.refusals, *result.remarks):
        yield ""
        yield f"*{remark.text}*"


def _command(result: Result) -> str:
    """What to type; where the file goes and where this machine has its models is nobody else's matter."""
    words = iter(result.made.command)
    kept = []
    for word in words:
        if word in {"--json", "--data-dir"}:
            next(words, None)
        else:
            kept.append(word)
    return " ".join(kept)


def _machine(result: Result) -> str:
    about = result.made.environment
    memory = about.get("memory_bytes")
    told = [f"{about.get('cpu_usable')} cores of {about.get('cpu')}"]
    told += [f"{memory / 2**30:.0f} GiB"] if isinstance(memory, int) else []
    told += [f"Python {about.get('python')}", f"Porten {about.get('porten')}"]
    return ", ".join(told)


def _group(group: Group) -> Iterator[str]:
    titles = ["figure", *group.sides, "found", "95 %", *(["bound", ""] if _bounded(group) else [])]
    yield _row(titles)
    yield _row(["---", *["---:"] * (len(titles) - 1)])
    for figure in group.figures:
        sides = [figure.direct, figure.via] if group.sides else []
        yield _row([figure.name, *sides, *_found(figure), *(_bound(figure) if _bounded(group) else [])])


def _bounded(group: Group) -> bool:
    return any(figure.bound for figure in group.figures)


def _found(figure: Value) -> list[str]:
    if figure.value is None:
        return ["not measured", ""]
    told = f"{number(figure.value, figure.unit)} {figure.unit}".rstrip()
    if figure.low is None or figure.high is None:
        return [told, ""]
    return [told, f"{number(figure.low, figure.unit)} to {number(figure.high, figure.unit)}"]


def _bound(figure: Value) -> list[str]:
    if figure.bound is None:
        return ["", ""]
    return [f"{'>=' if figure.bound.at_least else '<='} {figure.bound.value:g}", figure.bound.verdict or ""]


def claims(results: Mapping[str, Result], told: Sequence[Claim] = CLAIMS) -> str:
    """The table of the few figures that other pages tell."""
    rows = [_row(["what", "found", "95 %", "bound", ""]), _row(["---", "---:", "---:", "---:", "---"])]
    for claim in told:
        figure = _figure(results, claim)
        cells = [*_found(figure), *_bound(figure)] if figure else ["not measured", "", "", ""]
        rows.append(_row([claim.says, *cells]))
    return "\n".join(rows) + "\n"


def _figure(results: Mapping[str, Result], claim: Claim) -> Value | None:
    if claim.result not in results:
        return None
    return next((each for _, each in results[claim.result].figures() if each.key == claim.key), None)


def fill_in(text: str, table: str) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: it has no marks.
    """
    filled, count = _MARK.subn(lambda match: f"{match[1]}{table}{match[2]}", text)
    if count != 1:
        raise ValueError("a page that tells figures has one `<!-- figures: begin -->` and its end")
    return filled


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
