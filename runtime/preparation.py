"""From a model's name to the ways it can run: its catalog entry, its weights on disk, the backends' plans.

A model that the owner gave to an endpoint of theirs is served there and nowhere else.

Owns what is known about the models this node offers; must not know replicas or memory in use.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from models.catalog import Catalog, EndpointSource, ModelSpec
from models.download import Progress, pull
from models.errors import FormatUnsupported, ModelNotFound, ModelsError
from models.store import ModelStore, StoredModel
from runtime.api_paths import protocols_of
from runtime.backends.base import Availability, Backend, EngineOptions, ReplicaPlan, task
from runtime.errors import EngineUnavailable, LoadFailed, ModelUnknown
from runtime.external import OwnersEndpoint
from runtime.holds import Holds
from runtime.learning import Shape
from runtime.memory_book import MemoryBook
from runtime.placement import Offer
from runtime.progress import LoadProgress

logger = logging.getLogger(__name__)

# What a model that is not here yet will take, beside its weights: its cache is known only from its header.
_GUESSED_SHARE = 4
_GUESSED_OVERHEAD = 256 * 1024 * 1024
_USABLE = Availability(ok=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model on the disk with one plan for each backend that can run it, best first."""

    stored: StoredModel
    plans: tuple[ReplicaPlan, ...]


