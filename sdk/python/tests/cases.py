"""The cases that the packages for Go, TypeScript and Python have in common."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from gatehouse_usercontext import Reader

_DEFAULT = Path(__file__).resolve().parents[3] / "services" / "usercontext" / "testdata" / "contract.json"
CONTRACT_FILE = os.environ.get("USERCONTEXT_CONTRACT", _DEFAULT)
CONTRACT: dict[str, list[dict[str, Any]]] = json.loads(Path(CONTRACT_FILE).read_text(encoding="utf-8"))

STATUS = {"user": 200, "anonymous": 401, "malformed": 400, "forbidden": 403}
ANSWER = {
    400: b'{"error":"Bad request"}',
    401: b'{"error":"No token provided"}',
    403: b'{"error":"Forbidden"}',
}


def text(value: Any) -> str:
    """A text, or one that is repeated."""
    return value if isinstance(value, str) else value["repeat"] * value["times"]


def pairs(case: dict[str, Any]) -> list[tuple[str, str]]:
    return [(text(name), text(value)) for name, value in case["headers"]]


def environ(case: dict[str, Any]) -> dict[str, Any]:
    """As wsgiref and most WSGI servers make it of the headers: what is repeated is joined."""
    made: dict[str, Any] = {}
    for name, value in pairs(case):
        key = "HTTP_" + name.replace("-", "_").upper()
        made[key] = f"{made[key]},{value}" if key in made else value
    return made


def wanted(user: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, list) else text(v) for k, v in user.items()}


def moment(rfc3339: str) -> datetime:
    """Python 3.10 reads neither Z nor a fraction of one digit."""
    return datetime.fromisoformat(rfc3339.replace(".5Z", ".500000Z").replace("Z", "+00:00"))


def reader(case: dict[str, Any], **more: Any) -> Reader:
    arguments = {"userId": "user_id", "organizationId": "organization_id", "internalKey": "internal_key"}
    options = case.get("options", case)
    given = {arguments.get(k, k): v for k, v in options.get("names", {}).items()}
    if "maxBytes" in options:
        given["max_bytes"] = options["maxBytes"]
    return Reader(**given, **more)
