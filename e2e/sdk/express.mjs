// A service on Express that says whom it was called by.
import { currentUser, optionalUser, requireInternalKey, requireRole, requireUser } from "@gatehouse-auth/usercontext/express";
import { parseKey } from "@gatehouse-auth/usercontext";
import express from "express";

const answer = (req, res) => {
  const user = currentUser(req);
  res.json({ user: user ?? null, service: user?.service() ?? null });
};
const app = express();
app.get("/internal", requireInternalKey([parseKey(process.env.KEY_SHA256)]), answer);
app.get("/public/*rest", optionalUser(), answer);
app.get("/p/any/admins", requireUser(), requireRole("admin"), answer);
app.use(requireUser(), answer);
app.listen(Number(process.env.PORT), "127.0.0.1");
