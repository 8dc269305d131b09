"""What a backend is: the adapter that says how an engine is started for a model. It starts nothing itself.

Decisions here are synchronous and small; `runtime.supervisor` does the slow work. Backends never import each
other, the tunnel or the scheduler.
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, get_args

from models.catalog import ModelSpec
from models.fit import MemoryEstimate
from models.header import Pooling
from models.store import StoredModel
from runtime.snapshot import DeviceKind

Task = Literal["generate", "embed", "rerank"]
EVERY_TASK: Final[frozenset[Task]] = frozenset(get_args(Task))


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can serve now; where not, why, and the one thing to do about it."""

    ok: bool
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine answers, and the headers every request to it must carry (its key).

    Attributes:
        model: what it calls the model, where it is not ours and may call it otherwise than requests do.
        tls: how its certificate is judged; None speaks in the clear.
        texts_at_once: most texts it is given in one request, where a list would keep all others waiting.
        most_text_bytes: of one text, or of one chat with all that belongs to it; None takes any length.
        protocols: what it speaks besides what every engine does, in the words of `runtime.api_paths`.
    """

    host: str
    port: int
    base_path: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    model: str | None = None
    tls: ssl.SSLContext | None = None
    texts_at_once: int | None = None
    most_text_bytes: int | None = None
    protocols: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the owner set for every engine; None leaves the choice to the model and the backend.

    Attributes:
        context_length: tokens of context for EACH slot, not for all of them together.
        slots: requests answered at once.
        threads: CPU threads that generate.
    """

    context_length: int | None = None
    slots: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """One backend's choice for one stored model: what it will run and what that takes.

    Attributes:
        memory: on one device.
        batch_tokens: of prompts, computed at once at most.
        pooling: how one embedding is made of its tokens' states; None where the model generates, or where the
            engine finds out by itself.
        shards: over how many devices of one kind the engine can spread the model, fewest first.
    """

    backend: str
    slots: int
    context_length: int
    threads: int
    memory: MemoryEstimate
    batch_tokens: int
    pooling: Pooling | None = None
    shards: tuple[int, ...] = (1,)

    def memory_on_each(self, devices: int) -> int:
        """Bytes on each of so many devices: weights and cache are shared out, the rest each needs itself."""
        shared = self.memory.weights + self.memory.kv_cache
        return self.memory.total - shared + -(-shared // devices)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How to start one engine process.

    The process announces `{"host": …, "port": …}` as one JSON line on stdout, answers 200 on `ready_path`
    when it can serve, and ends when its stdin closes.

    Attributes:
        stdin: sent first; what it holds no other user of the machine can read, unlike `argv`.
        headers: what every request to the engine must carry.
        start_timeout_s: seconds from start to readiness before it is given up.
        texts_at_once: as of its `Endpoint`, like `most_text_bytes` and `protocols`.
    """

    argv: tuple[str, ...]
    ready_path: str = "/health"
    env: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    start_timeout_s: float = 120.0
    texts_at_once: int | None = None
    most_text_bytes: int | None = None
    protocols: frozenset[str] = frozenset()


def task(spec: ModelSpec) -> Task:
    """The one kind of task an engine serves: generating excludes embedding, and both exclude ranking."""
    if spec.capabilities & {"chat", "completions"}:
        return "generate"
    return "rerank" if "rerank" in spec.capabilities else "embed"


class Backend(Protocol):
    """One kind of engine."""

    @property
    def name(self) -> str:
        """Stable name of the backend, as configuration and reports use it."""

    @property
    def provider(self) -> str:
        """Which distribution of the engine it runs."""

    @property
    def formats(self) -> frozenset[str]:
        """Model formats it can load (`gguf`, `safetensors`)."""

    @property
    def tasks(self) -> frozenset[Task]:
        """What it can have a model do."""

    @property
    def protocols(self) -> frozenset[str]:
        """What it speaks to chat besides OpenAI's chats, in the words of `runtime.api_paths`."""

    @property
    def device_kinds(self) -> tuple[DeviceKind, ...]:
        """Kinds of device it can use, best first."""

    def available(self) -> Availability:
        """Whether it can serve now. Cheap: reads the disk, starts nothing."""

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        """Slots, context and memory for one model.

        Raises:
            models.errors.FormatUnsupported: the file is not one this engine reads.
        """

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        """The process to start on those devices; with none named, on what the engine finds."""

    def explain(self, log: str) -> str:
        """Why the engine did not start, out of the end of its log; empty where the log does not tell.

        Requesters see it: no path of this machine belongs in it.
        """
