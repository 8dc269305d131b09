"""An OpenID provider in a process of its own, on authlib's server side: codes, PKCE, a secret, signed tokens.

Run as a script; prints its issuer. Who sits before its browser is said by POST /control, and so is a fault:
one thing that is then wrong with the next answers, all else being right.
"""

import base64
import hmac
import json
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from joserfc.jws import JWSRegistry
from werkzeug.serving import make_server

CLIENT_ID, CLIENT_SECRET = "porten hub", "s3cret: with/marks?"


@dataclass
class Client(ClientMixin):
    redirect_uris: set = field(default_factory=set)

    def get_client_id(self):
        return CLIENT_ID

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret):
        return unquote(client_secret) == CLIENT_SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == STATE.auth_method

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type == "authorization_code"


@dataclass
class Code(AuthorizationCodeMixin):
    code: str
    user: dict
    redirect_uri: str
    scope: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope

    def get_nonce(self):
        return self.nonce

    def get_auth_time(self):
        return int(time.time())

    def get_acr(self):
        return None

    def get_amr(self):
        return None


@dataclass
class State:
    key: RSAKey
    stranger: RSAKey
    issuer: str = ""
    user: dict = field(default_factory=dict)
    fault: str = ""
    auth_method: str = "client_secret_basic"
    in_token: bool = True
    codes: dict = field(default_factory=dict)
    asked: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)


def new_key():
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


STATE = State(key=new_key(), stranger=new_key())
CLIENT = Client()
app = Flask(__name__)


class Grant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def save_authorization_code(self, code, request):
        asked = request.payload.data
        STATE.codes[code] = Code(
            code,
            request.user,
            request.payload.redirect_uri,
            request.payload.scope,
            asked.get("nonce"),
            asked["code_challenge"],
            asked["code_challenge_method"],
        )

    def query_authorization_code(self, code, client):
        return STATE.codes.get(code)

    def delete_authorization_code(self, authorization_code):
        del STATE.codes[authorization_code.code]

    def authenticate_user(self, authorization_code):
        return authorization_code.user


class IdTokens(OpenIDCode):
    def exists_nonce(self, nonce, request):
        return any(code.nonce == nonce for code in STATE.codes.values())

    def get_client_algorithm(self, client):
        return "RS256"

    def resolve_client_private_key(self, client):
        return STATE.key

    def get_client_claims(self, client):
        return {"iss": STATE.issuer}

    def generate_user_info(self, user, scope):
        return user if STATE.in_token else {"sub": user["sub"]}

    def process_token(self, grant, response):
        token = super().process_token(grant, response)
        STATE.tokens[token["access_token"]] = grant.request.user
        if STATE.fault in FAULTS:
            right = jwt.decode(token["id_token"], STATE.key, algorithms=["RS256"])
            token["id_token"] = FAULTS[STATE.fault](dict(right.header), dict(right.claims))
        elif STATE.fault == "no token":
            del token["id_token"]
        elif STATE.fault == "no jwt":
            token["id_token"] = "not.a.token"
        return token


def encoded(part):
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header, claims, key=None, alg="RS256"):
    registry = JWSRegistry(algorithms=[alg])
    return jwt.encode(header | {"alg": alg}, claims, key or STATE.key, registry=registry)


def changed(**claims):
    return lambda header, right: signed(header, right | claims)


def without(name):
    return lambda header, right: signed(header, {key: right[key] for key in right if key != name})


def unsigned(header, claims):
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims)}."


