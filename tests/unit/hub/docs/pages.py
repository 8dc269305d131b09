"""The pages of docs/, and what stands in their tables."""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

_DOCS = Path(__file__).parents[4] / "docs"


def page(name: str) -> str:
    """A page of docs/, as it is written."""
    return (_DOCS / f"{name}.md").read_text()


def table(page: str, *header: str) -> list[list[str]]:
    """The rows of the one table with this header."""
    lines = page.splitlines()
    (start,) = (number for number, line in enumerate(lines) if cells(line) == list(header))
    return [cells(line) for line in itertools.takewhile(lambda line: line[:1] == "|", lines[start + 2 :])]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_codes(rows: Iterable[list[str]]) -> list[str]:
    return [codes(row[0])[0] for row in rows]
