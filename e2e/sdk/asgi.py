"""An ASGI service that says whom it was called by."""

import json
import os

import uvicorn
from gatehouse_usercontext import parse_key
from gatehouse_usercontext.asgi import OptionalUser, RequireInternalKey, RequireRole, RequireUser, current_user


async def answer(scope, receive, send):
    user = current_user(scope)
    body = {"user": user and user.as_dict(), "service": user and user.service()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


internal = RequireInternalKey(answer, [parse_key(os.environ["KEY_SHA256"])])
anybody, admins, users = OptionalUser(answer), RequireUser(RequireRole(answer, "admin")), RequireUser(answer)


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/internal":
        await internal(scope, receive, send)
    elif path.startswith("/public/"):
        await anybody(scope, receive, send)
    elif path == "/p/any/admins":
        await admins(scope, receive, send)
    else:
        await users(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), lifespan="off", access_log=False)
