"""The result of `porten-bench serving`, and how what was seen of an endpoint is told anywhere.

Owns which figures are told of a run, their keys, and the remarks on it. API keys never get here: targets are
written field by field.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from benchmarks.figures.bounds import Better, Figure
from benchmarks.figures.doubts import Stalls
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Interval, Summary
from benchmarks.figures.steady import Steadiness
from benchmarks.generator.datasets import Dataset
from benchmarks.generator.driving import Run
from benchmarks.generator.loads import Load
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Source
from benchmarks.reports.result import Group, Made, Remark, Result, group
from benchmarks.serving.evaluating import Evaluation, Rules, Told, evaluate
from benchmarks.serving.measuring import GeneratorUse, ServingPlan, ServingResult, by_schedule, evaluated
from benchmarks.serving.plots import plots
from benchmarks.serving.remarks import remarks
from benchmarks.serving.samples import Header, to_lines

_NAMES: Final = {
    "ttft": "TTFT, to the first token",
    "itl": "ITL, between chunks",
    "tpot": "TPOT, per token after the first",
    "e2el": "E2EL, to the last token",
}
_RATES: Final = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "goodput": "goodput, good requests/s",
}


def report(found: ServingResult, made: Made, evaluation: Evaluation | None = None) -> Result:
    """The result as it is shown and written; the evaluation is made here where it is not there yet."""
    plan = found.plan
    evaluation = evaluation or evaluated(found)
    title = f"{plan.target.model} at {plan.target.base_url}, {plan.load}"
    result = told(
        found.run,
        evaluation,
        made,
        title=title,
        settings=plan_settings(plan),
        details={"generator": generator_details(found.generator)},
    )
    return msgspec.structs.replace(
        result,
        refusals=[*lost_refusals(found.lost), *result.refusals],
        remarks=[*result.remarks, *source_remarks(plan.workload, found.metrics)],
    )


def plan_settings(plan: ServingPlan) -> dict[str, object]:
    """Everything that decided the measurement."""
    return {
        "target": target_settings(plan.target),
        "workload": workload_settings(plan.workload),
        "load": load_settings(plan.load),
        "limit": msgspec.to_builtins(plan.limit),
        "warmup": msgspec.to_builtins(plan.warmup),
        "rules": rules_settings(plan.rules),
        "generator": generator_settings(plan),
    }


def told(
    run: Run,
    evaluation: Evaluation,
    made: Made,
    *,
    title: str,
    settings: dict[str, object],
    details: dict[str, object],
) -> Result:
    """A run and its evaluation as a result."""
    metrics = evaluation.metrics
    doubts = [(doubt.refuses, Remark(code=doubt.code, text=doubt.text)) for doubt in evaluation.doubts]
    return Result(
        benchmark="serving",
        made=made,
        settings=settings,
        groups=_groups(title, evaluation),
        plots=plots(run, evaluation.steadiness),
        refusals=[remark for refuses, remark in doubts if refuses],
        remarks=[
            *error_remarks(metrics),
            *remarks(run, evaluation),
            *(remark for refuses, remark in doubts if not refuses),
        ],
        interrupted=metrics.interrupted,
        details={"metrics": metrics_details(metrics), "steady": _steady_details(evaluation.steadiness)}
        | details,
    )


def sample_lines(found: ServingResult, made: Made) -> Iterator[bytes]:
    """The run as the lines of a file of samples."""
    plan, run = found.plan, found.run
    header = Header(
        at=made.at,
        model=plan.target.model,
        base_url=plan.target.base_url,
        load=str(plan.load),
        open_loop=by_schedule(plan.load),
        ignore_eos=plan.target.ignore_eos,
        seed=plan.workload.seed,
        seconds=run.ended_at - run.began_at,
        unfinished=run.unfinished,
        interrupted=run.interrupted,
        in_vain=run.in_vain,
        busy=list(found.generator.busy_shares),
        clock_jump_s=found.watched.clock_jump_s,
        lags=list(found.watched.lags),
    )
    return to_lines(header, run)


def again(header: Header, run: Run, rules: Rules, made: Made) -> Result:
    """The result of a run that was read from a file of samples."""
    evaluation = evaluate(
        run,
        rules,
        open_loop=header.open_loop,
        ignore_eos=header.ignore_eos,
        seed=header.seed,
        meter=header.meter,
    )
    settings = {"samples": {"at": header.at, "load": header.load}, "rules": rules_settings(rules)}
    title = f"{header.model} at {header.base_url}, {header.load}"
    return told(run, evaluation, made, title=title, settings=settings, details={})


def _groups(title: str, evaluation: Evaluation) -> list[Group]:
    metrics = evaluation.metrics
    # What is counted began in the part, and what has a rate came in it: of a whole run that is the same.
    began, ended = ("", "") if evaluation.steadiness.is_whole else (", begun in this part", ", in this part")
    counts = [
        _plain("completed", f"complete requests{began}", metrics.completed),
        _plain("failed", f"failed requests{began}", metrics.failed, Better.LESS),
        *_lengths(metrics),
        *_rates(evaluation.rates, ", ".join(sorted(map(str, evaluation.slos))), ended),
    ]
    groups = [group(title, counts), group("Latency", list(_latencies(evaluation)))]
    return [*groups, group("Stalls", _stalls(evaluation.stalls))] if evaluation.stalls.longest_s else groups


def _latencies(evaluation: Evaluation) -> Iterator[Figure]:
    answered = {f"p{percent:g}" for percent in evaluation.of_answered}
    for kind, figures in evaluation.latencies.items():
        for which, figure in figures.items():
            of = " of the answered" if which in answered else ""
            name = f"{_NAMES[kind]}, {which}{of}"
            yield Figure(key=f"{kind}_{which}_ms", name=name, unit="ms", found=_scaled(figure, 1000))


def _lengths(metrics: ServingMetrics) -> Iterator[Figure]:
    """What was really asked and answered, by the server's counts where it gives any."""
    for key, name, tokens in (
        ("prompt_tokens", "prompt tokens, a request", metrics.prompt_tokens),
        ("output_tokens", "output tokens, a request", metrics.output_tokens),
    ):
        if metrics.completed and tokens:
            yield _plain(key, name, round(tokens / metrics.completed, 1), Better.NEITHER)


