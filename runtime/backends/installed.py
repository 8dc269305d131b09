"""Whether an engine that lives in an environment of ours can serve. Reads the disk; starts nothing."""

from runtime.backends.base import Availability
from runtime.engines import EngineEnvironment, missing_library


def availability(environment: EngineEnvironment, *, engine: str, title: str) -> Availability:
    """Whether the engine is installed and the machine has the library it needs.

    Args:
        environment: where it would be.
        engine: its name for `porten engines install`.
        title: what people call it.
    """
    if missing := missing_library(environment.provider):
        return Availability(ok=False, reason=f"the system library {missing[0]} is missing", remedy=missing[1])
    if environment.installed_version() is None:
        remedy = f"run `porten engines install {engine}`"
        return Availability(ok=False, reason=f"{title} is not installed", remedy=remedy)
    return Availability(ok=True)
