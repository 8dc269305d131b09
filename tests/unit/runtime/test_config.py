"""Settings: precedence, origins, refusals, and the page that explains them."""

import re
from pathlib import Path

import httpx
import pytest
from websockets.proxy import parse_proxy

from runtime.config import NodeConfig, default_config_path, load_config
from runtime.errors import ConfigInvalid

DOCS = Path(__file__).parents[3] / "docs" / "node.md"


def test_the_command_line_wins_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('slots = 2\nthreads = 3\ncontext_length = 512\nmodels = ["a", "b"]\n')
    loaded = load_config(
        file, environ={"PORTEN_THREADS": "4", "PORTEN_CONTEXT_LENGTH": "600"}, options={"context_length": 700}
    )
    config = loaded.config
    assert (config.slots, config.threads, config.context_length) == (2, 4, 700)
    assert config.models == ("a", "b")
    assert loaded.origins["slots"] == str(file)
    assert loaded.origins["threads"] == "PORTEN_THREADS"
    assert loaded.origins["context_length"] == "command line"
    assert loaded.origins["local_port"] == "default"


def test_directories_lie_below_the_data_directory_unless_named(tmp_path: Path) -> None:
    config = load_config(environ={"PORTEN_DATA_DIR": str(tmp_path), "PORTEN_MODELS_DIR": "/elsewhere"}).config
    assert config.engines_dir == tmp_path / "engines"
    assert config.state_dir == tmp_path / "state"
    assert config.models_dir == Path("/elsewhere")


def test_xdg_names_the_places(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": "/xdg/data", "XDG_CONFIG_HOME": str(tmp_path)}
    file = default_config_path(environ)
    file.parent.mkdir()
    file.write_text("slots = 3\n")
    loaded = load_config(environ=environ)
    assert loaded.config.data_dir == Path("/xdg/data/porten")
    assert (loaded.file, loaded.config.slots) == (file, 3)


def test_a_list_in_a_variable_is_comma_separated() -> None:
    environ = {"PORTEN_MODELS": "a, b,", "PORTEN_CATALOG": "/x.toml,/y.toml"}
    config = load_config(environ=environ).config
    assert config.models == ("a", "b")
    assert config.catalog == (Path("/x.toml"), Path("/y.toml"))


def test_an_empty_variable_is_not_set() -> None:
    assert load_config(environ={"PORTEN_HUB_URL": "", "PORTEN_SLOTS": ""}).config.slots is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PORTEN_SLOT": "1"}, "did you mean PORTEN_SLOTS"),
        ({"PORTEN_SLOTS": "many"}, "slots (from PORTEN_SLOTS): must be a whole number"),
        ({"PORTEN_SLOTS": "0"}, "must be at least 1"),
        ({"PORTEN_SLOTS": "257"}, "must be at most 256"),
        ({"PORTEN_IDLE_TTL_S": "soon"}, "must be a number"),
        ({"PORTEN_DISK_BUDGET_GB": "0"}, "must be more than 0"),
        ({"PORTEN_NODE_NAME": "n" * 101}, "must have at most 100 characters"),
        ({"PORTEN_LOG_LEVEL": "LOUD"}, "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ({"PORTEN_LOCAL_HOST": "0.0.0.0"}, "loopback"),
        ({"PORTEN_LOCAL_HOST": "example.org"}, "loopback"),
        ({"PORTEN_HUB_URL": "hub.example.org"}, "https://"),
        ({"PORTEN_LOG_LEVEL": "LOUD"}, "log_level"),
        ({"PORTEN_CONFIG": "/nowhere/node.toml"}, "no settings file"),
    ],
)
def test_nonsense_in_the_environment_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigInvalid, match=re.escape(said)):
        load_config(environ=environ)


@pytest.mark.parametrize("given", ["https://hub.example.org", "https://hub.example.org/v1/"])
def test_the_address_that_apps_are_given_names_the_hub_too(given: str) -> None:
    assert load_config(environ={"PORTEN_HUB_URL": given}).config.hub_url == "https://hub.example.org"


def test_one_wrong_value_is_one_problem() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(environ={"PORTEN_HUB_URL": "hub.example.org"})
    assert str(caught.value) == "hub_url (from PORTEN_HUB_URL): must start with http:// or https://"


def test_a_variable_that_is_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(ConfigInvalid, match=r"^unknown variable PORTEN_FOO$"):
        load_config(environ={"PORTEN_FOO": "1"})


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("slotz = 2\n")
    with pytest.raises(ConfigInvalid, match=r"slotz.*did you mean slots"):
        load_config(file, environ={})
    file.write_text("slots = \n")
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load_config(file, environ={})


