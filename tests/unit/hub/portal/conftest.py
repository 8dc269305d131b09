"""Nodes as storage hands them out, with whatever a test cares about changed."""

from urllib.parse import urlencode

import pytest

from hub.policy import PRIVATE, TrustClass
from hub.portal.forms import parse_form
from hub.storage.records import Node

NOW = 1_700_000_000.0


@pytest.fixture
def make_node():
    def make(**changes) -> Node:
        values = {
            "id": "node_1",
            "organisation_id": "org_a",
            "name": "attic",
            "public_key": "-",
            "region": "eu-de",
            "region_confirmed": True,
            "trust": TrustClass.VERIFIED,
            "sharing": PRIVATE,
            "machine": {},
            "generation": 0,
            "created_at": NOW,
        }
        return Node(**values | changes)

    return make


@pytest.fixture(scope="session")
def form():
    """What a browser sends, read as the portal reads it."""
    return lambda **fields: parse_form(urlencode(fields, doseq=True).encode())
