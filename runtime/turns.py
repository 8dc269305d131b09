"""How long a loaded model keeps its place while another waits for it. Pure: numbers in, times out.

Two models that do not fit together take turns. Turns that are too short have the node load and unload all the
time; such that are too long have everybody wait. Must not know devices, loads or waiters.
"""

from dataclasses import dataclass

from runtime.replica import Replica


@dataclass(frozen=True, slots=True)
class TurnRule:
    """When a replica may be asked for its place, once somebody waits for it.

    A change of models costs the answers that are waited for, with no new one begun, and the load. A turn is a
    fixed multiple of that, so changes take a bounded share of the time; and because it does not end sooner by
    the chance of a quiet moment, all turns under the same demand are alike: nobody waits much longer than
    others, and the number of changes stays near the fewest that the longest wait allows.

    Attributes:
        turn_s: seconds that a turn lasts at most, and while nobody knows yet how long an answer takes. After
            its turn a replica takes nothing new, ends what it answers, and goes.
        per_change: a turn lasts so many times what a change costs.
        cold_below: an idle replica that was asked for fewer times than this since its load goes at once.
    """

    turn_s: float = 30.0
    per_change: float = 4.0
    cold_below: int = 4

    def over_at(self, replica: Replica) -> float:
        """When it may be asked to go though it answers."""
        if replica.answer_seconds <= 0:
            return replica.ready_at + self.turn_s
        change_s = replica.load_seconds + replica.answer_seconds
        return replica.ready_at + min(self.turn_s, self.per_change * change_s)

    def idle_until(self, replica: Replica) -> float:
        """When it may be asked to go, if it stays idle."""
        return replica.last_used if replica.granted < self.cold_below else self.over_at(replica)
