"""Checks that the gate signed the identity, for a service that need not believe its
network::

    verifier = Verifier(
        issuer="https://gateway.example.com",
        audience="orders",
        jwks_url="https://gateway.example.com/.well-known/jwks.json",
    )
    verified = verifier.read_user(headers)

It needs the extra ``gatehouse-usercontext[assertion]``, since the standard library has no
ECDSA.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._core import DEFAULT_READER, HeaderPairs, MalformedError, Reader, Refusal, User, _fold, _latin1, _lower

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
except ImportError as missing:
    raise ImportError(
        "gatehouse_usercontext.assertion needs the package cryptography: install gatehouse-usercontext[assertion]"
    ) from missing

__all__ = ["HEADER_ASSERTION", "KeysUnavailableError", "UnverifiedError", "VerifiedUser", "Verifier"]

#: The header in which the gate passes the identity on signed, where a policy says assertion.
HEADER_ASSERTION = "x-identity-assertion"

_ENVIRON = "HTTP_X_IDENTITY_ASSERTION"
_TYPE = "gatehouse-identity+jwt"
_MAX_ASSERTION = 16 << 10
_MAX_LIFE = 300  # seconds; the gate signs for no longer
_MAX_JWKS = 256 << 10
_MAX_KEYS = 64
_REFRESH_AFTER = 300.0
_KEEP_FOR = 24 * 3600.0
_PAUSE = 10.0  # between two tries to fetch the keys
_FETCH_TIMEOUT = 5.0


_KeyOf = Callable[[str], "ec.EllipticCurvePublicKey"]


class UnverifiedError(Refusal):
    """The identity headers are not vouched for: there is no assertion, or none that is
    valid, for this service, and says the same as the headers. It deserves an alarm."""

    status = 403
    answer = "Forbidden"


class KeysUnavailableError(Refusal):
    """The gate's public keys could not be had, so nobody knows whether the signature is
    right."""

    status = 503
    answer = "Authentication unavailable"


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A user for whom the gate vouches."""

    user: User
    #: The handle of the session, or of the token's refresh family, by which the auth API
    #: lists it; "" for none. It opens nothing.
    session_id: str
    #: Unix seconds.
    issued: int
    expires: int


