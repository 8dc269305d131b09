"""The simulation: one trace, one fleet, one rule of selection; what requests then wait, and what caches save.

Owns the order of events. Deterministic: a plan, a rule and a seed give one result. Time is a number here, and
nothing runs but this.
"""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from benchmarks.errors import SettingInvalid
from benchmarks.figures.statistics import Summary, summarise
from benchmarks.reports.drawable import cdf
from benchmarks.routing.fleet import Job, Replica
from benchmarks.routing.rules import ORGANISATION, RULES, RuleName, View, Wanted
from benchmarks.routing.trace import Conversation, TraceShape, conversations, popularity
from hub.affinity import conversation_key

REPORT_EVERY_S: Final = 10.0
GOOD_TTFT_S: Final = 1.0
"""Seconds until the first token within which a request counts for goodput."""
_SLOTS: Final = (4, 8)
_SPEEDS: Final = (25.0, 50.0, 100.0)
_SECRET: Final = b"simulation"


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What decides a simulation, but for its seed and rule.

    Attributes:
        nodes: each with one replica.
        models: by Zipf's law; replicas are shared out by it.
        hubs: that share the nodes; each knows of the others' requests by reports alone.
        seconds: for which conversations begin; those of the first tenth are not counted.
        utilisation: share of all slots that are in use on average, were nothing cached; above it in bursts.
    """

    nodes: int = 2000
    models: int = 200
    hubs: int = 1
    seconds: float = 90.0
    utilisation: float = 0.7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        ttft: seconds until the first token.
        goodput: requests a second whose first token came within `GOOD_TTFT_S`.
        cached: share of all prompt tokens that were in the node's cache.
        waits: TTFT at so many even steps of its distribution.
    """

    rule: RuleName
    requests: int
    ttft: Summary
    goodput: float
    cached: float
    waits: tuple[float, ...] = ()


@dataclass(slots=True)
class _Talk:
    """A conversation that is going on."""

    conversation: Conversation
    place: int
    turn: int = 0
    history: int = 0


class _Simulation:
    """The state of one run: what is to happen, who is being answered, and who is held for want of a node."""

    def __init__(self, plan: SimulationPlan, rule: RuleName, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a simulation, not secrecy
        fleet = build_fleet(plan, chance)
        self.plan, self.rule, self.now = plan, rule, 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        self.replicas = {replica.node_id: replica for replica in fleet}
        self.views = [View(fleet, RULES[rule]) for _ in range(plan.hubs)]
        self.held: defaultdict[str, deque[tuple[_Talk, Job]]] = defaultdict(deque)
        self.open: dict[Job, tuple[_Talk, View]] = {}
        self.done: list[Job] = []
        for replica in fleet:
            self._report_at(chance.uniform(0, REPORT_EVERY_S), replica)
        for each in conversations(shape_of(plan, fleet), seed):
            self._at(each.begins_at, partial(self._ask, _Talk(each, place_of(each))))

    def run(self) -> Outcome:
        while self.events and self.events[0][0] < self.plan.seconds:
            self.now, _, event = heapq.heappop(self.events)
            event()
        return self._outcome()

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), event))

    def _report_at(self, when: float, replica: Replica) -> None:
        def report() -> None:
            for view in self.views:
                view.reported(replica)
            self._report_at(when + REPORT_EVERY_S, replica)

        self._at(when, report)

    def _ask(self, talk: _Talk) -> None:
        conversation, turn = talk.conversation, talk.conversation.turns[talk.turn]
        job = Job(
            conversation=conversation.number,
            prefix=conversation.prefix,
            prefix_tokens=conversation.prefix_tokens,
            history=talk.history,
            said=turn.said,
            answer=turn.answer,
            asked_at=self.now,
        )
        self._dispatch(talk, job)

    def _dispatch(self, talk: _Talk, job: Job) -> bool:
        """Send a request to a node; one for which none is found waits for the next end of an answer."""
        model = model_name(talk.conversation.model)
        request = f"{job.conversation}.{talk.turn}"
        view = self.views[hash_of(request) % len(self.views)]
        node_id = view.rule.choose(Wanted(model, request, talk.place))
        if node_id is None:
            self.held[model].append((talk, job))
            return False
        view.sent(node_id, 1)
        replica = self.replicas[node_id]
        if (ends_at := replica.admit(job, self.now)) is not None:
            self._end_at(ends_at, job, replica)
        self.open[job] = (talk, view)
        return True

    def _end_at(self, when: float, job: Job, replica: Replica) -> None:
        self._at(when, partial(self._end, job, replica))

    def _end(self, job: Job, replica: Replica) -> None:
        talk, view = self.open.pop(job)
        self.done.append(job)
        if (following := replica.end(job, self.now)) is not None:
            self._end_at(following[1], following[0], replica)
        view.sent(replica.node_id, -1)
        if self.held[replica.model]:
            self._dispatch(*self.held[replica.model].popleft())
        turn = talk.conversation.turns[talk.turn]
        talk.history += turn.said + turn.answer
        talk.turn += 1
        if talk.turn < len(talk.conversation.turns):
            self._at(self.now + turn.thinking_s, partial(self._ask, talk))

    def _outcome(self) -> Outcome:
        """Of what was asked after the beginning and begun by the end; what waits still counts as waiting."""
        begin = self.plan.seconds / 10
        begun = [*self.done, *(job for job in self.open if job.first_token_at)]
        counted = [job for job in begun if job.asked_at >= begin]
        unbegun = [job for job in self.open if not job.first_token_at and job.asked_at >= begin]
        unbegun += [job for line in self.held.values() for _, job in line if job.asked_at >= begin]
        waits = [job.first_token_at - job.asked_at for job in counted]
        every = [*waits, *(self.now - job.asked_at for job in unbegun)]
        ttft = summarise(every)
        assert ttft is not None, "a plan in which nothing is asked"
        good = sum(wait <= GOOD_TTFT_S for wait in waits)
        return Outcome(
            rule=self.rule,
            requests=len(counted) + len(unbegun),
            ttft=ttft,
            goodput=good / (self.plan.seconds - begin),
            cached=sum(job.cached for job in counted) / max(sum(job.prompt for job in counted), 1),
            waits=tuple(cdf("", every).x),
        )


