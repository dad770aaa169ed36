import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { KeysUnavailableError, MalformedError, Reader, UnverifiedError, Verifier, type VerifierOptions } from "@gatehouse-auth/usercontext";
import { currentSession, currentUser, optionalVerifiedUser, requireVerifiedUser } from "@gatehouse-auth/usercontext/express";
import * as forFastify from "@gatehouse-auth/usercontext/fastify";
import express from "express";
import fastify from "fastify";

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
  keySets: { name: string; text: string; want: "user" | "unverified" | "unavailable" }[];
}

const contract = JSON.parse(readFileSync(file.toString().replace(/contract\.json$/, "assertions.json").replace(/^file:\/\//, ""), "utf8")) as Contract;

interface Published {
  body: unknown;
  status: number;
  fetches: number;
  now: number;
}

function verifier(p: Published, options: Partial<VerifierOptions> = {}): Verifier {
  return new Verifier({
    issuer: contract.issuer,
    audience: contract.audience,
    jwksUrl: "https://gateway.example.com/.well-known/jwks.json",
    now: () => new Date(p.now * 1000),
    fetch: () => {
      p.fetches++;
      return Promise.resolve(new Response(JSON.stringify(p.body), { status: p.status }));
    },
    ...options,
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

for (const set of contract.keySets) {
  test(`keys: ${set.name}`, async () => {
    const read = verifier(published(), { fetch: () => Promise.resolve(new Response(set.text)) }).readUser(valid);
    if (set.want === "user") assert.equal((await read)?.user.id, "alice");
    else await assert.rejects(read, set.want === "unverified" ? UnverifiedError : KeysUnavailableError);
  });
}

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

// An endless answer, of which nobody may read more than keys can be. By the network, as
// its end is what tells how much was read.
test("the gate's address answers without an end", async () => {
  let ended = false;
  const server = createServer((_req, res) => {
    const chunk = Buffer.alloc(1 << 16, " ");
    const more = (): void => {
      while (!res.destroyed && res.write(chunk));
    };
    res.on("drain", more).on("close", () => (ended = true));
    more();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const before = process.memoryUsage().rss;
  try {
    const jwksUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    await assert.rejects(verifier(published(), { jwksUrl, fetch }).readUser(valid), KeysUnavailableError);
    assert.ok(process.memoryUsage().rss - before < 256 << 20);
    while (!ended) await new Promise((resolve) => setTimeout(resolve, 1)); // the connection is given up
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("a redirect is not followed", async () => {
  const server = createServer((req, res) => {
    if (req.url === "/keys") res.end(JSON.stringify(contract.jwks));
    else res.writeHead(302, { location: "/keys" }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    await assert.rejects(verifier(published(), { jwksUrl: url, fetch }).readUser(valid), KeysUnavailableError);
    assert.ok(await verifier(published(), { jwksUrl: `${url}keys`, fetch }).readUser(valid));
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("whatever fetch does, nobody waits forever", async () => {
  const throwing = verifier(published(), {
    fetch: () => {
      throw new Error("at once");
    },
  });
  for (let i = 0; i < 2; i++) await assert.rejects(throwing.readUser(valid), KeysUnavailableError);
  const silent = verifier(published(), { fetch: () => new Promise(() => undefined) });
  const alive = setInterval(() => undefined, 1000); // nothing else keeps the process
  await assert.rejects(silent.readUser(valid), KeysUnavailableError);
  clearInterval(alive);
});

test("a clock that was set back must not keep keys that were taken back", async () => {
  const p = published();
  p.now += 24 * 3600;
  const v = verifier(p);
  const unknown = contract.cases.find((c) => c.name === "another kid")?.headers.flat() ?? [];
  await assert.rejects(v.readUser(unknown), UnverifiedError); // fetches
  p.now = contract.now;
  p.body = { keys: [] };
  await v.readUser(valid); // by the keys that are known, which are refreshed beside it
  await new Promise((resolve) => setImmediate(resolve));
  await assert.rejects(v.readUser(valid), UnverifiedError);
  assert.equal(p.fetches, 2);
});

test("errors say what to set", async () => {
  for (const [name, want] of [["iss of another gate", `iss is not "${contract.issuer}": make issuer`], ["aud of another service", `aud is not "${contract.audience}": make audience`]]) {
    const headers = contract.cases.find((c) => c.name === name)?.headers.flat() ?? [];
    await assert.rejects(verifier(published()).readUser(headers), (error: Error) => error.message.includes(want ?? "?"));
  }
});

test("options that make no sense", () => {
  const good = { issuer: "i", audience: "a", jwksUrl: "https://gateway.example.com/jwks" };
  for (const wrong of [{ issuer: "" }, { audience: "" }, { jwksUrl: "gateway" }, { jwksUrl: "http://gateway.example.com/jwks" }, { jwksUrl: "file:///jwks" }, { leeway: 61 }, { leeway: -1 }, { leeway: NaN }])
    assert.throws(() => new Verifier({ ...good, ...wrong }), TypeError, JSON.stringify(wrong));
  assert.ok(new Verifier({ ...good, jwksUrl: "http://127.0.0.1:8081/jwks" }));
});

const listening = async (server: Server): Promise<string> => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};

const who = (request: object): string => `${currentUser(request)?.id ?? "nobody"} ${currentSession(request)}`;

// Each way to serve "/" to verified users, and "/optional" to anybody else, too.
const servers: Record<string, (v: Verifier, reader?: Reader) => Promise<{ url: string; close: () => unknown }>> = {
  "node:http": async (v, reader) => {
    const server = createServer((req, res) => {
      const handler = req.url === "/optional" ? optionalVerifiedUser(v, reader) : requireVerifiedUser(v, reader);
      handler(req, res, ((error?: unknown) => {
        if (error !== undefined) res.statusCode = 500;
        res.end(error === undefined ? who(req) : "");
      }) as () => void);
    });
    return { url: await listening(server), close: () => server.close() };
  },
  Express: async (v, reader) => {
    const app = express();
    app.get("/", requireVerifiedUser(v, reader), (req, res) => void res.end(who(req)));
    app.get("/optional", optionalVerifiedUser(v, reader), (req, res) => void res.end(who(req)));
    app.use(((_error, _req, res, _next) => void res.status(500).end()) as express.ErrorRequestHandler);
    const server = createServer(app);
    return { url: await listening(server), close: () => server.close() };
  },
  "hooks of Fastify": async (v, reader) => {
    const app = fastify();
    app.get("/", { onRequest: forFastify.requireVerifiedUser(v, reader) }, (request) => who(request));
    app.get("/optional", { onRequest: forFastify.optionalVerifiedUser(v, reader) }, (request) => who(request));
    return { url: await app.listen({ host: "127.0.0.1", port: 0 }), close: () => app.close() };
  },
  "the plugin of Fastify": async (v, reader) => {
    const app = fastify();
    for (const [path, optional] of [["/", false], ["/optional", true]] as const)
      await app.register(async (inner) => {
        await inner.register(forFastify.userContext, { verifier: v, optional, ...(reader && { reader }) });
        inner.get(path, (request) => who(request));
      });
    return { url: await app.listen({ host: "127.0.0.1", port: 0 }), close: () => app.close() };
  },
};

for (const [name, serve] of Object.entries(servers)) {
  const ask = async (url: string, headers: [string, string][]): Promise<string> => {
    const response = await fetch(url, { headers });
    return `${response.status} ${await response.text()}`;
  };
  const headers = contract.cases[0]?.headers ?? [];

  test(`verified users: ${name}`, async () => {
    const p = published();
    const refused: string[] = [];
    const { url, close } = await serve(verifier(p), new Reader({ onRefusal: (refusal) => refused.push(refusal.name) }));
    try {
      assert.equal(await ask(`${url}/`, headers), "200 alice handle-of-the-session");
      assert.equal(await ask(`${url}/`, headers.slice(0, 4)), '403 {"error":"Forbidden"}');
      assert.equal(await ask(`${url}/`, []), '401 {"error":"No token provided"}');
      assert.equal(await ask(`${url}/optional`, []), "200 nobody ");
      assert.equal(await ask(`${url}/optional`, headers), "200 alice handle-of-the-session");
      assert.equal(await ask(`${url}/optional`, headers.slice(4)), '403 {"error":"Forbidden"}');
      p.status = 500;
      p.now += 25 * 3600;
      assert.equal(await ask(`${url}/`, headers), '503 {"error":"Authentication unavailable"}');
      assert.deepEqual(refused, ["UnverifiedError", "AnonymousError", "UnverifiedError", "KeysUnavailableError"]);
    } finally {
      await close();
    }
  });

  test(`what is no refusal is not swallowed, and ends no process: ${name}`, async () => {
    const broken = new Reader({
      onRefusal: () => {
        throw new Error("the log is broken");
      },
    });
    const { url, close } = await serve(verifier(published()), broken);
    try {
      assert.match(await ask(`${url}/`, headers.slice(0, 4)), /^500 /);
      assert.match(await ask(`${url}/`, headers), /^200 /);
    } finally {
      await close();
    }
  });
}
