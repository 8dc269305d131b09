"""How long people think between an answer and their next turn.

Pure. Owns the distributions of seconds and how they are written; lengths in tokens are ``workloads``' matter.
"""

import math
import random
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import SettingInvalid

_NUMBERS: Final = {"fixed": 1, "exponential": 1, "uniform": 2, "lognormal": 2}


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in seconds, drawn anew each time.

    Attributes:
        form: ``fixed`` (seconds), ``exponential`` (mean), ``uniform`` (low, high), or ``lognormal`` (median,
            and the deviation of the logarithm in percent).
        numbers: one or two, as the form has it.
    """

    form: str = "fixed"
    numbers: tuple[float, ...] = (0.0,)

    def draw(self, chance: random.Random) -> float:
        """One time, never negative."""
        if self.form == "exponential":
            return chance.expovariate(1 / self.numbers[0]) if self.numbers[0] else 0.0
        if self.form == "uniform":
            return chance.uniform(*self.numbers)
        if self.form == "lognormal":
            return self.numbers[0] * chance.lognormvariate(0, self.numbers[1] / 100)
        return self.numbers[0]

    def __str__(self) -> str:
        told = ",".join(repr(number).removesuffix(".0") for number in self.numbers)
        return told if self.form == "fixed" else f"{self.form}:{told}"


NO_PAUSE: Final = Pause()


def parse_pause(text: str) -> Pause:
    """Read ``2``, ``exponential:5``, ``uniform:1,10`` or ``lognormal:4,80``; all in seconds.

    Raises:
        SettingInvalid: it is none of them, or a number makes no sense.
    """
    form, colon, rest = text.partition(":")
    try:
        numbers = tuple(float(part) for part in (rest if colon else form).split(","))
    except ValueError:
        numbers = ()
    pause = Pause(form if colon else "fixed", numbers)
    counted = _NUMBERS.get(pause.form) == len(numbers)
    sound = all(math.isfinite(number) and number >= 0 for number in numbers)
    if counted and sound and (form != "uniform" or numbers[0] <= numbers[1]):
        return pause
    raise SettingInvalid(
        f"{text!r} is no time to think: write seconds such as 2, or exponential:MEAN, uniform:LOW,HIGH or "
        "lognormal:MEDIAN,SPREAD_PERCENT"
    )
