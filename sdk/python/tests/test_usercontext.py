from __future__ import annotations

import dataclasses
import unittest
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from gatehouse_usercontext import (
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

from .cases import CONTRACT, environ, moment, pairs, reader, text, wanted


class CommonCases(unittest.TestCase):
    """The cases that all languages have in common."""

    def check_user(self, case: dict[str, Any], want: dict[str, Any], read: Any) -> None:
        if want["want"] == "malformed":
            with self.assertRaises(MalformedError):
                read()
            return
        user = read()
        if want["want"] == "anonymous":
            self.assertIsNone(user)
            return
        self.assertIsInstance(user, User)
        if "requireRole" in case:
            self.assertEqual(user.has_role(*case["requireRole"]), want["want"] == "user")
        if want["want"] == "user":
            self.assertEqual(user.as_dict(), wanted(want["user"]))
        self.assertEqual(user.service(), case.get("service"))

    def test_users(self) -> None:
        for case in CONTRACT["users"]:
            with self.subTest(case["name"]):
                read = reader(case).read_user
                self.check_user(case, case, lambda: read(pairs(case)))
                as_asgi = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs(case)]
                self.check_user(case, case, lambda: read(as_asgi))

    def test_users_in_wsgi(self) -> None:
        for case in CONTRACT["users"]:
            with self.subTest(case["name"]):
                read = reader(case).read_environ
                self.check_user(case, case.get("wsgi", case), lambda: read(environ(case)))

    def test_keys(self) -> None:
        for case in CONTRACT["keys"]:
            with self.subTest(case["name"]):
                keys = [parse_key(key) for key in case["keys"]]
                read = reader(case, now=lambda: moment(case["now"]))
                checks: list[tuple[bool, Callable[[], None]]] = [
                    (case["admitted"], lambda: read.check_internal_key(pairs(case), keys)),
                    (case.get("wsgi", case["admitted"]), lambda: read.check_internal_key_environ(environ(case), keys)),
                ]
                for admitted, check in checks:
                    if admitted:
                        check()
                        continue
                    with self.assertRaises(ForbiddenError) as caught:
                        check()
                    for _, value in pairs(case):
                        self.assertTrue(value == "" or value not in str(caught.exception), caught.exception)

    def test_texts(self) -> None:
        for case in CONTRACT["texts"]:
            with self.subTest(case.get("refused", case["text"])):
                if "refused" in case:
                    with self.assertRaises(ValueError) as caught:
                        parse_key(case["text"])
                    self.assertNotIn("hush", str(caught.exception))
                    continue
                key = parse_key(case["text"])
                self.assertEqual(key.sha256.hex(), case["sha256"])
                self.assertEqual(key.expires, moment(case["expires"]) if "expires" in case else None)

    def test_impossible_options(self) -> None:
        for case in CONTRACT["impossible"]:
            with self.subTest(case), self.assertRaises(ValueError):
                reader(case)


class Reading(unittest.TestCase):
    def test_no_error_repeats_a_value(self) -> None:
        for headers in (
            [("x-user-id", "hush%")],
            [("x-user-id", "hush%00")],
            [("x-user-id", "hush hush")],
            [("x-user-id", "hush,hush\n")],
            [("x-user-id", "%ffhush")],
            [("x-user-id", "hush"), ("x-user-id", "hush")],
            [("x-user-id", "alice"), ("x-user-roles", "hush")],
            [("x-user-id", "alice"), ("x-user-roles", '["hush\\n"]')],
            [("x-user-id", "alice"), ("x-user-roles", '["hush\\ud800"]')],
            [("x_user_id", "hush")],
            [("x-user-email", "hush")],
        ):
            with self.assertRaises(MalformedError) as caught:
                read_user(headers)
            self.assertNotIn("hush", str(caught.exception))
            self.assertTrue(caught.exception.__suppress_context__ or caught.exception.__context__ is None)

    def test_a_mapping_has_lost_headers(self) -> None:
        headers: Any = {"x-user-id": "alice"}
        with self.assertRaises(TypeError):
            read_user(headers)
        with self.assertRaises(TypeError):
            check_internal_key(headers, [])

    def test_the_kelvin_sign_is_no_k(self) -> None:
        with self.assertRaises(ForbiddenError):
            check_internal_key([("x-internal-api-\u212aey", "k")], [hash_key("k")])

    def test_commas_in_wsgi(self) -> None:
        for name in ("HTTP_X_USER_ID", "HTTP_X_USER_EMAIL", "HTTP_X_ORG_ID"):
            with self.assertRaises(MalformedError):
                read_environ({"HTTP_X_USER_ID": "alice", name: "a,b"})
        relaxed = Reader(insecure_allow_commas=True)
        self.assertEqual(relaxed.read_environ({"HTTP_X_USER_ID": "a,b"}), User("a,b"))
        self.assertEqual(read_environ({"HTTP_X_USER_ID": "a%2Cb"}), User("a,b"))
        self.assertIsNone(read_environ({}))
        with self.assertRaises(TypeError):
            read_environ({"HTTP_X_USER_ID": b"alice"})

    def test_a_key_is_made_of_bytes(self) -> None:
        check_internal_key([("x-internal-api-key", "\u00c3\u00bf")], [hash_key("\u00ff")])
        with self.assertRaises(ForbiddenError):
            check_internal_key([("x-internal-api-key", "\u01c3\u01bf")], [hash_key("\u00ff")])

    def test_keys_that_cannot_be_valid(self) -> None:
        with self.assertRaises(ValueError):
            Key(b"")
        with self.assertRaises(ValueError):
            Key(bytes(32), datetime(2027, 1, 1))
        with self.assertRaises(ForbiddenError):
            check_internal_key([("x-internal-api-key", "k")], [Key(bytes(32))])
        with self.assertRaises(ForbiddenError):
            check_internal_key([("x-internal-api-key", "")], [hash_key("")])
        expired = Key(hash_key("k").sha256, datetime(2020, 1, 1, tzinfo=timezone.utc))
        with self.assertRaises(ForbiddenError):
            check_internal_key([("x-internal-api-key", "k")], [expired])

    def test_a_user_cannot_be_changed_and_is_never_nobody(self) -> None:
        roles: Any = ["member"]
        user = User("alice", roles=roles)
        roles.append("admin")
        self.assertFalse(user.has_role("admin"))
        self.assertFalse(user.has_role())
        with self.assertRaises(dataclasses.FrozenInstanceError):
            user.id = "bob"  # type: ignore[misc]
        with self.assertRaises(ValueError):
            User("")

    def test_the_bound_is_of_all_values_together(self) -> None:
        headers = [("x-user-id", "alice"), ("x-org-id", "o")]
        self.assertEqual(Reader(max_bytes=6).read_user(headers), User("alice", organization_id="o"))
        with self.assertRaises(MalformedError):
            Reader(max_bytes=5).read_user(headers)
        with self.assertRaises(ValueError):
            Reader(max_bytes=0)

    def test_refusals_say_what_they_are(self) -> None:
        for refusal, status, answer in (
            (AnonymousError, 401, "No token provided"),
            (MalformedError, 400, "Bad request"),
            (ForbiddenError, 403, "Forbidden"),
        ):
            self.assertTrue(issubclass(refusal, Refusal))
            self.assertEqual((refusal.status, refusal.answer), (status, answer))

    def test_text_is_for_texts(self) -> None:
        self.assertEqual(text({"repeat": "ab", "times": 2}), "abab")


if __name__ == "__main__":
    unittest.main()
