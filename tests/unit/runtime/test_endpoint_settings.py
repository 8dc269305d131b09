"""Endpoints in the settings: what is accepted, what is refused, and that nothing secret is repeated."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from runtime.assembly import open_catalog
from runtime.config import NodeConfig, load_config
from runtime.errors import ConfigInvalid

HERE = "http://127.0.0.1:8000"


def endpoints(**tables: Any) -> NodeConfig:
    """The settings with these endpoints: on this machine with one model, where they do not say otherwise."""
    usual = {name: {"url": HERE, "models": {f"{name}-model": "m"}, **table} for name, table in tables.items()}
    return load_config(environ={"PORTEN_ENDPOINTS": json.dumps(usual)}).config


def test_a_table_in_the_file_and_json_in_the_variable_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[endpoints.gpu-box]\nurl = "https://box.lan/llm/v1/"\nslots = 8\nown_machine_in_region = true\n'
        'api_key_file = "~/box.key"\nca_file = "/etc/lan.pem"\n'
        'models = { "big/model" = "meta-llama/Big" }\n'
    )
    loaded = load_config(file, environ={})
    found = loaded.config.endpoints["gpu-box"]
    assert (found.host, found.port, found.base_path) == ("box.lan", 443, "/llm")
    assert (found.is_encrypted, found.is_here, found.slots, found.kind) == (True, False, 8, "openai")
    assert found.api_key_file == Path("~/box.key").expanduser()
    assert found.models == {"big/model": "meta-llama/Big"}
    assert loaded.origins["endpoints"] == str(file)
    said = {
        name: json.loads(endpoint.model_dump_json()) for name, endpoint in loaded.config.endpoints.items()
    }
    assert (
        load_config(environ={"PORTEN_ENDPOINTS": json.dumps(said)}).config.endpoints
        == loaded.config.endpoints
    )


def test_a_model_that_no_catalog_has_is_named() -> None:
    with pytest.raises(ConfigInvalid, match=r"endpoints\.a: there is no model 'a-model' in the catalog"):
        open_catalog(endpoints(a={}))
    known = endpoints(a={"models": {"smollm2-135m-instruct": "m"}})
    assert "smollm2-135m-instruct" in open_catalog(known)


def test_none_is_the_default() -> None:
    assert load_config(environ={}).config.endpoints == {}


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://127.8.9.10:1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost", True),
        ("http://10.0.0.5:8000", False),
        ("https://box.lan", False),
        ("http://0.0.0.0:8000", False),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
    ],
)
def test_only_loopback_is_this_machine_and_another_needs_its_owners_word(url: str, is_here: bool) -> None:
    said = endpoints(a={"url": url, "own_machine_in_region": True}).endpoints["a"]
    assert said.is_here == is_here
    if is_here:
        assert endpoints(a={"url": url}).endpoints["a"] == said.model_copy(
            update={"own_machine_in_region": False}
        )
    else:
        with pytest.raises(ConfigInvalid, match="set own_machine_in_region = true if that one is yours too"):
            endpoints(a={"url": url})


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://hunter2@127.0.0.1",
        "http://user:hunter2@127.0.0.1",
        "http://127.0.0.1?key=hunter2",
        "http://127.0.0.1/#hunter2",
        "http://127.0.0.1:hunter2",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1/a hunter2",
        "http://127.0.0.1\\@hunter2",
        "http://hünter2",
        "http://x..y",
        "http://[hunter2",
    ],
)
def test_an_address_that_is_none_or_holds_a_key_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"endpoints\.a\.url .*must be http://host:port") as caught:
        endpoints(a={"url": url, "own_machine_in_region": True})
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"a": {"models": {}}}, "endpoints.a.models (from PORTEN_ENDPOINTS): must not be empty"),
        ({"a": {"models": {"x": ""}}}, "endpoints.a.models.x (from PORTEN_ENDPOINTS): must not be empty"),
        ({"a": {"models": "x"}}, "endpoints.a.models (from PORTEN_ENDPOINTS): must be a table"),
        ({"a": {"slots": 0}}, "endpoints.a.slots (from PORTEN_ENDPOINTS): must be at least 1"),
        ({"a": {"kind": "tgi"}}, "endpoints.a.kind (from PORTEN_ENDPOINTS): must be 'openai' or 'ollama'"),
        ({"a": {"api_key": "hunter2"}}, "endpoints.a.api_key (from PORTEN_ENDPOINTS): is unknown"),
        (
            {"a": {"protocols": ["grpc"]}},
            "endpoints.a.protocols (from PORTEN_ENDPOINTS): must be 'responses' or 'messages'",
        ),
        ({"A b": {}}, "the name of an endpoint is [a-z0-9]"),
        ({"a": {"models": {"x": "1"}}, "b": {"models": {"x": "2"}}}, "a and b both serve x"),
        ({"a": {"url": "http://127.0.0.1:11700"}}, "endpoints.a leads to this node's own local API"),
        ({"a": {"own_machine_in_region": "perhaps"}}, "must be true or false"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_place(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigInvalid, match=re.escape(said)) as caught:
        endpoints(**tables)
    assert "hunter2" not in str(caught.value)


def test_a_model_with_an_engine_of_its_own_cannot_be_an_endpoints_too() -> None:
    environ = {
        "PORTEN_ENDPOINTS": json.dumps({"a": {"url": HERE, "models": {"x": "m"}}}),
        "PORTEN_MODEL_ENGINES": "x=llama_cpp",
    }
    with pytest.raises(ConfigInvalid, match=r"endpoints\.a and model_engines both say who serves x"):
        load_config(environ=environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "endpoints (from PORTEN_ENDPOINTS): must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("[]", "must be a table"),
        ('{"a": 1}', "endpoints.a (from PORTEN_ENDPOINTS): must be a table"),
        ('{"a": {}}', "endpoints.a.url (from PORTEN_ENDPOINTS): is missing"),
    ],
)
def test_a_variable_that_is_no_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=re.escape(said)):
        load_config(environ={"PORTEN_ENDPOINTS": text})