def _rates(rates: dict[str, Told], objectives: str, where: str) -> Iterator[Figure]:
    for key, name in _RATES.items():
        if key in rates:
            yield Figure(
                key=key,
                name=f"{name}{where}",
                unit="",
                found=rates[key].found,
                which_is_better=Better.MORE,
                objective=objectives if key == "goodput" else "",
            )
    if "good_share" in rates:
        yield Figure(
            key="good_percent",
            name=f"good requests ({objectives})",
            unit="%",
            found=_scaled(rates["good_share"], 100),
            which_is_better=Better.MORE,
            objective=objectives,
        )


def _stalls(stalls: Stalls) -> list[Figure]:
    told = f"stalls, gaps over {stalls.bound_s * 1000:.0f} ms"
    return [
        _plain("stalls", told, stalls.count, Better.LESS),
        Figure(key="longest_gap_ms", name="longest gap", unit="ms", found=stalls.longest_s * 1000),
    ]


def _plain(key: str, name: str, found: float, better: Better = Better.MORE) -> Figure:
    return Figure(key=key, name=name, unit="", found=float(found), which_is_better=better)


def _scaled(figure: Told, factor: float) -> Interval | float:
    return figure.interval.scaled(factor) if figure.interval else figure.value * factor


def _steady_details(found: Steadiness) -> dict[str, object]:
    began_at = found.whole.began_at
    return {
        "verdict": found.verdict.value,
        "from_s": found.part.began_at - began_at,
        "until_s": found.part.ended_at - began_at,
        "backlog": found.backlog,
    }


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


def generator_details(generator: GeneratorUse) -> dict[str, object]:
    """What generating the load took, each process by itself."""
    return {
        "cpu_s": generator.cpu_s,
        "cores_busy": generator.busy,
        "at_its_limit": generator.at_its_limit,
        "processes": [
            {
                "index": use.index,
                "core": use.core,
                "cpu_s": use.cpu_s,
                "cores_busy": use.busy,
                "requests": use.requests,
                "lag_ms": {"p99": use.lag_p99_s * 1000, "max": use.lag_max_s * 1000},
            }
            for use in generator.processes
        ],
    }


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
    values = ("mean", "p50", "p90", "p95", "p99", "p999", "minimum", "maximum")
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


def rules_settings(rules: Rules) -> dict[str, object]:
    """How the run is judged."""
    return {
        "slos": [str(slo) for slo in rules.slos],
        "max_errors": rules.max_errors,
        "steady": "auto" if rules.steady else "off",
        "percentiles": list(rules.percents),
    }


def load_settings(load: Load) -> dict[str, object]:
    """When it is asked."""
    return load.as_settings()
