"""Who stands in which model's line, who is answered next, and who holds a slot. Pure state of the scheduler.

Owns the order among waiters and the fairness between organisations. Must not know loads, memory or devices.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from runtime import events as ev
from runtime.demand import ModelDemand, Waiter
from runtime.errors import Overloaded, RuntimeFault
from runtime.events import Need
from runtime.replica import Replica


class Lines:
    """The lines of all models. Every waiter that joined gets one `Grant` or `Refuse`, unless it left first.

    Args:
        emit: takes the effects.
    """

    def __init__(self, emit: Callable[[ev.Effect], None]) -> None:
        self.models: dict[str, ModelDemand] = {}
        self._emit = emit
        self._waiting: dict[str, ModelDemand] = {}
        self._granted: dict[str, tuple[str, str]] = {}

    def model(self, model_id: str) -> ModelDemand:
        """What is known of a model; begun where nothing was."""
        return self.models.setdefault(model_id, ModelDemand(model_id))

    def join(self, model: ModelDemand, waiter: Waiter) -> None:
        """Stand in line, at its end."""
        model.waiters[waiter.id] = waiter
        self._waiting[waiter.id] = model

    def leave(self, waiter_id: str) -> str | None:
        """Forget a waiter; returns the replica whose slot it held."""
        if model := self._waiting.pop(waiter_id, None):
            del model.waiters[waiter_id]
        replica_id, _ = self._granted.pop(waiter_id, (None, ""))
        return replica_id

    def make_room(self, model: ModelDemand, share: str) -> bool:
        """Refuse the newest of the organisation that crowds a full line, if the newcomer's has far fewer."""
        waiting = Counter(w.share for w in model.waiters.values() if w.need is Need.SLOT)
        if not waiting:
            return False
        crowd, count = waiting.most_common(1)[0]
        if count < waiting[share] + 2:
            return False
        newest = [w for w in model.waiters.values() if w.need is Need.SLOT and w.share == crowd][-1]
        self.refuse([newest], Overloaded(model.model_id))
        return True

    def admit(self, model: ModelDemand, replicas: Sequence[Replica], now: float) -> None:
        """Grant whatever can be granted: slots in turn between organisations, else in order of arrival."""
        if not model.waiters or not model.on_disk():
            return
        for waiter in [waiter for waiter in model.waiters.values() if waiter.need is not Need.SLOT]:
            if waiter.need is Need.DISK:
                self._grant(waiter, None, now)
            elif replicas:
                self._grant(waiter, replicas[0], now)
        while free := [replica for replica in replicas if replica.has_free_slot]:
            if (next_one := self._next(model, replicas)) is None:
                return
            self._grant(next_one, min(free, key=lambda replica: len(replica.running)), now)

    def refuse(self, waiters: Iterable[Waiter], fault: RuntimeFault) -> None:
        """Answer with a fault."""
        for waiter in list(waiters):
            self._forget(waiter)
            self._emit(ev.Refuse(waiter.id, fault))

    def _next(self, model: ModelDemand, replicas: Sequence[Replica]) -> Waiter | None:
        """The first of the organisation that holds the fewest slots of the model."""
        waiting = [waiter for waiter in model.waiters.values() if waiter.need is Need.SLOT]
        holds = Counter(self._granted[waiter_id][1] for r in replicas for waiter_id in r.running)
        return min(waiting, key=lambda waiter: holds[waiter.share], default=None)

    def _grant(self, waiter: Waiter, replica: Replica | None, now: float) -> None:
        self._forget(waiter)
        if replica is not None:
            replica.last_used = now
            if waiter.need is Need.SLOT:
                replica.running.add(waiter.id)
                replica.granted += 1
                self._granted[waiter.id] = (replica.id, waiter.share)
        self._emit(ev.Grant(waiter.id, replica.id if replica else None))

    def _forget(self, waiter: Waiter) -> None:
        del self._waiting.pop(waiter.id).waiters[waiter.id]
