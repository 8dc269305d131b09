"""llama.cpp, by its own server inside the `xllamacpp` package: GGUF on the CPU.

Owns what a GGUF model is started with. The context length is promised to EVERY slot: llama.cpp is given
context times slots, with a cache divided evenly, so that one long request never takes another's room.
"""

import json
import os
import re
import secrets
from pathlib import Path

from models.catalog import ModelSpec
from models.errors import FormatUnsupported
from models.fit import BATCH_TOKENS, CHECKPOINTS, estimate
from models.formats import read_gguf_header
from models.store import StoredModel
from runtime.backends.base import Availability, EngineOptions, LaunchSpec, ReplicaPlan
from runtime.devices import engine_threads
from runtime.engines import EngineEnvironment, missing_library
from runtime.snapshot import DeviceKind

_SCRIPT = Path(__file__).with_name("xllamacpp_server.py")
_LOOPBACK = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_SLOWEST_LOAD_BYTES_PER_S = 20e6
_ERROR_LINE = re.compile(r"^\S+ E [^:]*: (?P<text>.+)$", re.MULTILINE)
_PATH = re.compile(r"'?/[^\s']+'?")


class LlamaCppBackend:
    """Starts `xllamacpp_server.py` in the engine's environment."""

    name = "llama_cpp"
    provider = "xllamacpp"
    formats = frozenset({"gguf"})
    device_kinds: tuple[DeviceKind, ...] = ("cpu",)  # the wheel on the package index is built for the CPU

    def __init__(self, environment: EngineEnvironment) -> None:
        self._environment = environment

    def available(self) -> Availability:
        """Whether the engine is installed and the machine has the library it needs."""
        if missing := missing_library(self._environment.provider):
            return Availability(
                ok=False, reason=f"the system library {missing[0]} is missing", remedy=missing[1]
            )
        if self._environment.installed_version() is None:
            remedy = "run `porten engines install`"
            return Availability(ok=False, reason="llama.cpp (xllamacpp) is not installed", remedy=remedy)
        return Availability(ok=True)

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """The catalog's context and slots, unless the owner set others, never beyond what the model knows.

        Raises:
            models.errors.FormatUnsupported: not a GGUF file.
        """
        header = read_gguf_header(stored.path)
        if header.context_length < 1:
            raise FormatUnsupported(stored.path, "it names no context length")
        context = min(options.context_length or spec.context_length, header.context_length)
        slots = options.slots or spec.slots
        memory = estimate(header, size_bytes=stored.size_bytes, context=context, slots=slots)
        threads = options.threads or engine_threads()
        return ReplicaPlan(self.name, slots=slots, context_length=context, threads=threads, memory=memory)

    def command(self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan) -> LaunchSpec:
        """The script, its parameters on stdin, and a key that keeps this machine's other users out."""
        key = secrets.token_urlsafe(32)
        parameters = {
            "parent_pid": os.getpid(),
            "model_path": str(stored.path),
            "alias": spec.id,
            "host": _LOOPBACK,
            "api_key": key,
            "slots": plan.slots,
            "context_length": plan.context_length,
            "threads": plan.threads,
            "batch_tokens": BATCH_TOKENS,
            "checkpoints": CHECKPOINTS,
            "task": _task(spec),
        }
        return LaunchSpec(
            argv=(str(self._environment.python), "-I", str(_SCRIPT)),
            headers=(("authorization", f"Bearer {key}"),),
            stdin=json.dumps(parameters).encode() + b"\n",
            start_timeout_s=_START_TIMEOUT_S + stored.size_bytes / _SLOWEST_LOAD_BYTES_PER_S,
        )

    def explain(self, log: str) -> str:
        """The first error llama.cpp logged: those after it only say who else gave up."""
        found = _ERROR_LINE.search(log)
        return _PATH.sub("the file", found["text"]) if found else ""


def _task(spec: ModelSpec) -> str:
    """llama.cpp serves one kind of task: generating excludes embedding, and both exclude ranking."""
    if spec.capabilities & {"chat", "completions"}:
        return "generate"
    return "rerank" if "rerank" in spec.capabilities else "embed"
