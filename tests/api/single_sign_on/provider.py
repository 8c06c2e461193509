"""An OpenID provider on loopback that does as its specification says, and lies where told to."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from aforo.storage.clock import Clock
from tests.api.server import serving

CLIENT_ID = "aforo at the provider"
CLIENT_SECRET = "a secret: with / + & = in it"

Claims = dict[str, Any]


@dataclass
class Provider:
    """Signs in whoever `person` says, at once."""

    clock: Clock
    person: Claims
    issuer: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    lie: Callable[[Claims], Claims] = lambda claims: claims
    """What it makes of the claims of a token before it signs them."""
    sign: Callable[["Provider", Claims], str] = lambda provider, claims: provider.signed(claims)
    metadata: Claims = field(default_factory=dict)
    """What of its configuration is not as it should be."""
    down: set[str] = field(default_factory=set)
    """Paths that answer with 503."""
    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def new_key(self, name: str = "") -> str:
        """Publish another RSA key; its id."""
        name = name or f"key-{uuid4().hex[:8]}"
        self.keys[name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return name

    def signed(self, claims: Claims, key_id: str | None = None) -> str:
        key_id = key_id or next(reversed(self.keys))
        return jwt.encode(claims, self.keys[key_id], algorithm="RS256", headers={"kid": key_id})

    def app(self) -> Starlette:
        routes = {
            "/.well-known/openid-configuration": self._configuration,
            "/authorize": self._authorize,
            "/token": self._token,
            "/jwks": self._jwks,
        }
        return Starlette(
            routes=[
                Route(path, self._answering(path, answer), methods=["GET", "POST"])
                for path, answer in routes.items()
            ]
        )

    def _answering(self, path: str, answer: Callable[[Request], Any]) -> Any:
        async def answered(request: Request) -> Response:
            self.asked.append(path)
            if path in self.down:
                return PlainTextResponse("away", 503)
            response: Response = await answer(request)
            return response

        return answered

    async def _configuration(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                **self.metadata,
            }
        )

    async def _jwks(self, _request: Request) -> Response:
        keys = []
        for name, key in self.keys.items():
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            keys.append({**public, "kid": name, "use": "sig", "alg": "RS256"})
        elliptic = ec.generate_private_key(ec.SECP256R1()).public_key()
        other = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(elliptic))
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}
        return JSONResponse({"keys": [secret, *keys, {**other, "kid": "elliptic", "use": "enc"}]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert set(asked["scope"].split()) == {"openid", "email", "profile"}
        assert asked["code_challenge_method"] == "S256"
        assert len(asked["code_challenge"]) == 43
        code = uuid4().hex
        self._codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}", 303)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
        posted = (form.get("client_id"), form.get("client_secret"))
        if self._of_basic(request) != (CLIENT_ID, CLIENT_SECRET) != posted:
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = self._codes.pop(str(form.get("code")), None)
        verifier = sha256(str(form.get("code_verifier")).encode()).digest()
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or base64.urlsafe_b64encode(verifier).decode().rstrip("=") != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
        }
        token = self.sign(self, self.lie(claims))
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": token})

    @staticmethod
    def _of_basic(request: Request) -> tuple[str, str] | None:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        name, _, secret = base64.b64decode(text).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)


@asynccontextmanager
async def providing(clock: Clock, **person: Any) -> AsyncIterator[Provider]:
    """A provider that listens, with one key."""
    provider = Provider(clock, person)
    provider.new_key()
    async with serving(provider.app()) as port:
        provider.issuer = f"http://127.0.0.1:{port}"
        yield provider
