"""What each way to run llama.cpp is started with, decided without starting it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.catalog import Capability, FileSource, ModelSpec
from models.errors import FormatUnsupported
from models.header import GgufHeader, Pooling
from models.store import StoredModel
from runtime.backends import gguf, installed
from runtime.backends.base import Backend, EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.backends.llama_cpp_python import LlamaCppPythonBackend
from runtime.backends.llama_server import LlamaServerBackend
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
EMBEDS = ModelSpec(
    id="m",
    name="m",
    source=FileSource(path="/w"),
    context_length=2048,
    capabilities=frozenset({"embeddings"}),
)
SPEC = ModelSpec(id="a/b", name="m", source=FileSource(path="/weights"), context_length=8192, slots=4)


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return StoredModel(model_id="a/b", path=tmp_path / "w", digest="sha256:" + "0" * 64, size_bytes=1000)


@pytest.fixture
def backend(tmp_path: Path) -> LlamaCppBackend:
    return LlamaCppBackend(EngineEnvironment(tmp_path / "engines"))


@pytest.fixture(autouse=True)
def header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "read_gguf_header", lambda path: HEADER)


@pytest.fixture(params=["xllamacpp", "llama-server", "llama-cpp-python"])
def any_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "llama-server":
        return LlamaServerBackend(tmp_path / "llama-server")
    if request.param == "xllamacpp":
        return LlamaCppBackend(EngineEnvironment(tmp_path / "engines"))
    return LlamaCppPythonBackend(EngineEnvironment(tmp_path / "engines", "llama-cpp-python"))


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
    any_backend: Backend, stored: StoredModel
) -> None:
    plan = any_backend.plan(SPEC, stored, EngineOptions())
    first, second = (any_backend.command(SPEC, stored, plan) for _ in range(2))
    ((name, value),) = first.headers
    key = value.removeprefix("Bearer ")
    assert name == "authorization"
    assert len(key) >= 32
    assert second.headers != first.headers
    assert key in first.stdin.decode()
    assert not any(key in part for part in (*first.argv, *first.env.values()))


def test_it_sees_the_devices_that_placement_chose(any_backend: Backend, stored: StoredModel) -> None:
    plan = any_backend.plan(SPEC, stored, EngineOptions())
    launch = any_backend.command(SPEC, stored, plan, ("cpu",))
    assert launch.env["CUDA_VISIBLE_DEVICES"] == ""
    launch = any_backend.command(SPEC, stored, plan, ("GPU-1",))
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_llama_cpp_python_has_one_slot_and_interrupts_nobody(tmp_path: Path, stored: StoredModel) -> None:
    backend = LlamaCppPythonBackend(EngineEnvironment(tmp_path / "engines", "llama-cpp-python"))
    plan = backend.plan(SPEC, stored, EngineOptions(slots=8))
    assert plan.slots == 1
    settings = json.loads(backend.command(SPEC, stored, plan).stdin)["settings"]
    assert settings["interrupt_requests"] is False
    assert settings["n_ctx"] == plan.context_length


@pytest.mark.parametrize(("kind", "layers"), [("cpu", "0"), ("cuda", "999"), ("metal", "999")])
def test_llama_server_computes_where_it_was_built_for(
    tmp_path: Path, stored: StoredModel, kind: str, layers: str
) -> None:
    backend = LlamaServerBackend(tmp_path / "llama-server", kind)  # type: ignore[arg-type]
    assert backend.device_kinds == (kind,)
    plan = backend.plan(SPEC, stored, EngineOptions())
    arguments = json.loads(backend.command(SPEC, stored, plan).stdin)["arguments"]
    assert arguments[arguments.index("--gpu-layers") + 1] == layers
    assert arguments[arguments.index("--ctx-size") + 1] == str(plan.context_length * plan.slots)


def test_llama_server_that_is_not_there_says_which_setting_names_it(tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    assert "`llama_server`" in LlamaServerBackend(binary).available().remedy
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert LlamaServerBackend(binary).available().ok


@pytest.mark.parametrize(
    ("capabilities", "trained", "pooling", "batch"),
    [
        ({"chat"}, "mean", None, 256),
        ({"embeddings"}, None, "last", 256),
        ({"embeddings"}, "last", "last", 256),
        ({"embeddings"}, "mean", "mean", 1024),
        ({"embeddings"}, "cls", "cls", 1024),
        ({"rerank"}, None, "rank", 1024),
    ],
)
def test_a_model_serves_the_task_it_is_for(
    any_backend: Backend,
    stored: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: set[Capability],
    trained: Pooling | None,
    pooling: Pooling | None,
    batch: int,
) -> None:
    monkeypatch.setattr(gguf, "read_gguf_header", lambda path: replace(HEADER, pooling=trained))
    source = FileSource(path="/w")
    spec = ModelSpec(
        id="m", name="m", source=source, context_length=1024, capabilities=frozenset(capabilities)
    )
    if any_backend.name == "llama_cpp_python" and pooling is not None:
        batch = 1024  # it never reads a text in pieces
    plan = any_backend.plan(spec, stored, EngineOptions())
    assert (plan.pooling, plan.batch_tokens) == (pooling, batch)
    said = any_backend.command(spec, stored, plan).stdin.decode()
    assert pooling is None or pooling in said or "--reranking" in said
    assert str(batch) in said


def test_what_sees_all_of_a_text_reads_it_in_one_piece(
    backend: LlamaCppBackend, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = replace(HEADER, architecture="nomic-bert", causal=False, pooling="last")
    monkeypatch.setattr(gguf, "read_gguf_header", lambda path: bert)
    plan = backend.plan(EMBEDS, stored, EngineOptions())
    assert plan.batch_tokens == 2048
    assert plan.memory.kv_cache == 0, "an encoder keeps none"


def test_weights_that_rank_are_not_asked_to_embed(
    backend: LlamaCppBackend, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "read_gguf_header", lambda path: replace(HEADER, pooling="rank"))
    with pytest.raises(FormatUnsupported, match="rerank"):
        backend.plan(EMBEDS, stored, EngineOptions())


def test_an_input_read_in_one_piece_takes_more_scratch_memory(
    backend: LlamaCppBackend, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    piecewise = backend.plan(EMBEDS, stored, EngineOptions()).memory
    monkeypatch.setattr(gguf, "read_gguf_header", lambda path: replace(HEADER, pooling="mean"))
    at_once = backend.plan(EMBEDS, stored, EngineOptions()).memory
    assert at_once.compute > 7 * piecewise.compute
    assert replace(at_once, compute=piecewise.compute) == piecewise


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
    monkeypatch.setattr(installed, "missing_library", lambda provider: None)
    state = backend.available()
    assert not state.ok
    assert "porten engines install" in state.remedy
    monkeypatch.setattr(installed, "missing_library", lambda provider: ("libx", "get it"))
    assert backend.available().remedy == "get it"