class Verifier:
    """Checks that the gate vouches for the identity headers. Safe for several threads.

    Keys that are fetched are kept. A kid that is not among them has them fetched again, and
    old ones are refreshed by a call that then takes a little longer; however many unknown
    kids arrive, there is one fetch at a time, and a pause after each. Meanwhile known keys
    are good, and they outlive an outage of the gate by a day. A call may wait for the keys
    for some seconds: in asyncio, use :meth:`read_user_async`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str,
        leeway: float = 10,
        insecure_plain_http: bool = False,
        now: Callable[[], float] = time.time,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        if not issuer:
            raise ValueError("usercontext: Verifier: give issuer, the gate's identity.assertion.issuer")
        if not audience:
            raise ValueError("usercontext: Verifier: give audience, the name of this service in the gate's policy")
        url = urlsplit(jwks_url)
        plain = insecure_plain_http or url.hostname in ("localhost", "127.0.0.1", "::1")
        if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and plain)):
            raise ValueError(
                "usercontext: Verifier: jwks_url is not https, and anybody on the way can change the keys:"
                " make it https, or say insecure_plain_http"
            )
        if not 0 <= leeway <= 60:
            raise ValueError("usercontext: Verifier: give a leeway of up to 60 seconds")
        self._issuer = issuer
        self._audience = audience
        self._url = jwks_url
        self._leeway = leeway
        self._now = now
        self._fetch = fetch or _fetch
        self._changed = threading.Condition()  # what is below
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._failed = False
        self._fetching = False
        self._waiting: ThreadPoolExecutor | None = None

    def read_user(self, headers: HeaderPairs, reader: Reader = DEFAULT_READER) -> VerifiedUser | None:
        """The user from the headers, whom the gate signed; None for an anonymous caller.
        MalformedError as of Reader.read_user, UnverifiedError, or KeysUnavailableError."""
        return self._agreed(*self._read(headers, reader), self._key)

    async def read_user_async(self, headers: HeaderPairs, reader: Reader = DEFAULT_READER) -> VerifiedUser | None:
        """:meth:`read_user` for asyncio: other tasks go on while it waits for keys."""
        user, raw = self._read(headers, reader)
        try:
            return self._agreed(user, raw, self._key_at_hand)
        except _NotAtHandError:
            pass
        with self._changed:
            if self._waiting is None:
                # One thread, as there is one fetch: who waits takes none of the program's.
                self._waiting = ThreadPoolExecutor(1, thread_name_prefix="gatehouse-keys")
        return await asyncio.get_running_loop().run_in_executor(self._waiting, self._agreed, user, raw, self._key)

    def _read(self, headers: HeaderPairs, reader: Reader) -> tuple[User | None, str | None]:
        headers = list(headers) if not isinstance(headers, Mapping) else headers
        user = reader.read_user(headers)
        raw: str | None = None
        for raw_name, raw_value in headers:
            name = _latin1(raw_name)
            if _fold(name) != HEADER_ASSERTION:
                continue
            if _lower(name) != HEADER_ASSERTION:
                raise MalformedError(f"a header is spelt like {HEADER_ASSERTION} with - and _ exchanged")
            if raw is not None:
                raise MalformedError(f"{HEADER_ASSERTION} is there more than once")
            raw = _latin1(raw_value)
        return user, raw

    def read_environ(self, environ: Mapping[str, Any], reader: Reader = DEFAULT_READER) -> VerifiedUser | None:
        """:meth:`read_user` for a WSGI environ, where an assertion that was sent twice has a
        comma in it, and so a wrong form."""
        return self._agreed(reader.read_environ(environ), environ.get(_ENVIRON), self._key)

    def _agreed(self, user: User | None, raw: str | None, key: _KeyOf) -> VerifiedUser | None:
        if raw is None:
            if user is None:
                return None
            raise UnverifiedError(f"no {HEADER_ASSERTION}")
        if user is None:
            raise UnverifiedError(f"{HEADER_ASSERTION} without the identity headers")
        verified = self._verify(raw, key)
        if verified.user != user:
            raise UnverifiedError("the identity headers say something else than what is signed")
        return verified

    def _verify(self, raw: str, key: _KeyOf) -> VerifiedUser:
        if len(raw) > _MAX_ASSERTION:
            raise UnverifiedError(f"more than {_MAX_ASSERTION} bytes")
        parts = raw.split(".")
        if len(parts) != 3:
            raise UnverifiedError("not a signed JWT")
        header = _object(parts[0], "header")
        if header.get("alg") != "ES256":
            raise UnverifiedError("alg is not ES256")
        if header.get("typ") != _TYPE:
            raise UnverifiedError(f"typ is not {_TYPE}")
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise UnverifiedError("no kid")
        if len(header) != 3:  # crit, jwk, jku and the like
            raise UnverifiedError("header: more than alg, typ and kid")
        signature = _bytes(parts[2])
        if signature is None or len(signature) != 64:
            raise UnverifiedError("not a signature of ES256")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            # Nobody signs what is beyond Latin-1, nor what is beyond ASCII.
            signed = f"{parts[0]}.{parts[1]}".encode("latin-1", "replace")
            key(kid).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise UnverifiedError("wrong signature") from None
        return self._claims(_object(parts[1], "claims"))

    def _claims(self, claims: Mapping[str, Any]) -> VerifiedUser:
        def text(name: str) -> str:
            value = claims.get(name, "")
            if not isinstance(value, str):
                raise UnverifiedError(f"{name} is no text")
            return value

        def moment(name: str) -> int:
            value = claims.get(name)
            if type(value) is not int:
                raise UnverifiedError(f"{name} is no time")
            return value

        if text("iss") != self._issuer:
            raise UnverifiedError(f'iss is not "{self._issuer}": make issuer what the gate has as identity.assertion.issuer')
        if text("aud") != self._audience:
            raise UnverifiedError(
                f'aud is not "{self._audience}": make audience what the gate\'s policy or route has as audience;'
                " or it was meant for another service"
            )
        subject, roles = text("sub"), claims.get("roles")
        if not subject or not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise UnverifiedError("sub or roles are missing")
        issued, expires, now = moment("iat"), moment("exp"), self._now()
        if issued <= 0 or expires <= issued or expires - issued > _MAX_LIFE:
            raise UnverifiedError("iat and exp make no sense")
        if issued > now + self._leeway:
            raise UnverifiedError("signed in the future: set the clocks of gate and service")
        if now >= expires + self._leeway:
            raise UnverifiedError("expired")
        return VerifiedUser(User(subject, text("email"), tuple(roles), text("org")), text("sid"), issued, expires)

    def _key(self, kid: str) -> ec.EllipticCurvePublicKey:
        """The key of a kid. It may wait."""
        while True:
            with self._changed:
                key, due = self._known(kid)
                if not due:
                    if key is not None:
                        return key
                    if not self._fetching:
                        raise self._without()
                    if not self._changed.wait(_FETCH_TIMEOUT):
                        raise KeysUnavailableError("the gate's keys are not there in time")
                    continue
                self._fetching, self._tried = True, self._now()
            self._refresh()

    def _key_at_hand(self, kid: str) -> ec.EllipticCurvePublicKey:
        """The key of a kid, if nobody needs to wait to know of it."""
        with self._changed:
            key, due = self._known(kid)
            if due or (key is None and self._fetching):
                raise _NotAtHandError
            if key is None:
                raise self._without()
            return key

    def _known(self, kid: str) -> tuple[ec.EllipticCurvePublicKey | None, bool]:
        """The key, and whether it is time to fetch."""
        now = self._now()
        age = now - self._fetched
        key = self._keys.get(kid) if age < _KEEP_FOR else None
        # A clock that was set back must not stop all fetching.
        stale = age >= _REFRESH_AFTER or age < 0
        rested = now - self._tried >= _PAUSE or now < self._tried
        return key, (key is None or stale) and rested and not self._fetching

    def _without(self) -> Refusal:
        if self._failed:
            return KeysUnavailableError("the gate's keys can't be had")
        return UnverifiedError("signed by a key that the gate doesn't publish")

    def _refresh(self) -> None:
        """Fetches the keys, while others go on with those that are known."""
        keys = None
        try:
            keys = _keys(self._fetch(self._url))
        except Exception:  # of whatever kind the caller's fetch raises; and a RecursionError
            pass
        finally:
            with self._changed:
                if keys is not None:
                    self._keys, self._fetched = keys, self._now()
                self._failed = keys is None
                self._fetching = False
                self._changed.notify_all()


class _NotAtHandError(Exception):
    """Only who waits learns the key."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _fetch(url: str) -> bytes:
    # The timeout is one of each step, so an answer that trickles in has to be watched.
    late = time.monotonic() + _FETCH_TIMEOUT
    body = b""
    with urllib.request.build_opener(_NoRedirect).open(url, timeout=_FETCH_TIMEOUT) as response:
        if response.status != 200:
            raise OSError("no answer")
        while len(body) <= _MAX_JWKS:
            piece: bytes = response.read1(_MAX_JWKS)
            if not piece:
                return body
            if time.monotonic() > late:
                raise OSError("timeout")
            body += piece
    raise ValueError("too long")


