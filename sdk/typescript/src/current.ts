import { AnonymousError, ForbiddenError, type Reader, Refusal, type User } from "./usercontext.js";

// Beside the request rather than in it: nothing that a framework or a body parser writes
// into a request is taken for a user.
const users = new WeakMap<object, User>();
const sessions = new WeakMap<object, string>();
const readers = new WeakMap<object, Reader>();

/** Fastify wraps the request of node:http, as `raw`. What has rawHeaders is one, and its
 * `raw`, if any, is what somebody calls a body. */
function inner(request: object): object {
  if ("rawHeaders" in request && Array.isArray(request.rawHeaders)) return request;
  const raw: unknown = "raw" in request ? request.raw : undefined;
  return typeof raw === "object" && raw !== null ? raw : request;
}

/** The user whom requireUser or optionalUser read for this request, of Express, Fastify
 * or node:http; undefined without them, and for an anonymous caller. */
export function currentUser(request: object): User | undefined {
  return users.get(inner(request));
}

/** Makes the request one of this user, or of nobody. The middleware calls it; so does a
 * test of a handler, which then needs no headers. */
export function setCurrentUser(request: object, user: User | undefined, session = ""): void {
  sessions.delete(inner(request));
  if (user === undefined) users.delete(inner(request));
  else users.set(inner(request), user);
  if (user !== undefined && session !== "") sessions.set(inner(request), session);
}

/** The handle of the session of a verified user, as the auth API lists it; "" for none. */
export function currentSession(request: object): string {
  return sessions.get(inner(request)) ?? "";
}

/** Says who read the user, and learns then of a refusal by role. */
export function setReader(request: object, reader: Reader): void {
  readers.set(inner(request), reader);
}

/** What is refused to whom lacks all of the roles. */
export function refusalByRole(request: object, anyOf: readonly string[]): Refusal | undefined {
  const user = currentUser(request);
  if (user?.hasRole(...anyOf)) return undefined;
  const refusal =
    user === undefined
      ? new AnonymousError("no user: the gate passed no identity on, or nobody read it")
      : new ForbiddenError("none of the roles that the route asks for");
  readers.get(inner(request))?.refused(refusal, request);
  return refusal;
}

/** Runs a check: the refusal that it throws, undefined for none. */
export function refusalOf(check: () => void): Refusal | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/** The body of an answer, as the gate writes it. */
export function bodyOf(message: string): string {
  return JSON.stringify({ error: message });
}
