"""OpenID Connect: what is asked of a provider, and what of its answers is believed.

The authorization code flow with PKCE (RFC 7636), state and nonce; OpenID Connect Core 1.0, 3.1.
"""

import base64
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Self
from urllib.parse import quote, quote_plus, urlencode
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from aforo.sdk.encoding import decoded, encoded
from aforo.sdk.errors import AforoError

FLOW_LIFE = timedelta(minutes=10)
DRIFT = timedelta(seconds=60)
"""How far the provider's clock may be off ours."""
AGE_MAX = timedelta(minutes=10)
"""Of a token that comes straight from the provider."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""With a public key alone: no `none`, and no secret that both sides hold."""
RSA_BITS_MIN = 2048
SUBJECT_CHARACTERS_MAX = 255
RETURN_TO_CHARACTERS_MAX = 500
COOKIE_CHARACTERS_MAX = 4_096
"""No browser keeps more."""
SCOPE = "openid email profile"

_KEY_TYPES = {"RSA", "EC", "OKP"}
_RETURN_TO = re.compile(r"/(?![/\\])[!-\[\]-~]*", re.ASCII)
_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


class NotSignedIn(AforoError):
    """The provider's answer proves nobody. The sentence says why."""

    code = "SIGN_IN_FAILED"


@dataclass(frozen=True, slots=True)
class Flow:
    """One sign-in on its way to the provider and back, kept in the browser's own cookie.

    State, nonce and verifier all follow from the seed, which no other browser has: an answer
    that was made for somebody else finds no flow here.
    """

    tenant_id: UUID
    expires_at: datetime
    return_to: str
    """A path of ours to go to in the end."""
    leaves: UUID | None = None
    """The session of this browser that its person agreed to leave for this sign-in."""
    _seed: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """The verifier's S256 challenge."""
        return encoded(sha256(self.verifier.encode()).digest())

    def is_answered_by(self, state: str) -> bool:
        """Whether an answer is this sign-in's."""
        return hmac.compare_digest(self.state.encode(), state.encode())

    def sealed(self, pepper: str) -> str:
        """The flow as a cookie holds it."""
        content = encoded(
            json.dumps(
                [
                    self.tenant_id.hex,
                    int(self.expires_at.timestamp()),
                    self.return_to,
                    self.leaves and self.leaves.hex,
                    self._seed,
                ]
            ).encode()
        )
        return f"{content}.{_signature(content, pepper)}"

    @classmethod
    def opened(cls, text: str, *, pepper: str, now: datetime) -> Self | None:
        """The flow of a cookie; None where it is not ours, or has expired."""
        content, _, signature = text.partition(".")
        if not hmac.compare_digest(_signature(content, pepper).encode(), signature.encode()):
            return None
        tenant, until, return_to, leaves, seed = json.loads(
            decoded(content, characters_max=COOKIE_CHARACTERS_MAX)
        )
        left = UUID(leaves) if leaves else None
        flow = cls(UUID(tenant), datetime.fromtimestamp(until, UTC), return_to, left, seed)
        return flow if now < flow.expires_at else None

    def _derived(self, purpose: str) -> str:
        return encoded(hmac.digest(bytes.fromhex(self._seed), purpose.encode(), sha256))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself (OpenID Connect Discovery 1.0, 4.2)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    posts_secret: bool
    """Whether it takes the client's secret in the body alone."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a verified token speaks of."""

    issuer: str
    subject: str
    email: str | None
    """Only where the provider verified it; as it wrote it."""
    name: str | None


def is_return_path(text: str) -> bool:
    """Whether a text is a path on this origin, and nothing that a browser reads as another."""
    return len(text) <= RETURN_TO_CHARACTERS_MAX and _RETURN_TO.fullmatch(text) is not None


def metadata_of(document: object, *, issuer: str) -> Metadata:
    """Read a discovery document. Raises `NotSignedIn`."""
    if not isinstance(document, dict):
        raise NotSignedIn("the identity provider's configuration is no JSON object")
    if document.get("issuer") != issuer:
        raise NotSignedIn(f"the identity provider says that it is another issuer than {issuer}")
    endpoints = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        value = document.get(name)
        if not isinstance(value, str) or not value.startswith(("https://", "http://")):
            raise NotSignedIn(f"the identity provider's configuration has no {name}")
        endpoints[name] = value
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    takes = set(methods) if isinstance(methods, list) else set()
    return Metadata(
        issuer=issuer,
        posts_secret="client_secret_basic" not in takes and "client_secret_post" in takes,
        **endpoints,
    )


