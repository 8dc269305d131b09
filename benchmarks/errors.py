"""What can go wrong while measuring.

::

    BenchmarkError
    ├── SettingInvalid      a setting that makes no sense; the command line answers with exit code 2
    ├── EndpointUnusable    the endpoint refused the probe: nothing was measured; exit code 1
    ├── ResultUnreadable    a result file that is none, or of another schema; exit code 1
    ├── NotComparable       two results that cannot be laid side by side; exit code 1
    ├── PlotsMissing        the library that draws is not installed; exit code 1
    ├── ProcessMissing      a process whose CPU time was wanted is not there; exit code 1
    └── ExchangeFailed      one request failed; it is counted under its kind and never ends a run
"""


class BenchmarkError(Exception):
    """Root of everything this folder raises on purpose."""


class SettingInvalid(BenchmarkError):
    """A setting cannot be understood or contradicts another one."""


class EndpointUnusable(BenchmarkError):
    """The endpoint did not answer the probe request, so that a measurement would say nothing."""


class ResultUnreadable(BenchmarkError):
    """A file is no result that this version can read; the message says what to do."""


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
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
