"""A WSGI service that says whom it was called by."""

import json
import os
from wsgiref.simple_server import make_server

from gatehouse_usercontext import parse_key
from gatehouse_usercontext.wsgi import OptionalUser, RequireInternalKey, RequireRole, RequireUser, current_user


def answer(environ, start_response):
    user = current_user(environ)
    body = {"user": user and user.as_dict(), "service": user and user.service()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


internal = RequireInternalKey(answer, [parse_key(os.environ["KEY_SHA256"])])
anybody, admins, users = OptionalUser(answer), RequireUser(RequireRole(answer, "admin")), RequireUser(answer)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/internal":
        return internal(environ, start_response)
    if path.startswith("/public/"):
        return anybody(environ, start_response)
    if path == "/p/any/admins":
        return admins(environ, start_response)
    return users(environ, start_response)


if __name__ == "__main__":
    make_server("127.0.0.1", int(os.environ["PORT"]), app).serve_forever()
