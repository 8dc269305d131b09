"""What llama.cpp is started with, decided without starting it."""

import json
from pathlib import Path

import pytest

from models.catalog import FileSource, ModelSpec
from models.header import GgufHeader
from models.store import StoredModel
from runtime.backends import llama_cpp
from runtime.backends.base import EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.engines import EngineEnvironment

HEADER = GgufHeader(
    architecture="llama",
    name="m",
    context_length=2048,
    layers=2,
    embedding_length=64,
    feed_forward_length=128,
    vocabulary_size=100,
    heads=2,
    kv_heads=(2, 2),
    key_length=32,
    value_length=32,
    sliding_window=None,
    sliding_layers=(False, False),
    file_type=1,
    tensor_bytes=1000,
    has_chat_template=True,
)
SPEC = ModelSpec(id="a/b", name="m", source=FileSource(path="/weights"), context_length=8192, slots=4)


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return StoredModel(model_id="a/b", path=tmp_path / "w", digest="sha256:" + "0" * 64, size_bytes=1000)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaCppBackend:
    monkeypatch.setattr(llama_cpp, "read_gguf_header", lambda path: HEADER)
    return LlamaCppBackend(EngineEnvironment(tmp_path / "engines"))


def test_the_context_is_no_longer_than_the_model_was_trained_for(
    backend: LlamaCppBackend, stored: StoredModel
) -> None:
    plan = backend.plan(SPEC, stored, EngineOptions())
    assert (plan.context_length, plan.slots) == (2048, 4)
    assert plan.threads >= 1


def test_the_owner_decides_over_the_catalog(backend: LlamaCppBackend, stored: StoredModel) -> None:
    plan = backend.plan(SPEC, stored, EngineOptions(context_length=512, slots=2, threads=3))
    assert (plan.context_length, plan.slots, plan.threads) == (512, 2, 3)
    larger = backend.plan(SPEC, stored, EngineOptions(context_length=1024, slots=2))
    assert larger.memory.kv_cache == 2 * plan.memory.kv_cache


def test_each_start_has_a_key_of_its_own_that_only_stdin_carries(
    backend: LlamaCppBackend, stored: StoredModel
) -> None:
    plan = backend.plan(SPEC, stored, EngineOptions())
    first, second = (backend.command(SPEC, stored, plan) for _ in range(2))
    key = json.loads(first.stdin)["api_key"]
    assert len(key) >= 32
    assert json.loads(second.stdin)["api_key"] != key
    assert first.headers == (("authorization", f"Bearer {key}"),)
    assert not any(key in part for part in (*first.argv, *first.env.values()))


@pytest.mark.parametrize(
    ("capabilities", "task"),
    [
        (frozenset({"chat", "completions"}), "generate"),
        (frozenset({"embeddings"}), "embed"),
        (frozenset({"rerank"}), "rerank"),
    ],
)
def test_a_model_serves_the_task_it_is_for(
    backend: LlamaCppBackend, stored: StoredModel, capabilities: frozenset[str], task: str
) -> None:
    spec = ModelSpec(
        id="m", name="m", source=FileSource(path="/w"), context_length=64, capabilities=capabilities
    )  # type: ignore[arg-type]
    launch = backend.command(spec, stored, backend.plan(spec, stored, EngineOptions()))
    assert json.loads(launch.stdin)["task"] == task


def test_the_log_is_explained_without_the_machines_paths(backend: LlamaCppBackend) -> None:
    log = (
        "0.00.004.140 W load: something else\n"
        "0.00.004.849 E cmn  common_init_: failed to open '/home/me/models/x.gguf' for reading\n"
        "0.00.004.877 E srv    load_model: exiting\n"
    )
    assert backend.explain(log) == "failed to open the file for reading"
    assert backend.explain("Traceback: nothing llama.cpp said") == ""


def test_an_engine_that_is_not_there_says_what_to_do(
    backend: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "missing_library", lambda provider: None)
    state = backend.available()
    assert not state.ok
    assert "porten engines install" in state.remedy
    monkeypatch.setattr(llama_cpp, "missing_library", lambda provider: ("libx", "get it"))
    assert backend.available().remedy == "get it"
