import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { KeysUnavailableError, MalformedError, UnverifiedError, Verifier } from "@gatehouse-auth/usercontext";
import { currentSession, currentUser, optionalVerifiedUser, requireVerifiedUser } from "@gatehouse-auth/usercontext/express";

import { file } from "./cases.js";

interface Contract {
  now: number;
  issuer: string;
  audience: string;
  jwks: unknown;
  cases: {
    name: string;
    headers: [string, string][];
    want: "user" | "anonymous" | "malformed" | "unverified";
    user?: unknown;
    sessionId?: string;
  }[];
}

const contract = JSON.parse(readFileSync(file.toString().replace(/contract\.json$/, "assertions.json").replace(/^file:\/\//, ""), "utf8")) as Contract;

interface Published {
  body: unknown;
  status: number;
  fetches: number;
  now: number;
}

function verifier(p: Published): Verifier {
  return new Verifier({
    issuer: contract.issuer,
    audience: contract.audience,
    jwksUrl: "https://gateway.example.com/.well-known/jwks.json",
    now: () => new Date(p.now * 1000),
    fetch: () => {
      p.fetches++;
      return Promise.resolve(new Response(JSON.stringify(p.body), { status: p.status }));
    },
  });
}

const published = (): Published => ({ body: contract.jwks, status: 200, fetches: 0, now: contract.now });

for (const c of contract.cases) {
  test(`assertion: ${c.name}`, async () => {
    const read = verifier(published()).readUser(c.headers.flat());
    switch (c.want) {
      case "anonymous":
        assert.equal(await read, undefined);
        return;
      case "malformed":
        await assert.rejects(read, MalformedError);
        return;
      case "unverified":
        await assert.rejects(read, (error) => error instanceof UnverifiedError && !error.message.includes("alice"));
        return;
    }
    const found = await read;
    assert.deepEqual(JSON.parse(JSON.stringify(found?.user)), c.user);
    assert.equal(found?.sessionId, c.sessionId ?? "");
  });
}

const valid = contract.cases[0]?.headers.flat() ?? [];

test("unknown keys can't hammer the gate, and its outage is no refusal", async () => {
  const p = { ...published(), status: 502 };
  const v = verifier(p);
  await assert.rejects(v.readUser(valid), KeysUnavailableError);
  p.status = 200;
  await assert.rejects(v.readUser(valid), KeysUnavailableError, "not so soon again");
  assert.equal(p.fetches, 1);
  p.now += 10;
  await Promise.all(Array.from({ length: 20 }, () => v.readUser(valid)));
  assert.equal(p.fetches, 2, "one fetch for all who wait");
  const unknown = contract.cases.find((c) => c.name === "another kid")?.headers.flat() ?? [];
  for (let i = 0; i < 50; i++) await assert.rejects(v.readUser(unknown), UnverifiedError);
  assert.equal(p.fetches, 2);
  p.body = { keys: [] };
  p.now += 10;
  await assert.rejects(v.readUser(unknown), UnverifiedError);
  assert.equal(p.fetches, 3);
  await assert.rejects(v.readUser(valid), UnverifiedError, "taken back");
});

test("options that make no sense", () => {
  const good = { issuer: "i", audience: "a", jwksUrl: "https://gateway.example.com/jwks" };
  for (const wrong of [{ issuer: "" }, { audience: "" }, { jwksUrl: "gateway" }, { jwksUrl: "http://gateway.example.com/jwks" }, { jwksUrl: "file:///jwks" }, { leeway: 61 }, { leeway: -1 }, { leeway: NaN }])
    assert.throws(() => new Verifier({ ...good, ...wrong }), TypeError, JSON.stringify(wrong));
  assert.ok(new Verifier({ ...good, jwksUrl: "http://127.0.0.1:8081/jwks" }));
});

test("middleware", async () => {
  const p = published();
  const v = verifier(p);
  const server = createServer((req, res) => {
    const handler = req.url === "/optional" ? optionalVerifiedUser(v) : requireVerifiedUser(v);
    handler(req, res, () => {
      res.end(`${currentUser(req)?.id ?? "nobody"} ${currentSession(req)}`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const ask = async (path: string, headers: [string, string][]): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, { headers });
    return `${response.status} ${await response.text()}`;
  };
  try {
    const headers = contract.cases[0]?.headers ?? [];
    assert.equal(await ask("/", headers), "200 alice handle-of-the-session");
    assert.equal(await ask("/", headers.slice(0, 4)), '403 {"error":"Forbidden"}');
    assert.equal(await ask("/", []), '401 {"error":"No token provided"}');
    assert.equal(await ask("/optional", []), "200 nobody ");
    assert.equal(await ask("/optional", headers.slice(4)), '403 {"error":"Forbidden"}');
    p.status = 500;
    p.now += 25 * 3600;
    assert.equal(await ask("/", headers), '503 {"error":"Authentication unavailable"}');
  } finally {
    server.close();
  }
});
