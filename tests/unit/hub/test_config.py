"""Settings: where they come from, and what is refused."""

import pytest

from hub.config import NODE_VARIABLES, HubConfig, load_config, read_secret
from hub.errors import ConfigInvalid
from runtime.config import NodeConfig


def write(tmp_path, text):
    file = tmp_path / "hub.toml"
    file.write_text(text)
    return file


def test_each_layer_goes_before_the_one_below_and_says_so(tmp_path):
    file = write(tmp_path, 'port = 1\nhost = "::1"\nname = "From file"\n')
    environ = {"PORTEN_HUB_PORT": "2", "PORTEN_HUB_NAME": "From variable", "XDG_DATA_HOME": "/data"}
    loaded = load_config(file, environ=environ, options={"port": 3})
    assert (loaded.config.port, loaded.config.name, loaded.config.host) == (3, "From variable", "::1")
    assert str(loaded.config.data_dir) == "/data/porten-hub"
    assert loaded.origins["port"] == "command line"
    assert loaded.origins["name"] == "PORTEN_HUB_NAME"
    assert loaded.origins["host"] == str(file)
    assert loaded.origins["tunnel_port"] == "default"


def test_the_settings_file_may_be_named_by_a_variable(tmp_path):
    file = write(tmp_path, "port = 1")
    assert load_config(environ={"PORTEN_HUB_CONFIG": str(file)}).config.port == 1


def test_lists_are_separated_by_commas_in_variables(tmp_path):
    environ = {"PORTEN_HUB_TUNNEL_URLS": "wss://a.example, wss://b.example/"}
    assert load_config(environ=environ).config.tunnel_urls == ("wss://a.example", "wss://b.example")
    file = write(tmp_path, 'tunnel_urls = ["wss://c.example"]')
    assert load_config(file, environ={}).config.tunnel_urls == ("wss://c.example",)


def test_an_empty_variable_is_not_set():
    assert load_config(environ={"PORTEN_HUB_PUBLIC_URL": ""}).config.public_url is None


def test_other_programs_variables_are_none_of_ours():
    load_config(environ={"PORTEN_JOIN_TOKEN": "x", "PORTEN_HUBERT": "y"})


