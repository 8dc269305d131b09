"""The node's errors: one tree, so that an edge (relay, local API, CLI) maps each to a status in one place.

::

    RuntimeFault
    ├── ModelUnknown         the catalog, or what this node offers, has no such model
    ├── ModelDoesNotFit      no device can hold it, even with every idle replica gone
    ├── LoadFailed           the load ended badly; `retry_after_s` says when another try is made
    ├── Warming              still loading when the waiter's budget ended; carries the progress
    ├── Overloaded           every slot is taken and the line is full
    ├── ReplicaBusy          an unload was asked for while it answers
    ├── EngineUnavailable    no engine for this format is installed; carries the remedy
    ├── EngineFailed         an engine process died or never got ready
    ├── NodeStopping         the supervisor is shutting down
    ├── ConfigInvalid        a setting is unknown or makes no sense
    └── EnrollmentRefused    the Hub said no

Knows nothing of HTTP, the tunnel or the Hub.
"""

from runtime.progress import LoadProgress


class RuntimeFault(Exception):  # noqa: N818 - the root names a family; its members say what went wrong
    """Root of everything the node raises on purpose."""


class ModelUnknown(RuntimeFault):
    """No such model in the catalog, or the node does not offer it."""

    def __init__(self, model_id: str) -> None:
        super().__init__(f"model {model_id!r} is not offered by this node")
        self.model_id = model_id


class ModelDoesNotFit(RuntimeFault):
    """No device of this node can hold the model within its budget."""

    def __init__(self, model_id: str, reason: str) -> None:
        super().__init__(f"model {model_id!r} does not fit: {reason}")
        self.model_id = model_id
        self.reason = reason


class LoadFailed(RuntimeFault):
    """Loading the model failed; nothing is tried again before `retry_after_s` seconds have passed."""

    def __init__(self, model_id: str, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(f"model {model_id!r} could not be loaded: {reason}")
        self.model_id = model_id
        self.reason = reason
        self.retry_after_s = retry_after_s


class Warming(RuntimeFault):
    """The waiter's budget ended while the load goes on."""

    def __init__(self, model_id: str, progress: LoadProgress) -> None:
        super().__init__(f"model {model_id!r} is still warming: {progress.describe()}")
        self.model_id = model_id
        self.progress = progress


class Overloaded(RuntimeFault):
    """Every slot is taken and no more may wait."""

    def __init__(self, model_id: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(f"every slot of {model_id!r} is taken and its line is full")
        self.model_id = model_id
        self.retry_after_s = retry_after_s


class ReplicaBusy(RuntimeFault):
    """The model is answering and the caller asked not to wait for it."""


class EngineUnavailable(RuntimeFault):
    """No usable engine for a model's format; `remedy` is the one thing to do about it."""

    def __init__(self, reason: str, *, remedy: str) -> None:
        super().__init__(f"{reason} ({remedy})" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class EngineFailed(RuntimeFault):
    """An engine process died, or never became ready."""


class NodeStopping(RuntimeFault):
    """The node is shutting down and admits nothing new."""


class ConfigInvalid(RuntimeFault):
    """A setting is unknown, unreadable or out of range."""


class EnrollmentRefused(RuntimeFault):
    """The Hub refused to enroll this node, or forgot it."""
