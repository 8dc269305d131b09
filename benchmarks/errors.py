"""What can go wrong while measuring.

::

    BenchmarkError
    ├── SettingInvalid      a setting that makes no sense; the command line answers with exit code 2
    │   └── InputInvalid    a trace or dataset that cannot be read, with the line; exit code 2
    ├── EndpointUnusable    the endpoint refused the probe: nothing was measured; exit code 1
    ├── ResultUnreadable    a result file that is none, or of another schema; exit code 1
    ├── GeneratorLost       a generator process ended by itself before anything was measured; exit code 1
    ├── NotComparable       two results that cannot be laid side by side; exit code 1
    ├── PlotsMissing        the library that draws is not installed; exit code 1
    ├── ProcessMissing      a process whose CPU time was wanted is not there; exit code 1
    └── ExchangeFailed      one request failed; it is counted under its kind and never ends a run
"""


class BenchmarkError(Exception):
    """Root of everything this folder raises on purpose."""


class SettingInvalid(BenchmarkError):
    """A setting cannot be understood or contradicts another one."""


class InputInvalid(SettingInvalid):
    """A file of requests cannot be read. The message never holds what a line says.

    Attributes:
        line: which line, from 1; 0 where it is the file as a whole.
    """

    def __init__(self, name: str, line: int, problem: str) -> None:
        super().__init__(f"{name}, line {line}: {problem}" if line else f"{name}: {problem}")
        self.line = line


class EndpointUnusable(BenchmarkError):
    """The endpoint did not answer the probe request, so that a measurement would say nothing."""


class ResultUnreadable(BenchmarkError):
    """A file is no result that this version can read; the message says what to do."""


class GeneratorLost(BenchmarkError):
    """A process of the load generator is gone; what it should have measured is unknown."""


class NotComparable(BenchmarkError):
    """Two results are of different benchmarks, or have no figure in common."""


class PlotsMissing(BenchmarkError):
    """The library that draws plots is not installed; the message says how to get it."""


class ProcessMissing(BenchmarkError):
    """A process to be watched does not exist, or belongs to somebody else."""


class ExchangeFailed(BenchmarkError):
    """One request did not end in a complete answer.

    Attributes:
        kind: a short stable name to count by, such as ``timeout`` or ``http_503:overloaded``.
        detail: one line for a person; never holds the API key.
        quotes: whether the line has the server's own words, which may repeat what it was asked.
    """

    def __init__(self, kind: str, detail: str, *, quotes: bool = False) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.quotes = quotes
