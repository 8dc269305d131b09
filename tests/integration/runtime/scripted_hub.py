"""A Hub that does as a test says: what a node needs of one, on real sockets."""

import hashlib
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tunnel.handout import Handout, sign_handout
from tunnel.identity import (
    NodeCredential,
    decode_public_key,
    encode_public_key,
    issue_credential,
)


class ScriptedHub:
    """A Hub's enrollment endpoints; `answers` are given out in turn by the token endpoint."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.answers: list[Response | str] = []
        self.asked: list[tuple[str, Any]] = []
        self.tunnel_urls = ["ws://127.0.0.1:1/tunnel"]
        self.hub_id = "hub_a"
        self.region = "eu-de"
        self.interval = 5.0
        self.sign_with = self.key
        self.tokens = {"pjt_good"}
        self.left: list[str] = []
        self.announced: list[str] = []
        self.rotates = True  # an older one does not
        self.public_key = ""
        self.url = ""
        self.word = ""  # on the program that it hands out; an older one has none
        self.wheel = b""

    def description(self) -> dict[str, Any]:
        public = encode_public_key(self.key.public_key())
        return {
            "hub_id": self.hub_id,
            "name": "Test",
            "version": "1",
            "public_key": public,
            "api_url": self.url,
            "tunnel_urls": self.tunnel_urls,
            "enroll_url": f"{self.url}/enroll/v1",
        }

    def enrolled(self) -> dict[str, Any]:
        credential = NodeCredential(
            node_id="node_a",
            owner_id="org_a",
            region=self.region,
            trust="verified",
            sharing="private",
            hub_id=self.hub_id,
            public_key=self.public_key,
            issued_at=int(time.time()),
        )
        token = issue_credential(self.sign_with, credential)
        return {"node_id": "node_a", "name": "attic", "credential": token, "hub": self.description()}

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/porten")
        async def well_known() -> dict[str, Any]:
            return self.description()

        @app.post("/enroll/v1/device_authorization")
        async def device(request: Request) -> dict[str, Any]:
            document = await request.json()
            self.asked.append(("device", document))
            self.public_key = document["public_key"]
            return {
                "device_code": "secret-device-code",
                "user_code": "BCDF-GHJK",
                "expires_in": 600,
                "interval": self.interval,
                "verification_uri": f"{self.url}/device",
                "verification_uri_complete": f"{self.url}/device?user_code=BCDF-GHJK",
            }

        @app.post("/enroll/v1/token")
        async def token(request: Request) -> Response:
            self.asked.append(("token", (await request.body()).decode()))
            answer = self.answers.pop(0)
            if isinstance(answer, str):
                if answer == "enrolled":
                    return JSONResponse(self.enrolled())
                return JSONResponse({"error": answer}, 400)
            return answer

        self._add_join_and_leave(app)
        self._add_program(app)
        return app

    def hand_out(self, version: str, wheel: bytes) -> None:
        """Have a program from now on, and sign for it."""
        handout = Handout(
            hub_id=self.hub_id,
            version=version,
            file=f"porten-{version}-py3-none-any.whl",
            size=len(wheel),
            sha256=hashlib.sha256(wheel).hexdigest(),
        )
        self.word, self.wheel = sign_handout(self.sign_with, handout), wheel

    def _add_program(self, app: FastAPI) -> None:
        @app.get("/install/program")
        async def program() -> Response:
            return Response(self.word) if self.word else Response(status_code=404)

        @app.get("/install/{file}")
        async def wheel(file: str) -> Response:
            return Response(self.wheel)

    def _add_join_and_leave(self, app: FastAPI) -> None:
        @app.post("/enroll/v1/join")
        async def join(request: Request) -> Response:
            document = await request.json()
            if document["join_token"] not in self.tokens:
                return JSONResponse({"error": "invalid_join_token"}, 401)
            self.public_key = document["public_key"]
            return JSONResponse(self.enrolled())

        @app.post("/enroll/v1/leave")
        async def leave(request: Request) -> Response:
            token = request.headers["authorization"].removeprefix("Bearer ")
            if token in self.left:
                return Response(status_code=401)
            self.left.append(token)
            return Response(status_code=204)

        @app.post("/enroll/v1/rotate")
        async def rotate(request: Request) -> Response:
            token = request.headers["authorization"].removeprefix("Bearer ")
            if not self.rotates:
                return JSONResponse({"detail": "Not Found"}, 404)
            try:
                jwt.decode(
                    token, decode_public_key(self.public_key), algorithms=["EdDSA"], audience=self.hub_id
                )
            except jwt.InvalidSignatureError:
                return JSONResponse({"error": "invalid_client"}, 401)
            self.announced.append(token)
            return Response(status_code=204)
