import assert from "node:assert/strict";
import { createServer, IncomingMessage } from "node:http";
import { type AddressInfo, Socket } from "node:net";
import { suite, test } from "node:test";

import {
  AnonymousError,
  checkInternalKey,
  currentUser,
  DEFAULT_MAX_BYTES,
  ForbiddenError,
  hashKey,
  type HeaderLines,
  MalformedError,
  parseKey,
  Reader,
  readUser,
  Refusal,
  setCurrentUser,
  User,
} from "@gatehouse-auth/usercontext";

import { contract, options, raw, STATUS, text, wanted } from "./cases.js";
import { ask, listen } from "./wire.js";

suite("the cases that all languages have in common", () => {
  for (const c of contract.users) {
    test(`user: ${c.name}`, () => {
      const reader = new Reader(options(c.options));
      const lines = raw(c.headers);
      for (const headers of [lines, { rawHeaders: lines }, c.headers.map(([n, v]) => [text(n), text(v)] as const)] as HeaderLines[]) {
        if (c.want === "malformed") {
          assert.throws(() => reader.readUser(headers), (error) => error instanceof MalformedError && error.status === STATUS.malformed);
          continue;
        }
        const user = reader.readUser(headers);
        if (c.want === "anonymous") {
          assert.equal(user, undefined);
          continue;
        }
        assert(user);
        if (c.requireRole) assert.equal(user.hasRole(...c.requireRole), c.want === "user");
        if (c.want === "user") assert.deepEqual(JSON.parse(JSON.stringify(user)), wanted(c.user));
        assert.equal(user.service(), c.service);
      }
    });
  }
  for (const c of contract.keys) {
    test(`key: ${c.name}`, () => {
      const reader = new Reader({ ...options(c.options), now: () => new Date(c.now) });
      const check = () => reader.checkInternalKey(raw(c.headers), c.keys.map(parseKey));
      if (c.admitted) {
        check();
        return;
      }
      assert.throws(check, (error) => {
        assert(error instanceof ForbiddenError);
        for (const [, value] of c.headers) assert(text(value) === "" || !error.message.includes(text(value)), error.message);
        return true;
      });
    });
  }
  for (const c of contract.texts) {
    test(`key as a text: ${c.refused ?? c.text}`, () => {
      if (c.refused !== undefined) {
        assert.throws(() => parseKey(c.text), (error) => error instanceof TypeError && !error.message.includes("hush"));
        return;
      }
      const key = parseKey(c.text);
      assert.equal(Buffer.from(key.sha256).toString("hex"), c.sha256);
      assert.equal(key.expires?.getTime(), c.expires === undefined ? undefined : Date.parse(c.expires));
    });
  }
  for (const o of contract.impossible) {
    test(`options: ${JSON.stringify(o)}`, () => assert.throws(() => new Reader(options(o)), TypeError));
  }
});

test("no error repeats a value", () => {
  const secret = "hush";
  for (const lines of [
    ["x-user-id", `${secret}%`],
    ["x-user-id", `${secret}%00`],
    ["x-user-id", `${secret} ${secret}`],
    ["x-user-id", secret, "x-user-id", secret],
    ["x-user-id", "alice", "x-user-roles", secret],
    ["x-user-id", "alice", "x-user-roles", `["${secret}\\n"]`],
    ["x_user_id", secret],
    ["x-user-email", secret],
  ]) {
    assert.throws(
      () => readUser(lines),
      (error) => error instanceof MalformedError && !error.message.includes(secret) && !String(error.stack).includes(secret),
    );
  }
});

test("what has lost headers is not read", async () => {
  for (const lost of [{ "x-user-id": "alice" }, { rawHeaders: undefined }, { rawHeaders: "x-user-id" }, ["x-user-id"], [["x-user-id"]], [["x-user-id", ["a", "b"]]]])
    assert.throws(() => readUser(lost as unknown as HeaderLines), TypeError, JSON.stringify(lost));

  // As they come from the wire: headers has joined what rawHeaders still tells apart.
  let joined: unknown;
  const server = createServer({ maxHeaderSize: 1 << 20 }, (req, res) => {
    joined = req.headers["x-user-id"];
    try {
      res.end(JSON.stringify(readUser(req)));
    } catch (error) {
      assert(error instanceof Refusal);
      res.writeHead(error.status).end(error.name);
    }
  });
  const port = await listen(server);
  assert.equal((await ask(port, "/", ["x-user-id", "alice"])).status, 200);
  assert.match((await ask(port, "/", ["x-user-id", "alice", "X-User-ID", "bob"])).body, /MalformedError/);
  assert.equal(joined, "alice, bob");
  // Node drops what is beyond maxHeadersCount.
  const many = Array.from({ length: 1100 }, (_, i) => [`a${i}`, "1"]).flat();
  assert.equal((await ask(port, "/", [...many, "x-user-id", "alice"])).status, 400);
  assert.equal(joined, undefined);
  assert.throws(() => readUser([...many, "x-user-id", "alice"]), MalformedError);
  server.close();

  // So it does where the server keeps fewer: it looks 32 headers at a time.
  const small = createServer((req, res) => {
    try {
      res.end(JSON.stringify(readUser(req) ?? null));
    } catch (error) {
      assert(error instanceof Refusal);
      res.writeHead(error.status).end(error.name);
    }
  });
  for (const [count, before] of [
    [64, 61], // the id is kept and the roles are not
    [64, 90],
    [20, 29],
  ] as const) {
    small.maxHeadersCount = count;
    const at = small.listening ? (small.address() as AddressInfo).port : await listen(small);
    const asked = ["x-user-id", "alice", "x-user-roles", '["member"]'];
    assert.deepEqual((await ask(at, "/", asked)).status, 200);
    assert.match((await ask(at, "/", [...many.slice(0, 2 * before), ...asked])).body, /MalformedError/, `${before} of ${count}`);
  }
  small.close();

  // What didn't come over a wire may have headers only.
  const made = new IncomingMessage(new Socket());
  assert.equal(readUser(made), undefined);
  made.headers["x-user-id"] = "alice";
  assert.throws(() => readUser(made), TypeError);
});

