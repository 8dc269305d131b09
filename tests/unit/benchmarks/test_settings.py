"""Settings as people write them."""

from pathlib import Path

import pytest

from benchmarks.command.settings import (
    parse_counts,
    parse_limit,
    parse_rules,
    parse_share,
    parse_tree,
    parse_warmup,
    read_key,
)
from benchmarks.errors import SettingInvalid
from benchmarks.generator.loads import Limit
from benchmarks.generator.target import Api, Origin, Target
from benchmarks.machine.cpu import WatchedTree
from benchmarks.serving.measuring import NO_WARMUP


def test_limits() -> None:
    assert parse_limit(None, None) == Limit(seconds=30.0)
    assert parse_limit(5, None) == Limit(requests=5)
    assert parse_limit(5, 2.0) == Limit(5, 2.0)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("10", Limit(requests=10)), ("2.5s", Limit(seconds=2.5)), ("0", NO_WARMUP), ("0s", NO_WARMUP)],
)
def test_warmups(text: str, limit: Limit) -> None:
    assert parse_warmup(text) == limit


@pytest.mark.parametrize("text", ["", "s", "1.5", "-1", "-1s", "nans", "infs", "ten"])
def test_warmups_that_make_no_sense(text: str) -> None:
    with pytest.raises(SettingInvalid):
        parse_warmup(text)


def test_counts() -> None:
    assert parse_counts("1,8") == (1, 8)
    for text in ("", "1,", "0", "a"):
        with pytest.raises(SettingInvalid):
            parse_counts(text)


def test_trees() -> None:
    assert parse_tree("hub=12", ("engine",)) == WatchedTree("hub", 12, ("engine",))
    for text in ("hub", "=12", "hub=x", "hub=-1", "hub="):
        with pytest.raises(SettingInvalid):
            parse_tree(text, ())


def test_the_key_file_comes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-from-file\n")
    assert read_key(file, "sk-from-environment") == "sk-from-file"
    assert read_key(None, "sk-from-environment") == "sk-from-environment"
    assert read_key(None, "") is None


def test_a_key_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("empty", "binary", "missing"):
        with pytest.raises(SettingInvalid):
            read_key(tmp_path / name, "sk-from-environment")


@pytest.mark.parametrize(
    ("url", "api", "expected"),
    [
        ("http://127.0.0.1:80", Api.CHAT, ("127.0.0.1", 80, False, "/v1/chat/completions")),
        ("http://h/", Api.COMPLETIONS, ("h", 80, False, "/v1/completions")),
        ("https://h/v1/", Api.CHAT, ("h", 443, True, "/v1/chat/completions")),
        ("https://h:8443/a/b", Api.CHAT, ("h", 8443, True, "/a/b/chat/completions")),
        ("http://[::1]:9", Api.CHAT, ("::1", 9, False, "/v1/chat/completions")),
    ],
)
def test_base_urls_are_read_as_openai_clients_do(url: str, api: Api, expected: tuple[object, ...]) -> None:
    origin = Origin.of(Target(url, "m", api))
    assert (origin.host, origin.port, origin.secure, origin.path) == expected


@pytest.mark.parametrize(
    "url",
    ["", "h:80", "ftp://h", "http://", "http://h:99999", "http://u:p@h/v1", "http://h/v1?key=x", "http://[::1",
     "http://hütte/v1", "http://h/straße", "http://h/a b", "http://h/\x01", "http://@h/"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingInvalid):
        Origin.of(Target(url, "m"))


@pytest.mark.parametrize(
    "url", ["u:hunter2@h", "ftp://u:hunter2@h", "http://u:hunter2", "http://u:hunter2@h"]
)
def test_no_message_repeats_a_password(url: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        Origin.of(Target(url, "m"))
    assert "hunter2" not in str(caught.value)


def test_the_key_is_sent_and_never_shown() -> None:
    target = Target("http://h", "m", api_key="sk-secret")
    assert b"Authorization: Bearer sk-secret\r\n" in Origin.of(target).request_head(target)
    assert "sk-secret" not in repr(target)


@pytest.mark.parametrize("key", ["two words", "line\r\nX-Injected: 1", "schlüssel"])
def test_a_key_cannot_smuggle_headers(key: str) -> None:
    target = Target("http://h", "m", api_key=key)
    with pytest.raises(SettingInvalid) as caught:
        Origin.of(target).request_head(target)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005), ("0.02", 0.02)]
)
def test_a_share_is_read(text: str, share: float) -> None:
    assert parse_share(text, "--max-errors") == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "1", "%", "-1%", "101%", "nan%", "lots%"])
def test_other_shares_are_not(text: str) -> None:
    with pytest.raises(SettingInvalid, match="--max-errors"):
        parse_share(text, "--max-errors")


def test_rules_are_put_together() -> None:
    rules = parse_rules(
        ["ttft=1s", "itl:p95=50ms"], max_errors="2%", steady=False, percentiles=[99.9, 50, 50]
    )
    assert [str(slo) for slo in rules.slos] == ["ttft=1000ms", "itl:p95=50ms"]
    assert (rules.max_errors, rules.steady, rules.percents) == (0.02, False, (50, 99.9))
    with pytest.raises(SettingInvalid, match="--percentile"):
        parse_rules([], max_errors="1%", steady=True, percentiles=[float("nan")])
