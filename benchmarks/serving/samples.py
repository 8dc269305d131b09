"""A run as a file: one line for each request with the time of every token, and no text.

Owns the form ``porten.bench.samples/1``. The first line tells of the run, each further one of a request. All
times are seconds since the run began, by one clock that never goes back; they are rounded to tenths of a
microsecond, below what any machine's timers can tell. The file gives the same figures again:
``porten-bench figures``.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.errors import BenchmarkError, ResultUnreadable
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.machine.watch import Watched
from benchmarks.serving.evaluating import Meter

SCHEMA: Final = "porten.bench.samples/1"
_DIGITS: Final = 7


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of the run.

    Attributes:
        at: when it was made, ISO 8601, UTC.
        model: that was asked for.
        base_url: whom it was asked of.
        load: in words.
        open_loop: whether latency counts from when a request was due.
        ignore_eos: whether answers were asked to have their full length.
        seed: of the workload, and of the intervals.
        seconds: from the run's beginning to the end of its last request.
        unfinished: requests cut off by an interruption, which have no line.
        in_vain: it ended early, since nothing was ever answered.
        busy: share of a core that each process of the generator used.
        clock_jump_s: by how much the clock of the day jumped.
        lags: how late the generator's loop woke, in seconds.
    """

    schema: str = SCHEMA
    at: str
    model: str
    base_url: str
    load: str
    open_loop: bool
    ignore_eos: bool
    seed: int
    seconds: float
    unfinished: int = 0
    interrupted: bool = False
    in_vain: bool = False
    busy: list[float] = []
    clock_jump_s: float = 0.0
    lags: list[float] = []

    @property
    def meter(self) -> Meter:
        """What was known of the generator."""
        return Meter(tuple(self.busy), Watched(tuple(self.lags), self.clock_jump_s))


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request.

    Attributes:
        number: within the workload.
        due: when its latency begins: when it was due in an open loop, when it was sent in a closed one.
        sent: when it was really sent.
        ended: when it was over.
        tokens: when each chunk with content came; empty where the answer was not streamed.
        last: when the whole answer had come, where it was not streamed.
        output_tokens: by the server's usage if `counted`, else as many as chunks.
        prompt_tokens: by the server's usage.
        asked: output tokens asked for.
        content_bytes: length of the content in UTF-8.
        empty_chunks: chunks without anything in them.
        error: kind of the failure; none for a complete answer.
    """

    number: int
    due: float
    sent: float
    ended: float
    tokens: list[float] = []
    last: float | None = None
    output_tokens: int = 0
    counted: bool = False
    prompt_tokens: int | None = None
    asked: int = 0
    content_bytes: int = 0
    empty_chunks: int = 0
    error: str | None = None


def write(path: Path, lines: Iterable[bytes]) -> None:
    """Write the lines, over what was there.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            file.writelines(lines)
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror}") from error


_read_line: Final = msgspec.json.Decoder(Line).decode
_encode: Final = msgspec.json.Encoder().encode


def to_lines(header: Header, run: Run) -> Iterator[bytes]:
    """The file's lines, each with its end."""
    yield _encode(header) + b"\n"
    for sample in run.samples:
        yield _encode(_line(sample, run.began_at)) + b"\n"


def _line(sample: Sample, began_at: float) -> Line:
    def since(moment: float) -> float:
        return round(moment - began_at, _DIGITS)

    streamed = sample.first_token_at is not None
    return Line(
        number=sample.number,
        due=since(sample.started_at),
        sent=since(sample.sent_at),
        ended=since(sample.ended_at),
        tokens=_moments(sample, began_at),
        last=since(sample.last_token_at) if sample.last_token_at is not None and not streamed else None,
        output_tokens=sample.output_tokens,
        counted=sample.counted,
        prompt_tokens=sample.prompt_tokens,
        asked=sample.asked_tokens,
        content_bytes=sample.content_bytes,
        empty_chunks=sample.empty_chunks,
        error=sample.error,
    )


def _moments(sample: Sample, began_at: float) -> list[float]:
    if sample.first_token_at is None:
        return []
    moments = accumulate(sample.gaps, initial=sample.first_token_at - began_at)
    return [round(moment, _DIGITS) for moment in moments]


def read(path: Path) -> tuple[Header, Run]:
    """Read a file back.

    Raises:
        ResultUnreadable: it is not there, or is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ResultUnreadable(f"cannot read {path}: {error.strerror}") from error
    try:
        header = msgspec.json.decode(lines[0] if lines else b"", type=Header)
        samples = [_sample(_read_line(line)) for line in lines[1:]]
    except msgspec.DecodeError as error:
        raise ResultUnreadable(f"{path} is no file of samples ({error}): write one with --samples") from error
    if header.schema != SCHEMA:
        raise ResultUnreadable(f"{path} has schema {header.schema!r}, and this version reads {SCHEMA!r}")
    return header, Run(
        0.0, header.seconds, samples, header.unfinished, header.interrupted, in_vain=header.in_vain
    )


def _sample(line: Line) -> Sample:
    moments = line.tokens
    return Sample(
        started_at=line.due,
        sent_at=line.sent,
        ended_at=line.ended,
        first_token_at=moments[0] if moments else None,
        last_token_at=moments[-1] if moments else line.last,
        gaps=tuple(later - earlier for earlier, later in pairwise(moments)),
        prompt_tokens=line.prompt_tokens,
        output_tokens=line.output_tokens,
        counted=line.counted,
        error=line.error,
        detail=f"{line.error}, by a file of samples" if line.error else "",
        number=line.number,
        asked_tokens=line.asked,
        content_bytes=line.content_bytes,
        empty_chunks=line.empty_chunks,
    )
