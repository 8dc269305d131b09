"""The Hub's parts, put together: what every handler can reach.

Owns the names of the parts and nothing else; `hub.serve` builds one, `hub.app` serves it. It knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.changes import Changes
from models.catalog import Catalog

if TYPE_CHECKING:  # handlers import this module for the type alone; it must not pull the parts in with it
    from hub.admission import Admission
    from hub.config import HubConfig
    from hub.dispatch import Dispatcher
    from hub.enrollment import EnrollmentService
    from hub.metering import Meter
    from hub.metrics import Metrics
    from hub.registry import Registry
    from hub.storage.repositories import Storage


@dataclass(slots=True)
class Addresses:
    """How the world reaches this Hub, known once its sockets listen.

    Attributes:
        api_url: base URL of the API and the portal, without a trailing slash.
        tunnel_urls: where nodes dial, ``ws://`` or ``wss://``.
        tunnel_listening: whether the tunnel's listener is up.
        draining: whether the Hub is on its way out and wants no new work.
    """

    api_url: str = ""
    tunnel_urls: tuple[str, ...] = ()
    tunnel_listening: bool = False
    draining: bool = False


@dataclass(kw_only=True, slots=True)
class Hub:
    """One running Hub. ``clock`` gives UTC seconds since the epoch; ``key`` signs credentials and tickets."""

    config: HubConfig
    hub_id: str
    key: Ed25519PrivateKey
    storage: Storage
    changes: Changes
    catalog: Catalog
    enrollment: EnrollmentService
    meter: Meter
    registry: Registry
    admission: Admission
    dispatcher: Dispatcher
    metrics: Metrics
    addresses: Addresses
    clock: Callable[[], float]
