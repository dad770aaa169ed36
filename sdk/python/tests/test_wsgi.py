from __future__ import annotations

import http.client
import json
import socket
import threading
import unittest
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from gatehouse_usercontext import Reader, Refusal, User, hash_key, parse_key
from gatehouse_usercontext.wsgi import OptionalUser, RequireInternalKey, RequireRole, RequireUser, current_user

from .cases import ANSWER, CONTRACT, STATUS, environ, moment, pairs, reader, wanted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def whoami(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers the user, or null."""
    user = current_user(environ)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(user and user.as_dict()).encode()]


def ask(app: WSGIApplication, headers: dict[str, Any]) -> tuple[int, bytes]:
    """Calls an application as a server does, which checks what it does."""
    request: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(request)
    request.update(headers)
    status: list[str] = []

    def start_response(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        status.append(line)
        assert ("Content-Type", "application/json") in headers, headers

    answer = validator(app)(request, start_response)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    return int(status[0][:3]), body


ALICE = {"HTTP_X_USER_ID": "alice", "HTTP_X_USER_ROLES": '["member"]'}
ALICE_JSON = {"userId": "alice", "email": "", "roles": ["member"], "organizationId": ""}


class Middleware(unittest.TestCase):
    def refused(self, app: WSGIApplication, headers: dict[str, Any], status: int) -> None:
        self.assertEqual(ask(app, headers), (status, ANSWER[status]))

    def served(self, app: WSGIApplication, headers: dict[str, Any], want: Any) -> None:
        status, body = ask(app, headers)
        self.assertEqual((status, json.loads(body)), (200, want))

    def test_common_cases(self) -> None:
        for case in CONTRACT["users"]:
            with self.subTest(case["name"]):
                want = case.get("wsgi", case)
                app: WSGIApplication = whoami
                if "requireRole" in case:
                    app = RequireRole(app, *case["requireRole"])
                app = RequireUser(app, reader(case))
                if want["want"] == "user":
                    self.served(app, environ(case), wanted(want["user"]))
                else:
                    self.refused(app, environ(case), STATUS[want["want"]])

    def test_common_cases_of_keys(self) -> None:
        for case in CONTRACT["keys"]:
            with self.subTest(case["name"]):
                checked = reader(case, now=lambda: moment(case["now"]))
                app = RequireInternalKey(whoami, [parse_key(key) for key in case["keys"]], checked)
                if case.get("wsgi", case["admitted"]):
                    self.served(app, environ(case), None)
                else:
                    self.refused(app, environ(case), 403)

    def test_who_is_served(self) -> None:
        refusals: list[Refusal] = []
        told = Reader(on_refusal=lambda refusal, request: refusals.append(refusal))
        self.served(RequireUser(whoami), ALICE, ALICE_JSON)
        self.served(OptionalUser(whoami), ALICE, ALICE_JSON)
        self.served(OptionalUser(whoami), {}, None)
        self.refused(RequireUser(whoami, told), {}, 401)
        self.served(OptionalUser(whoami, told), {}, None)
        self.refused(OptionalUser(whoami, told), {"HTTP_X_USER_ID": "%"}, 400)
        self.refused(RequireInternalKey(whoami, [hash_key("k")], told), ALICE, 403)
        self.refused(RequireUser(RequireRole(whoami, "admin"), told), ALICE, 403)
        self.refused(OptionalUser(RequireRole(whoami, "admin"), told), {}, 401)
        self.assertEqual(
            [type(r).__name__ for r in refusals],
            ["AnonymousError", "MalformedError", "ForbiddenError", "ForbiddenError", "AnonymousError"],
        )
        self.served(OptionalUser(RequireRole(whoami, "admin", "member")), ALICE, ALICE_JSON)
        self.refused(OptionalUser(RequireRole(whoami, "member")), {}, 401)
        self.refused(RequireRole(whoami, "member"), ALICE, 401)  # nobody has read who it is
        self.refused(RequireUser(RequireRole(whoami, "admin", "")), ALICE, 403)
        self.refused(RequireUser(RequireRole(whoami)), ALICE, 403)

    def test_a_user_from_elsewhere_is_hidden(self) -> None:
        mallory = User("mallory", roles=("member",))
        self.served(OptionalUser(whoami), {"gatehouse.user": mallory}, None)
        self.refused(RequireUser(whoami), {"gatehouse.user": mallory}, 401)
        self.served(whoami, {"gatehouse.user": mallory.as_dict()}, None)

    def test_refused_heads_have_no_body(self) -> None:
        """What follows the head of such an answer is taken for somebody else's answer by a
        gateway that shares a connection."""
        for app, headers, status in (
            (RequireUser(whoami), {}, 401),
            (OptionalUser(whoami), {"HTTP_X_USER_ID": "%"}, 400),
            (RequireUser(RequireRole(whoami, "admin")), ALICE, 403),
            (RequireInternalKey(whoami, []), ALICE, 403),
        ):
            self.assertEqual(ask(app, {**headers, "REQUEST_METHOD": "HEAD"}), (status, b""))


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class OnTheWire(unittest.TestCase):
    """What a real WSGI server makes of the bytes of a client."""

    def setUp(self) -> None:
        self.server = make_server("127.0.0.1", 0, RequireUser(whoami), handler_class=Quiet)
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def sent(self, *lines: str) -> bytes:
        """All that comes back."""
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def ask(self, *lines: str) -> int:
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=30) as connection:
            head = "\r\n".join(["GET / HTTP/1.0", *lines, "", ""])
            connection.sendall(head.encode("latin-1"))
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status

    def test_headers(self) -> None:
        self.assertEqual(self.ask("x-user-id: alice"), 200)
        self.assertEqual(self.ask("x-user-id: J%C3%BCrgen"), 200)
        self.assertEqual(self.ask(), 401)
        self.assertEqual(self.ask("x-user-id: alice", "X-User-Id: bob"), 400)
        self.assertEqual(self.ask("x-user-id: alice", "x_user_id: bob"), 400)
        self.assertEqual(self.ask("x-user-id: alice", "x-user-id:"), 400)
        self.assertEqual(self.ask("x-user-id: j\u00c3\u00bcrgen"), 400)
        self.assertEqual(self.ask("x-user-id: alice", 'x-user-roles: ["a"]', 'x-user-roles: ["b"]'), 400)

    def test_heads(self) -> None:
        head, behind = self.sent("HEAD / HTTP/1.0").split(b"\r\n\r\n")
        self.assertIn(b" 401 ", head)
        self.assertIn(b"Content-Length: 29", head)  # that of the answer to GET
        self.assertEqual(behind, b"")
        self.assertTrue(self.sent("GET / HTTP/1.0").endswith(ANSWER[401]))


if __name__ == "__main__":
    unittest.main()
