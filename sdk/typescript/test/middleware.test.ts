// The middleware in a real Express and a real Fastify, asked over a real connection.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";

import * as forExpress from "@gatehouse-auth/usercontext/express";
import * as forFastify from "@gatehouse-auth/usercontext/fastify";
import { currentUser, hashKey, parseKey, Reader, type Refusal, setCurrentUser, User } from "@gatehouse-auth/usercontext";
import express, { type RequestHandler } from "express";
import fastify from "fastify";

import { ANSWER, contract, options, raw, STATUS, wanted } from "./cases.js";
import { ask, listen, type Reply, travels } from "./wire.js";

const ROOM = { maxHeaderSize: 1 << 20 }; // so that it's the package that finds headers too long

/** What a test serves, in either framework. */
interface Route {
  path: string;
  guards: Guard[];
}
type Guard =
  | { kind: "require" | "optional"; reader?: Reader }
  | { kind: "role"; anyOf: string[] }
  | { kind: "key"; keys: Parameters<typeof forExpress.requireInternalKey>[0]; reader?: Reader }
  | { kind: "outer"; user: User };

type Framework = (routes: Route[]) => Promise<{ server: Server; port: number }>;

const expressHandler = (g: Guard): RequestHandler => {
  switch (g.kind) {
    case "require":
      return forExpress.requireUser(g.reader);
    case "optional":
      return forExpress.optionalUser(g.reader);
    case "role":
      return forExpress.requireRole(...g.anyOf);
    case "key":
      return forExpress.requireInternalKey(g.keys, g.reader);
    case "outer":
      return (req, _res, next) => {
        setCurrentUser(req, g.user);
        next();
      };
  }
};

const fastifyHook = (g: Guard): forFastify.Hook => {
  switch (g.kind) {
    case "require":
      return forFastify.requireUser(g.reader);
    case "optional":
      return forFastify.optionalUser(g.reader);
    case "role":
      return forFastify.requireRole(...g.anyOf);
    case "key":
      return forFastify.requireInternalKey(g.keys, g.reader);
    case "outer":
      return (request, _reply, done) => {
        setCurrentUser(request, g.user);
        done();
      };
  }
};

const frameworks: Record<string, Framework> = {
  Express: async (routes) => {
    const app = express();
    for (const { path, guards } of routes)
      app.get(path, ...guards.map(expressHandler), (req, res) => {
        res.json(currentUser(req) ?? null);
      });
    const server = createServer(ROOM, app);
    return { server, port: await listen(server) };
  },
  Fastify: async (routes) => {
    const app = fastify({ http: ROOM });
    for (const { path, guards } of routes)
      app.get(path, { onRequest: guards.map(fastifyHook) }, (request, reply) => {
        reply.type("application/json").send(JSON.stringify(currentUser(request) ?? null));
      });
    await app.listen({ host: "127.0.0.1", port: 0 });
    return { server: app.server, port: (app.server.address() as AddressInfo).port };
  },
};

function requireRefused(reply: Reply, status: number): void {
  assert.equal(reply.status, status);
  assert.equal(reply.type, "application/json");
  assert.equal(reply.body, ANSWER[status as keyof typeof ANSWER]);
}

const ALICE = ["x-user-id", "alice", "x-user-roles", '["member"]'];
const ALICE_JSON = { userId: "alice", email: "", roles: ["member"], organizationId: "" };

