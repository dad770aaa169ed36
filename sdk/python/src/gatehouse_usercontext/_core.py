"""Reading the headers."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

#: Bounds the identity headers of one request, all values together, in bytes. It is twice
#: what the gate writes at most by default.
DEFAULT_MAX_BYTES = 16 << 10

_T = TypeVar("_T")

# The gate marks callers that showed an internal API key by this before their id.
_SERVICE_PREFIX = "service:"


@dataclass(frozen=True, slots=True)
class User:
    """Who is calling, as the gate found out. It can't be changed."""

    #: Never empty.
    id: str
    #: "" when the gate knows none.
    email: str = ""
    roles: tuple[str, ...] = ()
    #: The organization that the user works in now; "" when there is none.
    organization_id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("usercontext: a user has an id; for nobody use None")
        object.__setattr__(self, "roles", tuple(self.roles))

    def service(self) -> str | None:
        """The name of the service that is calling, when the caller is no person but showed
        an internal API key at the gate; else None."""
        if not self.id.startswith(_SERVICE_PREFIX):
            return None
        return self.id[len(_SERVICE_PREFIX) :] or None

    def has_role(self, *any_of: str) -> bool:
        """Whether the user has at least one of the roles. It is false when none are asked
        for, and the empty string is no role, so a forgotten setting opens nothing. Roles
        are compared character for character."""
        return any(role != "" and role in self.roles for role in any_of)

    def as_dict(self) -> dict[str, Any]:
        """The form in which Gatehouse's auth API answers a user, for json.dumps."""
        return {
            "userId": self.id,
            "email": self.email,
            "roles": list(self.roles),
            "organizationId": self.organization_id,
        }


class Refusal(Exception):
    """Why a request is not served. Its text names headers and never repeats a value: it is
    for the log. The client is told status and answer."""

    status: ClassVar[int]
    answer: ClassVar[str]


class AnonymousError(Refusal):
    """No identity header at all: the gate let the request through without an identity, as
    the route's policy allows, and the service wants one."""

    status = 401
    answer = "No token provided"


class MalformedError(Refusal):
    """Headers that the gate cannot have written. It deserves an alarm: somebody reached the
    service around the gate."""

    status = 400
    answer = "Bad request"


class ForbiddenError(Refusal):
    """A known caller who may not do this, or a caller without the internal key."""

    status = 403
    answer = "Forbidden"


@dataclass(frozen=True, slots=True)
class Key:
    """An internal API key as the service that checks it knows it: only its hash. The key
    itself should be random and long; a plain hash is no protection for a word that can be
    guessed."""

    #: Of the key's bytes, as they are sent.
    sha256: bytes
    #: Valid before this moment, which has a time zone; None: does not expire.
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if len(self.sha256) != hashlib.sha256().digest_size:
            raise ValueError(f"usercontext: a SHA-256 hash has 32 bytes, not {len(self.sha256)}")
        if self.expires is not None and self.expires.utcoffset() is None:
            raise ValueError("usercontext: the moment when a key expires needs a time zone")


def hash_key(raw: str | bytes) -> Key:
    """The Key of a raw key that does not expire, for programs that hold the raw key
    themselves, such as tests."""
    return Key(hashlib.sha256(raw.encode() if isinstance(raw, str) else raw).digest())


_EXPIRY = re.compile(
    r"([1-9][0-9]{3})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-5][0-9])))?"
)


def parse_key(text: str) -> Key:
    """Read a Key as an operator writes it: the SHA-256 hash in 64 hexadecimal digits, and
    optionally @ and the moment it expires, by RFC 3339 or as a date, which means its
    beginning in UTC. The hash of the empty string is refused: it is what a script computes
    whose variable was not set. Errors don't repeat the text."""
    digits, at, expires = text.partition("@")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
        raise ValueError(
            "usercontext: a key is given as its SHA-256 hash: 64 hexadecimal digits, "
            f"not {len(digits)} characters of another kind"
        )
    sha256 = bytes.fromhex(digits)
    if sha256 == hash_key("").sha256:
        raise ValueError("usercontext: this is the SHA-256 hash of an empty key: hash the key itself")
    return Key(sha256, _parse_expiry(expires) if at else None)


def _parse_expiry(text: str) -> datetime:
    moment: datetime | None = None
    form = _EXPIRY.fullmatch(text)
    if form is not None:
        year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = form.groups()
        zone = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
        try:
            moment = datetime(
                int(year),
                int(month),
                int(day),
                int(hour or 0),
                int(minute or 0),
                int(second or 0),
                int(f"{fraction or 0:0<6}"[:6]),
                timezone(-zone if sign == "-" else zone),
            ).astimezone(timezone.utc)
        except (ValueError, OverflowError):
            pass  # no such day, hour or zone
    if moment is None:
        raise ValueError(
            "usercontext: a key expires at a date such as 2027-01-01 or a time such as 2027-01-01T12:00:00Z"
        )
    return moment


