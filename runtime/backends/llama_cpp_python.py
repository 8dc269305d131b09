"""llama.cpp, by the `llama-cpp-python` package: GGUF on the CPU, or on what the owner compiled it for.

Its model answers one request at a time, so it reports one slot whatever is asked for: requests wait in the
node's line, where they are counted, and none is ever interrupted for another.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.catalog import ModelSpec
from models.store import StoredModel
from runtime.backends import gguf, script
from runtime.backends.base import Availability, EngineOptions, LaunchSpec, ReplicaPlan, Task
from runtime.backends.installed import availability
from runtime.engines import EngineEnvironment
from runtime.snapshot import DeviceKind

_SCRIPT = Path(__file__).with_name("llama_cpp_python_server.py")
# The package and its web server beside llama.cpp's own, measured with SmolLM2: 44 MiB after plain chats of
# 256 to 2048 tokens, 75 to 85 after tools, schemas and prompts that fill the context.
_PYTHON_BYTES = 76 * 1024 * 1024
# The same where texts become vectors, and nothing is said or kept to a schema: 36 MiB.
_EMBEDDING_BYTES = 40 * 1024 * 1024


class LlamaCppPythonBackend:
    """Starts `llama_cpp_python_server.py` in the engine's environment."""

    name = "llama_cpp_python"
    provider = "llama-cpp-python"
    formats = frozenset({"gguf"})
    tasks: frozenset[Task] = frozenset({"generate", "embed"})  # its server cannot be asked to rank
    protocols: frozenset[str] = frozenset()
    device_kinds: tuple[DeviceKind, ...] = ("cpu",)

    def __init__(self, environment: EngineEnvironment) -> None:
        self._environment = environment

    def available(self) -> Availability:
        """Whether the engine is installed and the machine has the library it needs."""
        return availability(self._environment, engine=self.name, title="llama-cpp-python")

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """As `runtime.backends.gguf.plan`, of one slot."""
        planned = gguf.plan(self.name, spec, stored, replace(options, slots=1), splits=False)
        more = _PYTHON_BYTES if planned.pooling is None else _EMBEDDING_BYTES
        return replace(planned, memory=replace(planned.memory, overhead=planned.memory.overhead + more))

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        """The script, its parameters on stdin, and a key that keeps this machine's other users out."""
        parameters = {
            "settings": self._settings(spec, stored, plan),
            "pooling": plan.pooling,
            "chat_template": "" if "tools" in spec.capabilities else spec.chat_template,
        }
        return script.launch(
            self._environment.python,
            _SCRIPT,
            parameters,
            env=script.visible(devices),
            start_timeout_s=gguf.start_timeout_s(stored),
            texts_at_once=plan.slots,
            most_text_bytes=gguf.most_text_bytes(spec, plan),
        )

    def _settings(self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan) -> dict[str, object]:
        """The package's settings, by the names it gives them."""
        settings: dict[str, object] = {
            "model": str(stored.path),
            "model_alias": spec.id,
            "n_ctx": plan.context_length,
            "n_batch": plan.batch_tokens,
            "n_ubatch": plan.batch_tokens,
            "n_threads": plan.threads,
            "n_threads_batch": plan.threads,
            # It would keep the scores of every word it knows for every token of the prompt.
            "logits_all": False,
            "embedding": plan.pooling is not None,
            "interrupt_requests": False,
            "verbose": False,
        }
        # The one format of its own that makes calls out of what a model says.
        if "tools" in spec.capabilities:
            return settings | {"chat_format": "chatml-function-calling"}
        return settings

    def explain(self, log: str) -> str:
        """As `runtime.backends.gguf.cause`, or the last error that Python tells."""
        return gguf.cause(log) or gguf.python_error(log)
