"""The result of `porten-bench serving`, and how what was seen of an endpoint is told anywhere.

Owns which figures are told of a run, their keys, and the remarks on it. API keys never get here: targets are
written field by field.
"""

import msgspec

from benchmarks.figures.bounds import Better, Figure
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Summary
from benchmarks.generator.datasets import Dataset
from benchmarks.generator.load import Load
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Source
from benchmarks.reports.result import Group, Made, Remark, Result, group
from benchmarks.serving.measuring import GeneratorUse, ServingPlan, ServingResult

_LATE_S = 0.005
"""Requests that leave so much after they were due are worth a word."""


def report(found: ServingResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan, metrics = found.plan, found.metrics
    return Result(
        benchmark="serving",
        made=made,
        settings=plan_settings(plan),
        groups=_groups(f"{plan.target.model} at {plan.target.base_url}, {plan.load}", metrics),
        refusals=lost_refusals(found.lost),
        remarks=[*_remarks(metrics, found.generator), *source_remarks(plan.workload, metrics)],
        interrupted=metrics.interrupted,
        details={
            "metrics": metrics_details(metrics),
            "generator": {
                "cpu_s": found.generator.cpu_s,
                "cores_busy": found.generator.busy,
                "at_its_limit": found.generator.at_its_limit,
                "processes": process_details(found.generator),
            },
        },
    )


def plan_settings(plan: ServingPlan) -> dict[str, object]:
    """Everything that decided the measurement."""
    return {
        "target": target_settings(plan.target),
        "workload": workload_settings(plan.workload),
        "load": load_settings(plan.load),
        "limit": msgspec.to_builtins(plan.limit),
        "warmup": msgspec.to_builtins(plan.warmup),
        "generator": generator_settings(plan),
    }


def _groups(title: str, metrics: ServingMetrics) -> list[Group]:
    counts = [
        _plain("completed", "complete requests", metrics.completed),
        _plain("failed", "failed requests", metrics.failed, Better.LESS),
        _plain("requests_per_s", "requests/s", metrics.requests_per_s),
        _plain("output_tokens_per_s", "output tokens/s", metrics.output_tokens_per_s),
    ]
    latencies = [
        figure
        for key, name, summary in (
            ("ttft", "TTFT, to the first token", metrics.ttft),
            ("itl", "ITL, between chunks", metrics.itl),
            ("tpot", "TPOT, per token after the first", metrics.tpot),
            ("e2el", "E2EL, to the last token", metrics.e2el),
        )
        for figure in _percentiles(key, name, summary)
    ]
    return [group(title, counts), group("Latency", latencies)]


def _plain(key: str, name: str, found: float, better: Better = Better.MORE) -> Figure:
    return Figure(key=key, name=name, unit="", found=float(found), which_is_better=better)


def _percentiles(key: str, name: str, summary: Summary | None) -> list[Figure]:
    if summary is None:
        return []
    return [
        Figure(
            key=f"{key}_{which}_ms", name=f"{name}, {which}", unit="ms", found=getattr(summary, which) * 1000
        )
        for which in ("mean", "p50", "p90", "p99")
    ]


def _remarks(metrics: ServingMetrics, generator: GeneratorUse) -> list[Remark]:
    told = error_remarks(metrics)
    if metrics.counted_by in {"chunks", "both"}:
        told.append(
            Remark(
                code="counted_by_chunks",
                text="The endpoint gave no usage for some answers: their tokens are counted by chunks, "
                "of which each may hold several tokens or none.",
            )
        )
    lag = metrics.send_lag
    if lag and lag.p99 > _LATE_S:
        late = f"Requests left late: p99 {lag.p99 * 1000:.1f} ms after they were due."
        told.append(Remark(code="sent_late", text=late))
    if generator.at_its_limit:
        told.append(limit_remark(generator))
    return told


def error_remarks(metrics: ServingMetrics) -> list[Remark]:
    """A line for each kind of failure."""
    return [
        Remark(code="errors", text=f"{count} x {kind}: {metrics.error_detail[kind]}")
        for kind, count in metrics.errors.items()
    ]


def limit_remark(generator: GeneratorUse) -> Remark:
    """What is to be said where the generator may have been the slow part."""
    return Remark(
        code="generator_busy",
        text=f"The load generator was busy {generator.busy:.0%} of a core: the endpoint may be faster "
        "than this shows. Ask for less, or run several generators.",
    )


def lost_refusals(lost: tuple[str, ...]) -> list[Remark]:
    """What refuses a result of which a part is missing."""
    return [
        Remark(code="generator_lost", text=f"{why}; what it had measured is missing from these figures.")
        for why in lost
    ]


def source_remarks(source: Source, metrics: ServingMetrics) -> list[Remark]:
    """Whether a dataset was too small for the run."""
    asked = metrics.completed + metrics.failed + metrics.unfinished
    if not isinstance(source, Dataset) or asked <= len(source):
        return []
    return [
        Remark(
            code="dataset_repeated",
            text=f"The dataset has {len(source)} requests, and {asked} were made: prompts came again, and "
            "a prompt cache finds them.",
        )
    ]


def generator_settings(plan: ServingPlan) -> dict[str, object]:
    """How the load was generated."""
    return {"processes": plan.processes, "pin": plan.pin}


def process_details(generator: GeneratorUse) -> list[dict[str, object]]:
    """What each process of the generator took."""
    return [
        {
            "index": use.index,
            "core": use.core,
            "cpu_s": use.cpu_s,
            "cores_busy": use.busy,
            "requests": use.requests,
            "lag_ms": {"p99": use.lag_p99_s * 1000, "max": use.lag_max_s * 1000},
        }
        for use in generator.processes
    ]


def metrics_details(metrics: ServingMetrics) -> dict[str, object]:
    """The figures of one run; latencies in milliseconds."""
    return {
        "duration_s": round(metrics.duration_s, 6),
        "completed": metrics.completed,
        "failed": metrics.failed,
        "unfinished": metrics.unfinished,
        "interrupted": metrics.interrupted,
        "prompt_tokens": metrics.prompt_tokens,
        "output_tokens": metrics.output_tokens,
        "output_tokens_counted_by": metrics.counted_by,
        "requests_per_s": metrics.requests_per_s,
        "output_tokens_per_s": metrics.output_tokens_per_s,
        "ttft_ms": milliseconds(metrics.ttft),
        "itl_ms": milliseconds(metrics.itl),
        "tpot_ms": milliseconds(metrics.tpot),
        "e2el_ms": milliseconds(metrics.e2el),
        "send_lag_ms": milliseconds(metrics.send_lag),
        "errors": metrics.errors,
        "error_detail": metrics.error_detail,
    }


def milliseconds(summary: Summary | None) -> dict[str, object] | None:
    """A summary of seconds, told in milliseconds."""
    if summary is None:
        return None
    values = ("mean", "p50", "p90", "p99", "minimum", "maximum")
    return {"count": summary.count} | {name: getattr(summary, name) * 1000 for name in values}


def target_settings(target: Target) -> dict[str, object]:
    """A target without its key."""
    return {
        "base_url": target.base_url,
        "model": target.model,
        "api": target.api.value,
        "stream": target.stream,
        "ignore_eos": target.ignore_eos,
        "timeout_s": target.timeout_s,
    }


def workload_settings(workload: Source) -> dict[str, object]:
    """What is asked, in the words that ask for it again."""
    return workload.as_settings()


def load_settings(load: Load) -> dict[str, object]:
    """When it is asked."""
    return load.as_settings()
