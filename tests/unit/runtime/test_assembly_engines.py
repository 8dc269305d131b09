"""Which engines a node uses, and in which order, by its settings."""

from pathlib import Path

import pytest

from runtime.assembly import make_backends
from runtime.config import NodeConfig
from runtime.errors import ConfigInvalid


def names(**settings: object) -> list[str]:
    return [backend.name for backend in make_backends(NodeConfig(**settings))]  # type: ignore[arg-type]


def test_all_but_an_unnamed_llama_server_are_there() -> None:
    assert names() == ["llama_cpp", "llama_cpp_python", "vllm"]


def test_a_llama_server_of_the_owners_comes_first() -> None:
    assert names(llama_server=Path("llama-server"))[0] == "llama_server"


def test_the_owner_chooses_and_orders() -> None:
    assert names(engines=("vllm", "llama_cpp")) == ["vllm", "llama_cpp"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engines": ("llama",)}, "no engine 'llama'"),
        ({"engines": ("llama_server",)}, "set `llama_server`"),
        ({"model_engines": {"m": "nothing"}}, "'m' asks for 'nothing'"),
        ({"engines": ("vllm",), "model_engines": {"m": "llama_cpp"}}, "does not use"),
    ],
)
def test_an_engine_that_there_is_not_is_said(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said):
        names(**settings)