#: Headers as they arrived: pairs of name and value, as ASGI has them, or as text in which
#: each character is a byte (Latin-1), as WSGI has it. No mapping: that has lost what was
#: sent twice.
HeaderPairs = Iterable[tuple[str | bytes, str | bytes]]

_USER_ID, _EMAIL, _ROLES, _ORGANIZATION_ID, _INTERNAL_KEY = range(5)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Reader:
    """Reads the identity headers. The functions of this package are those of a Reader
    without arguments.

    Names of headers, in any case, must be those of the gate's identity.headers. The gate
    protects the names that it was configured with and no others, so a service that listens
    to different ones believes the client. ValueError: a name is no possible header name, or
    two are the same; ``-`` and ``_`` count as the same, as they do in WSGI.

    max_bytes bounds the identity headers, all values together; it should be no less than
    the gate's identity.max_header_bytes. now is the clock by which keys expire.

    on_refusal learns of every request that the middleware refuses, with the WSGI environ or
    the ASGI scope, for the log. It must not raise, and in ASGI not block.

    insecure_allow_commas is for WSGI alone. Most WSGI servers join headers that were sent
    twice by a comma, so a comma in an id, email or organization is refused there. Those who
    have such ids can allow them, and then can't see a header that was sent twice.
    """

    def __init__(
        self,
        *,
        user_id: str = "x-user-id",
        email: str = "x-user-email",
        roles: str = "x-user-roles",
        organization_id: str = "x-org-id",
        internal_key: str = "x-internal-api-key",
        max_bytes: int = DEFAULT_MAX_BYTES,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        on_refusal: Callable[[Refusal, Mapping[str, Any]], None] = lambda refusal, request: None,
        insecure_allow_commas: bool = False,
    ) -> None:
        seen: dict[str, str] = {}
        self._names: list[str] = []
        for argument, name in (
            ("user_id", user_id),
            ("email", email),
            ("roles", roles),
            ("organization_id", organization_id),
            ("internal_key", internal_key),
        ):
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"usercontext: {argument}: {name!r} is not a header name")
            other = seen.setdefault(_fold(name), argument)
            if other != argument:
                raise ValueError(
                    f"usercontext: {other} and {argument} both name the header {name.lower()}: give each its own"
                )
            self._names.append(name.lower())
        if max_bytes <= 0:
            raise ValueError(f"usercontext: max_bytes is {max_bytes}: give a positive number of bytes")
        self._folded = {_fold(name): index for index, name in enumerate(self._names)}
        self._max_bytes = max_bytes
        self._now = now
        self._allow_commas = insecure_allow_commas
        self.on_refusal = on_refusal

    def read_user(self, headers: HeaderPairs) -> User | None:
        """The user from the headers that the gate set; None for an anonymous caller, with
        no identity header at all. MalformedError for what the gate cannot have written:

        - Id, email and organization are visible ASCII in which %XX stands for the bytes of
          other characters in UTF-8. They are decoded once, and have no control characters.
        - Roles are a JSON array of strings in ASCII. A missing header means no roles; an
          empty one is malformed.
        - An empty email or organization is the same as a missing one. An empty or missing
          id beside any other identity header is malformed.
        - A header twice, or a name with ``_`` in place of ``-``, even alone, is malformed.
        """
        found: dict[int, str] = {}
        for index, value in self._ours(headers, MalformedError, internal=False):
            if index in found:
                raise MalformedError(f"{self._names[index]} is there more than once")
            found[index] = value
        return self._user(found)

    def read_environ(self, environ: Mapping[str, Any]) -> User | None:
        """:meth:`read_user` for a WSGI environ. What it can't see: a name with ``_`` in
        place of ``-``, because WSGI writes both alike; the gate removes those. It refuses
        a comma in id, email and organization, see insecure_allow_commas."""
        found: dict[int, str] = {}
        for index in (_USER_ID, _EMAIL, _ROLES, _ORGANIZATION_ID):
            value = self._from_environ(environ, index)
            if value is None:
                continue
            if "," in value and index != _ROLES and not self._allow_commas:
                raise MalformedError(f"{self._names[index]} has a comma: in WSGI that is what a header sent twice looks like")
            found[index] = value
        return self._user(found)

    def check_internal_key(self, headers: HeaderPairs, keys: Iterable[Key]) -> None:
        """ForbiddenError unless the headers show one of the keys: missing, wrong, expired,
        sent twice, spelt with underscores, or no keys configured. The comparison takes
        constant time.

        It is for calls from service to service, which don't come through the gate: the gate
        removes the header from everything that clients send. It reads no user."""
        shown = [value for index, value in self._ours(headers, ForbiddenError, internal=True)]
        if len(shown) > 1:
            raise ForbiddenError(f"{self._names[_INTERNAL_KEY]} is there more than once")
        self._check(shown[0] if shown else None, keys)

    def check_internal_key_environ(self, environ: Mapping[str, Any], keys: Iterable[Key]) -> None:
        """:meth:`check_internal_key` for a WSGI environ, where a key that was sent twice is
        one with a comma in it, and so another."""
        self._check(self._from_environ(environ, _INTERNAL_KEY), keys)

    def _from_environ(self, environ: Mapping[str, Any], index: int) -> str | None:
        name = "HTTP_" + self._names[index].replace("-", "_").upper()
        value = environ.get(name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"usercontext: {name} in the environ is no str")
        return value

    def _ours(
        self, headers: HeaderPairs, refusal: type[Refusal], *, internal: bool
    ) -> Iterable[tuple[int, str]]:
        if isinstance(headers, Mapping):
            raise TypeError("usercontext: give pairs of name and value: a mapping has lost what was sent twice")
        for raw_name, raw_value in headers:
            name = _latin1(raw_name)
            index = self._folded.get(_fold(name))
            if index is None or (index == _INTERNAL_KEY) != internal:
                continue
            if _lower(name) != self._names[index]:
                raise refusal(f"a header is spelt like {self._names[index]} with - and _ exchanged")
            yield index, _latin1(raw_value)

    def _user(self, found: Mapping[int, str]) -> User | None:
        size = sum(map(len, found.values()))
        if size > self._max_bytes:
            raise MalformedError(f"identity headers of {size} bytes where at most {self._max_bytes} are accepted")
        if not found:
            return None
        if not found.get(_USER_ID):
            raise MalformedError(f"identity headers without a value of {self._names[_USER_ID]}")
        texts = {index: self._decode(index, value, _decode_text) for index, value in found.items() if index != _ROLES}
        roles = self._decode(_ROLES, found[_ROLES], _decode_roles) if _ROLES in found else ()
        return User(texts[_USER_ID], texts.get(_EMAIL, ""), roles, texts.get(_ORGANIZATION_ID, ""))

    def _decode(self, index: int, value: str, decode: Callable[[str], _T]) -> _T:
        try:
            return decode(value)
        except _Fault as fault:
            raise MalformedError(f"{self._names[index]}: {fault}") from None

    def _check(self, shown: str | None, keys: Iterable[Key]) -> None:
        name = self._names[_INTERNAL_KEY]
        if shown is None:
            raise ForbiddenError(f"no {name}")
        if shown == "":
            raise ForbiddenError(f"empty {name}")
        try:
            digest = hashlib.sha256(shown.encode("latin-1")).digest()
        except UnicodeEncodeError:
            raise ForbiddenError(f"{name} is not made of bytes") from None
        # Every key is compared, whichever matches, and hashes rather than keys are, so the
        # time taken depends on nothing secret.
        now = self._now()
        admitted = False
        count = 0
        for key in keys:
            count += 1
            same = hmac.compare_digest(key.sha256, digest)
            valid = key.expires is None or now < key.expires
            admitted = (same and valid) or admitted
        if not admitted:
            raise ForbiddenError(f"{name} is none of the {count} keys, or has expired")


