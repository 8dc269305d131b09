"""From options to a load and its requests: what goes together, and what does not."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import SettingInvalid
from benchmarks.figures.goodput import parse_slos
from benchmarks.generator.datasets import Dataset
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, OpenLoop, Replay
from benchmarks.generator.pauses import Pause
from benchmarks.generator.workloads import Fixed, Uniform, Workload
from benchmarks.serving.choosing import Wishes, check_objectives, choose, limit_of
from benchmarks.serving.ramp import Ramp, gains, parse_ramp

RATES = OpenLoop(1.0, Arrivals.POISSON, 3)


def chosen(**wishes: Any) -> Any:
    return choose(Wishes(seed=3, **wishes))


def test_what_is_done_where_nothing_is_said() -> None:
    found = chosen()
    assert found.load == ClosedLoop(1)
    assert found.source == Workload(Fixed(128), Fixed(64), 0, 3)
    assert found.ramp is None


def test_open_loops() -> None:
    assert chosen(rate=2.0).load == OpenLoop(2.0, Arrivals.POISSON, 3)
    assert chosen(rate=2.0, arrivals=Arrivals.CONSTANT).load == OpenLoop(2.0, Arrivals.CONSTANT, 3)
    assert chosen(rate=2.0, burstiness=0.5).load == OpenLoop(2.0, Arrivals.BURST, 3, 0.5)
    assert chosen(rate=2.0, arrivals=Arrivals.BURST, burstiness=0.5).load.burstiness == 0.5
    assert chosen(rate=2.0, burstiness=float("inf")).load == OpenLoop(2.0, Arrivals.CONSTANT, 3)


def test_conversations() -> None:
    found = chosen(turns="uniform:2,4", think_time="exponential:2", shared_prefix=9, prefix_groups=3)
    source = found.source
    assert (source.turns, source.think) == (Uniform(2, 4), Pause("exponential", (2.0,)))
    assert (source.shared_prefix, source.prefix_groups) == (9, 3)


@pytest.mark.parametrize(
    "lengths",
    [{"shared_prefix": 500}, {"shared_prefix": 126}, {"shared_prefix": 90, "prompt_tokens": "normal:100,10"}],
)
def test_prompts_that_are_nothing_but_a_prefix_are_refused(lengths: dict[str, Any]) -> None:
    with pytest.raises(SettingInvalid, match="--prompt-tokens"):
        chosen(**lengths)


def test_prompts_with_words_of_their_own_are_not() -> None:
    assert chosen(shared_prefix=125).source.shared_prefix == 125
    assert chosen(shared_prefix=90, prompt_tokens="normal:200,10").source.shared_prefix == 90


def test_an_answer_in_one_piece_has_no_objective_but_its_end() -> None:
    check_objectives(parse_slos(["ttft=1s,e2el=2s"]), stream=True)
    check_objectives(parse_slos(["e2el=2s"]), stream=False)
    for slo in ("ttft=1s", "itl=1s", "tpot=1s"):
        with pytest.raises(SettingInvalid, match="--stream"):
            check_objectives(parse_slos([f"e2el=2s,{slo}"]), stream=False)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("timestamp,prompt_tokens,output_tokens\n0,1,2\n9,1,2\n")
    (tmp_path / "data").write_text('{"prompt": "p"}')
    found = chosen(trace=tmp_path / "trace", speed=3.0)
    assert found.load == Replay((0.0, 9.0), 3.0, "trace")
    found = chosen(dataset=tmp_path / "data", concurrency=2, output_tokens="7", turns="2")
    assert isinstance(found.source, Dataset)
    assert found.source.request(0).output_tokens == 7


def test_a_trace_is_replayed_to_its_end_unless_it_is_said_otherwise() -> None:
    wishes = Wishes(seed=0, trace=Path("t"))
    assert limit_of(wishes, Limit(seconds=30), given=False) == Limit()
    assert limit_of(wishes, Limit(seconds=5), given=True) == Limit(seconds=5)
    assert limit_of(Wishes(seed=0), Limit(seconds=30), given=False) == Limit(seconds=30)


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"concurrency": 1, "rate": 1.0}, "--concurrency or --rate, not both"),
        ({"ramp": "1,2", "rate": 1.0}, "--ramp or --rate, not both: the ramp says"),
        ({"ramp": "1,2", "trace": Path("t")}, "--trace or --ramp, not both: the trace says when"),
        ({"rate": 1.0, "trace": Path("t")}, "--trace or --rate"),
        ({"turns": "2", "trace": Path("t")}, "--trace or --turns, not both: the trace says how long"),
        ({"dataset": Path("d"), "trace": Path("t")}, "--trace or --dataset"),
        ({"dataset": Path("d"), "prompt_tokens": "9"}, "--dataset or --prompt-tokens"),
        ({"speed": 2.0}, "--speed goes with --trace only"),
        ({"think_time": "2"}, "--think-time goes with --turns only"),
        ({"prefix_groups": 2}, "--prefix-groups goes with --shared-prefix only"),
        ({"burstiness": 2.0}, "--burstiness goes with --rate"),
        ({"arrivals": Arrivals.CONSTANT, "ramp": "1,2"}, "--arrivals goes with --rate"),
        ({"arrivals": Arrivals.BURST, "rate": 1.0}, "needs --burstiness"),
        ({"arrivals": Arrivals.POISSON, "burstiness": 2.0, "rate": 1.0}, "so does --arrivals poisson"),
        ({"turns": "some"}, "no number of turns"),
        ({"turns": "2", "think_time": "long"}, "no time to think"),
        ({"rate": float("nan")}, "--rate is no number"),
        ({"rate": 1.0, "burstiness": float("nan")}, "--burstiness is no number"),
    ],
)
def test_contradictions_are_a_sentence(wishes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingInvalid, match=sentence):
        chosen(**wishes)


def test_ramps() -> None:
    assert parse_ramp("1,2,8", RATES) == Ramp((1, 2, 8))
    assert parse_ramp("concurrency:3", RATES).load(3) == ClosedLoop(3)
    assert parse_ramp("rate:0.5,2", RATES).load(0.5) == OpenLoop(0.5, Arrivals.POISSON, 3)
    assert list(parse_ramp("auto:3", RATES).steps())[:4] == [3, 6, 12, 24]
    assert next(parse_ramp("rate:auto:0.25", RATES).steps()) == 0.25
    for text in ("1,2,8", "auto", "rate:auto:0.25", "rate:1,2.5"):
        ramp = parse_ramp(text, RATES)
        assert parse_ramp(str(ramp), RATES) == ramp


@pytest.mark.parametrize(
    "text",
    ["", "a", "1,", "0,1", "-1", "2,1", "1,1", "1.5,2", "auto:", "auto:1,2", "nan", "rate:", "steps:1,2"],
)
def test_ramps_that_make_no_sense(text: str) -> None:
    with pytest.raises(SettingInvalid, match="--ramp"):
        parse_ramp(text, RATES)


def test_an_open_ended_ramp_goes_on_as_long_as_it_gains() -> None:
    none = [None, None]
    assert gains([], [])
    assert gains([10.0], [None])
    assert not gains([0.0], [None])  # nothing was answered
    assert gains([10.0, 11.0], none)
    assert not gains([10.0, 10.4], none)
    assert not gains([10.0, 8.0], none)
    assert not gains([10.0, 20.0], [9.0, 8.0])  # more tokens, but fewer in time
    assert gains([10.0, 20.0], [9.0, 9.0])
