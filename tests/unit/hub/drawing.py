"""State machines whose tests count what was tried: run again until it is enough.

What Hypothesis draws differs from run to run, tenfold at times. A test that wants a path to have been tried a
number of times would now and then fail for want of luck alone.

Where Hypothesis is told to repeat itself, as it is wherever the environment says CI, each round has its own
seed: else every round would be the first one again.
"""

from collections.abc import Callable

from hypothesis import seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

ROUNDS = 10


def run_until(machine: type[RuleBasedStateMachine], checks: settings, enough: Callable[[], bool]) -> None:
    """Run a machine once, and again while it has not tried enough; the caller's own assertions come after."""
    for number in range(ROUNDS):
        if checks.derandomize:
            seed(number)(machine)
        run_state_machine_as_test(machine, settings=checks)
        if enough():
            return
