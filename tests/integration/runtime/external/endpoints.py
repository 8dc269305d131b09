"""Endpoints that the owner runs, as tests set them up, and the lists of models with which they answer.

Ollama is not to be had here: its list is spoken by the scripted engine.
"""

import json
from typing import Any

from runtime.endpoint_settings import EndpointSettings
from runtime.external import OwnersEndpoint

MODEL_ID = "smollm2-135m-instruct"
THEIRS = "their/name:1"
TAGS = json.dumps({"models": [{"name": THEIRS, "model": THEIRS, "size": 1}]}).encode()
MODELS = json.dumps({"object": "list", "data": [{"id": THEIRS, "object": "model"}]}).encode()


def endpoint_at(port: int, **settings: Any) -> OwnersEndpoint:
    usual = {"url": f"http://127.0.0.1:{port}", "models": {MODEL_ID: THEIRS}}
    return OwnersEndpoint("own", EndpointSettings(**{**usual, **settings}))
