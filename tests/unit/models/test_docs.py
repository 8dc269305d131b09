"""docs/models.md says what is so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from models.catalog import (
    EndpointSource,
    FileSource,
    HuggingFaceSource,
    PathSource,
    WheelSource,
    load_catalog,
)
from models.fit import MIB, estimate
from models.header import GgufHeader

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text()


def test_the_example_entry_is_a_catalog(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "example.toml"
    path.write_text(example)
    (spec,) = load_catalog(path, packaged=False)
    assert spec.id == "my-model"
    named = set(re.findall(r"^(?:# |\[models\.)?(\w+)(?= =|\])", example, re.MULTILINE))
    assert set(type(spec).__struct_fields__) - named == {"description"}


@pytest.mark.parametrize("source", [FileSource, PathSource, WheelSource, HuggingFaceSource, EndpointSource])
def test_every_key_of_every_source_is_explained(source: type) -> None:
    kind = source.__struct_config__.tag
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
    assert set(source.__struct_fields__) <= set(re.findall(r"`(\w+)`", row))


def test_the_estimates_are_the_ones_computed(header: Callable[..., GgufHeader]) -> None:
    rows = re.findall(r"^\| (\d+) . (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for slots, context, estimated, _ in rows:
        found = estimate(header(), size_bytes=98_362_432, context=int(context), slots=int(slots))
        assert round(found.total / MIB) == int(estimated)
