"""Settings as people write them on a command line, turned into the plan's own types.

Pure but for the key file. Raises ``SettingInvalid`` with one line that says what would be right. Must not
know the command line's library.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import SettingInvalid
from benchmarks.figures.goodput import parse_slos
from benchmarks.generator.loads import Limit
from benchmarks.generator.workloads import Workload, parse_distribution
from benchmarks.machine.cpu import WatchedTree
from benchmarks.serving.evaluating import Rules
from benchmarks.serving.measuring import NO_WARMUP

DEFAULT_SECONDS = 30.0


def parse_limit(requests: int | None, seconds: float | None) -> Limit:
    """When to stop; by default after half a minute."""
    if requests is None and seconds is None:
        return Limit(seconds=DEFAULT_SECONDS)
    return Limit(requests, seconds)


def parse_warmup(text: str) -> Limit:
    """Read ``10`` (requests), ``10s`` (seconds) or ``0`` (none).

    Raises:
        SettingInvalid: it is neither.
    """
    seconds = text.removesuffix("s")
    try:
        limit = Limit(seconds=float(seconds)) if seconds != text else Limit(requests=int(text))
    except ValueError:
        limit = Limit(requests=-1)
    if (limit.requests or 0) < 0 or not 0 <= (limit.seconds or 0) < float("inf"):
        raise SettingInvalid(f"--warmup {text!r} is neither a number of requests (10) nor of seconds (10s)")
    return limit if limit.requests or limit.seconds else NO_WARMUP


def parse_share(text: str, option: str) -> float:
    """Read ``1%`` or ``0.01``.

    Raises:
        SettingInvalid: it is neither a number of percent from 0 to 100 nor one from 0 to below 1.
    """
    number = text.strip().removesuffix("%")
    in_percent = number != text.strip()
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not (0 <= value <= 100 if in_percent else 0 <= value < 1):
        raise SettingInvalid(f"{option} {text!r} is no share such as 1% or 0.01")
    return value / 100 if in_percent else value


def parse_rules(slos: Sequence[str], *, max_errors: str, steady: bool, percentiles: Sequence[float]) -> Rules:
    """How a run is judged.

    Raises:
        SettingInvalid: an objective, the share or a percentile makes no sense.
    """
    if any(not 0 < percent < 100 for percent in percentiles):
        raise SettingInvalid("--percentile is a number between 0 and 100, such as 99.9")
    return Rules(
        slos=parse_slos(slos),
        max_errors=parse_share(max_errors, "--max-errors"),
        steady=steady,
        percents=tuple(sorted(set(percentiles))),
    )


def parse_counts(text: str, option: str = "--concurrency") -> tuple[int, ...]:
    """Read ``1,8``.

    Raises:
        SettingInvalid: there is something else than numbers from 1 up.
    """
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise SettingInvalid(f"{option} {text!r} is no list of numbers such as 1,8")
    return counts


def parse_tree(text: str, exclude: tuple[str, ...]) -> WatchedTree:
    """Read ``hub=4711``.

    Raises:
        SettingInvalid: it is not a name and a process id.
    """
    name, _, pid = text.partition("=")
    if not name or not (pid.isascii() and pid.isdigit()):
        raise SettingInvalid(f"--cpu-pid {text!r} is not NAME=PID, such as hub=4711")
    return WatchedTree(name, int(pid), exclude)


def parse_workload(prompt_tokens: str, output_tokens: str, shared_prefix: int, seed: int) -> Workload:
    """The requests to make.

    Raises:
        SettingInvalid: a length cannot be read.
    """
    prompts, outputs = parse_distribution(prompt_tokens), parse_distribution(output_tokens)
    return Workload(prompts, outputs, shared_prefix, seed)


def read_key(path: Path | None, otherwise: str | None) -> str | None:
    """The API key from the file, or the other one if no file is given; an empty one is none.

    Raises:
        SettingInvalid: the file cannot be read or is empty.
    """
    if path is None:
        return otherwise or None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingInvalid(f"cannot read the API key from {path}: {reason}") from error
    if not key:
        raise SettingInvalid(f"the API key file {path} is empty")
    return key
