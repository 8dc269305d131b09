"""The simulated nodes: slots, a line before them, and a cache of what they have read.

Owns how long an answer takes and what is cached of it. Must not know who chooses the node, or a trace's
shape.

What is left out: prefill slows down nobody else's decoding, and a batch makes each of its answers slower by a
fixed rule. The comparison of rules is what the figures are for, not the seconds themselves.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

PREFILL_TOKENS_PER_S = 60.0
"""Prompt tokens that are read in the time in which one answer's token is written."""
BATCH_COST = 0.5
"""How much slower an answer is written where every slot is taken: by this share."""
CACHE_TOKENS_PER_SLOT = 16_384


@dataclass(eq=False, slots=True)
class Job:
    """One request at a node; times are seconds of the simulation.

    Attributes:
        conversation: whose turn it is.
        prefix: the system prompt that it begins with.
        prefix_tokens: how long that is.
        history: tokens of the conversation so far, after the system prompt.
        said: new tokens.
        answer: tokens to write.
        asked_at: when it was asked.
        cached: tokens of its prompt that need not be read again.
    """

    conversation: int
    prefix: int
    prefix_tokens: int
    history: int
    said: int
    answer: int
    asked_at: float
    cached: int = 0
    first_token_at: float = 0.0

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.prefix_tokens + self.history + self.said


class Cache:
    """What a node has read lately, of whole conversations and system prompts: the oldest goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._tokens: OrderedDict[tuple[str, int], int] = OrderedDict()

    def look_up(self, job: Job) -> int:
        """Tokens of a prompt that are here. A conversation's are of use only after its system prompt's."""
        prefix = self._tokens.get(("prefix", job.prefix), 0)
        if not prefix:
            return 0
        return prefix + min(self._tokens.get(("conversation", job.conversation), 0), job.history)

    def store(self, job: Job) -> None:
        """Keep what was read and written."""
        self._put(("prefix", job.prefix), job.prefix_tokens)
        self._put(("conversation", job.conversation), job.history + job.said + job.answer)
        while self._held > self._capacity and self._tokens:
            self._held -= self._tokens.popitem(last=False)[1]

    def _put(self, name: tuple[str, int], tokens: int) -> None:
        self._held += tokens - self._tokens.pop(name, 0)
        self._tokens[name] = tokens


@dataclass(eq=False, slots=True)
class Replica:
    """One engine of one node.

    Attributes:
        slots: requests that it answers at once.
        speed: tokens a second of one answer by itself.
    """

    node_id: str
    model: str
    slots: int
    speed: float
    running: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    cache: Cache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = Cache(CACHE_TOKENS_PER_SLOT * self.slots)

    def admit(self, job: Job, now: float) -> float | None:
        """Begin with a request, or let it stand in line; returns when it will have been answered."""
        if self.running < self.slots:
            return self._begin(job, now)
        self.waiting.append(job)
        return None

    def end(self, job: Job, now: float) -> tuple[Job, float] | None:
        """A request has been answered: begin with the next; returns it and when it will have been."""
        self.running -= 1
        self.cache.store(job)
        if not self.waiting:
            return None
        following = self.waiting.popleft()
        return following, self._begin(following, now)

    def _begin(self, job: Job, now: float) -> float:
        self.running += 1
        job.cached = self.cache.look_up(job)
        job.first_token_at = now + (job.prompt - job.cached) / (PREFILL_TOKENS_PER_S * self.speed)
        speed = self.speed / (1 + BATCH_COST * (self.running - 1) / self.slots)
        return job.first_token_at + job.answer / speed
