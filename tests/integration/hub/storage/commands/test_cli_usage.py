"""`porten-hub keys set | rotate`, `organisations limit` and `usage`, as an operator runs them."""

import csv
import io
import time

import pytest

from hub.keys import hash_secret
from hub.quotas import UNLIMITED, Allowance
from hub.storage.records import UsageRecord

DAY = 86_400


@pytest.fixture
def key(hub, ask):
    """A key that was made on the command line; gives it as it is now."""
    secret = hub(
        "keys", "create", "--name", "app", "--tokens-per-minute", "20k", "--region", "eu"
    ).stdout.strip()
    [made] = ask(lambda storage: storage.keys.list())
    assert (made.limits, made.hash) == (Allowance(tokens_per_minute=20_000), hash_secret(secret))

    class Key:
        id, first_secret = made.id, secret

        @property
        def now(self):
            return ask(lambda storage: storage.keys.get(made.id))

    return Key()


def test_what_is_named_is_changed_and_nothing_else(hub, key):
    said = hub(
        "keys", "set", key.id, "--monthly-tokens", "5M", "--trust", "verified", "--expires", "90d"
    ).stderr
    assert "20,000 tokens/min, 5,000,000 tokens/month" in said
    now = key.now
    assert now.limits == Allowance(tokens_per_minute=20_000, monthly_tokens=5_000_000)
    assert (now.name, now.fleet, now.regions, now.minimum_trust) == ("app", "own", {"eu"}, "verified")
    assert now.expires_at == pytest.approx(time.time() + 90 * DAY, abs=60)
    hub("keys", "set", key.id, "--anywhere", "--tokens-per-minute", "none", "--monthly-tokens", "none")
    hub("keys", "set", key.id, "--expires", "never", "--name", "other", "--fleet", "any", "--model", "m")
    now = key.now
    assert (now.limits, now.regions, now.expires_at) == (UNLIMITED, frozenset(), None)
    assert (now.name, now.fleet, now.models) == ("other", "any", {"m"})
    hub("keys", "set", key.id, "--all-models", "--region", "us")
    assert (key.now.models, key.now.regions) == (None, {"us"})
    assert key.now.hash == hash_secret(key.first_secret)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--region", "mars"], 2, "there is no region 'mars'"),
        (["--requests-per-minute", "lots"], 2, "is not a limit such as 600"),
        (["--concurrent-requests", "0"], 2, "whole number from 1"),
        (["--region", "eu", "--anywhere"], 2, "either --region or --anywhere"),
        (["--model", "m", "--all-models"], 2, "either --model or --all-models"),
        (["--expires", "soon"], 2, "not a duration"),
        (["--fleet", "all"], 2, "not one of own"),
    ],
)
def test_what_cannot_be_accepted_is_said_and_changes_nothing(hub, key, words, status, said):
    before = key.now
    assert said in hub("keys", "set", key.id, *words, status=status).stderr
    assert key.now == before


@pytest.mark.parametrize("command", ["set", "rotate"])
def test_a_key_that_is_not_there_is_said(hub, command):
    more = ["--name", "b"] if command == "set" else []
    for name in ("key_" + "a" * 20, "app"):
        assert "no such key" in hub("keys", command, name, *more, status=1).stderr


def test_a_key_is_found_by_its_name_and_two_of_a_name_are_told_apart(hub, key):
    assert f"{key.id} is changed" in hub("keys", "set", "app", "--trust", "verified").stderr
    assert key.id in hub("keys", "rotate", key.now.prefix, "--overlap", "0s").stderr
    other = hub("keys", "create", "--name", "app")
    for words in (["revoke", "app"], ["rotate", "app"], ["set", "app", "--name", "b"]):
        assert "2 keys are called that" in hub("keys", *words, status=2).stderr
    assert "shell's history" in hub("keys", "revoke", other.stdout.strip(), status=2).stderr
    assert key.now.revoked_at is None
    hub("keys", "revoke", key.id)
    assert "is revoked" in hub("keys", "revoke", "app").stderr, "the one that is left"


def test_nothing_to_change_is_said(hub, key):
    before = key.now
    assert "say what is to be another" in hub("keys", "set", key.id, status=2).stderr
    assert key.now == before


