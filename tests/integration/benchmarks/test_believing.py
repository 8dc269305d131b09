"""Which results are refused, and which are told with a word: engines on real sockets that do each thing."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner
from typer.testing import Result as Ended

from benchmarks.cli import app
from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, Load, OpenLoop
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.watch import LOOK_S, Watch
from benchmarks.reports.result import Made, Result, read
from benchmarks.serving.measuring import ServingPlan, ServingResult, run_serving
from benchmarks.serving.report import report

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS = 6
MADE = Made(at="", command=[], environment={})


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


async def spread(engine: Any, chunks: int, *, text: str = "word") -> None:
    """Chunks that come one by one."""
    engine.send(HEAD)
    for _ in range(chunks):
        engine.token(text)
        await engine.writer.drain()
        await asyncio.sleep(0.002)


async def more_chunks_than_tokens(engine: Any) -> None:
    await spread(engine, TOKENS)
    engine.end(tokens=TOKENS - 1)


async def more_tokens_than_asked_for(engine: Any) -> None:
    await spread(engine, TOKENS)
    engine.end(tokens=engine.body["max_tokens"] + 1)


async def no_prompt(engine: Any) -> None:
    await spread(engine, TOKENS)
    engine.chunk(usage(0, TOKENS))
    engine.end(usage=False)


async def hardly_any_content(engine: Any) -> None:
    await spread(engine, 1, text="a")
    engine.end()


async def short_answers(engine: Any) -> None:
    await spread(engine, TOKENS - 2)
    engine.end(tokens=TOKENS - 2)


async def empty_chunks(engine: Any) -> None:
    engine.send(HEAD)
    for number in range(2 * TOKENS):
        engine.token("word" if number % 2 else "")
        await engine.writer.drain()
        await asyncio.sleep(0.002)
    engine.end()


async def all_at_once(engine: Any) -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
    body = chunk * TOKENS + usage(5, TOKENS) + b"data: [DONE]\n\n"
    engine.send(HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


async def without_done(engine: Any) -> None:
    await spread(engine, TOKENS)
    engine.chunk(usage(5, TOKENS))
    engine.send(b"0\r\n\r\n")


async def honest(engine: Any) -> None:
    await spread(engine, TOKENS)
    engine.end()


def invoke(*arguments: str) -> Ended:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def serve(url: str, file: Path, *more: str, requests: int = 6) -> Ended:
    return invoke(
        "serving", "--model", "m", "--prompt-tokens", "4", "--output-tokens", str(TOKENS), "--base-url", url,
        "--requests", str(requests), "--quiet", "--json", str(file), *more,
    )  # fmt: skip


def figures_of(found: Result) -> dict[str, float | None]:
    return {figure.key: figure.value for _, figure in found.figures()}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (more_chunks_than_tokens, "usage_below_chunks"),
        (more_tokens_than_asked_for, "usage_over_max_tokens"),
        (no_prompt, "usage_without_prompt"),
        (hardly_any_content, "usage_above_content"),
        (short_answers, "answers_short"),
        (empty_chunks, "empty_chunks"),
        (all_at_once, "stream_buffered"),
    ],
)
def test_an_endpoint_that_lies_is_refused(
    engine_in_thread: Callable[..., Any], tmp_path: Path, answer: Any, code: str
) -> None:
    ended = serve(engine_in_thread(answer).url, tmp_path / "result.json")
    assert ended.exit_code == 3, ended.output
    assert f"Not to be believed ({code})" in ended.output
    found = read(tmp_path / "result.json")
    assert code in {refusal.code for refusal in found.refusals}
    assert figures_of(found)["completed"] == 6


def test_an_honest_endpoint_is_believed(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    ended = serve(engine_in_thread(honest).url, tmp_path / "result.json")
    assert ended.exit_code == 0, ended.output
    assert read(tmp_path / "result.json").refusals == []


def test_lengths_may_be_the_endpoints_own(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    ended = serve(engine_in_thread(short_answers).url, tmp_path / "result.json", "--no-ignore-eos")
    assert ended.exit_code == 0, ended.output


def test_too_many_failures_are_refused(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    async def one_without_end(engine: Any) -> None:
        await (without_done if len(server.requests) == 3 else honest)(engine)

    server, file = engine_in_thread(one_without_end), tmp_path / "result.json"
    ended = serve(server.url, file)
    assert ended.exit_code == 3
    assert "1 of 6 requests failed, more than --max-errors 1.0% allows" in ended.output
    assert "1 x no_done: the stream ended without [DONE]" in ended.output
    assert serve(server.url, file, "--max-errors", "20%").exit_code == 0


def test_a_percentile_that_the_samples_do_not_hold_is_told_and_refused(
    engine_in_thread: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    ended = serve(engine_in_thread(honest).url, file, "--percentile", "50", "--percentile", "99.9")
    assert ended.exit_code == 3
    assert [refusal.code for refusal in read(file).refusals] == ["too_few_samples"]
    assert {figure.key for _, figure in read(file).figures()} >= {"ttft_p50_ms", "ttft_p99.9_ms"}


def test_stalls_are_told_by_themselves(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    async def stalls_once(engine: Any) -> None:
        await spread(engine, TOKENS - 1)
        await asyncio.sleep(0.6 if len(server.requests) == 4 else 0)
        engine.token()
        engine.end()

    server, file = engine_in_thread(stalls_once), tmp_path / "result.json"
    ended = serve(server.url, file)
    assert ended.exit_code in {0, 3}, ended.output  # 3 where the machine held the generator up as well
    found = read(file)
    assert (figures_of(found)["stalls"] or 0) >= 1
    assert (figures_of(found)["longest_gap_ms"] or 0) >= 400
    assert [remark.code for remark in found.remarks if "stall" in remark.code] == ["stalls"]


def test_samples_give_the_same_figures_again_and_hold_no_text(
    engine_in_thread: Callable[..., Any], tmp_path: Path
) -> None:
    async def now_and_then(engine: Any) -> None:
        if len(server.requests) % 20 == 0:
            engine.whole("503 Service Unavailable", {"error": {"message": "a secret", "code": "full"}})
        else:
            await honest(engine)

    server, first, second = engine_in_thread(now_and_then), tmp_path / "a.json", tmp_path / "b.json"
    lines, rules = tmp_path / "samples.jsonl", ("--max-errors", "9%", "--slo", "ttft=3ms", "--slo", "itl=9ms")
    ended = serve(
        server.url, first, *rules, "--concurrency", "4", "--samples", str(lines), "--seed", "7", requests=60
    )
    assert ended.exit_code in {0, 3}, ended.output  # a machine that stalls for a second refuses both alike
    assert "word" not in lines.read_text()
    assert "secret" not in lines.read_text()
    header, *requests = map(json.loads, lines.read_text().splitlines())
    assert (header["schema"], len(requests)) == ("porten.bench.samples/1", 60)
    assert sum("error" in line for line in requests) == 3
    assert all(line["due"] <= line["tokens"][0] for line in requests if "error" not in line)
    again = invoke("figures", str(lines), *rules, "--json", str(second))
    assert again.exit_code == ended.exit_code, again.output
    one, other = ({figure.key: figure for _, figure in read(file).figures()} for file in (first, second))
    assert one.keys() == other.keys()
    assert one["goodput"].objective == other["goodput"].objective == "itl=9ms, ttft=3ms"
    for key, figure in one.items():
        assert other[key].value == pytest.approx(figure.value, abs=1e-3), key
        assert other[key].values == pytest.approx(figure.values, abs=1e-3), key
    assert read(first).plots[0].key == read(second).plots[0].key == "latency_cdf"


@pytest.mark.parametrize("text", ["", "{}", '{"schema":"porten.bench/1"}', "nonsense"])
def test_a_file_that_holds_no_samples_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.jsonl").write_text(text)
    ended = invoke("figures", str(tmp_path / "samples.jsonl"))
    assert ended.exit_code == 1
    assert "--samples" in ended.stderr.replace("\n", " ")


def test_a_folder_that_is_not_there_is_found_before_the_measurement(
    engine_in_thread: Callable[..., Any], tmp_path: Path
) -> None:
    server = engine_in_thread(honest)
    ended = serve(server.url, tmp_path / "a.json", "--samples", str(tmp_path / "no" / "folder.jsonl"))
    assert ended.exit_code == 2
    assert server.requests == []


async def measure(url: str, load: Load, limit: Limit) -> ServingResult:
    plan = ServingPlan(Target(url, "m"), Workload(Fixed(4), Fixed(TOKENS), seed=1), load, limit)
    async with Progress(Console(stderr=True), quiet=True) as progress:
        return await run_serving(plan, stop=asyncio.Event(), progress=progress)


async def test_a_stall_of_the_server_is_in_the_percentiles_of_an_open_loop(fake_engine: Any) -> None:
    stalled = asyncio.Event()

    async def stalls_for_two_seconds(engine: Any) -> None:
        if len(server.requests) == 21:
            await asyncio.sleep(2)
            stalled.set()
        elif len(server.requests) > 21:
            await stalled.wait()  # it serves nobody meanwhile
        await honest(engine)

    async with fake_engine(stalls_for_two_seconds) as server:
        found = await measure(server.url, OpenLoop(40, Arrivals.CONSTANT), Limit(requests=100))
        assert found.metrics.ttft is not None
        # 79 of 100 were due while it stalled, one each 25 ms: the one in the middle has waited for a second.
        assert found.metrics.ttft.p50 > 0.6
        assert found.metrics.ttft.p90 > 1.6
        assert found.metrics.e2el is not None
        assert found.metrics.e2el.p99 > 1.9
        server.requests.clear()
        stalled.clear()
        closed = await measure(server.url, ClosedLoop(1), Limit(requests=100))
        assert closed.metrics.ttft is not None
        assert closed.metrics.ttft.maximum > 1.9
        assert closed.metrics.ttft.p90 < found.metrics.ttft.p90  # it omits those that were never sent


async def test_a_generator_that_is_held_up_refuses_its_own_result(fake_engine: Any) -> None:
    async def holds_up_the_loop(engine: Any) -> None:
        engine.send(HEAD)
        for _ in range(TOKENS):
            engine.token()
            await engine.writer.drain()
            time.sleep(0.03)
            await asyncio.sleep(0)
        engine.end()

    async with fake_engine(holds_up_the_loop) as server:
        found = await measure(server.url, ClosedLoop(4), Limit(seconds=2))
    codes = {refusal.code for refusal in report(found, MADE).refusals}
    assert "generator_late" in codes


async def test_a_clock_that_is_set_is_seen() -> None:
    ahead = 0.0
    async with Watch(wall=lambda: time.perf_counter() + ahead) as watch:
        await asyncio.sleep(3 * LOOK_S)
        assert abs(watch.seen.clock_jump_s) < 0.001
        ahead = -3600.0
        await asyncio.sleep(3 * LOOK_S)
        ahead = 0.0  # and set back: it was seen all the same
    assert watch.seen.clock_jump_s == pytest.approx(-3600, abs=0.01)
    assert watch.seen.lags