def simulate(plan: SimulationPlan, rule: RuleName, seed: int) -> Outcome:
    """Run one simulation. The same arguments give the same outcome."""
    return _Simulation(plan, rule, seed).run()


def build_fleet(plan: SimulationPlan, chance: random.Random) -> list[Replica]:
    """Nodes of several sizes and speeds; each model on as many as its popularity asks for, at least two.

    Raises:
        SettingInvalid: there are too few nodes for the models.
    """
    shares = popularity(plan.models)
    if plan.nodes < 2 * plan.models:
        raise SettingInvalid(f"{plan.models} models need {2 * plan.models} nodes or more, two for each")
    models = [model_name(number) for number in range(plan.models)] * 2
    for number, share in enumerate(shares):
        models += [model_name(number)] * round(share * (plan.nodes - 2 * plan.models))
    models = (models + [model_name(0)] * plan.nodes)[: plan.nodes]
    return [
        Replica(f"node_{number}", model, chance.choice(_SLOTS), chance.choice(_SPEEDS))
        for number, model in enumerate(models)
    ]


def shape_of(plan: SimulationPlan, fleet: list[Replica]) -> TraceShape:
    """A trace that uses the fleet as far as the plan says."""
    shape = TraceShape(plan.seconds, 1.0, plan.models)
    tokens_per_s = sum(replica.slots * replica.speed for replica in fleet) / 1.4
    answers_per_s = plan.utilisation * tokens_per_s / (shape.answer * 1.6)
    return TraceShape(plan.seconds, answers_per_s / shape.turns, plan.models)


def place_of(conversation: Conversation) -> int:
    """The conversation's place on the ring, by the Hub's own function over a body such as it gets."""
    body = (
        f'{{"messages": [{{"role": "system", "content": "prompt {conversation.prefix}"}}, '
        f'{{"role": "user", "content": "conversation {conversation.number}"}}]}}'
    )
    return conversation_key(_SECRET, ORGANISATION, model_name(conversation.model), body.encode())


def model_name(number: int) -> str:
    """A model's name by its number."""
    return f"model-{number}"


def hash_of(text: str) -> int:
    """A hash that is the same in each process."""
    return random.Random(text).getrandbits(32)  # noqa: S311 - a simulation, not secrecy