def by_public_key(header, claims):
    """The public key taken for a shared secret: a verifier that lets the header choose would believe it."""
    head, body = encoded({**header, "alg": "HS256"}), encoded(claims)
    mac = hmac.digest(STATE.key.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{encoded(mac)}"


def cut(header, claims):
    return signed(header, claims)[:-4] + "AAAA"


def swapped(header, claims):
    head, _, signature = signed(header, claims).split(".")
    return f"{head}.{encoded(claims | {'sub': 'admin'})}.{signature}"


FAULTS = {
    "nonce": changed(nonce="another"),
    "no nonce": without("nonce"),
    "audience": changed(aud="another client"),
    "audiences": changed(aud=[CLIENT_ID, "another client"]),
    "party": changed(azp="another client"),
    "no audience": without("aud"),
    "issuer": changed(iss="https://evil.example"),
    "no issuer": without("iss"),
    "expired": changed(exp=int(time.time()) - 3600, iat=int(time.time()) - 7200),
    "no expiry": without("exp"),
    "future": changed(nbf=int(time.time()) + 3600),
    "at hash": changed(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "no subject": without("sub"),
    "subject": changed(sub={"a": 1}),
    "strange key": lambda header, claims: signed(header, claims, STATE.stranger),
    "unknown key": lambda header, claims: signed(
        header | {"kid": STATE.stranger.kid}, claims, STATE.stranger
    ),
    "alg none": unsigned,
    "public key as secret": by_public_key,
    "signature": cut,
    "body": swapped,
}


@app.get("/.well-known/openid-configuration")
def discovery():
    STATE.asked["discovery"] = STATE.asked.get("discovery", 0) + 1
    if STATE.fault == "huge":
        return Response(b"{" + b" " * 1_000_000, content_type="application/json")
    if STATE.fault == "html":
        return Response("<html>", status=200)
    if STATE.fault == "slow":
        time.sleep(20)
    if STATE.fault == "moved":
        return Response("", status=302, headers={"location": "/.well-known/elsewhere"})
    if STATE.fault == "broken":
        return Response("{}", status=500)
    found = {
        "issuer": "https://evil.example" if STATE.fault == "other issuer" else STATE.issuer,
        "authorization_endpoint": f"{STATE.issuer}/authorize",
        "token_endpoint": f"{STATE.issuer}/token",
        "userinfo_endpoint": f"{STATE.issuer}/userinfo",
        "jwks_uri": "file:///etc/passwd" if STATE.fault == "odd keys" else f"{STATE.issuer}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": [STATE.auth_method],
    }
    return jsonify(found)


@app.get("/jwks")
def jwks():
    STATE.asked["jwks"] = STATE.asked.get("jwks", 0) + 1
    encryption = RSAKey.generate_key(2048, {"use": "enc"}, auto_kid=True)
    keys = KeySet([STATE.key, encryption]).as_dict(private=False)
    keys["keys"].append({"kty": "of tomorrow", "kid": "x"})
    return jsonify(keys)


@app.get("/authorize")
def authorize():
    return server.create_authorization_response(
        grant=server.get_consent_grant(STATE.user), grant_user=STATE.user
    )


@app.post("/token")
def token():
    return server.create_token_response()


@app.get("/userinfo")
def userinfo():
    user = STATE.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
    if user is None:
        return Response("", status=401)
    return jsonify(user | {"sub": "somebody else"} if STATE.fault == "userinfo" else user)


@app.post("/control")
def control():
    said = request.get_json()
    if said.pop("new_key", False):
        STATE.key = new_key()
    CLIENT.redirect_uris |= set(said.pop("redirect_uris", ()))
    for name, value in said.items():
        setattr(STATE, name, value)
    return jsonify(STATE.asked)


server = AuthorizationServer(
    app, query_client=lambda client_id: CLIENT if client_id == CLIENT_ID else None, save_token=lambda *_: None
)
server.register_grant(Grant, [IdTokens(require_nonce=True), CodeChallenge(required=True)])


def main():
    serving = make_server("127.0.0.1", 0, app, threaded=True)
    STATE.issuer = f"http://127.0.0.1:{serving.server_port}"
    sys.stdout.write(f"{STATE.issuer}\n")
    sys.stdout.flush()
    serving.serve_forever()


if __name__ == "__main__":
    main()