def test_rotating_prints_the_new_secret_alone_and_the_list_shows_both(hub, key):
    rotated = hub("keys", "rotate", key.id, "--overlap", "24h")
    secret = rotated.stdout.strip()
    assert hash_secret(secret) == key.now.hash
    assert "works until" in rotated.stderr
    assert key.now.previous_hash == hash_secret(key.first_secret)
    listed = hub("keys", "list").stdout
    assert f"{secret[:16]}…" in listed
    assert f"{key.first_secret[:16]}…" in listed
    assert "rotated out" in listed
    ended = hub("keys", "rotate", key.id, "--overlap", "0s")
    assert "has ended" in ended.stderr
    assert "rotated out" not in hub("keys", "list").stdout
    assert "at most 90 days" in hub("keys", "rotate", key.id, "--overlap", "91d", status=2).stderr


def test_an_organisations_ceiling(hub, ask):
    hub("organisations", "create", "Lab")
    hub("organisations", "limit", "Lab", "--requests-per-minute", "600", "--monthly-tokens", "1G")
    hub("organisations", "limit", "Lab", "--requests-per-minute", "none")
    lab = ask(lambda storage: storage.organisations.by_name("Lab"))
    assert lab.limits == Allowance(monthly_tokens=10**9)
    assert "1,000,000,000 tokens/month" in hub("organisations", "list").stdout
    assert "no such organisation" in hub("organisations", "limit", "Nobody", status=1).stderr
    assert "not a limit" in hub("organisations", "limit", "Lab", "--monthly-tokens", "x", status=2).stderr


class TestUsage:
    @pytest.fixture(autouse=True)
    def used(self, key, ask):
        """Two days of usage."""
        now = time.time()
        owner = key.now.organisation_id

        def record(number, back, model, outcome="ok"):
            return UsageRecord(
                f"req_{number}",
                key.id,
                owner,
                "node_x",
                "eu",
                model,
                100,
                10,
                20,
                1.0,
                2.0,
                outcome,
                now - back,
            )

        records = [record(1, 0, "tiny"), record(2, 0, "big", "cancelled"), record(3, DAY, "tiny")]
        ask(lambda storage: storage.usage.add(records))

    def rows(self, hub, *words):
        return list(csv.DictReader(io.StringIO(hub("usage", "--csv", *words).stdout)))

    def test_it_is_by_day_and_model_unless_asked_otherwise(self, hub):
        rows = self.rows(hub)
        assert [(row["model"], row["requests"], row["prompt_tokens"]) for row in rows] == [
            ("tiny", "1", "100"),
            ("big", "1", "100"),
            ("tiny", "1", "100"),
        ]
        assert rows[0]["start"].endswith("T00:00:00Z")
        assert "tiny" in hub("usage").stdout

    def test_it_can_be_told_apart_by_several_things(self, hub, key):
        [row] = self.rows(hub, "--by", "total", "--group-by", "key")
        assert (row["key_id"], row["key_name"], row["requests"], row["completion_tokens"]) == (
            key.id,
            "app",
            "3",
            "60",
        )
        rows = self.rows(hub, "--by", "hour", "--group-by", "model, outcome", "--key", key.id)
        assert ("big", "cancelled") in [(row["model"], row["outcome"]) for row in rows]
        [row] = self.rows(hub, "--by", "total", "--group-by", "node,region")
        assert (row["node_id"], row["node_name"], row["region"]) == ("node_x", "", "eu")

    def test_days_are_whole_and_both_included(self, hub):
        yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
        [row] = self.rows(hub, "--from", yesterday, "--to", yesterday, "--by", "total", "--group-by", "")
        assert row["requests"] == "1"
        assert "Nothing was used" in hub("usage", "--from", "2001-01-01", "--to", "2001-01-02").stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--from", "yesterday"], "not a day such as"),
            (["--from", "2026-02-30"], "not a day such as"),
            (["--from", "2026-01-02", "--to", "2026-01-01"], "is after"),
            (["--from", "1990-01-01"], "days can be asked for at once"),
            (["--by", "week"], "not one of hour, day, total"),
            (["--group-by", "person"], "not one of key"),
        ],
    )
    def test_what_has_no_meaning_is_said(self, hub, words, said):
        assert said in hub("usage", *words, status=2).stderr
