// A service on Fastify that says whom it was called by.
import { currentUser, optionalUser, requireInternalKey, requireRole, userContext } from "@gatehouse-auth/usercontext/fastify";
import { parseKey } from "@gatehouse-auth/usercontext";
import fastify from "fastify";

const answer = (request) => {
  const user = currentUser(request);
  return { user: user ?? null, service: user?.service() ?? null };
};
const app = fastify();
app.get("/internal", { onRequest: requireInternalKey([parseKey(process.env.KEY_SHA256)]) }, answer);
app.get("/public/*", { onRequest: optionalUser() }, answer);
await app.register(async (required) => {
  await required.register(userContext);
  required.get("/p/any/admins", { onRequest: requireRole("admin") }, answer);
  required.get("/*", answer);
});
await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