def _keys(body: bytes) -> dict[str, ec.EllipticCurvePublicKey]:
    """The keys for ES256 of a JWK set (RFC 7517); those of other algorithms are not ours."""
    if len(body) > _MAX_JWKS:
        raise ValueError("too long")
    document = json.loads(body.decode("utf-8"))  # of bytes it would take other encodings, too
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise ValueError("no JWK set")
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    for key in keys:
        if not isinstance(key, dict):
            raise ValueError("no JWK")
        kid = key.get("kid")
        ours = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig"}
        if any(key.get(name) != value for name, value in ours.items()) or not isinstance(kid, str) or not kid:
            continue
        x, y = _bytes(str(key.get("x"))), _bytes(str(key.get("y")))
        if x is None or y is None or len(x) != 32 or len(y) != 32 or kid in found:
            raise ValueError("a malformed key")
        found[kid] = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
    return found


_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def _bytes(text: str) -> bytes | None:
    """base64url without padding, in the one form that it has."""
    if not _BASE64URL.fullmatch(text):
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return None
    return data if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") == text else None


class _Members(dict[str, Any]):
    """A JSON object, and whether a member of it is there twice."""

    twice = False

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> _Members:
        members = cls(pairs)
        members.twice = len(members) != len(pairs)
        return members


def _object(part: str, what: str) -> _Members:
    """The members of a part of a JWT. None may be there twice, which json takes."""
    data = _bytes(part)
    if data is None:
        raise UnverifiedError(f"{what}: not base64url")

    def refuse(constant: str) -> None:
        raise ValueError("no number of JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_Members.of, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise UnverifiedError(f"{what}: not JSON in UTF-8") from None
    if not isinstance(value, _Members):
        raise UnverifiedError(f"{what}: not a JSON object")
    if value.twice:
        raise UnverifiedError(f"{what}: a member is there twice")
    if any(member is None for member in value.values()):
        raise UnverifiedError(f"{what}: a member is null")
    return value