class Preparation:
    """The offered models; what was learnt about one is kept until its weights change."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ModelStore,
        backends: Sequence[Backend],
        options: EngineOptions,
        book: MemoryBook,
        offered: Sequence[str] | None = None,
        model_engines: Mapping[str, str] | None = None,
        endpoints: Sequence[OwnersEndpoint] = (),
        bytes_per_s: float | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._bytes_per_s = bytes_per_s
        self.holds = Holds(store)
        self._backends = {backend.name: backend for backend in backends}
        self._options = options
        self._book = book
        self._offered = None if offered is None else frozenset(offered)
        self._engine_of = model_engines or {}
        self._endpoints = endpoints
        self._served = {model: endpoint for endpoint in endpoints for model in endpoint.settings.models}
        self._known: dict[str, Prepared] = {}
        self._seen: dict[str, Availability] = {}

    @property
    def offered(self) -> tuple[ModelSpec, ...]:
        """The catalog entries this node offers."""
        return tuple(spec for spec in self._catalog if self._offered is None or spec.id in self._offered)

    def require(self, model_id: str) -> ModelSpec:
        """The entry of an offered model.

        Raises:
            ModelUnknown: there is none, or it is not offered.
        """
        spec = self._catalog.get(model_id)
        if spec is None or (self._offered is not None and model_id not in self._offered):
            raise ModelUnknown(model_id)
        return spec

    def require_engine(self, spec: ModelSpec) -> None:
        """See that some backend could run the model, before anything is fetched for it.

        Raises:
            EngineUnavailable: none can; with the remedy.
        """
        fault = _lacking(spec, self._endpoint_state(spec) or [b.available() for b in self._for(spec)])
        if fault is not None:
            raise fault

    def lacks_engine(self, spec: ModelSpec) -> EngineUnavailable | None:
        """Why no backend could run the model when they were last looked at; None where one could."""
        seen = [self._seen.get(backend.name, _USABLE) for backend in self._for(spec)]
        return _lacking(spec, self._endpoint_state(spec) or seen)

    def _endpoint_state(self, spec: ModelSpec) -> list[Availability]:
        endpoint = self._served.get(spec.id)
        return [] if endpoint is None else [endpoint.available(spec.id)]

    def endpoint(self, model_id: str) -> OwnersEndpoint | None:
        """The endpoint that the owner gave the model to, if they did."""
        return self._served.get(model_id)

    def capabilities(self, spec: ModelSpec, running: Collection[str] = ()) -> frozenset[str]:
        """What the model can do here: what the catalog says, and what the engine that serves it speaks.

        Args:
            spec: the model.
            running: backends of its replicas; with none, that which a load would most likely take.
        """
        if (endpoint := self._served.get(spec.id)) is not None:
            return spec.capabilities | protocols_of(spec.capabilities, frozenset(endpoint.settings.protocols))
        able = [backend for backend in self._for(spec) if self._seen.get(backend.name, _USABLE).ok]
        serving = [self._backends[name] for name in running if name in self._backends] or able[:1]
        spoken = (
            frozenset.intersection(*(backend.protocols for backend in serving)) if serving else frozenset()
        )
        return spec.capabilities | protocols_of(spec.capabilities, spoken)

    def require_weights(self, model_id: str) -> None:
        """See that the model is one to be fetched.

        Raises:
            LoadFailed: an endpoint answers for it.
        """
        if (endpoint := self._served.get(model_id)) is not None:
            raise LoadFailed(model_id, f"the endpoint {endpoint.name!r} serves it: there is nothing to fetch")

    async def look_at_endpoints(self) -> None:
        """Ask every endpoint how it is, all at once."""
        await asyncio.gather(*(endpoint.look() for endpoint in self._endpoints))

    def backend(self, name: str) -> Backend:
        """The backend of that name."""
        return self._backends[name]

    def known(self, model_id: str) -> Prepared | None:
        """What is known of a model that is on the disk; None where it is not, or was not looked at."""
        return self._known.get(model_id)

    def memory_guess(self, spec: ModelSpec) -> Mapping[int, int]:
        """Bytes on each of so many devices, planned where it is on the disk, else guessed from its size."""
        if (known := self._known.get(spec.id)) and known.plans:
            return {
                shards: min(
                    self._to_reserve(known.stored.digest, plan, shards)
                    for plan in known.plans
                    if shards in plan.shards
                )
                for shards in sorted({shards for plan in known.plans for shards in plan.shards})
            }
        size = spec.size_bytes or 0
        return {1: size + size // _GUESSED_SHARE + _GUESSED_OVERHEAD}

    def kinds(self, spec: ModelSpec) -> frozenset[str]:
        """The kinds of device the model could run on."""
        return frozenset(kind for backend in self._for(spec) for kind in backend.device_kinds)

    def refresh(self) -> None:
        """Look again: other processes bring and take models and engines. Blocks: call it in a thread."""
        self._look_at_engines()
        for spec in self.offered:
            if spec.id in self._served:
                continue
            try:
                stored = self._store.find(spec)
                if stored is None:
                    self._known.pop(spec.id, None)
                else:
                    self._learn(spec, stored)
            except (ModelsError, OSError) as error:
                self._known.pop(spec.id, None)
                logger.warning(
                    "a model on the disk cannot be read",
                    extra={"event": "model_unreadable", "model": spec.id, "reason": str(error)},
                )

    def _look_at_engines(self) -> None:
        before, self._seen = self._seen, {n: backend.available() for n, backend in self._backends.items()}
        for name, now in self._seen.items():
            fields = {"event": "engine_availability", "engine": name}
            if not now.ok and now != before.get(name, _USABLE):
                fields |= {"reason": now.reason, "remedy": now.remedy}
                if self._is_missed(self._backends[name]):
                    logger.warning("an engine is missing: its models are not offered", extra=fields)
                else:
                    logger.info("an engine is not here, and nothing needs it", extra=fields)
            elif now.ok and not before.get(name, _USABLE).ok:
                logger.info("the engine can serve", extra=fields)

    def _is_missed(self, backend: Backend) -> bool:
        """Whether a model is offered that this engine would serve and none that is here does."""
        here = {f for n, other in self._backends.items() if self._seen[n].ok for f in other.formats}
        wanted = {spec.format for spec in self.offered if spec.id not in self._served}
        return bool(wanted & backend.formats - here)

    async def prepare(
        self, spec: ModelSpec, on_progress: Callable[[LoadProgress], None]
    ) -> tuple[Offer, ...]:
        """Bring the model to the disk, keep it there, and plan it for every backend that can serve now.

        `holds` has the weights from here on; whoever gives the load up lets them go. An
        endpoint's model has none.

        Raises:
            LoadFailed: it cannot be fetched or understood.
            EngineUnavailable: the endpoint that is to serve it does not.
        """
        if (endpoint := self._served.get(spec.id)) is not None:
            await endpoint.look()
            self.require_engine(spec)
            return (Offer(endpoint.key, "cpu", 0, endpoint.settings.slots, devices=0),)
        try:
            stored = await self._bring(spec, on_progress)
            prepared = await asyncio.to_thread(self._learn, spec, stored)
        except FormatUnsupported as error:
            raise LoadFailed(spec.id, error.reason) from error
        except ModelsError as error:
            raise LoadFailed(spec.id, str(error)) from error
        except OSError as error:
            raise LoadFailed(spec.id, f"the disk failed: {error.strerror}") from error
        return tuple(
            Offer(plan.backend, kind, self._to_reserve(stored.digest, plan, shards), plan.slots, shards)
            for plan in prepared.plans
            if self._backends[plan.backend].available().ok
            for kind in self._backends[plan.backend].device_kinds
            for shards in plan.shards
        )

    def _to_reserve(self, digest: str, plan: ReplicaPlan, shards: int) -> int:
        return self._book.planned(shape_of(digest, plan, shards), plan.memory_on_each(shards))

    async def _bring(self, spec: ModelSpec, on_progress: Callable[[LoadProgress], None]) -> StoredModel:
        """The weights on the disk, and held there."""

        def tell(progress: Progress) -> None:
            on_progress(_translated(progress))

        while True:
            stored = await asyncio.to_thread(self._store.find, spec)
            if stored is None:
                stored = await pull(spec, self._store, on_progress=tell, bytes_per_s=self._bytes_per_s)
            with suppress(ModelNotFound):  # made room for another before it was held: once more
                await asyncio.to_thread(self.holds.take, stored)
                return stored

    def _learn(self, spec: ModelSpec, stored: StoredModel) -> Prepared:
        known = self._known.get(spec.id)
        if known is None or known.stored != stored:
            plans = tuple(backend.plan(spec, stored, self._options) for backend in self._for(spec))
            known = self._known[spec.id] = Prepared(stored, plans)
        return known

    def _for(self, spec: ModelSpec) -> list[Backend]:
        """Those that read its format, best first; the one that the owner named or none; no endpoint's."""
        if spec.id in self._served or isinstance(spec.source, EndpointSource):
            return []
        named = self._engine_of.get(spec.id)
        return [
            backend
            for backend in self._backends.values()
            if spec.format in backend.formats
            and task(spec) in backend.tasks
            and named in (None, backend.name)
        ]


def shape_of(digest: str, plan: ReplicaPlan, devices: int) -> Shape:
    """What the memory of a replica of these weights depends on, when it runs as planned."""
    return Shape(digest, plan.backend, plan.context_length, plan.slots, devices)


def _lacking(spec: ModelSpec, states: Sequence[Availability]) -> EngineUnavailable | None:
    if any(state.ok for state in states):
        return None
    if not states and isinstance(spec.source, EndpointSource):
        return EngineUnavailable("no endpoint of this node serves it", remedy="name one in `endpoints`")
    if not states and task(spec) == "rerank":
        reason = f"no engine of this node ranks with {spec.format}"
        return EngineUnavailable(reason, remedy="use another engine: docs/node.md says which ranks")
    if not states:
        return EngineUnavailable(f"no engine reads {spec.format}", remedy="choose another model")
    return EngineUnavailable(states[0].reason, remedy=states[0].remedy)


def _translated(progress: Progress) -> LoadProgress:
    """The store's progress in the node's words; what is downloaded is not yet loaded."""
    phase = "loading" if progress.phase == "done" else progress.phase
    return LoadProgress(phase, progress.done_bytes, progress.total_bytes)
