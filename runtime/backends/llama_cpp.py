"""llama.cpp, by its own server inside the `xllamacpp` package: GGUF on the CPU.

Owns what a GGUF model is started with. The context length is promised to EVERY slot: llama.cpp is given
context times slots, with a cache divided evenly, so that one long request never takes another's room.
"""

from collections.abc import Sequence
from pathlib import Path

from models.catalog import ModelSpec
from models.fit import CHECKPOINTS
from models.store import StoredModel
from runtime.api_paths import BOTH
from runtime.backends import gguf, script
from runtime.backends.base import EVERY_TASK, Availability, EngineOptions, LaunchSpec, ReplicaPlan
from runtime.backends.installed import availability
from runtime.engines import EngineEnvironment
from runtime.snapshot import DeviceKind

_SCRIPT = Path(__file__).with_name("xllamacpp_server.py")


class LlamaCppBackend:
    """Starts `xllamacpp_server.py` in the engine's environment."""

    name = "llama_cpp"
    provider = "xllamacpp"
    formats = frozenset({"gguf"})
    tasks = EVERY_TASK
    protocols = BOTH
    device_kinds: tuple[DeviceKind, ...] = ("cpu",)  # the wheel on the package index is built for the CPU

    def __init__(self, environment: EngineEnvironment) -> None:
        self._environment = environment

    def available(self) -> Availability:
        """Whether the engine is installed and the machine has the library it needs."""
        return availability(self._environment, engine=self.name, title="llama.cpp (xllamacpp)")

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """As `runtime.backends.gguf.plan`."""
        return gguf.plan(self.name, spec, stored, options)

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        """The script, its parameters on stdin, and a key that keeps this machine's other users out."""
        parameters = {
            "model_path": str(stored.path),
            "alias": spec.id,
            "slots": plan.slots,
            "context_length": plan.context_length,
            "threads": plan.threads,
            "batch_tokens": plan.batch_tokens,
            "checkpoints": CHECKPOINTS,
            "pooling": plan.pooling,
            "chat_template": spec.chat_template,
        }
        return script.launch(
            self._environment.python,
            _SCRIPT,
            parameters,
            env=script.visible(devices),
            start_timeout_s=gguf.start_timeout_s(stored),
            texts_at_once=plan.slots,
            most_text_bytes=gguf.most_text_bytes(spec, plan),
            protocols=self.protocols,
        )

    def explain(self, log: str) -> str:
        """As `runtime.backends.gguf.cause`."""
        return gguf.cause(log)