test("a Fetch API's headers are read, and refused where they were joined", () => {
  assert.deepEqual(readUser(new Headers({ "X-User-Id": "alice", "x-user-roles": '["member"]' }))?.roles, ["member"]);
  for (const [name, first, second] of [
    ["x-user-id", "alice", "bob"],
    ["x-user-email", "a@example.com", "b@example.com"],
    ["x-org-id", "org-1", "org-2"],
    ["x-user-roles", '["member"]', '["admin"]'],
  ] as const) {
    const headers = new Headers({ "x-user-id": "alice" });
    headers.set(name, first);
    headers.append(name, second);
    assert.throws(() => readUser(headers), MalformedError, name);
  }
});

test("a key is made of bytes", () => {
  const key = hashKey("\u00ff");
  checkInternalKey(["x-internal-api-key", "\u00c3\u00bf"], [key]); // as UTF-8 comes over the wire
  assert.throws(() => checkInternalKey(["x-internal-api-key", "\u01c3\u01bf"], [key]), ForbiddenError);
});

test("keys that can't be valid", () => {
  const lines = ["x-internal-api-key", "k"];
  const { sha256 } = hashKey("k");
  for (const key of [
    { sha256: new Uint8Array(0) },
    { sha256: sha256.subarray(1) },
    { sha256: new Uint8Array(32) },
    { sha256, expires: new Date(Number.NaN) },
  ])
    assert.throws(() => checkInternalKey(lines, [key]), ForbiddenError);
  checkInternalKey(lines, [{ sha256: new Uint8Array(0) }, { sha256 }]);
  assert.throws(() => checkInternalKey(["x-internal-api-key", ""], [hashKey("")]), ForbiddenError);
});

test("a user can't be changed, and is never nobody", () => {
  const user = new User({ id: "alice", roles: ["member"] });
  assert.throws(() => (user.roles as string[]).push("admin"), TypeError);
  assert.throws(() => ((user as { id: string }).id = "bob"), TypeError);
  assert.throws(() => new User({ id: "" }), TypeError);
  const roles = ["member"];
  const copied = new User({ id: "alice", roles });
  roles.push("admin");
  assert.equal(copied.hasRole("admin"), false);
  assert.equal(user.hasRole(), false);
});

test("the user of a request is nothing in the request", () => {
  const request = { user: new User({ id: "mallory" }), raw: undefined };
  assert.equal(currentUser(request), undefined);
  const user = new User({ id: "alice" });
  setCurrentUser(request, user);
  assert.equal(currentUser(request), user);
  setCurrentUser(request, undefined);
  assert.equal(currentUser(request), undefined);
  const wrapped = { raw: {} };
  setCurrentUser(wrapped, user);
  assert.equal(currentUser(wrapped.raw), user);
});

test("the bound is of all values together, in bytes", () => {
  assert.equal(DEFAULT_MAX_BYTES, 16384);
  assert.throws(() => new Reader({ maxBytes: 0 }), TypeError);
  assert.throws(() => new Reader({ maxBytes: Number.NaN }), TypeError);
  new Reader({ maxBytes: 5 }).readUser(["x-user-id", "alice"]);
  assert.throws(() => new Reader({ maxBytes: 4 }).readUser(["x-user-id", "alice"]), MalformedError);
});

test("refusals say what they are", () => {
  assert.deepEqual(
    [new AnonymousError(), new MalformedError(), new ForbiddenError()].map((e) => [e instanceof Refusal, e.name, e.status, e.answer]),
    [
      [true, "AnonymousError", 401, "No token provided"],
      [true, "MalformedError", 400, "Bad request"],
      [true, "ForbiddenError", 403, "Forbidden"],
    ],
  );
});
