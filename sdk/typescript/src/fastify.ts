/**
 * Hooks for Fastify, and a plugin that sets them.
 *
 * @packageDocumentation
 */
import type { FastifyPluginCallback, FastifyReply, FastifyRequest } from "fastify";

import { bodyOf, refusalByRole, refusalOf, setCurrentUser, setReader } from "./current.js";
import { AnonymousError, defaultReader, type Key, type Reader, Refusal, type User } from "./usercontext.js";
import type { Verifier } from "./verifier.js";

export { currentSession, currentUser } from "./current.js";

/** A hook for `onRequest`, of an instance or of a route. */
export type Hook = (request: FastifyRequest, reply: FastifyReply, done: () => void) => void;

/** Options of the plugin. */
export interface PluginOptions {
  /** Serve anonymous callers, too, for whom `currentUser(request)` is undefined. */
  readonly optional?: boolean;
  readonly reader?: Reader;
  /** The gate must have signed who it is, as for {@link requireVerifiedUser}. */
  readonly verifier?: Verifier;
}

const plugin: FastifyPluginCallback<PluginOptions> = (instance, options, done) => {
  const { verifier, reader = defaultReader, optional = false } = options;
  if (verifier === undefined) instance.addHook("onRequest", optional ? optionalUser(reader) : requireUser(reader));
  else instance.addHook("onRequest", optional ? optionalVerifiedUser(verifier, reader) : requireVerifiedUser(verifier, reader));
  done();
};

/** The plugin: every request to the instance that registers it is of an authenticated
 * user, `currentUser(request)`, or is refused as by {@link requireUser}. Routes that come
 * later have it, as do those of plugins that are registered later. */
export const userContext: FastifyPluginCallback<PluginOptions> = Object.assign(plugin, {
  // What fastify-plugin does: the hook is for the instance that registers the plugin.
  [Symbol.for("skip-override")]: true,
  [Symbol.for("fastify.display-name")]: "@gatehouse-auth/usercontext",
});

/** Serves authenticated callers only. Malformed identity headers are answered 400
 * {"error":"Bad request"}, none at all 401 {"error":"No token provided"}. */
export function requireUser(reader: Reader = defaultReader): Hook {
  return (request, reply, done) => {
    read(reader, request, reply, done, false);
  };
}

/** Serves anonymous callers too, for whom `currentUser(request)` is undefined. Malformed
 * identity headers are answered 400: they are never taken for anonymous. */
export function optionalUser(reader: Reader = defaultReader): Hook {
  return (request, reply, done) => {
    read(reader, request, reply, done, true);
  };
}

/** As requireUser, and the gate must have signed who it is, for this service; else 403
 * {"error":"Forbidden"}, or 503 {"error":"Authentication unavailable"} while the gate's
 * keys can't be had. */
export function requireVerifiedUser(verifier: Verifier, reader: Reader = defaultReader): Hook {
  return (request, reply, done) => {
    verified(verifier, reader, request, reply, done, false);
  };
}

/** As requireVerifiedUser, and serves anonymous callers too. */
export function optionalVerifiedUser(verifier: Verifier, reader: Reader = defaultReader): Hook {
  return (request, reply, done) => {
    verified(verifier, reader, request, reply, done, true);
  };
}

/** Serves users with at least one of the roles, and answers others 403
 * {"error":"Forbidden"}. Without roles, or with empty ones, it serves nobody. It goes
 * behind the plugin, {@link requireUser} or {@link optionalUser}, which read the user;
 * their reader learns whom it refuses. */
export function requireRole(...anyOf: readonly string[]): Hook {
  return (request, reply, done) => {
    const refusal = refusalByRole(request, anyOf);
    if (refusal === undefined) done();
    else answer(reply, refusal);
  };
}

/** For calls from service to service, which don't come through the gate: x-internal-api-key
 * must hold one of the keys, of which several can be valid while one is rotated. Else it
 * answers 403 {"error":"Forbidden"}. It reads no user. Handlers must not log the header. */
export function requireInternalKey(keys: readonly Key[], reader: Reader = defaultReader): Hook {
  return (request, reply, done) => {
    const refusal = refusalOf(() => {
      reader.checkInternalKey(request.raw, keys);
    });
    if (refusal === undefined) {
      done();
      return;
    }
    reader.refused(refusal, request);
    answer(reply, refusal);
  };
}

function read(reader: Reader, request: FastifyRequest, reply: FastifyReply, done: () => void, anonymous: boolean): void {
  let user: User | undefined;
  const refusal = refusalOf(() => {
    // Whom somebody further out read is not the user here, whatever comes of this.
    setCurrentUser(request, undefined);
    setReader(request, reader);
    user = reader.readUser(request.raw);
    if (user === undefined && !anonymous) throw new AnonymousError("no user: the gate passed no identity on");
  });
  if (refusal === undefined) {
    setCurrentUser(request, user);
    done();
    return;
  }
  reader.refused(refusal, request);
  answer(reply, refusal);
}

function verified(
  verifier: Verifier, reader: Reader, request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void, anonymous: boolean,
): void {
  setCurrentUser(request, undefined);
  setReader(request, reader);
  verifier
    .readUser(request.raw, reader)
    .then((found) => {
      if (found === undefined && !anonymous) throw new AnonymousError("no user: the gate passed no identity on");
      setCurrentUser(request, found?.user, found?.sessionId);
      return true;
    })
    .catch((error: unknown) => {
      if (!(error instanceof Refusal)) throw error;
      reader.refused(error, request);
      answer(reply, error);
      return false;
    })
    // What onRefusal throws goes to the error handler: as a rejection that nobody handles
    // it would end the process.
    .then(
      (admitted) => {
        if (admitted) done();
      },
      (error: unknown) => {
        done(error instanceof Error ? error : new Error("usercontext: onRefusal threw"));
      },
    );
}

function answer(reply: FastifyReply, refusal: Refusal): void {
  // As bytes: to a text Fastify would add a charset, which the gate's answers have not.
  reply.code(refusal.status).header("content-type", "application/json").send(Buffer.from(bodyOf(refusal.answer)));
}
