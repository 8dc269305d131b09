"""How long a loaded model keeps its place while another waits for it. Pure: numbers in, times out.

Two models that do not fit together take turns. Turns that are too short have the node load and unload all the
time; such that are too long starve whoever waits. Must not know devices, loads or waiters.
"""

from dataclasses import dataclass

from runtime.replica import Replica


@dataclass(frozen=True, slots=True)
class TurnRule:
    """When a replica may be asked for its place, once somebody waits for it.

    Attributes:
        turn_s: seconds for which a ready replica keeps its place while it is answering. After that it takes
            nothing new, ends what it answers, and goes.
        worth: an idle replica that is asked for more often than it could be brought back keeps its place for
            this many times what its load took; any other goes at once.
        busy_requests: so many requests tell how often it is asked for; fewer tell nothing.
    """

    turn_s: float = 30.0
    worth: float = 2.0
    busy_requests: int = 4

    def over_at(self, replica: Replica) -> float:
        """When it may be asked to go though it answers."""
        return replica.ready_at + self.turn_s

    def idle_until(self, replica: Replica) -> float:
        """When it may be asked to go, if it stays idle."""
        if not self._pays(replica):
            return replica.last_used
        return min(replica.last_used + self.worth * replica.load_seconds, self.over_at(replica))

    def _pays(self, replica: Replica) -> bool:
        """Whether it was asked for more often than it could have been brought back."""
        if replica.granted < self.busy_requests:
            return False
        between_s = (replica.last_used - replica.ready_at) / replica.granted
        return between_s < self.worth * replica.load_seconds
