"""The nodes of which the chooser chooses, without sessions, and nodes and requests drawn by chance."""

from hypothesis import strategies as st

from hub.choosing import Asked, Chooser
from hub.offers import OfferIndex
from hub.policy import (
    Fleet,
    Narrowing,
    NodeFacts,
    Policy,
    RegionTree,
    Sharing,
    SharingKind,
    TrustClass,
    permits,
)
from hub.router import Candidate, ModelState, grade, select_replica

TREE = RegionTree({"eu": None, "eu-de": "eu", "eu-fr": "eu", "us": None})
MODELS = ("m", "n")
POLICY = Policy("org_a")


class Nodes:
    """What the registry is to the chooser, without sessions."""

    def __init__(self):
        self.known = {}
        self.index = OfferIndex()
        self.chooser = Chooser(self.index, self)
        self.regions = TREE
        self.refiled = 0

    def candidate(self, node_id, model):
        return self.known.get(node_id, {}).get(model)

    def own(self, organisation_id):
        return [name for name, models in self.known.items() if models["m"].facts.owner_id == organisation_id]

    is_reading = False

    def refile(self, node_id, model):
        self.refiled += 1
        self.index.grade(node_id, model, grade(self.known[node_id][model]))

    def put(self, facts, conditions):
        """A node is as these conditions say, by model; what it does not offer has none."""
        models = {model: Candidate(facts, None) for model in MODELS} | {
            model: Candidate(facts, **condition) for model, condition in conditions.items()
        }
        self.known[facts.node_id] = models
        if not all(each.reported for each in models.values()):
            self.known[facts.node_id] = {model: Candidate(facts, None, reported=False) for model in MODELS}
            self.index.file_pending(facts)
            return
        grades = {model: place for model, each in models.items() if (place := grade(each)) is not None}
        self.index.file(facts, grades)

    def scan(self, asked):
        return select_replica(
            asked.policy,
            asked.model,
            [models[asked.model] for models in self.known.values()],
            self.regions,
            asked.narrowing,
            exclude=asked.exclude,
            tie_break=asked.tie_break,
            affinity=asked.affinity,
        )

    def of_grade(self, asked, place):
        """The permitted nodes of one grade, those tried already among them."""
        permitted = [
            models[asked.model]
            for models in self.known.values()
            if permits(asked.policy, models[asked.model].facts, self.regions, asked.narrowing)
        ]
        return [each for each in permitted if grade(each) == place]


SEEDS = st.integers(0, 2**32 - 1)
"""Of what is drawn by chance: drawn piece by piece, hardly any request would pass all gates at once."""
NAMES = [f"n{number}" for number in range(12)]


def some_facts(chance, name):
    return NodeFacts(
        name,
        chance.choice(["org_a", "org_a", "org_b", "org_c"]),
        chance.choice(["eu-de", "eu-de", "eu", "eu-fr", "us", "mars", None]),
        chance.random() < 0.8,
        chance.choice([*TrustClass, TrustClass.TRUSTED, TrustClass.TRUSTED, None]),
        chance.choice([None, *[Sharing(kind, frozenset({"org_a"})) for kind in SharingKind] * 3]),
        chance.random() < 0.1,
        chance.random() < 0.1,
    )


def some_condition(chance):
    return {
        "model_state": chance.choice([*ModelState, ModelState.READY, ModelState.READY]),
        "fits": chance.random() < 0.7,
        "in_flight": chance.randrange(7),
        "running": chance.randrange(5),
        "waiting": chance.randrange(3),
        "in_flight_then": chance.randrange(5),
        "slots": chance.randrange(4),
        "accepting": chance.random() < 0.8,
        "tokens_per_second": chance.choice([None, 0.0, 5.0, 30.0, 31.0, 400.0, float("nan"), 1e300]),
        "reported": chance.random() < 0.9,
    }


def some_request(chance):
    policy = Policy(
        chance.choice(["org_a", "org_a", "org_b", "org_d"]),
        chance.choice(list(Fleet)),
        frozenset(chance.choice([(), (), ("eu",), ("eu-de", "us"), ("mars",)])),
        chance.choice([TrustClass.COMMUNITY, *TrustClass]),
    )
    return Asked(
        policy=None if chance.random() < 0.03 else policy,
        model=chance.choice(["m", "m", "n"]),
        narrowing=Narrowing(
            chance.choice([None] * 6 + ["eu", "us"]), chance.choice(NAMES) if chance.random() < 0.1 else None
        ),
        exclude=frozenset(chance.sample(NAMES, chance.choice([0, 0, 1, 3]))),
        tie_break=str(chance.randrange(100)),
        affinity=chance.choice([None, chance.getrandbits(64)]),
    )
