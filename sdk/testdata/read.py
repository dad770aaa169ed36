"""Reads lists of headers from a file, and says what each is: for TestAllReadTheSame."""

import json
import sys

from gatehouse_usercontext import MalformedError, read_user


def outcome(headers):
    try:
        user = read_user([(name, value) for name, value in headers])
    except MalformedError:
        return "malformed"
    return user.as_dict() if user else "anonymous"


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([outcome(headers) for headers in json.load(file)]))