@pytest.mark.parametrize("schedule", ["Someday", "Mon 25:00-26:00", "Mon-Fri,"])
def test_hours_that_make_no_sense_are_refused(schedule: str) -> None:
    with pytest.raises(ConfigInvalid, match="schedule"):
        load_config(environ={"PORTEN_SCHEDULE": schedule})
    assert load_config(environ={"PORTEN_SCHEDULE": "Mon-Fri 18:00-08:00, Sat"}).config.schedule is not None


def test_other_programs_variables_are_left_alone() -> None:
    load_config(
        environ={"PORTEN_HUB_PORT": "1", "PORTEN_ENGINE_OF": "x", "PORTEN_API_KEY": "sk", "PATH": "/bin"}
    )


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(environ={"PORTEN_LOCAL_PORT": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(load_config(environ={"PORTEN_JOIN_TOKEN": "hunter2"}))


@pytest.mark.parametrize(
    "url",
    [
        "proxy.example.org:3128",
        "https://proxy.example.org",
        "socks5://proxy.example.org",
        "http://",
        "http://:3128",
        "http://hunter2@proxy.example.org",
        "http://u:hunter2@p:many",
        "http://u:hunter2@p:99999",
        "http://u:hunter2@p:0",
        "http://u:hunter2/@p",
        "http://u:hunter2#@p",
        "http://u:hunter2@x@p",
        "http://u:hunter2%ff@p",
        "http://u:hunter2\n@p",
        "http://u:hünter2@p",
        "http://u:[hunter2@p",
        "http://u:hunter2@p/path",
        "http://u:hunter2@p?query",
        "http://u:hunter2@x..y",
    ],
)
def test_a_proxy_that_cannot_be_dialled_through_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(
        ConfigInvalid, match=r"proxy_url \(from PORTEN_PROXY_URL\): must be http://"
    ) as caught:
        load_config(environ={"PORTEN_PROXY_URL": url})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://proxy.example.org", ("proxy.example.org", 80, None)),
        ("http://[::1]:3128/", ("::1", 3128, None)),
        ("http://u:p%40%3A%2F%C3%BC:x@Proxy.example:1", ("proxy.example", 1, ("u", "p@:/ü:x"))),
        ("http://u:@proxy.example:1", ("proxy.example", 1, ("u", ""))),
    ],
)
def test_both_libraries_read_a_proxy_alike_and_nothing_shows_its_password(
    url: str, dialled: tuple[str, int, tuple[str, str] | None]
) -> None:
    loaded = load_config(environ={"PORTEN_PROXY_URL": url, "HTTPS_PROXY": "http://other.example"})
    assert loaded.config.proxy is not None
    asked, tunnel = httpx.Proxy(loaded.config.proxy), parse_proxy(loaded.config.proxy)
    assert (asked.url.host, asked.url.port or 80, asked.auth) == dialled
    assert (tunnel.host, tunnel.port, tunnel.user_info) == dialled
    assert url not in f"{loaded!r} {loaded.config.model_dump()}"


def test_no_proxy_is_taken_from_the_environment() -> None:
    environ = {"HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://p", "ALL_PROXY": "http://p"}
    assert load_config(environ=environ).config.proxy is None


def test_every_setting_is_explained_in_the_docs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    explained = {name: (variable, text) for name, variable, _, text in rows}
    expected = {
        name: (f"PORTEN_{name.upper()}", field.description) for name, field in NodeConfig.model_fields.items()
    }
    assert explained == expected


def test_the_docs_name_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `\w+` \| (.*?) \| .* \|$", DOCS.read_text(), re.MULTILINE)
    for name, shown in rows:
        default = NodeConfig.model_fields[name].default
        if isinstance(default, bool):
            assert shown == f"`{str(default).lower()}`", name
        elif isinstance(default, str | int | float):
            assert shown == f"`{default:g}`" if isinstance(default, int | float) else f"`{default}`", name


def test_engines_of_models_come_as_pairs_or_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('model_engines = { "a" = "vllm", "b/c" = "llama_cpp" }\n')
    assert load_config(file, environ={}).config.model_engines == {"a": "vllm", "b/c": "llama_cpp"}
    read = load_config(environ={"PORTEN_MODEL_ENGINES": "a=vllm, b/c=llama_cpp"}).config
    assert read.model_engines == {"a": "vllm", "b/c": "llama_cpp"}
