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
    ├── EngineInUse          it cannot be removed while processes run from it
    ├── EngineFailed         an engine process died or never got ready
    │   ├── EngineUnreachable     it gave no byte of an answer; says whether it had been asked
    │   └── EngineConnectionLost  it broke off within an answer, or what it said is not HTTP
    ├── BodyTooLarge         a request's body is over the limit
    ├── RequestRefused       a request's body asks for what no endpoint of the owner's is asked
    ├── NodeStopping         the supervisor is shutting down
    ├── NodeYields           the machine is its owner's for now; says why
    ├── ConfigInvalid        a setting is unknown or makes no sense
    ├── EnrollmentRefused    the Hub said no
    │   ├── HubUnreachable   the Hub could not be asked
    │   └── NodeRevoked      the Hub does not know this node any more
    ├── NotEnrolled          this machine has no identity yet
    ├── AlreadyEnrolled      this machine has one, and a second would take its place
    ├── IdentityInvalid      the identity on the disk is damaged or not ours
    ├── AlreadyRunning       another daemon works on the same data directory
    ├── ServiceFailed        the machine's service manager did not do as asked
    ├── UpgradeRefused       another version cannot be put here; nothing was changed
    ├── UpgradeFailed        the other version did not work; the message says what runs now
    ├── PortTaken            the local API's address is in use
    └── DaemonUnreachable    the daemon does not run, or does not answer

Knows nothing of HTTP, the tunnel or the Hub.
"""

from collections.abc import Sequence

from runtime.progress import LoadProgress


class RuntimeFault(Exception):
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


class EngineInUse(RuntimeFault):
    """Processes run from an engine's environment, so it is not removed."""

    def __init__(self, provider: str, pids: Sequence[int]) -> None:
        running = ", ".join(map(str, pids))
        super().__init__(f"{provider} is in use (pid {running}): stop them first (`porten stop`)")


class EngineFailed(RuntimeFault):
    """An engine process died, or never became ready."""


class NodeStopping(RuntimeFault):
    """The node is shutting down and admits nothing new."""


class NodeYields(RuntimeFault):
    """The node gives its machine back to its owner, and admits nothing new until that is over."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node is not working now: {reason}")
        self.reason = reason


class ConfigInvalid(RuntimeFault):
    """A setting is unknown, unreadable or out of range."""


class EnrollmentRefused(RuntimeFault):
    """The Hub refused to enroll this node, or forgot it."""


class EngineUnreachable(EngineFailed):
    """No connection to the engine could be made, or it died before a byte of the answer came.

    Attributes:
        asked: The request had been sent, so it may be what the engine died of.
    """

    def __init__(self, message: str, *, asked: bool = False) -> None:
        super().__init__(message)
        self.asked = asked


class EngineConnectionLost(EngineFailed):
    """The engine's connection died within an answer, or it spoke something that is not HTTP."""


class BodyTooLarge(RuntimeFault):
    """A request's body is over the limit in bytes; no engine was asked."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is over {limit} bytes")
        self.limit = limit


class RequestRefused(RuntimeFault):
    """A request's body is not what an endpoint may be sent; `code` and `param` as in OpenAI's envelope."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class HubUnreachable(EnrollmentRefused):
    """No answer came from the Hub; the message says what to check."""


class NodeRevoked(EnrollmentRefused):
    """The Hub does not know this node, or has revoked it."""


class NotEnrolled(RuntimeFault):
    """There is no identity in the data directory."""


class AlreadyEnrolled(RuntimeFault):
    """There is an identity in the data directory already."""


class IdentityInvalid(RuntimeFault):
    """The identity's files are missing, damaged, or signed by another Hub."""


class AlreadyRunning(RuntimeFault):
    """Another daemon holds the data directory's lock."""


class ServiceFailed(RuntimeFault):
    """systemd or launchd is not there, or did not do as asked; the message is theirs."""


class UpgradeRefused(RuntimeFault):
    """Another version cannot be installed or used here, and nothing was changed."""


class UpgradeFailed(RuntimeFault):
    """The other version was started and did not work; the message says what runs now."""


class PortTaken(RuntimeFault):
    """The local API cannot listen where it was told to."""


class DaemonUnreachable(RuntimeFault):
    """Nobody answers on the control socket."""
