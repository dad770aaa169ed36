"""ASGI middleware: for Starlette, FastAPI, Django, Quart, Litestar and plain ASGI.

Each wraps an application, by itself or with ``app.add_middleware(RequireUser)``, and the
application asks ``current_user(scope)``: in Starlette and FastAPI ``request.scope``.
WebSocket connections are refused before they are accepted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ._core import DEFAULT_READER, AnonymousError, ForbiddenError, Key, Reader, Refusal, User, answer_body

if TYPE_CHECKING:
    from .assertion import Verifier

__all__ = ["OptionalUser", "RequireInternalKey", "RequireRole", "RequireUser", "current_session", "current_user"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_KEY = "gatehouse.user"
_SESSION = "gatehouse.session"
# Who read the user, so that RequireRole can tell it whom it refuses.
_READER = "gatehouse.reader"


def current_user(scope: Mapping[str, Any]) -> User | None:
    """The user whom RequireUser or OptionalUser read; None without them, and for an
    anonymous caller. A test of an application may set ``scope["gatehouse.user"]``."""
    user = scope.get(_KEY)
    return user if isinstance(user, User) else None


def current_session(scope: Mapping[str, Any]) -> str:
    """The handle of the session of a verified user, as the auth API lists it; "" for none."""
    session = scope.get(_SESSION)
    return session if isinstance(session, str) else ""


class _Middleware:
    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise ValueError(f"usercontext: connections of type {kind!r} are not known, so none is served")
        scope = dict(scope)
        if "headers" in scope:  # perhaps as an iterator, which the first to look would use up
            scope["headers"] = list(scope["headers"])
        try:
            await self._admit(scope)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        raise NotImplementedError


class RequireUser(_Middleware):
    """Serves authenticated callers only. Malformed identity headers are answered 400
    {"error":"Bad request"}, none at all 401 {"error":"No token provided"}.

    With a verifier, in asyncio, the gate must have signed who it is, for this service; else
    403 {"error":"Forbidden"}, or 503 {"error":"Authentication unavailable"} while the gate's
    keys can't be had."""

    _anonymous = False

    def __init__(
        self, app: Application, reader: Reader = DEFAULT_READER, *, verifier: Verifier | None = None
    ) -> None:
        super().__init__(app)
        self._reader = reader
        self._verifier = verifier

    async def _admit(self, scope: Scope) -> None:
        # Whom somebody further out read is not the user here, whatever comes of this.
        scope.pop(_KEY, None)
        scope.pop(_SESSION, None)
        session = ""
        try:
            if self._verifier is None:
                user = self._reader.read_user(scope["headers"])
            else:
                verified = await self._verifier.read_user_async(scope["headers"], self._reader)
                user = verified.user if verified else None
                session = verified.session_id if verified else ""
            if user is None and not self._anonymous:
                raise AnonymousError("no user: the gate passed no identity on")
        except Refusal as refusal:
            self._reader.on_refusal(refusal, scope)
            raise
        scope[_READER] = self._reader
        if user is not None:
            scope[_KEY] = user
            scope[_SESSION] = session


class OptionalUser(RequireUser):
    """Serves anonymous callers too, for whom current_user is None. Malformed identity
    headers are answered 400: they are never taken for anonymous."""

    _anonymous = True


class RequireRole(_Middleware):
    """Serves users with at least one of the roles, and answers others 403
    {"error":"Forbidden"}. Without roles, or with empty ones, it serves nobody. It goes
    inside RequireUser or OptionalUser, which read the user; their reader's on_refusal learns
    whom it refuses."""

    def __init__(self, app: Application, *any_of: str) -> None:
        super().__init__(app)
        self._any_of = any_of

    async def _admit(self, scope: Scope) -> None:
        user = current_user(scope)
        if user is not None and user.has_role(*self._any_of):
            return
        refusal = AnonymousError("no user") if user is None else ForbiddenError("none of the roles")
        scope.get(_READER, DEFAULT_READER).on_refusal(refusal, scope)
        raise refusal


class RequireInternalKey(_Middleware):
    """For calls from service to service, which don't come through the gate:
    x-internal-api-key must hold one of the keys, of which several can be valid while one is
    rotated. Else it answers 403 {"error":"Forbidden"}. It reads no user. Applications must
    not log the header."""

    def __init__(self, app: Application, keys: Iterable[Key], reader: Reader = DEFAULT_READER) -> None:
        super().__init__(app)
        self._keys = tuple(keys)
        self._reader = reader

    async def _admit(self, scope: Scope) -> None:
        try:
            self._reader.check_internal_key(scope["headers"], self._keys)
        except Refusal as refusal:
            self._reader.on_refusal(refusal, scope)
            raise


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.answer})  # 403 on the wire
            return
    body = answer_body(refusal)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    # Servers leave the body of an answer to HEAD out; one that didn't would spoil the connection.
    await send({"type": f"{kind}.body", "body": b"" if scope.get("method") == "HEAD" else body})
