/**
 * Middleware for Express, and for everything else that calls `(req, res, next)` with the
 * request and response of node:http, such as Connect and Polka.
 *
 * @packageDocumentation
 */
import type { IncomingMessage, ServerResponse } from "node:http";

import { bodyOf, refusalByRole, refusalOf, setCurrentUser, setReader } from "./current.js";
import { AnonymousError, defaultReader, type Key, type Reader, Refusal, type User } from "./usercontext.js";
import type { Verifier } from "./verifier.js";

export { currentSession, currentUser } from "./current.js";

/** What Express calls a RequestHandler. */
export type Handler = (req: IncomingMessage, res: ServerResponse, next: () => void) => void;

/** Serves authenticated callers only; `currentUser(req)` is who it is. Malformed identity
 * headers are answered 400 {"error":"Bad request"}, none at all 401 {"error":"No token
 * provided"}. */
export function requireUser(reader: Reader = defaultReader): Handler {
  return (req, res, next) => {
    read(reader, req, res, next, false);
  };
}

/** Serves anonymous callers too, for whom `currentUser(req)` is undefined. Malformed
 * identity headers are answered 400: they are never taken for anonymous. */
export function optionalUser(reader: Reader = defaultReader): Handler {
  return (req, res, next) => {
    read(reader, req, res, next, true);
  };
}

/** As requireUser, and the gate must have signed who it is, for this service; else 403
 * {"error":"Forbidden"}, or 503 {"error":"Authentication unavailable"} while the gate's
 * keys can't be had. */
export function requireVerifiedUser(verifier: Verifier, reader: Reader = defaultReader): Handler {
  return (req, res, next) => {
    verified(verifier, reader, req, res, next, false);
  };
}

/** As requireVerifiedUser, and serves anonymous callers too. */
export function optionalVerifiedUser(verifier: Verifier, reader: Reader = defaultReader): Handler {
  return (req, res, next) => {
    verified(verifier, reader, req, res, next, true);
  };
}

/** Serves users with at least one of the roles, and answers others 403
 * {"error":"Forbidden"}. Without roles, or with empty ones, it serves nobody. It goes
 * behind requireUser or optionalUser, which read the user;
 * their reader learns whom it refuses. */
export function requireRole(...anyOf: readonly string[]): Handler {
  return (req, res, next) => {
    const refusal = refusalByRole(req, anyOf);
    if (refusal === undefined) next();
    else answer(res, refusal);
  };
}

/** For calls from service to service, which don't come through the gate: x-internal-api-key
 * must hold one of the keys, of which several can be valid while one is rotated. Else it
 * answers 403 {"error":"Forbidden"}. It reads no user. Handlers must not log the header. */
export function requireInternalKey(keys: readonly Key[], reader: Reader = defaultReader): Handler {
  return (req, res, next) => {
    const refusal = refusalOf(() => {
      reader.checkInternalKey(req, keys);
    });
    if (refusal === undefined) {
      next();
      return;
    }
    reader.refused(refusal, req);
    answer(res, refusal);
  };
}

function read(reader: Reader, req: IncomingMessage, res: ServerResponse, next: () => void, anonymous: boolean): void {
  let user: User | undefined;
  const refusal = refusalOf(() => {
    // Whom somebody further out read is not the user here, whatever comes of this.
    setCurrentUser(req, undefined);
    setReader(req, reader);
    user = reader.readUser(req);
    if (user === undefined && !anonymous) throw new AnonymousError("no user: the gate passed no identity on");
  });
  if (refusal === undefined) {
    setCurrentUser(req, user);
    next();
    return;
  }
  reader.refused(refusal, req);
  answer(res, refusal);
}

function verified(verifier: Verifier, reader: Reader, req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void, anonymous: boolean): void {
  setCurrentUser(req, undefined);
  setReader(req, reader);
  verifier
    .readUser(req, reader)
    .then((found) => {
      if (found === undefined && !anonymous) throw new AnonymousError("no user: the gate passed no identity on");
      setCurrentUser(req, found?.user, found?.sessionId);
      return true;
    })
    .catch((error: unknown) => {
      if (!(error instanceof Refusal)) throw error;
      reader.refused(error, req);
      answer(res, error);
      return false;
    })
    // What onRefusal throws goes to the error handlers, as without a verifier: as a
    // rejection that nobody handles it would end the process.
    .then(
      (admitted) => {
        if (admitted) next();
      },
      (error: unknown) => {
        next(error);
      },
    );
}

function answer(res: ServerResponse, refusal: Refusal): void {
  const body = bodyOf(refusal.answer);
  res.writeHead(refusal.status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  res.end(body);
}
