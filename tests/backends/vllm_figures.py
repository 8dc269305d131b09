"""vLLM's own benchmark, run by vLLM's interpreter: on a server, and on requests that were seen elsewhere.

A program of its own, since vLLM lives in an environment of its own. It writes one JSON file with vLLM's
figures of `repeats` runs of `bench serve`, and of its `calculate_metrics` on a file of samples that Porten
wrote.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
from vllm.benchmarks.serve import add_cli_args, calculate_metrics, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

LATENCIES = ("ttft", "tpot", "itl", "e2el")


def bench(settings: dict[str, object], folder: Path, number: int) -> dict[str, float]:
    """One run of ``bench serve``."""
    file = folder / f"vllm-{number}.json"
    arguments = [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--base-url", settings["url"], "--model", settings["model"], "--tokenizer", settings["tokenizer"]),
        *("--dataset-name", "random", "--random-input-len", "32"),
        *("--random-output-len", settings["chunks"], "--num-prompts", settings["requests"]),
        *("--max-concurrency", settings["concurrency"], "--seed", number, "--ignore-eos", "--disable-tqdm"),
        *("--percentile-metrics", ",".join(LATENCIES), "--metric-percentiles", "90,99"),
        *("--save-result", "--result-dir", folder, "--result-filename", file.name),
    ]
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args([str(argument) for argument in arguments]))
    return json.loads(file.read_text())


def judge(samples: Path, slos: dict[str, float]) -> dict[str, float]:
    """What vLLM makes of requests with these times."""
    header, *lines = map(json.loads, samples.read_text().splitlines())
    outputs = [seen(line) for line in lines]
    found, _ = calculate_metrics([], outputs, header["seconds"], None, [90, 99], slos)
    told = {"request_throughput": found.request_throughput, "output_throughput": found.output_throughput}
    told |= {"completed": found.completed, "request_goodput": found.request_goodput}
    for name in LATENCIES:
        told |= {f"{which}_{name}_ms": getattr(found, f"{which}_{name}_ms") for which in ("mean", "median")}
        percentiles = getattr(found, f"percentiles_{name}_ms")
        told |= {f"p{int(percent)}_{name}_ms": value for percent, value in percentiles}
    return {key: float(value) for key, value in told.items()}


def seen(line: dict) -> RequestFuncOutput:
    """A request as vLLM's own client would have seen it."""
    if "error" in line:
        return RequestFuncOutput(success=False)
    moments = line["tokens"]
    return RequestFuncOutput(
        success=True,
        start_time=line["due"],
        latency=moments[-1] - line["due"],
        ttft=moments[0] - line["due"],
        itl=[later - earlier for earlier, later in pairwise(moments)],
        output_tokens=line["output_tokens"],
        prompt_len=line["prompt_tokens"],
    )


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    place = Path(sys.argv[1]).parent
    figures = {
        "judged": judge(Path(asked["samples"]), asked["slos"]),
        "runs": [bench(asked, place, number) for number in range(asked["repeats"])],
    }
    (place / "figures.json").write_text(json.dumps(figures))