def keys_of(document: object) -> list[Mapping[str, Any]]:
    """The public keys of a key set (RFC 7517) that may sign. Raises `NotSignedIn`."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise NotSignedIn("the identity provider's key set is none")
    return [
        key
        for key in keys[:100]
        if isinstance(key, dict) and key.get("kty") in _KEY_TYPES and key.get("use") != "enc"
    ]


def authorization_url(metadata: Metadata, flow: Flow, *, client_id: str, redirect_uri: str) -> str:
    """Where the browser is sent."""
    query = urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        },
        quote_via=quote,
    )
    joint = "&" if "?" in metadata.authorization_endpoint else "?"
    return f"{metadata.authorization_endpoint}{joint}{query}"


def token_request(
    metadata: Metadata,
    flow: Flow,
    *,
    code: str,
    client_id: str,
    client_secret: str,
    redirect_uri: str,
) -> tuple[dict[str, str], bytes]:
    """Headers and body of the request that turns the code into tokens."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": flow.verifier,
    }
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if metadata.posts_secret:
        form |= {"client_id": client_id, "client_secret": client_secret}
    else:
        # RFC 6749, 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers, urlencode(form).encode()


def id_token_of(status: int, document: object) -> str:
    """The ID token of a token response. Raises `NotSignedIn`."""
    found = document if isinstance(document, dict) else {}
    if status != 200:
        raise NotSignedIn(f"the identity provider refused the sign-in{_reason(found)}")
    token = found.get("id_token")
    if not isinstance(token, str):
        raise NotSignedIn("the identity provider gave no ID token")
    return token


def refused_by_provider(error: str) -> NotSignedIn:
    """The error that a provider sent the browser back with."""
    return NotSignedIn(f"the identity provider refused the sign-in{_reason({'error': error})}")


def key_for(token: str, keys: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The key that a token names; the only one where it names none. Raises `NotSignedIn`."""
    header = _header(token)
    if header.get("alg") not in ALGORITHMS:
        raise NotSignedIn("the ID token is signed in a way that is not taken")
    if (key_id := header.get("kid")) is None:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.get("kid") == key_id), None)


def person_of(
    token: str,
    key: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now: datetime,
) -> Person:
    """Whom an ID token speaks of, once all about it is right (OpenID Connect Core, 3.1.3.7).

    Raises `NotSignedIn`.
    """
    claims = _verified(token, key, issuer=issuer, client_id=client_id)
    _check_times(claims, now)
    _check_audience(claims, client_id)
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise NotSignedIn("the ID token was made for another sign-in")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARACTERS_MAX:
        raise NotSignedIn("the ID token's subject is none")
    email, name = claims.get("email"), claims.get("name")
    # Some providers write the truth as a text.
    is_verified = claims.get("email_verified") in (True, "true")
    return Person(
        issuer=issuer,
        subject=subject,
        email=email if is_verified and isinstance(email, str) else None,
        name=name if isinstance(name, str) else None,
    )


def _verified(
    token: str, key: Mapping[str, Any], *, issuer: str, client_id: str
) -> Mapping[str, Any]:
    algorithm = _header(token)["alg"]
    try:
        public = jwt.PyJWK(dict(key), algorithm=algorithm)
        if isinstance(public.key, RSAPublicKey) and public.key.key_size < RSA_BITS_MIN:
            raise NotSignedIn("the identity provider's key is too short to trust")
        claims: Mapping[str, Any] = jwt.decode(
            token,
            public,
            algorithms=[algorithm],
            audience=client_id,
            issuer=issuer,
            options={
                "require": ["iss", "aud", "sub", "exp", "iat"],
                # By our own clock, below.
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise NotSignedIn(f"the ID token is not to be trusted: {_plain(error)}") from error
    return claims


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    moments = {}
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, 0 if name == "nbf" else None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotSignedIn(f"the ID token's {name} is no time")
        moments[name] = value
    second, drift = now.timestamp(), DRIFT.total_seconds()
    if not second < moments["exp"] + drift:
        raise NotSignedIn("the ID token has expired: sign in again")
    if moments["iat"] > second + drift or moments["nbf"] > second + drift:
        raise NotSignedIn("the ID token is from the future: compare the clocks")
    if moments["iat"] < second - AGE_MAX.total_seconds() - drift:
        raise NotSignedIn("the ID token is too old: sign in again")


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience, party = claims["aud"], claims.get("azp")
    is_shared = isinstance(audience, list) and len(audience) > 1
    if (party is not None or is_shared) and party != client_id:
        raise NotSignedIn("the ID token was made for another client")


def _header(token: str) -> Mapping[str, Any]:
    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise NotSignedIn("the ID token is none") from error
    return header


def _reason(document: Mapping[str, Any]) -> str:
    code = document.get("error")
    # A code is a word of the protocol; whatever else stands there is not ours to repeat.
    return f": {code}" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""


def _plain(error: Exception) -> str:
    named = {
        jwt.InvalidSignatureError: "its signature is wrong",
        jwt.InvalidAudienceError: "it was made for another client",
        jwt.InvalidIssuerError: "it was made by another issuer",
        jwt.MissingRequiredClaimError: "a claim is missing",
    }
    return next(
        (said for kind, said in named.items() if isinstance(error, kind)), "it cannot be read"
    )


def _signature(content: str, pepper: str) -> str:
    return hmac.digest(pepper.encode(), f"flow|{content}".encode(), sha256).hex()
