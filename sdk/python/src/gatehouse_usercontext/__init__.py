"""Who is calling a service behind the Gatehouse gate.

The gate authenticates every request and passes the result on in four headers
(x-user-id, x-user-email, x-user-roles, x-org-id). This package reads them, strictly:
:mod:`gatehouse_usercontext.wsgi` and :mod:`gatehouse_usercontext.asgi` are middleware,
:func:`read_user` and :func:`read_environ` are for everything else.

The headers prove nothing by themselves: anyone who can open a connection to the service
can write them. They are true because the gate overwrites or removes them on every request,
so the service must be reachable through the gate only.
"""

from ._core import (
    DEFAULT_MAX_BYTES,
    AnonymousError,
    ForbiddenError,
    Key,
    MalformedError,
    Reader,
    Refusal,
    User,
    check_internal_key,
    hash_key,
    parse_key,
    read_environ,
    read_user,
)

__all__ = [
    "DEFAULT_MAX_BYTES",
    "AnonymousError",
    "ForbiddenError",
    "Key",
    "MalformedError",
    "Reader",
    "Refusal",
    "User",
    "check_internal_key",
    "hash_key",
    "parse_key",
    "read_environ",
    "read_user",
]
