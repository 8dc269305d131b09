"""What every way to run a GGUF file with llama.cpp shares: the plan, the task, and reading its log.

Knows llama.cpp's memory and words; must not know how any build of it is started.
"""

import re
from pathlib import Path

from models.catalog import ModelSpec
from models.errors import FormatUnsupported
from models.fit import BATCH_TOKENS, estimate
from models.formats import read_gguf_header
from models.header import GgufHeader, Pooling
from models.store import StoredModel
from runtime.backends.base import EngineOptions, ReplicaPlan, task
from runtime.devices import engine_threads

START_TIMEOUT_S = 120.0
_SLOWEST_LOAD_BYTES_PER_S = 20e6
_ERROR_LINE = re.compile(r"^\S+ E [^:]*: (?P<text>.+)$", re.MULTILINE)
_PYTHON_ERROR = re.compile(r"^(?:[a-z_]+\.)*[A-Z]\w*(?:Error|Exception): (\S.*)$", re.MULTILINE)
_LONGEST = 300
# More than tokens have on average in any text, and what a request has beside it (schemas, settings).
# llama.cpp takes some 80 bytes of memory for each byte that it cuts into tokens, and keeps them.
_LONGEST_TOKEN_BYTES = 128
_BESIDE_THE_TEXT_BYTES = 64 * 1024
_PATH = re.compile(r"'?/[^\s']+'?")


def plan(
    backend: str,
    spec: ModelSpec,
    stored: StoredModel,
    options: EngineOptions,
    *,
    accelerated: bool = False,
    splits: bool = True,
) -> ReplicaPlan:
    """The catalog's context and slots, unless the owner set others, never beyond what the model knows.

    Args:
        backend: the name of the one that will run it.
        spec: the catalog's entry.
        stored: the weights.
        options: what the owner set.
        accelerated: whether its scratch memory lies on a GPU.
        splits: whether a text that is embedded is read in pieces, where the model allows it.

    Raises:
        models.errors.FormatUnsupported: not a GGUF file.
    """
    header = read_gguf_header(stored.path)
    if header.context_length < 1:
        raise FormatUnsupported(stored.path, "it names no context length")
    context = min(options.context_length or spec.context_length, header.context_length)
    slots = options.slots or spec.slots
    pooling = _pooling(spec, header, stored.path)
    # A text whose tokens all see each other, or all count, is computed in one piece, however long it is.
    piecewise = pooling is None or (pooling == "last" and header.causal and splits)
    batch = BATCH_TOKENS if piecewise else max(BATCH_TOKENS, context)
    return ReplicaPlan(
        backend,
        slots=slots,
        context_length=context,
        threads=options.threads or engine_threads(),
        memory=estimate(
            header,
            size_bytes=stored.size_bytes,
            context=context,
            slots=slots,
            accelerated=accelerated,
            batch=batch,
            embeds=pooling is not None,
        ),
        batch_tokens=batch,
        pooling=pooling,
    )


def _pooling(spec: ModelSpec, header: GgufHeader, path: Path) -> Pooling | None:
    """What the weights name; where they name none, the last token stands for the text: it saw all others."""
    wanted = task(spec)
    if wanted == "generate":
        return None
    if wanted == "embed" and header.pooling == "rank":
        raise FormatUnsupported(path, 'it ranks and does not embed: its capability is "rerank"')
    return "rank" if wanted == "rerank" else header.pooling or "last"


def most_text_bytes(spec: ModelSpec, plan: ReplicaPlan) -> int | None:
    """Bytes beyond which no text fits the context; None where pictures come within a request."""
    if "vision" in spec.capabilities:
        return None
    return _LONGEST_TOKEN_BYTES * plan.context_length + _BESIDE_THE_TEXT_BYTES


def start_timeout_s(stored: StoredModel) -> float:
    """Seconds until a start is given up: a slow disk still has time to read the weights."""
    return START_TIMEOUT_S + stored.size_bytes / _SLOWEST_LOAD_BYTES_PER_S


def cause(log: str) -> str:
    """The first error llama.cpp logged: those after it only say who else gave up. Holds no path."""
    found = _ERROR_LINE.search(log)
    return _PATH.sub("the file", found["text"]) if found else ""


def python_error(log: str) -> str:
    """The last error of a Python program's log, without paths; empty where it tells none."""
    found = _PYTHON_ERROR.findall(log)
    return _PATH.sub("the file", found[-1])[:_LONGEST] if found else ""
