"""What vLLM is started with, decided without starting it."""

import json
from dataclasses import replace
from pathlib import Path

import jinja2
import msgspec
import pytest

from models.catalog import Capability, FileSource, ModelSpec
from models.errors import FormatUnsupported
from models.header import SafetensorsHeader
from models.store import StoredModel
from runtime.backends import installed, vllm
from runtime.backends.base import EngineOptions
from runtime.backends.vllm import VllmBackend
from runtime.backends.vllm_log import cause
from runtime.backends.vllm_memory import BLOCK_TOKENS, batch_tokens, estimate
from runtime.engines import EngineEnvironment

HEADER = SafetensorsHeader(
    architecture="llama",
    name="m",
    context_length=2048,
    layers=2,
    embedding_length=64,
    feed_forward_length=128,
    vocabulary_size=100,
    heads=12,
    kv_heads=(2, 2),
    key_length=32,
    value_length=32,
    sliding_window=None,
    sliding_layers=(False, False),
    tensor_bytes=1000,
    has_chat_template=True,
    dtype="BF16",
    quantisation=None,
)
SPEC = ModelSpec(
    id="a/b",
    name="m",
    source=FileSource(path="/weights"),
    format="safetensors",
    context_length=8192,
    slots=4,
    capabilities=frozenset({"chat", "completions", "tools"}),
)


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    digest = "sha256:" + "0" * 64
    return StoredModel(
        model_id="a/b", path=tmp_path / "w", digest=digest, size_bytes=1000, format="safetensors"
    )


@pytest.fixture(autouse=True)
def header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "read_safetensors_header", lambda path: HEADER)


def backend(tmp_path: Path, provider: str = "vllm-cpu") -> VllmBackend:
    return VllmBackend(EngineEnvironment(tmp_path / "engines", provider))


def parameters(launch: vllm.LaunchSpec) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(launch.stdin)
    return found


def test_context_and_slots_are_as_for_every_backend(tmp_path: Path, stored: StoredModel) -> None:
    plan = backend(tmp_path).plan(SPEC, stored, EngineOptions())
    assert (plan.context_length, plan.slots) == (2048, 4)
    plan = backend(tmp_path).plan(SPEC, stored, EngineOptions(context_length=512, slots=2, threads=3))
    assert (plan.context_length, plan.slots, plan.threads) == (512, 2, 3)


def test_the_cache_holds_the_whole_context_of_every_slot() -> None:
    per_token = 2 * 2 * (32 + 32) * 2
    found = estimate(HEADER, context=1000, slots=3, kind="cpu")
    assert found.kv_cache == per_token * (3 * 1024 + BLOCK_TOKENS)
    assert found.weights == 1000
    assert estimate(replace(HEADER, dtype="F32"), context=1000, slots=3, kind="cpu").weights == 500


def test_the_key_is_in_neither_arguments_nor_environment(tmp_path: Path, stored: StoredModel) -> None:
    plan = backend(tmp_path).plan(SPEC, stored, EngineOptions())
    first, second = (backend(tmp_path).command(SPEC, stored, plan) for _ in range(2))
    assert first.headers != second.headers
    key = first.headers[0][1].removeprefix("Bearer ")
    assert key in first.stdin.decode()
    assert not any(key in text for text in (*first.argv, *first.env.values()))


def test_nothing_is_reported_or_fetched_by_the_engine(tmp_path: Path, stored: StoredModel) -> None:
    launch = backend(tmp_path).command(SPEC, stored, backend(tmp_path).plan(SPEC, stored, EngineOptions()))
    assert (
        launch.env["VLLM_NO_USAGE_STATS"] == launch.env["DO_NOT_TRACK"] == launch.env["HF_HUB_OFFLINE"] == "1"
    )


@pytest.mark.parametrize("template", ["", "{{ messages }}"])
def test_what_the_catalog_says_reaches_the_engine(tmp_path: Path, stored: StoredModel, template: str) -> None:
    spec = msgspec.structs.replace(SPEC, chat_template=template)
    launch = backend(tmp_path).command(spec, stored, backend(tmp_path).plan(spec, stored, EngineOptions()))
    arguments = parameters(launch)["arguments"]
    assert arguments["chat_template"] == (template or None)
    assert (arguments["served_model_name"], arguments["max_model_len"], arguments["max_num_seqs"]) == (
        ["a/b"],
        2048,
        4,
    )
    assert arguments["enable_auto_tool_choice"] is True


