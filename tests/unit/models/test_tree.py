"""Folders as models: their content address, and which paths may lie in one."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tree import SAFETENSORS_FILES, entry_of, hash_tree, is_inside, matches, names_in, tree_digest

RECIPE = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


def test_the_address_of_a_folder_is_what_the_documented_command_finds(tmp_path: Path) -> None:
    for name in ("b/c", "B", "a.x", "a/x", "ä"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    said = subprocess.run(["bash", "-c", RECIPE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert tree_digest(hash_tree(tmp_path, names_in(tmp_path))) == said.stdout.split()[0]


def test_links_and_pipes_are_no_files_of_a_model(tmp_path: Path) -> None:

    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    assert names_in(tmp_path) == ["real"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\nb",
        "a\0b",
        "x" * 501,
    ],
)
def test_what_is_not_inside(path: str) -> None:
    assert not is_inside(path)


@given(st.text(max_size=40))
def test_what_is_inside_stays_inside_wherever_it_is_put(path: str) -> None:
    if is_inside(path):
        root = Path("/root/of/it")
        assert (root / path).is_relative_to(root)
        assert ".." not in (root / path).parts


def test_a_star_stays_in_its_folder() -> None:
    assert matches("q4/a.gguf", ["q4/*.gguf"])
    assert not matches("q4/b/a.gguf", ["q4/*.gguf"])
    assert not matches("a.gguf", ["q4/*.gguf"])
    assert matches("model-00001-of-00002.safetensors", SAFETENSORS_FILES)
    assert not matches("original/consolidated.safetensors", SAFETENSORS_FILES)
    assert not matches("pytorch_model.bin", SAFETENSORS_FILES)


def test_an_engine_is_given_the_first_part_or_the_folder(tmp_path: Path) -> None:
    for name in ("m-00002-of-00002.gguf", "m-00001-of-00002.gguf"):
        (tmp_path / name).write_text(name)
    assert entry_of("gguf", hash_tree(tmp_path, names_in(tmp_path))) == "m-00001-of-00002.gguf"
    assert entry_of("gguf", ()) == ""
    assert entry_of("safetensors", hash_tree(tmp_path, names_in(tmp_path))) == ""