class _Fault(Exception):
    """Why a value is malformed, in words that don't repeat it."""


_TEXT = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# An array of strings, in full, so that no two readers of JSON differ about it: json takes
# more than the standard, and calls itself for each bracket.
_STRING = r'"(?:[ !#-\[\]-~]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"'
_STRINGS = re.compile(rf" *\[ *(?:{_STRING} *(?:, *{_STRING} *)*)?\] *")


def _decode_text(value: str) -> str:
    """Undo the gate's encoding of id, email and organization."""
    if not _TEXT.fullmatch(value):
        raise _Fault("not visible ASCII, or a malformed escape")
    try:
        text = unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise _Fault("not UTF-8 after decoding") from None
    if _CONTROL.search(text):
        raise _Fault("control character")
    return text


def _decode_roles(value: str) -> tuple[str, ...]:
    if not _STRINGS.fullmatch(value):
        raise _Fault("not a JSON array of strings in ASCII")
    roles: list[str] = json.loads(value)
    for role in roles:
        try:
            role.encode("utf-8")
        except UnicodeEncodeError:  # half a surrogate pair
            raise _Fault("not UTF-8 after decoding") from None
        if _CONTROL.search(role):
            raise _Fault("control character")
    return tuple(roles)


def _latin1(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")


# ASCII only: str.lower makes a k of the Kelvin sign.
_UPPER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}


def _lower(name: str) -> str:
    return name.translate(_UPPER)


def _fold(name: str) -> str:
    return _lower(name).replace("_", "-")


#: The reader of the functions and the middleware that are given none.
DEFAULT_READER = Reader()


def read_user(headers: HeaderPairs) -> User | None:
    """:meth:`Reader.read_user` for the default names."""
    return DEFAULT_READER.read_user(headers)


def read_environ(environ: Mapping[str, Any]) -> User | None:
    """:meth:`Reader.read_environ` for the default names."""
    return DEFAULT_READER.read_environ(environ)


def check_internal_key(headers: HeaderPairs, keys: Iterable[Key]) -> None:
    """:meth:`Reader.check_internal_key` for the default name."""
    DEFAULT_READER.check_internal_key(headers, keys)


def answer_body(refusal: Refusal) -> bytes:
    """The body of an answer, as the gate writes it."""
    return json.dumps({"error": refusal.answer}, separators=(",", ":")).encode()
