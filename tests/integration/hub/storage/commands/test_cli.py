"""`porten-hub` as people run it: real processes, or in this one where only words matter."""

import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from hub import cli, cli_access, operations, terminal
from hub.cli import app
from hub.keys import hash_secret, looks_valid
from hub.policy import PRIVATE, TrustClass
from hub.storage.records import JoinToken
from tunnel.version import __version__

PASSWORD = "correct horse battery"
CODE = "from hub.cli import main; main()"


def run(*arguments, given=None, **environ):
    """A process of its own, with nobody at the terminal."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        input=given or "",
        capture_output=True,
        text=True,
        env=clean | environ,
        check=False,
    )


def test_init_makes_a_hub_and_run_again_changes_nothing(data_dir):
    words = ("init", "--email", "Op@ours.example", "--organisation", "Ours", "--password-file", "-")
    first = run(*words, given=PASSWORD + "\n", PORTEN_HUB_DATA_DIR=str(data_dir))
    assert first.returncode == 0, first.stderr
    assert "porten-hub serve" in first.stderr
    assert PASSWORD not in first.stdout + first.stderr
    before = {path: path.read_bytes() for path in data_dir.iterdir()}
    again = run("init", "--email", "eve@ours.example", PORTEN_HUB_DATA_DIR=str(data_dir))
    assert again.returncode == 0
    assert "nothing was changed" in again.stderr
    assert "op@ours.example" in again.stderr
    assert {path: path.read_bytes() for path in data_dir.iterdir()} == before


def test_what_comes_next_names_the_same_hub(tmp_path):
    data_dir, settings = tmp_path / "a [b] hub", tmp_path / "hub.toml"
    settings.write_text("port = 8421\n")
    words = ("--data-dir", str(data_dir), "--config", str(settings), "init", "--email", "op@ours.example")
    said = run(*words).stderr
    again = shlex.join(["porten-hub", "--config", str(settings), "--data-dir", str(data_dir)])
    assert f"1. {again} serve, and sign in" in said
    assert f"3. {again} keys create --name my-app, and" in said


def test_a_hub_whose_key_is_gone_gets_another_only_when_asked_to(data_dir, hub):
    (data_dir / "hub.key").unlink()
    for words in (["init"], ["serve"], ["keys", "list"]):
        refused = run(*words, PORTEN_HUB_DATA_DIR=str(data_dir), PORTEN_HUB_PORT="0")
        assert refused.returncode == 1
        assert "--new-key" in refused.stderr
        assert "backup" in refused.stderr
    assert not (data_dir / "hub.key").exists()
    made = run("init", "--new-key", PORTEN_HUB_DATA_DIR=str(data_dir))
    assert (made.returncode, "goes on with another key" in made.stderr) == (0, True)
    assert (data_dir / "hub.key").exists()
    assert "nothing was changed" in run("init", "--new-key", PORTEN_HUB_DATA_DIR=str(data_dir)).stderr


def test_a_port_that_is_taken_is_said_in_one_line(data_dir, hub):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for variable in ("PORTEN_HUB_PORT", "PORTEN_HUB_TUNNEL_PORT"):
            ports = {"PORTEN_HUB_PORT": "0", "PORTEN_HUB_TUNNEL_PORT": "0", variable: port}
            refused = run("serve", PORTEN_HUB_DATA_DIR=str(data_dir), **ports)
            assert refused.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
            assert "Traceback" not in refused.stderr


def test_a_catalog_that_makes_no_sense_is_said_in_one_line(data_dir, hub, tmp_path):
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("[[models]]\nid = 3\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        variables = {"PORTEN_HUB_CATALOG": str(catalog), "PORTEN_HUB_PORT": port}
        refused = run("serve", PORTEN_HUB_DATA_DIR=str(data_dir), **variables)
    assert refused.returncode == 2
    assert "catalog.toml" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_init_makes_is_for_its_owner_only(data_dir):
    run("init", "--email", "op@ours.example", PORTEN_HUB_DATA_DIR=str(data_dir))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data_dir, *data_dir.iterdir())}
    assert modes == {"hub": 0o700, "hub.key": 0o600, "hub.db": 0o600}


def test_with_nobody_to_ask_a_password_is_drawn_and_shown_once(data_dir, ask):
    first = run("init", "--email", "op@ours.example", PORTEN_HUB_DATA_DIR=str(data_dir))
    [password] = first.stdout.split()
    assert len(password) >= 20
    assert run("init", PORTEN_HUB_DATA_DIR=str(data_dir)).stdout == ""

    async def sign_in(storage):
        service = operations.AccountService(storage, lambda: 0.0)
        return await service.sign_in("op@ours.example", password, address="here")

    assert ask(sign_in).is_operator


def test_an_interrupted_init_is_finished(data_dir):
    short = run(
        "init",
        "--email",
        "op@ours.example",
        "--password-file",
        "-",
        given="short",
        PORTEN_HUB_DATA_DIR=str(data_dir),
    )
    assert short.returncode == 2
    assert "password: must have at least 12 characters" in short.stderr
    key = (data_dir / "hub.key").read_bytes()
    again = run("init", "--email", "op@ours.example", PORTEN_HUB_DATA_DIR=str(data_dir))
    assert again.returncode == 0, again.stderr
    assert (data_dir / "hub.key").read_bytes() == key


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["init"], 2, "--email"),
        (["init", "--email", "nobody"], 2, "is not an e-mail address"),
        (["keys", "create", "--name", "x", "--fleet", "foo"], 2, "'foo' is not one of own, shared, any"),
        (["nodes", "revoke", "rack-4"], 2, "'rack-4' is not an id such as node_"),
        (["join-token", "revoke", "rack-4"], 2, "'rack-4' is not an id such as jt_"),
        (["accounts", "create", "a@b.c", "--role", "king"], 2, "'king' is not one of operator, owner"),
        (["accounts", "create", "nobody"], 2, "is not an e-mail address"),
        (["init", "--email", "a@b.c", "--password-file", "/nowhere"], 2, "cannot be read"),
        (["init", "--email", "a@b.c", "--region", "Mars!"], 2, "is not a code"),
        (["init", "--email", "a@b.c", "--region", "x:nowhere"], 2, "there is no region 'nowhere'"),
        (["keys", "list"], 1, "run `porten-hub init` first"),
        (["serve"], 1, "run `porten-hub init` first"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(data_dir, words, status, message):
    result = run(*words, PORTEN_HUB_DATA_DIR=str(data_dir))
    assert result.returncode == status
    assert message in result.stderr
    assert result.stdout == ""
    assert "Value error" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistyped_setting_is_an_error_with_the_name_meant(data_dir):
    result = run("keys", "list", PORTEN_HUB_DATADIR=str(data_dir))
    assert result.returncode == 2
    assert "PORTEN_HUB_DATADIR; did you mean PORTEN_HUB_DATA_DIR?" in result.stderr


def test_a_key_file_that_others_can_read_is_refused(hub, data_dir):
    (data_dir / "hub.key").chmod(0o644)
    assert "chmod 600" in hub("keys", "list", status=1).stderr


def test_a_keys_secret_is_all_there_is_on_standard_output(hub, ask):
    words = ("--name", "app", "--region", "eu", "--trust", "verified", "--model", "tiny", "--expires", "90d")
    secret = hub("keys", "create", *words).stdout.strip()
    key = ask(lambda storage: storage.keys.by_hash(hash_secret(secret)))
    assert (key.fleet, key.regions, key.minimum_trust, key.models) == (
        "own",
        frozenset({"eu"}),
        "verified",
        frozenset({"tiny"}),
    )
    assert key.expires_at - key.created_at == 90 * 86_400
    listed = hub("keys", "list").stdout
    assert key.id in listed
    assert secret not in listed
    assert re.search(r"verified +tiny +none +\d{4}-\d\d-\d\d \d\d:\d\d +active +never", listed)
    assert f"{key.id} (app) is revoked" in hub("keys", "revoke", "app").stderr
    assert "revoked" in hub("keys", "list").stdout


def test_a_model_that_the_catalog_lacks_is_said_and_allowed(hub):
    made = hub("keys", "create", "--name", "x", "--model", "smollm2-135m-instruct", "--model", "nope")
    assert "the catalog has no model 'nope'" in made.stderr
    assert "smollm2" not in made.stderr
    assert looks_valid(made.stdout.strip())


@pytest.mark.parametrize(
    "words",
    [
        ["--name", "x", "--region", "mars"],
        ["--name", "x", "--trust", "great"],
        ["--name", "x", "--fleet", "all"],
        ["--name", "x", "--expires", "soon"],
        ["--name", "x" * 101],
        [],
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(hub, words):
    hub("keys", "create", *words, status=2)
    assert "There are no keys" in hub("keys", "list").stderr


def test_a_key_may_be_another_organisations(hub):
    other = hub("organisations", "create", "Others").stdout.strip()
    hub("keys", "create", "--name", "theirs", "--organisation", "Others")
    assert "theirs" in hub("keys", "list", "--organisation", other).stdout
    assert "There are no keys" in hub("keys", "list").stderr
    assert "no such organisation" in hub("keys", "list", "--organisation", "Nobody", status=1).stderr


def test_regions_are_shown_as_a_tree_and_extended(hub):
    hub("regions", "add", "eu-de-ber", "--parent", "eu-de", "--name", "Berlin")
    listed = hub("regions", "list").stdout
    assert re.search(r"\n    eu-de-ber +Berlin +eu-de", listed)
    for words in (["eu-de-ber"], ["x", "--parent", "nowhere"], ["Not a code"]):
        assert hub("regions", "add", *words, status=1 if words == ["eu-de-ber"] else 2).stdout == ""


def test_join_tokens_are_made_confirmed_listed_and_revoked(hub, ask):
    words = ("--region", "eu-de-fra", "--uses", "3", "--expires", "7d")
    secret = hub("join-token", "create", *words).stdout.strip()
    assert secret.startswith("pjt-")
    [token] = ask(lambda storage: storage.join_tokens.list())
    assert (token.region, token.region_confirmed, token.max_uses) == ("eu-de-fra", True, 3)
    assert "0 of 3" in hub("join-token", "list").stdout
    hub("join-token", "revoke", token.id)
    assert re.search(r"revoked *\n", hub("join-token", "list").stdout)
    hub("join-token", "create", "--uses", "0", status=2)


def test_what_a_join_token_is_for_is_said_with_it(hub):
    made = hub("join-token", "create")
    assert "PORTEN_HUB_URL=http://127.0.0.1:8420 PORTEN_JOIN_TOKEN=… porten run" in made.stderr
    assert len(made.stdout.split()) == 1


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"uses": 2}, "used up"),
        ({"expires_at": 5}, "expired"),
        ({"uses": 2, "revoked_at": 6}, "revoked"),
    ],
)
def test_a_join_token_that_admits_nobody_says_why(changes, state):
    token = JoinToken("jt_1", "org_1", "rack", None, False, 2, 1, created_at=0, expires_at=100)
    assert cli_access._token_state(replace(token, **changes), 10) == state


def test_nodes_are_listed_and_revoked(hub):
    assert "There are no nodes" in hub("nodes", "list", "--all").stderr
    assert "no such node" in hub("nodes", "revoke", "node_none", status=1).stderr


def test_a_node_is_drained_and_resumed(hub, ask):
    async def add(storage):
        (ours,) = await storage.organisations.list()
        return await storage.nodes.create(
            ours.id,
            name="rack",
            public_key="key",
            region=None,
            region_confirmed=False,
            trust=TrustClass.COMMUNITY,
            sharing=PRIVATE,
            machine={},
            now=1,
        )

    node = ask(add)
    assert f"porten-hub nodes resume {node.id}" in hub("nodes", "drain", node.id).stderr
    assert re.search(r"rack .*since \d{4}-", hub("nodes", "list").stdout)
    hub("keys", "create", "--name", "app")
    explained = hub("explain", "--key", "app", "--model", "m").stdout
    assert re.search(r"rack .*draining +permitted, but on drain", explained)
    hub("nodes", "resume", node.id)
    assert "since" not in hub("nodes", "list").stdout
    assert "draining" not in hub("explain", "--key", "app", "--model", "m").stdout
    for act in ("drain", "resume"):
        assert "no such node" in hub("nodes", act, "node_none", status=1).stderr
        assert "'rack' is not an id" in hub("nodes", act, "rack", status=2).stderr


def test_every_organisations_nodes_are_listed_with_their_owner(hub, ask):
    owner = hub("organisations", "create", "Others").stdout.strip()

    async def add(storage):
        await storage.nodes.create(
            owner,
            name="rack",
            public_key="key",
            region=None,
            region_confirmed=False,
            trust=TrustClass.COMMUNITY,
            sharing=PRIVATE,
            machine={},
            now=1,
        )

    ask(add)
    assert "There are no nodes" in hub("nodes", "list").stderr
    assert re.search(r"rack .*never +Others *\n", hub("nodes", "list", "--all").stdout)


def test_operators_are_made_and_unmade_by_command_but_for_the_last(hub):
    hub("accounts", "create", "ada@ours.example", "--password-file", "-", given=PASSWORD)
    last = hub("accounts", "role", "op@ours.example", "--role", "owner", status=1)
    assert "it is the Hub's only operator: make another one first" in last.stderr
    assert "is operator now" in hub("accounts", "role", "ADA@ours.example", "--role", "operator").stderr
    hub("accounts", "role", "op@ours.example", "--role", "owner")
    assert re.search(r"op@ours.example +owner +Ours", hub("accounts", "list").stdout)
    hub("accounts", "role", "op@ours.example", "--role", "king", status=2)
    hub("accounts", "role", "eve@ours.example", "--role", "member", status=1)


def test_a_second_step_that_was_lost_is_reset(hub, ask):
    assert "has no second step" in hub("accounts", "reset-second-step", "op@ours.example").stderr

    async def set_up(storage):
        account = await storage.accounts.by_email("op@ours.example")
        await storage.second_steps.begin(account.id, "sealed", now=1.0)
        return await storage.second_steps.confirm(
            account.id, sealed_secret="sealed", step=1, code_hashes=["c" * 64], now=1.0
        )

    assert ask(set_up)
    assert "with the password alone now" in hub("accounts", "reset-second-step", "OP@ours.example").stderr
    assert "has no second step" in hub("accounts", "reset-second-step", "op@ours.example").stderr
    hub("accounts", "reset-second-step", "eve@ours.example", status=1)


def test_somebody_removed_before_is_erased_by_their_address(hub, ask):
    hub("accounts", "create", "ada@ours.example", "--password-file", "-", given=PASSWORD)

    async def remove(storage):
        account = await storage.accounts.by_email("ada@ours.example")
        return await storage.members.remove(account.id, by=None)

    ask(remove)
    assert "is erased" in hub("erase", "account", "ada@ours.example", "--yes").stderr
    hub("erase", "account", "ada@ours.example", "--yes", status=1)


def test_accounts_are_made_listed_and_given_new_passwords(hub):
    hub("accounts", "create", "ada@ours.example", "--role", "owner", "--password-file", "-", given=PASSWORD)
    assert re.search(r"ada@ours.example +owner +Ours", hub("accounts", "list").stdout)
    hub("accounts", "password", "ada@ours.example", "--password-file", "-", given="another long password")
    hub("accounts", "password", "eve@ours.example", "--password-file", "-", given=PASSWORD, status=1)


def test_no_password_is_drawn_for_what_cannot_be_done(hub):
    taken = hub("accounts", "create", "OP@ours.example", status=1)
    assert "account exists already: op@ours.example" in taken.stderr
    nowhere = hub("accounts", "create", "ada@ours.example", "--organisation", "Nobody", status=1)
    nobody = hub("accounts", "password", "eve@ours.example", status=1)
    assert taken.stdout + nowhere.stdout + nobody.stdout == ""


def test_somebody_at_a_terminal_is_asked_until_the_answer_can_be_accepted(data_dir, monkeypatch):
    for module in (cli, terminal):
        monkeypatch.setattr(module, "is_interactive", lambda: True)
    answers = ["foo", "op@ours.example", "x" * 101, "Ours", "short", "short", PASSWORD, PASSWORD]
    made = CliRunner().invoke(app, ["--data-dir", str(data_dir), "init"], input="\n".join(answers) + "\n")
    assert made.exit_code == 0, made.output
    assert "is not an e-mail address" in made.stderr
    assert "must have at most 100 characters" in made.stderr
    assert made.stderr.count("12 characters or more") == 2
    assert "must have at least 12 characters" in made.stderr
    assert "operator      op@ours.example (Ours)" in made.stderr


def test_the_version_is_said_in_the_same_words_by_command_and_option():
    said = CliRunner().invoke(app, ["version"])
    assert said.stdout == f"porten-hub {__version__}\n"
    assert CliRunner().invoke(app, ["--version"]).stdout == said.stdout


def test_settings_are_shown_with_their_source_and_without_a_database_password(tmp_path):
    file = tmp_path / "hub.toml"
    file.write_text('port = 9\ndatabase_url = "postgresql+asyncpg://hub:s3cret@db/hub"\n')
    result = CliRunner().invoke(
        app, ["--config", str(file), "config", "show"], env={"PORTEN_HUB_NAME": "Mine"}
    )
    assert re.search(rf"port +9 +{re.escape(str(file))}", result.stdout)
    assert re.search(r"name +Mine +PORTEN_HUB_NAME", result.stdout)
    assert re.search(r"host +127.0.0.1 +default", result.stdout)
    assert "s3cret" not in result.output


def test_names_cannot_play_tricks_on_the_terminal(hub):
    hub("organisations", "create", "[red]Team[/red]")
    assert "[red]Team[/red]" in hub("organisations", "list").stdout
    hub("organisations", "create", "bell\a", status=2)


def commands(group, path=()):
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def all_commands():
    from typer.main import get_command

    return sorted(commands(get_command(app)))


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_command_has_help(path):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_an_example_stands_on_one_line_of_a_terminal(path):
    from typer.main import get_command

    command = get_command(app)
    for name in path:
        command = command.commands[name]
    examples = (command.help or "").partition("[bold]Example")[2].split("\n\n")[1:]
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in shown.splitlines()]
    assert [example for example in examples if example.strip() not in lines] == []
