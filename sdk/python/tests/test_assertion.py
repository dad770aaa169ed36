"""The cases of services/usercontext/testdata/assertions.json."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehouse_usercontext import MalformedError

from .cases import CONTRACT_FILE

FILE = Path(CONTRACT_FILE).with_name("assertions.json")
CONTRACT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
INSTALLED = importlib.util.find_spec("cryptography") is not None

if TYPE_CHECKING or INSTALLED:
    from gatehouse_usercontext.assertion import KeysUnavailableError, UnverifiedError, VerifiedUser, Verifier


class Without(unittest.TestCase):
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

    def verifier(self) -> Verifier:
        return Verifier(
            issuer=CONTRACT["issuer"],
            audience=CONTRACT["audience"],
            jwks_url="https://gateway.example.com/.well-known/jwks.json",
            now=lambda: self.now,
            fetch=self.fetch,
        )


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
                environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in pairs}
                reads: list[Callable[[], VerifiedUser | None]] = [
                    lambda: verifier.read_user(pairs),
                    lambda: verifier.read_environ(environ),
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
