"""WSGI middleware: for Flask, Django, Bottle, Pyramid and plain WSGI.

Each wraps an application::

    application = RequireUser(application)

and the application asks ``current_user(environ)``: in Flask ``request.environ``, in Django
``request.environ``, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ._core import DEFAULT_READER, AnonymousError, ForbiddenError, Key, Reader, Refusal, User, answer_body

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .assertion import Verifier

__all__ = ["OptionalUser", "RequireInternalKey", "RequireRole", "RequireUser", "current_session", "current_user"]

# No header of a client's gets a name without HTTP_ before it.
_KEY = "gatehouse.user"
_SESSION = "gatehouse.session"
# Who read the user, so that RequireRole can tell it whom it refuses.
_READER = "gatehouse.reader"


def current_user(environ: Mapping[str, Any]) -> User | None:
    """The user whom RequireUser or OptionalUser read; None without them, and for an
    anonymous caller. A test of an application may set ``environ["gatehouse.user"]``."""
    user = environ.get(_KEY)
    return user if isinstance(user, User) else None


def current_session(environ: Mapping[str, Any]) -> str:
    """The handle of the session of a verified user, as the auth API lists it; "" for none."""
    session = environ.get(_SESSION)
    return session if isinstance(session, str) else ""


class RequireUser:
    """Serves authenticated callers only. Malformed identity headers are answered 400
    {"error":"Bad request"}, none at all 401 {"error":"No token provided"}.

    With a verifier the gate must have signed who it is, for this service; else 403
    {"error":"Forbidden"}, or 503 {"error":"Authentication unavailable"} while the gate's
    keys can't be had."""

    _anonymous = False

    def __init__(
        self, app: WSGIApplication, reader: Reader = DEFAULT_READER, *, verifier: Verifier | None = None
    ) -> None:
        self._app = app
        self._reader = reader
        self._verifier = verifier

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Whom somebody further out read is not the user here, whatever comes of this.
        environ.pop(_KEY, None)
        environ.pop(_SESSION, None)
        session = ""
        try:
            if self._verifier is None:
                user = self._reader.read_environ(environ)
            else:
                verified = self._verifier.read_environ(environ, self._reader)
                user = verified.user if verified else None
                session = verified.session_id if verified else ""
            if user is None and not self._anonymous:
                raise AnonymousError("no user: the gate passed no identity on")
        except Refusal as refusal:
            self._reader.on_refusal(refusal, environ)
            return _refuse(refusal, environ, start_response)
        environ[_READER] = self._reader
        if user is not None:
            environ[_KEY] = user
            environ[_SESSION] = session
        return self._app(environ, start_response)


class OptionalUser(RequireUser):
    """Serves anonymous callers too, for whom current_user is None. Malformed identity
    headers are answered 400: they are never taken for anonymous."""

    _anonymous = True


class RequireRole:
    """Serves users with at least one of the roles, and answers others 403
    {"error":"Forbidden"}. Without roles, or with empty ones, it serves nobody. It goes
    inside RequireUser or OptionalUser, which read the user; their reader's on_refusal learns
    whom it refuses."""

    def __init__(self, app: WSGIApplication, *any_of: str) -> None:
        self._app = app
        self._any_of = any_of

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        user = current_user(environ)
        if user is not None and user.has_role(*self._any_of):
            return self._app(environ, start_response)
        refusal = AnonymousError("no user") if user is None else ForbiddenError("none of the roles")
        environ.get(_READER, DEFAULT_READER).on_refusal(refusal, environ)
        return _refuse(refusal, environ, start_response)


class RequireInternalKey:
    """For calls from service to service, which don't come through the gate:
    x-internal-api-key must hold one of the keys, of which several can be valid while one is
    rotated. Else it answers 403 {"error":"Forbidden"}. It reads no user. Applications must
    not log the header."""

    def __init__(self, app: WSGIApplication, keys: Iterable[Key], reader: Reader = DEFAULT_READER) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._reader = reader

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            self._reader.check_internal_key_environ(environ, self._keys)
        except Refusal as refusal:
            self._reader.on_refusal(refusal, environ)
            return _refuse(refusal, environ, start_response)
        return self._app(environ, start_response)


def _refuse(refusal: Refusal, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = answer_body(refusal)
    start_response(
        f"{refusal.status} {HTTPStatus(refusal.status).phrase}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    # WSGI leaves HEAD to the application. A body behind the head of such an answer would be
    # taken for the next answer of the connection, which is another client's.
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
