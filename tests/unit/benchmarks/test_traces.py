"""Traces: the formats, what is wrong with a line, and the prompts that stand in for theirs."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import InputInvalid
from benchmarks.generator.replay import TraceRequests, open_trace
from benchmarks.generator.traces import Arrival, Block, Trace, read_trace
from benchmarks.generator.workloads import WARMUP_INDEX

PORTEN_CSV = """timestamp,prompt_tokens,output_tokens,session,prefix,prefix_tokens
10.5,100,20,,,
10.0,50,0,a,,

11.25,300,7,,p,200
"""
AZURE_CSV = """\ufeffTIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024_CSV = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01.017335+00:00,2399,6
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1500, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 27482, "input_length": 600, "output_length": 9, "hash_ids": [46, 49, 50]}
"""


def read(tmp_path: Path, text: str, name: str = "trace.csv") -> Trace:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_trace(tmp_path / name)


def test_portens_csv_in_order_of_time_and_from_its_first_request(tmp_path: Path) -> None:
    trace = read(tmp_path, PORTEN_CSV)
    assert trace.arrivals == (
        Arrival(0.0, 50, 1, (Block("session/a", 50),)),
        Arrival(0.5, 100, 20),
        Arrival(1.25, 300, 7, (Block("prefix/p", 200),)),
    )


def test_portens_jsonl_says_the_same(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 10.5, "prompt_tokens": 100, "output_tokens": 20},
        {"timestamp": 10, "prompt_tokens": 50, "output_tokens": 0, "session": "a"},
        {"timestamp": 11.25, "prompt_tokens": 300, "output_tokens": 7, "prefix": "p", "prefix_tokens": 200},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert read(tmp_path, text).arrivals == read(tmp_path, PORTEN_CSV).arrivals


def test_azures_traces_of_both_years(tmp_path: Path) -> None:
    trace = read(tmp_path, AZURE_CSV)
    assert trace.form == "Azure's trace"
    assert [(each.prompt_tokens, each.output_tokens) for each in trace.arrivals] == [(374, 44), (396, 109)]
    assert trace.arrivals[1].moment == pytest.approx(4.314579, abs=1e-5)
    assert read(tmp_path, AZURE_2024_CSV).arrivals[1].moment == pytest.approx(1.007405, abs=1e-5)


def test_mooncakes_traces(tmp_path: Path) -> None:
    trace = read(tmp_path, MOONCAKE)
    first, second = trace.arrivals
    assert second.moment == pytest.approx(27.482)
    assert [part.tokens for part in first.blocks] == [512, 512, 476]
    assert [part.tokens for part in second.blocks] == [
        512,
        88,
    ]  # the third block begins past the prompt's end


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 0, "empty"),
        ("hello\nworld\n", 2, "no known trace"),
        ('{"timestamp": 1}\n', 1, "no known trace"),
        ("timestamp,prompt_tokens,output_tokens,colour\n1,2,3,red\n", 2, "colour"),
        ("timestamp,prompt_tokens,output_tokens\n1,2,3\n1,2\n", 3, "2 cells"),
        ("timestamp,prompt_tokens,output_tokens\n1,2,3\n\nx,2,3\n", 4, "timestamp is no number"),
        ("timestamp,prompt_tokens,output_tokens\nnan,2,3\n", 2, "timestamp is no number"),
        ("timestamp,prompt_tokens,output_tokens\n1,-2,3\n", 2, "from 0 up"),
        ("timestamp,prompt_tokens,output_tokens\n1,many,3\n", 2, "prompt_tokens is no whole number"),
        ("timestamp,prompt_tokens,output_tokens,prefix\n1,9,3,p\n", 2, "prefix_tokens missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", 2, "TIMESTAMP is no date"),
        ('{"timestamp": 1, "prompt_tokens": 2, "output_tokens": 3}\nnot json\n', 2, "no JSON object"),
        ('{"timestamp": 1, "prompt_tokens": 2, "output_tokens": 3}\n{"timestamp": 1}\n', 2, "missing"),
        ('{"timestamp": 1, "prompt_tokens": 2, "output_tokens": true}\n', 1, "output_tokens is no whole"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": ["a"]}\n', 1, "hash_ids"),
        (f'{{"timestamp": 1, "input_length": {10**30}, "output_length": 3}}\n', 1, "above"),
        (
            '{"timestamp": 1, "prompt_tokens": 2, "output_tokens": 3, "session": [1]}\n',
            1,
            "session is no name",
        ),
        ('{"timestamp": 1, "prompt_tokens": 2, "output_tokens": 3, "prefix": {}}\n', 1, "prefix is no name"),
        ("x" * 200_000 + "\n", 1, "no CSV"),
        ("timestamp,prompt_tokens,output_tokens\n-1e308,1,1\n1e308,1,1\n", 0, "too far apart"),
        ('{"timestamp": null, "input_length": 2, "output_length": 3}\n', 1, "timestamp is no number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: int, problem: str) -> None:
    with pytest.raises(InputInvalid, match=problem) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    if line:
        assert f"trace.csv, line {line}: " in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="No such file"):
        read_trace(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputInvalid, match="not text"):
        read_trace(tmp_path / "binary")


@given(st.text())
def test_any_text_is_a_trace_or_a_line_that_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.raises(InputInvalid):
        read_trace(path)


def words(source: TraceRequests, index: int) -> list[str]:
    return source.request(index).prompt.split()


def test_a_replay_keeps_times_and_lengths(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(PORTEN_CSV)
    load, source = open_trace(tmp_path / "t.csv", speed=2.0, seed=1)
    assert list(load.offsets()) == [0.0, 0.25, 0.625]
    for index, (prompt, output) in enumerate([(50, 1), (100, 20), (300, 7)]):
        assert len(words(source, index)) == source.request(index).prompt_tokens == prompt
        assert source.request(index).output_tokens == output
    assert source.request(2) == open_trace(tmp_path / "t.csv", speed=1.0, seed=1)[1].request(2)
    settings = source.as_settings()
    assert settings["trace"] == "t.csv"
    assert len(str(settings["sha256"])) == 64


blocks = st.lists(st.integers(0, 5), max_size=4)


@given(blocks, blocks, st.integers(1, 3000), st.integers(1, 3000))
def test_prompts_have_in_common_what_the_traces_had(
    tmp_path_factory: pytest.TempPathFactory, one: list[int], other: list[int], length: int, lower: int
) -> None:
    lines = (
        {"timestamp": 0, "input_length": count, "output_length": 1, "hash_ids": names}
        for names, count in ((one, length), (other, lower))
    )
    source = TraceRequests(read(tmp_path_factory.getbasetemp(), "\n".join(map(json.dumps, lines)), "blocks"))
    first, second = words(source, 0), words(source, 1)
    assert (len(first), len(second)) == (length, lower)
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    common = min(same * 512, length, lower)
    assert first[:common] == second[:common]
    rest = slice(common, common + 3)
    if length >= common + 3 and lower >= common + 3:
        assert first[rest] != second[rest]


def test_the_longer_prompt_of_a_session_begins_with_the_shorter(tmp_path: Path) -> None:
    text = "timestamp,prompt_tokens,output_tokens,session\n0,40,1,a\n1,90,1,a\n2,90,1,b\n"
    source = TraceRequests(read(tmp_path, text))
    assert words(source, 1)[:40] == words(source, 0)
    assert words(source, 2)[:40] != words(source, 0)


def test_the_warm_up_fills_no_cache_for_what_is_measured(tmp_path: Path) -> None:
    source = TraceRequests(read(tmp_path, MOONCAKE))
    warm, measured = words(source, WARMUP_INDEX), words(source, 0)
    assert len(warm) == len(measured)
    assert warm[:3] != measured[:3]
