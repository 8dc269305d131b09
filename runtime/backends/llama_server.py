"""llama.cpp, by the `llama-server` binary that the owner has: GGUF on whatever that was built for.

Owns what the binary is started with; the plan is every GGUF backend's. One binary serves one kind of device:
the owner says which, since a build for the CPU that was counted on a GPU would make a lie of both memories.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from models.catalog import ModelSpec
from models.fit import CHECKPOINTS
from models.store import StoredModel
from runtime.api_paths import BOTH
from runtime.backends import gguf, script
from runtime.backends.base import EVERY_TASK, Availability, EngineOptions, LaunchSpec, ReplicaPlan
from runtime.snapshot import DeviceKind

_SCRIPT = Path(__file__).with_name("llama_server_runner.py")
_ALL_LAYERS = 999


class LlamaServerBackend:
    """Starts the binary, watched over by `llama_server_runner.py` in the node's own interpreter.

    Args:
        binary: where it is, or its name on PATH.
        kind: the kind of device it was built for.
    """

    name = "llama_server"
    provider = "llama-server"
    formats = frozenset({"gguf"})
    tasks = EVERY_TASK
    protocols = BOTH

    def __init__(self, binary: Path, kind: DeviceKind = "cpu") -> None:
        self._binary = binary
        self._kind = kind
        self.device_kinds: tuple[DeviceKind, ...] = (kind,)

    def available(self) -> Availability:
        """Whether the binary is there."""
        if shutil.which(self._binary) is not None:
            return Availability(ok=True)
        remedy = "install llama.cpp, or set `llama_server` to where it is"
        return Availability(ok=False, reason=f"there is no program {self._binary.name}", remedy=remedy)

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """As `runtime.backends.gguf.plan`."""
        return gguf.plan(self.name, spec, stored, options, accelerated=self._kind != "cpu")

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        """The runner, its parameters on stdin, and a key that keeps this machine's other users out."""
        parameters = {
            "binary": str(shutil.which(self._binary) or self._binary),
            "arguments": self._arguments(spec, stored, plan),
        }
        return script.launch(
            sys.executable,
            _SCRIPT,
            parameters,
            env=script.visible(devices),
            start_timeout_s=gguf.start_timeout_s(stored),
            texts_at_once=plan.slots,
            most_text_bytes=gguf.most_text_bytes(spec, plan),
            protocols=self.protocols,
        )

    def _arguments(self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan) -> list[str]:
        """llama.cpp's options; see `xllamacpp_server.py` for why each is as it is."""
        options: dict[str, object] = {
            "--model": stored.path,
            "--alias": spec.id,
            "--parallel": plan.slots,
            "--ctx-size": plan.context_length * plan.slots,
            "--batch-size": plan.batch_tokens,
            "--ubatch-size": plan.batch_tokens,
            "--threads": plan.threads,
            "--threads-batch": plan.threads,
            "--cache-ram": 0,
            "--ctx-checkpoints": CHECKPOINTS,
            "--gpu-layers": 0 if self._kind == "cpu" else _ALL_LAYERS,
            "--fit": "off",
            "--log-verbosity": 1,
        }
        if spec.chat_template:
            options["--chat-template"] = spec.chat_template
        switches = ("--no-kv-unified", "--no-warmup", "--jinja", "--slots", "--metrics", "--offline")
        given = [str(part) for option in options.items() for part in option]
        return [*given, *switches, *_pooling(plan)]

    def explain(self, log: str) -> str:
        """As `runtime.backends.gguf.cause`."""
        return gguf.cause(log)


def _pooling(plan: ReplicaPlan) -> tuple[str, ...]:
    if plan.pooling is None:
        return ()
    return ("--reranking",) if plan.pooling == "rank" else ("--embeddings", "--pooling", plan.pooling)
