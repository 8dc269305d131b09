"""`porten models` without a node, on a store of this machine's own file."""

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from models.store import ModelStore
from runtime.cli import app

runner = CliRunner()
CATALOG = """
[[models]]
id = "mine"
name = "Mine"
context_length = 64
sha256 = "{sha256}"
[models.source]
kind = "file"
path = "{path}"
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF and nothing more")
    catalog = tmp_path / "catalog.toml"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    catalog.write_text(CATALOG.format(sha256=digest, path=weights))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PORTEN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PORTEN_CATALOG", str(catalog))
    return ModelStore(tmp_path / "data" / "models")


def listed() -> dict[str, object]:
    models = json.loads(runner.invoke(app, ["models", "list", "--json"]).output)
    (mine,) = (model for model in models if model["model"] == "mine")
    return dict(mine)


def test_the_list_can_be_read_by_a_program(store: ModelStore) -> None:
    before = listed()
    assert (before["on_disk"], before["state"], before["fits"], before["pinned"]) == (
        False,
        None,
        None,
        False,
    )
    assert runner.invoke(app, ["models", "pull", "mine"]).exit_code == 0
    after = listed()
    (stored,) = store.list()
    assert (after["on_disk"], after["digest"], after["size_bytes"]) == (True, stored.digest, 21)
    assert after["last_used"] == store.marks.used("mine") > 0


def test_a_pin_is_kept_until_it_is_taken_back(store: ModelStore) -> None:
    assert runner.invoke(app, ["models", "pin", "mine"]).exit_code == 0
    assert listed()["pinned"] is True
    assert runner.invoke(app, ["models", "unpin", "mine"]).exit_code == 0
    assert listed()["pinned"] is False


@pytest.mark.parametrize("command", ["pin", "unpin", "verify"])
def test_what_nobody_knows_is_one_line(store: ModelStore, command: str) -> None:
    result = runner.invoke(app, ["models", command, "absent"])
    assert result.exit_code == 1
    assert "no model 'absent'" in result.output


def test_sound_weights_are_said_to_be_sound(store: ModelStore) -> None:
    runner.invoke(app, ["models", "pull", "mine"])
    result = runner.invoke(app, ["models", "verify"])
    assert result.exit_code == 0
    assert "mine is sound." in result.output


def test_damaged_weights_are_set_aside_and_can_be_pulled_again(store: ModelStore, tmp_path: Path) -> None:
    runner.invoke(app, ["models", "pull", "mine"])
    (stored,) = store.list()
    (tmp_path / "weights.gguf").rename(tmp_path / "good")
    (tmp_path / "weights.gguf").write_bytes((tmp_path / "good").read_bytes())
    stored.path.write_bytes(b"GGUF and nothing LESS")
    result = runner.invoke(app, ["models", "verify", "mine"])
    assert result.exit_code == 1
    assert "DAMAGED" in result.output
    assert "set aside in" in result.output
    assert store.list() == []
    assert runner.invoke(app, ["models", "pull", "mine"]).exit_code == 0
    assert runner.invoke(app, ["models", "verify", "mine"]).exit_code == 0


@pytest.mark.parametrize(("budget", "verdict"), [("4000", "fits"), ("1", "does not fit")])
def test_a_model_is_shown_with_what_it_takes_and_where_it_fits(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, verdict: str
) -> None:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for add in (writer.add_block_count, writer.add_head_count, writer.add_file_type):
        add(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_tensor("token_embd.weight", np.ones((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "catalog.toml").write_text(CATALOG.format(sha256=digest, path=path))
    monkeypatch.setenv("PORTEN_RAM_BUDGET_MB", budget)
    absent = runner.invoke(app, ["models", "show", "mine"])
    assert absent.exit_code == 1
    assert "porten models pull mine" in absent.output
    runner.invoke(app, ["models", "pull", "mine"])
    shown = json.loads(runner.invoke(app, ["models", "show", "mine", "--json"]).output)
    assert (shown["quantisation"], shown["parameters"], shown["digest"]) == ("Q4_0", 256, f"sha256:{digest}")
    memory, device = shown["memory"][0], shown["devices"][0]
    assert memory["total"] == sum(memory[part] for part in ("weights", "kv_cache", "compute", "overhead"))
    assert (device["needed"], device["verdict"]) == (memory["total"], verdict)
    assert verdict in runner.invoke(app, ["models", "show", "mine"]).output