for (const [name, start] of Object.entries(frameworks)) {
  suite(name, () => {
    const serve = async (routes: Route[], asks: (port: number) => Promise<void>): Promise<void> => {
      const { server, port } = await start(routes);
      try {
        await asks(port);
      } finally {
        server.close();
        await once(server, "close");
      }
    };

    test("the common cases, over the wire", async () => {
      const travelling = contract.users.filter((c) => travels(raw(c.headers)));
      assert(travelling.length > 110, String(travelling.length));
      const routes = travelling.map(
        (c, i): Route => ({
          path: `/${i}`,
          guards: [
            { kind: "require", reader: new Reader(options(c.options)) },
            ...(c.requireRole ? [{ kind: "role", anyOf: c.requireRole } as const] : []),
          ],
        }),
      );
      await serve(routes, async (port) => {
        for (const [i, c] of travelling.entries()) {
          const reply = await ask(port, `/${i}`, raw(c.headers));
          assert.equal(reply.status, STATUS[c.want], c.name);
          if (c.want === "user") assert.deepEqual(JSON.parse(reply.body), wanted(c.user), c.name);
          else if (!/^$|"Client Error"/.test(reply.body)) requireRefused(reply, STATUS[c.want]); // else node:http refused it
        }
      });
    });

    test("the common cases of keys, over the wire", async () => {
      const routes = contract.keys.map(
        (c, i): Route => ({
          path: `/${i}`,
          guards: [
            { kind: "key", keys: c.keys.map(parseKey), reader: new Reader({ ...options(c.options), now: () => new Date(c.now) }) },
          ],
        }),
      );
      await serve(routes, async (port) => {
        for (const [i, c] of contract.keys.entries()) {
          const reply = await ask(port, `/${i}`, raw(c.headers));
          if (c.admitted) assert.deepEqual([reply.status, reply.body], [200, "null"], c.name);
          else requireRefused(reply, 403);
        }
      });
    });

    test("who is served", async () => {
      const refusals: Refusal[] = [];
      const reader = new Reader({ onRefusal: (refusal, request) => assert(request) ?? refusals.push(refusal) });
      const outer = { kind: "outer", user: new User({ id: "mallory", roles: ["member"] }) } as const;
      await serve(
        [
          { path: "/required", guards: [{ kind: "require", reader }] },
          { path: "/optional", guards: [{ kind: "optional", reader }] },
          { path: "/hidden", guards: [outer, { kind: "optional" }] },
          { path: "/members", guards: [{ kind: "optional" }, { kind: "role", anyOf: ["member"] }] },
          { path: "/admins", guards: [{ kind: "require" }, { kind: "role", anyOf: ["admin", ""] }] },
          { path: "/no-role", guards: [{ kind: "require" }, { kind: "role", anyOf: [] }] },
          { path: "/unread", guards: [{ kind: "role", anyOf: ["member"] }] },
          { path: "/told", guards: [{ kind: "optional", reader }, { kind: "role", anyOf: ["admin"] }] },
          { path: "/internal", guards: [{ kind: "key", keys: [hashKey("k")], reader }] },
        ],
        async (port) => {
          for (const path of ["/required", "/optional", "/hidden", "/members"]) {
            const reply = await ask(port, path, ALICE);
            assert.deepEqual([reply.status, JSON.parse(reply.body)], [200, ALICE_JSON], path);
          }
          for (const path of ["/optional", "/hidden"]) {
            const reply = await ask(port, path, []);
            assert.deepEqual([reply.status, reply.body], [200, "null"], path);
          }
          for (const path of ["/required", "/members"]) requireRefused(await ask(port, path, []), 401);
          requireRefused(await ask(port, "/unread", ALICE), 401);
          for (const path of ["/admins", "/no-role"]) requireRefused(await ask(port, path, ALICE), 403);
          for (const path of ["/required", "/optional", "/hidden", "/members"])
            requireRefused(await ask(port, path, ["x-user-id", "%"]), 400);
          assert.equal((await ask(port, "/internal", ["x-internal-api-key", "k"])).body, "null");
          requireRefused(await ask(port, "/internal", ALICE), 403);
          requireRefused(await ask(port, "/told", ALICE), 403);
          requireRefused(await ask(port, "/told", []), 401);
        },
      );
      assert.deepEqual(
        refusals.map((r) => r.name),
        ["AnonymousError", "MalformedError", "MalformedError", "ForbiddenError", "ForbiddenError", "AnonymousError"],
      );
    });
  });
}

test("Fastify's plugin holds for the routes of the instance, nested ones too", async () => {
  const app = fastify();
  await app.register(forFastify.userContext);
  app.get("/", (request) => currentUser(request)?.id);
  app.get("/admin", { onRequest: forFastify.requireRole("admin") }, () => "for administrators");
  await app.register((inner, _options, done) => {
    inner.get("/inner", (request) => currentUser(request)?.id);
    done();
  });
  const asAlice = { "x-user-id": "alice" };
  for (const path of ["/", "/inner"]) {
    assert.equal((await app.inject({ path, headers: asAlice })).body, "alice");
    assert.equal((await app.inject({ path })).statusCode, 401);
    assert.equal((await app.inject({ path, headers: { "x-user-id": "%" } })).statusCode, 400);
  }
  assert.equal((await app.inject({ path: "/admin", headers: asAlice })).statusCode, 403);
  assert.equal((await app.inject({ path: "/no-such-route" })).statusCode, 401); // it tells nothing to nobody

  const open = fastify();
  await open.register(forFastify.userContext, { optional: true, reader: new Reader({ names: { userId: "x-auth-subject" } }) });
  open.get("/", (request) => currentUser(request)?.id ?? "nobody");
  assert.equal((await open.inject({ path: "/" })).body, "nobody");
  assert.equal((await open.inject({ path: "/", headers: asAlice })).body, "nobody");
  assert.equal((await open.inject({ path: "/", headers: { "x-auth-subject": "alice" } })).body, "alice");
  await app.close();
  await open.close();
});

test("a body that is kept as req.raw makes nobody of the user", async () => {
  const app = express();
  app.use(forExpress.optionalUser());
  app.use((req, _res, next) => {
    Object.assign(req, { raw: Buffer.from("body") });
    next();
  });
  app.get("/", (req, res) => void res.end(currentUser(req)?.id ?? "nobody"));
  app.get("/members", forExpress.requireRole("member"), (_req, res) => void res.end("served"));
  const server = createServer(app);
  const port = await listen(server);
  assert.equal((await ask(port, "/", ALICE)).body, "alice");
  assert.equal((await ask(port, "/members", ALICE)).body, "served");
  server.close();
});

test("what is no refusal is not swallowed", async () => {
  const broken = new Reader({
    onRefusal: () => {
      throw new Error("the log is broken");
    },
  });
  const app = express();
  app.use(forExpress.requireUser(broken));
  app.use(((_error, _req, res, _next) => void res.status(500).end("broken")) as express.ErrorRequestHandler);
  app.get("/", (_req, res) => void res.end("served"));
  const server = createServer(app);
  const reply = await ask(await listen(server), "/", []);
  assert.deepEqual([reply.status, reply.body], [500, "broken"]);
  server.close();
});