@pytest.mark.parametrize("template", ["Hello", "/etc/hostname", " x ", "{{ messages }}\n", "a\nb"])
def test_a_template_without_marks_is_not_taken_for_a_path(
    tmp_path: Path, stored: StoredModel, template: str
) -> None:
    spec = msgspec.structs.replace(SPEC, chat_template=template)
    launch = backend(tmp_path).command(spec, stored, backend(tmp_path).plan(spec, stored, EngineOptions()))
    sent = parameters(launch)["arguments"]["chat_template"]
    assert set(sent) & set("{}\n")  # what vLLM takes for no path (its `validate_chat_template`)
    kind = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders it
    written = [kind.from_string(text).render(messages="m") for text in (template, sent)]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("capabilities", "runner"),
    [({"chat", "tools"}, "generate"), ({"embeddings"}, "pooling"), ({"rerank"}, "pooling")],
)
def test_a_model_serves_the_task_it_is_for(
    tmp_path: Path, stored: StoredModel, capabilities: set[Capability], runner: str
) -> None:
    spec = msgspec.structs.replace(SPEC, capabilities=frozenset(capabilities))
    plan = backend(tmp_path).plan(spec, stored, EngineOptions())
    arguments = parameters(backend(tmp_path).command(spec, stored, plan))["arguments"]
    assert arguments["runner"] == runner


def test_a_model_goes_over_as_many_gpus_as_its_heads_divide_by(tmp_path: Path, stored: StoredModel) -> None:
    plan = backend(tmp_path, "vllm").plan(SPEC, stored, EngineOptions())
    assert plan.shards == (1, 2)
    assert backend(tmp_path).plan(SPEC, stored, EngineOptions()).shards == (1,)
    each = [plan.memory_on_each(count) for count in plan.shards]
    assert each[0] == plan.memory.total
    assert each == sorted(each, reverse=True)
    assert each[-1] > plan.memory.overhead + plan.memory.compute


def test_it_goes_over_no_more_gpus_than_its_cache_can_be_dealt_to(
    tmp_path: Path, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "read_safetensors_header", lambda path: replace(HEADER, heads=16))
    assert backend(tmp_path, "vllm").plan(SPEC, stored, EngineOptions()).shards == (1, 2)


def test_scratch_memory_is_for_as_many_tokens_as_one_step_computes(
    tmp_path: Path, stored: StoredModel
) -> None:
    long, short = (estimate(HEADER, context=context, slots=1, kind="cuda") for context in (32_768, 2048))
    assert long.compute > 10 * short.compute
    plan = backend(tmp_path).plan(SPEC, stored, EngineOptions())
    arguments = parameters(backend(tmp_path).command(SPEC, stored, plan))["arguments"]
    assert arguments["max_num_batched_tokens"] == batch_tokens(plan.context_length)


def test_no_url_in_a_request_is_fetched(tmp_path: Path, stored: StoredModel) -> None:
    launch = backend(tmp_path).command(SPEC, stored, backend(tmp_path).plan(SPEC, stored, EngineOptions()))
    assert parameters(launch)["arguments"]["allowed_media_domains"] == ["none.invalid"]
    assert launch.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_the_gpus_that_placement_chose_are_those_it_sees(tmp_path: Path, stored: StoredModel) -> None:
    engine = backend(tmp_path, "vllm")
    plan = engine.plan(SPEC, stored, EngineOptions())
    launch = engine.command(SPEC, stored, plan, ("GPU-1", "GPU-2"))
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    sent = parameters(launch)
    assert sent["arguments"]["tensor_parallel_size"] == 2
    assert sent["arguments"]["kv_cache_memory_bytes"] == plan.memory.kv_cache // 2
    assert sent["memory_bytes"] == plan.memory_on_each(2)


def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "missing_library", lambda provider: None)
    assert backend(tmp_path).available().remedy == "run `porten engines install vllm`"
    monkeypatch.setattr(installed, "missing_library", lambda provider: ("libx", "get it"))
    assert backend(tmp_path).available().remedy == "get it"


def test_a_folder_that_is_no_model_is_refused_before_anything_starts(
    tmp_path: Path, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(FormatUnsupported):
        backend(tmp_path).plan(SPEC, stored, EngineOptions())


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", ""),
        ("(EngineCore) INFO all is well\n", ""),
        (
            (
                "(EngineCore pid=1) ERROR a_b.SafetensorError: Error while reading /srv/m/w: short\n"
                "(APIServer pid=2) RuntimeError: Engine core initialization failed. See root cause above.\n"
            ),
            "Error while reading the folder short",
        ),
        ("RuntimeError: Engine core initialization failed. See above.\n", ""),
        (
            (
                "pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
                "  Value error, max_model_len (9) is too large [type=value_error, input_value=1]\n"
            ),
            "max_model_len (9) is too large",
        ),
    ],
)
def test_the_first_cause_is_read_out_of_the_log(log: str, reason: str) -> None:
    assert cause(log) == reason
