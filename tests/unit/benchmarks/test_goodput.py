"""Goodput by its definition."""

import pytest

from benchmarks.errors import SettingInvalid
from benchmarks.figures.goodput import Slo, good, parse_slo
from benchmarks.generator.client import Sample
from tests.unit.benchmarks.samples import answered, failed

SAMPLE = answered(0.0, [0.5, 0.6, 0.7, 1.5], tokens=4)


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ("ttft=500ms", True),
        ("ttft=499ms", False),
        ("e2el=1.5s", True),
        ("e2el=1s", False),
        ("tpot=334ms", True),
        ("tpot=333ms", False),
        ("itl=0.81s", True),
        ("itl=700ms", False),
        ("itl:p50=110ms", True),
        ("itl:p50=90ms", False),
    ],
)
def test_each_objective_by_hand(slo: str, kept: bool) -> None:
    assert parse_slo(slo).kept(SAMPLE) is kept


def test_all_must_be_kept() -> None:
    assert good(SAMPLE, [parse_slo("ttft=1s"), parse_slo("e2el=2s")])
    assert not good(SAMPLE, [parse_slo("ttft=1s"), parse_slo("e2el=1s")])


def test_a_single_token_has_no_pace_to_miss() -> None:
    single = answered(0.0, [0.5], tokens=1)
    assert good(single, [parse_slo("tpot=1ms"), parse_slo("itl=1ms")])


def test_what_was_not_seen_is_not_kept() -> None:
    whole = Sample(0.0, 0.0, 1.0, None, 1.0, output_tokens=4)
    assert parse_slo("e2el=1s").kept(whole)
    assert not any(parse_slo(slo).kept(whole) for slo in ("ttft=9s", "itl=9s", "tpot=9s"))


def test_a_failure_is_never_good() -> None:
    assert not any(Slo(metric, 1e9).kept(failed("dns")) for metric in ("ttft", "itl", "tpot", "e2el"))


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft=5", "ttft=ms", "ttft=-1s", "ttft=nans", "ttft=infs", "ttft:p95=1s", "itl:95=1s",
     "itl:p0=1s", "itl:p101=1s", "itl:=1s", "latency=1s"],
)  # fmt: skip
def test_nonsense_says_what_would_be_right(text: str) -> None:
    with pytest.raises(SettingInvalid, match="itl:p95=50ms"):
        parse_slo(text)


@pytest.mark.parametrize("text", ["ttft=500ms", "itl:p95=50ms", "e2el=5000ms", "tpot=2.5ms"])
def test_objectives_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_slo(text)) == text
