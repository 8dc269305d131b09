"""The figures of a run, by the definitions the field shares.

Pure: samples in, figures out. The latency terms are those of vLLM's ``vllm bench serve`` (its
``vllm/benchmarks/serve.py``, function ``calculate_metrics``, and ``lib/endpoint_request_func.py``), so that
results can be compared:

- **TTFT**, time to first token: from the start of a request to the arrival of its first token chunk.
- **ITL**, inter-token latency: the gaps between successive token chunks, of all requests pooled. An engine
  that puts several tokens into a chunk has fewer and longer gaps.
- **E2EL**, end-to-end latency: from the start of a request to the arrival of its *last token chunk*; the
  usage chunk and ``[DONE]`` after it do not count.
- **TPOT**, time per output token: (E2EL - TTFT) / (output tokens - 1), per request, for requests with at
  least two tokens.
- **Throughput**: output tokens, and complete requests, over the run's time from its start to the end of its
  last request.

Two differences: a chunk with only the role or the finish reason is no token here (see ``exchange.Reply``),
and in an open loop the start is when the request was *due*, not when the generator got round to it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.figures.parts import Part, answers_by_window, tokens_by_window
from benchmarks.figures.statistics import Summary, summarise
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run

CountedBy = Literal["usage", "chunks", "both", "none"]


@dataclass(frozen=True, slots=True)
class ServingMetrics:
    """Figures of one run. Times are in seconds.

    Attributes:
        send_lag: how much later than due requests were sent; what an open loop's generator adds.
        counted_by: whose token counts these are: the server's ``usage``, or the number of chunks.
        prompt_tokens: by usage, so 0 where the server gives none.
        errors: failed requests by kind.
        error_detail: one line about one failure of each kind.
    """

    duration_s: float
    completed: int
    failed: int
    unfinished: int
    interrupted: bool
    prompt_tokens: int
    output_tokens: int
    counted_by: CountedBy
    requests_per_s: float
    output_tokens_per_s: float
    ttft: Summary | None
    itl: Summary | None
    tpot: Summary | None
    e2el: Summary | None
    send_lag: Summary | None
    errors: dict[str, int]
    error_detail: dict[str, str]


def measure(run: Run) -> ServingMetrics:
    """The figures of one run."""
    return measure_all([run])


def measure_part(run: Run, part: Part) -> ServingMetrics:
    """The figures of a part of a run.

    Latencies are of the requests that began in it, whole: leaving out those that ended after it would leave
    out the slow ones. Throughput is of what came within it, whenever it was asked for.
    """
    begun = replace(run, samples=part.begun_in(run.samples))
    rate = 1 / part.seconds if part.seconds > 0 else 0.0
    return replace(
        measure(begun),
        duration_s=part.seconds,
        requests_per_s=sum(answers_by_window(run.samples, part, 1)) * rate,
        output_tokens_per_s=sum(tokens_by_window(run.samples, part, 1)) * rate,
    )


def measure_all(runs: Sequence[Run]) -> ServingMetrics:
    """The figures of several runs as if they had been one: times add up, samples are pooled."""
    samples = [sample for run in runs for sample in run.samples]
    good = [sample for sample in samples if sample.error is None]
    failed = [sample for sample in samples if sample.error is not None]
    duration = sum(run.ended_at - run.began_at for run in runs)
    output_tokens = sum(sample.output_tokens for sample in good)
    return ServingMetrics(
        duration_s=duration,
        completed=len(good),
        failed=len(failed),
        unfinished=sum(run.unfinished for run in runs),
        interrupted=any(run.interrupted for run in runs),
        prompt_tokens=sum(sample.prompt_tokens or 0 for sample in good),
        output_tokens=output_tokens,
        counted_by=_counted_by(good),
        requests_per_s=len(good) / duration if duration > 0 else 0.0,
        output_tokens_per_s=output_tokens / duration if duration > 0 else 0.0,
        ttft=summarise([value for sample in good if (value := ttft(sample)) is not None]),
        itl=summarise([gap for sample in good for gap in sample.gaps]),
        tpot=summarise([value for sample in good if (value := tpot(sample)) is not None]),
        e2el=summarise([value for sample in good if (value := e2el(sample)) is not None]),
        send_lag=summarise([sample.sent_at - sample.started_at for sample in samples]),
        errors=dict(Counter(sample.error for sample in failed if sample.error).most_common()),
        error_detail={sample.error: sample.detail for sample in failed if sample.error},
    )


def ttft(sample: Sample) -> float | None:
    """Time to first token in seconds; none where the reply was not streamed."""
    return None if sample.first_token_at is None else sample.first_token_at - sample.started_at


def e2el(sample: Sample) -> float | None:
    """End-to-end latency in seconds: to the last token."""
    return None if sample.last_token_at is None else sample.last_token_at - sample.started_at


def tpot(sample: Sample) -> float | None:
    """Seconds per output token after the first; none for fewer than two tokens."""
    if sample.first_token_at is None or sample.last_token_at is None or sample.output_tokens < 2:
        return None
    return (sample.last_token_at - sample.first_token_at) / (sample.output_tokens - 1)


def _counted_by(samples: Sequence[Sample]) -> CountedBy:
    ways = {sample.counted for sample in samples}
    if not ways:
        return "none"
    if len(ways) == 2:
        return "both"
    return "usage" if ways == {True} else "chunks"
