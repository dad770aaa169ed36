"""The cases of services/usercontext/testdata/assertions.json."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gatehouse_usercontext import MalformedError, Reader, Refusal, asgi, wsgi

from . import test_asgi, test_wsgi
from .cases import CONTRACT_FILE

FILE = Path(CONTRACT_FILE).with_name("assertions.json")
CONTRACT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
INSTALLED = importlib.util.find_spec("cryptography") is not None

if TYPE_CHECKING or INSTALLED:
    from gatehouse_usercontext.assertion import KeysUnavailableError, UnverifiedError, VerifiedUser, Verifier


class Without(unittest.TestCase):
    def test_middleware_needs_nothing(self) -> None:
        hidden = "import sys; sys.modules['cryptography'] = None\nimport gatehouse_usercontext.asgi, gatehouse_usercontext.wsgi"
        subprocess.run([sys.executable, "-c", hidden], env=os.environ, check=True)

    def test_the_error_says_what_to_install(self) -> None:
        hidden = "import sys; sys.modules['cryptography'] = None\nimport gatehouse_usercontext.assertion"
        done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, env=os.environ, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("install gatehouse-usercontext[assertion]", done.stderr)


class Gate:
    """A clock, and keys that are published."""

    def __init__(self) -> None:
        self.now: float = CONTRACT["now"]
        self.jwks: Any = CONTRACT["jwks"]
        self.down = False
        self.fetches = 0

    def fetch(self, url: str) -> bytes:
        self.fetches += 1
        if self.down:
            raise OSError("down")
        return json.dumps(self.jwks).encode()

    def verifier(self, **options: Any) -> Verifier:
        standard: dict[str, Any] = {
            "issuer": CONTRACT["issuer"],
            "audience": CONTRACT["audience"],
            "jwks_url": "https://gateway.example.com/.well-known/jwks.json",
            "now": lambda: self.now,
            "fetch": self.fetch,
        }
        return Verifier(**standard | options)


class Answers(BaseHTTPRequestHandler):
    """The gate's address, for one test."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.answer(self)  # type: ignore[attr-defined]