def test_the_nodes_variables_that_begin_like_ours_are_not_ours():
    theirs = {f"PORTEN_{name}".upper() for name in NodeConfig.model_fields if name.startswith("hub_")}
    assert theirs == NODE_VARIABLES
    assert load_config(environ=dict.fromkeys(theirs, "x")).config.port == 8420


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PORTEN_HUB_PROT": "1"}, "PORTEN_HUB_PROT; did you mean PORTEN_HUB_PORT?"),
        ({"PORTEN_HUB_PORT": "many"}, "port (from PORTEN_HUB_PORT): must be a whole number"),
        ({"PORTEN_HUB_PORT": "70000"}, "port (from PORTEN_HUB_PORT): must be at most 65535"),
        ({"PORTEN_HUB_DRAIN_S": "long"}, "drain_s (from PORTEN_HUB_DRAIN_S): must be a number"),
        ({"PORTEN_HUB_DRAIN_S": "-1"}, "drain_s (from PORTEN_HUB_DRAIN_S): must be at least 0"),
        ({"PORTEN_HUB_REQUEST_DEADLINE_S": "0"}, "must be more than 0"),
        ({"PORTEN_HUB_NAME": "x" * 101}, "must have at most 100 characters"),
        ({"PORTEN_HUB_LOG_LEVEL": "loud"}, "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ({"PORTEN_HUB_PUBLIC_URL": "hub.example"}, "must start with http:// or https://"),
        ({"PORTEN_HUB_TUNNEL_URLS": "https://hub.example"}, "must start with ws:// or wss://"),
        ({"PORTEN_HUB_REGION_AUTHORITY": "node"}, "region_authority (from PORTEN_HUB_REGION_AUTHORITY)"),
        ({"PORTEN_HUB_CONFIG": "/nowhere/hub.toml"}, "/nowhere/hub.toml cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_and_its_source_named(environ, message):
    with pytest.raises(ConfigInvalid) as refused:
        load_config(environ=environ)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ['port = "x"', "port = 1.5", "host = 3", 'host = ""', "catalog = 5", "drain_s = []", "data_dir = 7"],
)
def test_a_refusal_is_in_words_for_people(tmp_path, text):
    with pytest.raises(ConfigInvalid) as refused:
        load_config(write(tmp_path, text), environ={})
    assert "must " in str(refused.value)
    assert "nput should" not in str(refused.value)


def test_a_variable_that_is_like_no_other_gets_no_suggestion():
    with pytest.raises(ConfigInvalid) as refused:
        load_config(environ={"PORTEN_HUB_FOO": "1"})
    assert refused.value.problems == ("unknown variable: PORTEN_HUB_FOO",)


@pytest.mark.parametrize("text", ["prot = 1", "port = [", "[hub]\nport = 1"])
def test_a_file_with_unknown_names_or_broken_syntax_is_refused(tmp_path, text):
    with pytest.raises(ConfigInvalid) as refused:
        load_config(write(tmp_path, text), environ={})
    assert "hub.toml" in str(refused.value)


def test_a_refused_value_is_not_repeated():
    with pytest.raises(ConfigInvalid) as refused:
        load_config(environ={"PORTEN_HUB_PORT": "s3cret"})
    assert "s3cret" not in str(refused.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigInvalid) as refused:
        load_config(environ={"PORTEN_HUB_PORT": "x", "PORTEN_HUB_DRAIN_S": "-1"})
    assert len(refused.value.problems) == 2


def test_the_database_lies_in_the_data_directory_unless_said_otherwise(tmp_path):
    assert HubConfig(data_dir=tmp_path).database == f"sqlite+aiosqlite:///{tmp_path}/hub.db"
    assert HubConfig(database_url="postgresql+asyncpg://db/hub").database == "postgresql+asyncpg://db/hub"


def test_every_setting_is_described():
    assert all(field.description for field in HubConfig.model_fields.values())


SIGN_ON = {
    "oidc_issuer": "https://login.example.org/",
    "oidc_client_id": "porten",
    "oidc_client_secret_file": "/secret",
}


def test_an_issuer_is_kept_letter_for_letter():
    assert HubConfig(**SIGN_ON).oidc_issuer == "https://login.example.org/"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"oidc_issuer": "http://login.example.org"}, "must begin with https://"),
        ({"oidc_issuer": "https://login.example.org/?x=1"}, "must have neither"),
        ({"oidc_issuer": "login.example.org"}, "must begin with https://"),
        ({"oidc_issuer": None}, "needs all of oidc_issuer"),
        ({"oidc_client_id": None}, "needs all of oidc_issuer"),
        ({"oidc_client_secret_file": None}, "needs all of oidc_issuer"),
        ({"oidc_scopes": "email"}, "must have openid in it"),
        ({"oidc_rules": "staff"}, "is not VALUE=ORGANISATION:ROLE"),
        ({"oidc_rules": "staff=Lab:operator"}, "is not one of owner"),
    ],
)
def test_half_a_single_sign_on_is_refused(wrong, said):
    given = {name: value for name, value in (SIGN_ON | wrong).items() if value is not None}
    with pytest.raises(ConfigInvalid, match=said):
        load_config(environ={}, options=given)


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [(0o640, "secret", "chmod 600"), (0o604, "secret", "chmod 600"), (0o600, " \n", "is empty")],
)
def test_a_secret_is_read_from_a_file_for_its_owner_alone(tmp_path, mode, text, said):
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigInvalid, match=said):
        read_secret(file, "oidc_client_secret_file")
    file.write_text("s3cret\n")
    file.chmod(0o600)
    assert read_secret(file, "oidc_client_secret_file") == "s3cret"
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_secret(tmp_path / "none", "oidc_client_secret_file")
