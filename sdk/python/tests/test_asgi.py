from __future__ import annotations

import asyncio
import json
import unittest
from typing import Any

from gatehouse_usercontext import Reader, Refusal, User, hash_key, parse_key
from gatehouse_usercontext.asgi import (
    Application,
    Message,
    OptionalUser,
    Receive,
    RequireInternalKey,
    RequireRole,
    RequireUser,
    Scope,
    Send,
    current_user,
)

from .cases import ANSWER, CONTRACT, STATUS, moment, pairs, reader, wanted


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the user, or null; accepts WebSocket connections."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    user = current_user(scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(user and user.as_dict()).encode()})


def run(app: Application, scope: dict[str, Any]) -> list[Message]:
    """What an application sends for a connection."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


def ask(app: Application, headers: list[tuple[str, str]], **more: Any) -> tuple[int, bytes]:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "headers": raw, **more}
    before = dict(scope)
    start, *rest = run(app, scope)
    assert scope == before, "middleware leaves the scope of what is further out alone"
    assert start["type"] == "http.response.start"
    assert (b"content-type", b"application/json") in start["headers"]
    return start["status"], b"".join(message["body"] for message in rest)


ALICE = [("x-user-id", "alice"), ("x-user-roles", '["member"]')]
ALICE_JSON = {"userId": "alice", "email": "", "roles": ["member"], "organizationId": ""}


class Middleware(unittest.TestCase):
    def refused(self, app: Application, headers: list[tuple[str, str]], status: int, **more: Any) -> None:
        self.assertEqual(ask(app, headers, **more), (status, ANSWER[status]))

    def served(self, app: Application, headers: list[tuple[str, str]], want: Any, **more: Any) -> None:
        status, body = ask(app, headers, **more)
        self.assertEqual((status, json.loads(body)), (200, want))

    def test_common_cases(self) -> None:
        for case in CONTRACT["users"]:
            with self.subTest(case["name"]):
                app: Application = whoami
                if "requireRole" in case:
                    app = RequireRole(app, *case["requireRole"])
                app = RequireUser(app, reader(case))
                if case["want"] == "user":
                    self.served(app, pairs(case), wanted(case["user"]))
                else:
                    self.refused(app, pairs(case), STATUS[case["want"]])

    def test_common_cases_of_keys(self) -> None:
        for case in CONTRACT["keys"]:
            with self.subTest(case["name"]):
                checked = reader(case, now=lambda: moment(case["now"]))
                app = RequireInternalKey(whoami, [parse_key(key) for key in case["keys"]], checked)
                if case["admitted"]:
                    self.served(app, pairs(case), None)
                else:
                    self.refused(app, pairs(case), 403)

    def test_who_is_served(self) -> None:
        refusals: list[Refusal] = []
        told = Reader(on_refusal=lambda refusal, request: refusals.append(refusal))
        self.served(RequireUser(whoami), ALICE, ALICE_JSON)
        self.served(OptionalUser(whoami), ALICE, ALICE_JSON)
        self.served(OptionalUser(whoami), [], None)
        self.refused(RequireUser(whoami, told), [], 401)
        self.served(OptionalUser(whoami, told), [], None)
        self.refused(OptionalUser(whoami, told), [("x-user-id", "%")], 400)
        self.refused(RequireInternalKey(whoami, [hash_key("k")], told), ALICE, 403)
        self.refused(RequireUser(RequireRole(whoami, "admin"), told), ALICE, 403)
        self.refused(OptionalUser(RequireRole(whoami, "admin"), told), [], 401)
        self.assertEqual(
            [type(r).__name__ for r in refusals],
            ["AnonymousError", "MalformedError", "ForbiddenError", "ForbiddenError", "AnonymousError"],
        )
        self.served(OptionalUser(RequireRole(whoami, "admin", "member")), ALICE, ALICE_JSON)
        self.refused(OptionalUser(RequireRole(whoami, "member")), [], 401)
        self.refused(RequireRole(whoami, "member"), ALICE, 401)  # nobody has read who it is
        self.refused(RequireUser(RequireRole(whoami, "admin", "")), ALICE, 403)
        self.refused(RequireUser(RequireRole(whoami)), ALICE, 403)

    def test_a_user_from_elsewhere_is_hidden(self) -> None:
        mallory = User("mallory", roles=("member",))
        self.served(OptionalUser(whoami), [], None, **{"gatehouse.user": mallory})
        self.refused(RequireUser(whoami), [], 401, **{"gatehouse.user": mallory})

    def test_refused_heads_have_no_body(self) -> None:
        for app in (RequireUser(whoami), RequireRole(whoami, "admin"), RequireInternalKey(whoami, [])):
            status, body = ask(app, [], method="HEAD")
            self.assertEqual((status // 100, body), (4, b""))

    def test_headers_that_can_be_read_once(self) -> None:
        headers = [(b"x-user-id", b"alice"), (b"x-internal-api-key", b"k")]
        app = RequireInternalKey(OptionalUser(RequireRole(whoami)), [hash_key("k")])
        start, _ = run(app, {"type": "http", "headers": iter(headers)})
        self.assertEqual(start["status"], 403)  # alice, who has no role; nobody would be 401

    def test_websockets_are_refused_before_they_are_accepted(self) -> None:
        scope: dict[str, Any] = {"type": "websocket", "headers": [(b"x-user-id", b"alice")]}
        self.assertEqual(run(RequireUser(whoami), scope), [{"type": "websocket.accept"}])
        scope["headers"] = []
        self.assertEqual(
            run(RequireUser(whoami), scope),
            [{"type": "websocket.close", "code": 1008, "reason": "No token provided"}],
        )
        scope["extensions"] = {"websocket.http.response": {}}
        start, body = run(RequireUser(whoami), scope)
        self.assertEqual((start["type"], start["status"]), ("websocket.http.response.start", 401))
        self.assertEqual(body, {"type": "websocket.http.response.body", "body": ANSWER[401]})

    def test_other_connections(self) -> None:
        for app in (RequireUser(whoami), RequireRole(whoami), RequireInternalKey(whoami, [])):
            self.assertEqual(run(app, {"type": "lifespan"}), [{"type": "lifespan.startup.complete"}])
            with self.assertRaises(ValueError):
                run(app, {"type": "something-new", "headers": []})


if __name__ == "__main__":
    unittest.main()