@contextmanager
def answering(answer: Callable[[Answers], None]) -> Iterator[str]:
    """The URL of a server that answers with this."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.block_on_close = False
    server.answer = answer  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environ_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    return {"HTTP_" + name.upper().replace("-", "_"): value for name, value in pairs}


def headers(name: str) -> list[tuple[str, str]]:
    return [(h[0], h[1]) for case in CONTRACT["cases"] if case["name"] == name for h in case["headers"]]


class Assertions(unittest.TestCase):
    def test_contract(self) -> None:
        self.assertGreater(len(CONTRACT["cases"]), 60)
        for case in CONTRACT["cases"]:
            with self.subTest(case["name"]):
                verifier = Gate().verifier()
                pairs = [(name, value) for name, value in case["headers"]]
                if case["want"] == "malformed":
                    with self.assertRaises(MalformedError):
                        verifier.read_user(pairs)
                    continue
                environ = environ_of(pairs)
                reads: list[Callable[[], VerifiedUser | None]] = [
                    lambda: verifier.read_user(pairs),
                    lambda: verifier.read_environ(environ),
                    lambda: asyncio.run(verifier.read_user_async(pairs)),
                ]
                for read in reads:
                    if case["want"] == "unverified":
                        with self.assertRaises(UnverifiedError) as refused:
                            read()
                        self.assertNotIn("alice", str(refused.exception))
                        continue
                    found = read()
                    if case["want"] == "anonymous":
                        self.assertIsNone(found)
                        continue
                    assert found is not None
                    self.assertEqual(found.user.as_dict(), case["user"])
                    self.assertEqual(found.session_id, case.get("sessionId", ""))

    def test_rotation_floods_and_outages(self) -> None:
        gate = Gate()
        gate.down = True
        verifier = gate.verifier()
        valid, unknown = headers("valid"), headers("another kid")
        with self.assertRaises(KeysUnavailableError):
            verifier.read_user(valid)
        gate.down = False
        with self.assertRaises(KeysUnavailableError):
            verifier.read_user(valid)  # not so soon again
        self.assertEqual(gate.fetches, 1)
        gate.now += 10
        for _ in range(20):
            verifier.read_user(valid)
            with self.assertRaises(UnverifiedError):
                verifier.read_user(unknown)
        self.assertEqual(gate.fetches, 2)
        gate.jwks = {"keys": []}
        gate.now += 10
        with self.assertRaises(UnverifiedError):
            verifier.read_user(unknown)
        self.assertEqual(gate.fetches, 3)
        with self.assertRaises(UnverifiedError):
            verifier.read_user(valid)  # taken back

    def test_key_sets(self) -> None:
        self.assertGreater(len(CONTRACT["keySets"]), 30)
        for one in CONTRACT["keySets"]:
            with self.subTest(one["name"]):
                verifier = Gate().verifier(fetch=lambda url, text=one["text"]: text.encode())
                if one["want"] == "user":
                    self.assertIsNotNone(verifier.read_user(headers("valid")))
                    continue
                with self.assertRaises(UnverifiedError if one["want"] == "unverified" else KeysUnavailableError):
                    verifier.read_user(headers("valid"))

    def test_errors_say_what_to_set(self) -> None:
        for name, want in (
            ("iss of another gate", f'iss is not "{CONTRACT["issuer"]}": make issuer'),
            ("aud of another service", f'aud is not "{CONTRACT["audience"]}": make audience'),
        ):
            with self.assertRaises(UnverifiedError) as refused:
                Gate().verifier().read_user(headers(name))
            self.assertIn(want, str(refused.exception))

    def test_whatever_fetch_raises_is_an_outage(self) -> None:
        class OwnError(Exception):
            pass

        gate = Gate()
        broken = False

        def fetch(url: str) -> bytes:
            if broken:
                raise OwnError
            return gate.fetch(url)

        verifier = gate.verifier(fetch=fetch)
        verifier.read_user(headers("valid"))
        broken = True
        gate.now += 10
        with self.assertRaises(KeysUnavailableError):
            verifier.read_user(headers("another kid"))
        verifier.read_user(headers("valid"))
        for text in (b"[" * 100_000, b" " * (256 << 10) + b'{"keys":[]}', b"\xff"):
            with self.assertRaises(KeysUnavailableError):
                Gate().verifier(fetch=lambda url, text=text: text).read_user(headers("valid"))

    def test_known_keys_are_good_while_others_are_fetched(self) -> None:
        gate = Gate()
        asked, go = threading.Event(), threading.Event()
        slow = False

        def fetch(url: str) -> bytes:
            if slow:
                asked.set()
                go.wait()
            return gate.fetch(url)

        verifier = gate.verifier(fetch=fetch)
        verifier.read_user(headers("valid"))
        slow = True
        gate.now += 10
        raised: list[Exception] = []

        def stranger() -> None:
            try:
                verifier.read_user(headers("another kid"))
            except UnverifiedError as error:
                raised.append(error)

        strangers = [threading.Thread(target=stranger) for _ in range(4)]
        for thread in strangers:
            thread.start()
        asked.wait()
        self.assertIsNotNone(verifier.read_user(headers("valid")))  # which waits for nobody
        self.assertIsNotNone(asyncio.run(verifier.read_user_async(headers("valid"))))
        go.set()
        for thread in strangers:
            thread.join()
        self.assertEqual(len(raised), len(strangers))
        self.assertEqual(gate.fetches, 2)

    def test_other_tasks_go_on_while_one_waits(self) -> None:
        gate = Gate()
        go = threading.Event()

        def fetch(url: str) -> bytes:
            go.wait()  # for the other task
            return gate.fetch(url)

        async def both() -> VerifiedUser | None:
            verifier = gate.verifier(fetch=fetch)
            waiting = asyncio.create_task(verifier.read_user_async(headers("valid")))
            await asyncio.sleep(0.01)
            go.set()
            return await waiting

        self.assertIsNotNone(asyncio.run(both()))

    def test_a_clock_that_was_set_back(self) -> None:
        gate = Gate()
        gate.now += 24 * 3600
        verifier = gate.verifier()
        with self.assertRaises(UnverifiedError):
            verifier.read_user(headers("another kid"))  # fetches
        gate.now = CONTRACT["now"]
        gate.jwks = {"keys": []}
        with self.assertRaises(UnverifiedError):
            verifier.read_user(headers("valid"))  # taken back

    def test_fetching(self) -> None:
        good = json.dumps(CONTRACT["jwks"]).encode()

        def ok(request: Answers) -> None:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(good)

        def elsewhere(request: Answers) -> None:
            request.send_response(302)
            request.send_header("Location", kept)
            request.end_headers()

        def of_another_status(request: Answers) -> None:
            request.send_response(203)
            request.end_headers()
            request.wfile.write(good)

        def endless(request: Answers) -> None:
            request.send_response(200)
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(b" " * 65536)

        def trickling(request: Answers) -> None:
            request.send_response(200)
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(b" ")
                    request.wfile.flush()
                    time.sleep(0.1)

        with answering(ok) as kept:
            self.assertIsNotNone(Gate().verifier(jwks_url=kept, fetch=None).read_user(headers("valid")))
            for answer in (elsewhere, of_another_status, endless, trickling):
                with self.subTest(answer.__name__), answering(answer) as url, self.assertRaises(KeysUnavailableError):
                    Gate().verifier(jwks_url=url, fetch=None).read_user(headers("valid"))

    def test_middleware(self) -> None:
        def asked(app: Any, pairs: list[tuple[str, str]]) -> tuple[int, bytes]:
            return test_wsgi.ask(app, environ_of(pairs))

        def wsgi_session(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [wsgi.current_session(environ).encode()]

        async def asgi_session(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": asgi.current_session(scope).encode()})

        for module, ask, whoami, session in (
            (wsgi, asked, test_wsgi.whoami, wsgi_session),
            (asgi, test_asgi.ask, test_asgi.whoami, asgi_session),
        ):
            with self.subTest(module.__name__):
                assert isinstance(module, ModuleType)
                gate = Gate()
                refusals: list[Refusal] = []

                def note(refusal: Refusal, request: object, refusals: list[Refusal] = refusals) -> None:
                    refusals.append(refusal)

                reader = Reader(on_refusal=note)
                verifier = gate.verifier()
                required = module.RequireUser(whoami, reader, verifier=verifier)
                optional = module.OptionalUser(whoami, reader, verifier=verifier)
                valid = headers("valid")
                for app in (required, optional):
                    status, body = ask(app, valid)
                    self.assertEqual((status, json.loads(body)["userId"]), (200, "alice"))
                    self.assertEqual(ask(app, valid[:4]), (403, b'{"error":"Forbidden"}'))
                self.assertEqual(ask(module.RequireUser(session, verifier=verifier), valid), (200, b"handle-of-the-session"))
                # Whom somebody further out verified is not the user of what is inside.
                inner = module.RequireUser(module.OptionalUser(session), verifier=verifier)
                self.assertEqual(ask(inner, valid), (200, b""))
                self.assertEqual(ask(required, []), (401, b'{"error":"No token provided"}'))
                self.assertEqual(ask(optional, []), (200, b"null"))
                self.assertEqual(ask(required, headers("twice" if module is asgi else "plain headers malformed"))[0], 400)
                gate.down = True
                gate.now += 25 * 3600
                self.assertEqual(ask(required, valid), (503, b'{"error":"Authentication unavailable"}'))
                self.assertEqual(
                    [type(refusal).__name__ for refusal in refusals],
                    ["UnverifiedError", "UnverifiedError", "AnonymousError", "MalformedError", "KeysUnavailableError"],
                )

    def test_options_that_make_no_sense(self) -> None:
        good: dict[str, Any] = {"issuer": "i", "audience": "a", "jwks_url": "https://gateway.example.com/jwks"}
        Verifier(**good | {"jwks_url": "http://127.0.0.1:8081/jwks"})
        for wrong in (
            {"issuer": ""}, {"audience": ""}, {"jwks_url": "gateway"}, {"jwks_url": "http://gateway.example.com/jwks"},
            {"jwks_url": "file:///jwks"}, {"leeway": 61}, {"leeway": -1}, {"leeway": float("nan")},
        ):
            with self.subTest(wrong), self.assertRaises(ValueError):
                Verifier(**good | wrong)


if not INSTALLED:  # sdk/sdk_test.go looks for a Python that has it
    globals().pop("Assertions")
