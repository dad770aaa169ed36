import { createPublicKey, type KeyObject, verify as verifySignature } from "node:crypto";

import { type HeaderLines, defaultReader, headerPairs, MalformedError, type Reader, Refusal, type User } from "./usercontext.js";

/** The header in which the gate passes the identity on signed, where a route's policy says
 * `assertion`. */
export const HEADER_ASSERTION = "x-identity-assertion";

const TYPE = "gatehouse-identity+jwt";
const MAX_ASSERTION = 16 << 10;
const MAX_LIFE = 300; // seconds; the gate signs for no longer
const MAX_JWKS = 256 << 10;
const MAX_KEYS = 64;
const REFRESH_AFTER = 300_000; // milliseconds, as those below
const KEEP_FOR = 24 * 3600_000;
const PAUSE = 10_000; // between two tries to fetch the keys
const FETCH_TIMEOUT = 5_000;

/** The identity headers are not vouched for: there is no assertion, or none that is valid,
 * for this service, and says the same as the headers. It deserves an alarm. */
export class UnverifiedError extends Refusal {
  override readonly name = "UnverifiedError";
  readonly status = 403;
  readonly answer = "Forbidden";
}

/** The gate's public keys could not be had, so nobody knows whether the signature is
 * right. */
export class KeysUnavailableError extends Refusal {
  override readonly name = "KeysUnavailableError";
  readonly status = 503;
  readonly answer = "Authentication unavailable";
}

/** Options of a {@link Verifier}. */
export interface VerifierOptions {
  /** The gate's `identity.assertion.issuer`, exactly. */
  readonly issuer: string;
  /** The name of this service, as the gate's policy has it. */
  readonly audience: string;
  /** Where the gate publishes its keys: /.well-known/jwks.json. It must be https, but on
   * this host, for who changes the keys on their way is believed. */
  readonly jwksUrl: string;
  /** Lets jwksUrl be http on another host, where the network between vouches for it. */
  readonly insecurePlainHttp?: boolean;
  /** How far the clocks may differ, in seconds: 10, at most 60. */
  readonly leeway?: number;
  readonly now?: () => Date;
  /** Fetches the keys; the default is that of Node. */
  readonly fetch?: typeof fetch;
}

/** A user for whom the gate vouches. */
export interface VerifiedUser {
  readonly user: User;
  /** The handle of the session, or of the token's refresh family, by which the auth API
   * lists it; "" for none. It opens nothing. */
  readonly sessionId: string;
  readonly issued: Date;
  readonly expires: Date;
}

interface Claims {
  readonly id: string;
  readonly email: string;
  readonly roles: readonly string[];
  readonly organizationId: string;
  readonly sessionId: string;
  readonly issued: Date;
  readonly expires: Date;
}

/**
 * Verifier checks that the gate vouches for the identity headers, so that a service need
 * not believe its network.
 *
 * Keys that are fetched are kept. A kid that is not among them has them fetched again,
 * and old ones are refreshed beside the requests; however many unknown kids arrive, there
 * is one fetch at a time, and a pause after each. Known keys outlive an outage of the gate
 * by a day.
 */
export class Verifier {
  readonly #issuer: string;
  readonly #audience: string;
  readonly #url: URL;
  readonly #leeway: number;
  readonly #now: () => Date;
  readonly #fetch: typeof fetch;
  #keys = new Map<string, KeyObject>();
  #fetched = -Infinity;
  #tried = -Infinity;
  #failed = false;
  #fetching: Promise<void> | undefined;

  constructor(options: VerifierOptions) {
    if (!options.issuer) throw new TypeError("usercontext: Verifier: give issuer, the gate's identity.assertion.issuer");
    if (!options.audience) throw new TypeError("usercontext: Verifier: give audience, the name of this service in the gate's policy");
    this.#issuer = options.issuer;
    this.#audience = options.audience;
    this.#url = new URL(options.jwksUrl);
    const local = ["localhost", "127.0.0.1", "[::1]"].includes(this.#url.hostname);
    if (this.#url.protocol !== "https:" && (this.#url.protocol !== "http:" || (!local && options.insecurePlainHttp !== true)))
      throw new TypeError(
        "usercontext: Verifier: jwksUrl is not https, and anybody on the way can change the keys: make it https, or say insecurePlainHttp",
      );
    this.#leeway = options.leeway ?? 10;
    if (!(this.#leeway >= 0 && this.#leeway <= 60)) throw new TypeError("usercontext: Verifier: give a leeway of up to 60 seconds");
    this.#now = options.now ?? (() => new Date());
    this.#fetch = options.fetch ?? fetch;
  }

  /**
   * The user from the headers, whom the gate signed; undefined for an anonymous caller.
   * Rejects with {@link MalformedError} as `reader.readUser` throws it, with
   * {@link UnverifiedError}, or with {@link KeysUnavailableError}.
   */
  async readUser(headers: HeaderLines, reader: Reader = defaultReader): Promise<VerifiedUser | undefined> {
    const user = reader.readUser(headers);
    let raw: string | undefined;
    for (const [name, value] of headerPairs(headers)) {
      const lower = name.replace(/[A-Z]/g, (c) => c.toLowerCase());
      if (lower.replaceAll("_", "-") !== HEADER_ASSERTION) continue;
      if (lower !== HEADER_ASSERTION) throw new MalformedError(`a header is spelt like ${HEADER_ASSERTION} with - and _ exchanged`);
      if (raw !== undefined) throw new MalformedError(`${HEADER_ASSERTION} is there more than once`);
      raw = value;
    }
    if (raw === undefined && user === undefined) return undefined;
    if (raw === undefined) throw new UnverifiedError(`no ${HEADER_ASSERTION}`);
    if (user === undefined) throw new UnverifiedError(`${HEADER_ASSERTION} without the identity headers`);
    const claims = await this.#verify(raw);
    const same =
      claims.id === user.id &&
      claims.email === user.email &&
      claims.organizationId === user.organizationId &&
      claims.roles.length === user.roles.length &&
      claims.roles.every((role, i) => role === user.roles[i]);
    if (!same) throw new UnverifiedError("the identity headers say something else than what is signed");
    return { user, sessionId: claims.sessionId, issued: claims.issued, expires: claims.expires };
  }

  async #verify(raw: string): Promise<Claims> {
    if (raw.length > MAX_ASSERTION) throw new UnverifiedError(`more than ${MAX_ASSERTION} bytes`);
    const [head, body, tail, ...more] = raw.split(".");
    if (head === undefined || body === undefined || tail === undefined || more.length > 0) throw new UnverifiedError("not a signed JWT");
    const header = object(head, "header");
    if (header.get("alg") !== "ES256") throw new UnverifiedError("alg is not ES256");
    if (header.get("typ") !== TYPE) throw new UnverifiedError(`typ is not ${TYPE}`);
    const kid = header.get("kid");
    if (typeof kid !== "string" || kid === "") throw new UnverifiedError("no kid");
    if (header.size !== 3) throw new UnverifiedError("header: more than alg, typ and kid"); // crit, jwk, jku and the like
    const signature = bytes(tail);
    if (signature?.length !== 64) throw new UnverifiedError("not a signature of ES256");
    const key = await this.#key(kid);
    if (!verifySignature("sha256", Buffer.from(`${head}.${body}`, "latin1"), { key, dsaEncoding: "ieee-p1363" }, signature))
      throw new UnverifiedError("wrong signature");
    return this.#claims(object(body, "claims"));
  }

  #claims(claims: ReadonlyMap<string, unknown>): Claims {
    const text = (name: string): string => {
      const value = claims.get(name) ?? "";
      if (typeof value !== "string") throw new UnverifiedError(`${name} is no text`);
      return value;
    };
    const time = (name: string): number => {
      const value = claims.get(name);
      if (typeof value !== "number" || !Number.isSafeInteger(value)) throw new UnverifiedError(`${name} is no time`);
      return value;
    };
    if (text("iss") !== this.#issuer)
      throw new UnverifiedError(`iss is not "${this.#issuer}": make issuer what the gate has as identity.assertion.issuer`);
    if (text("aud") !== this.#audience)
      throw new UnverifiedError(
        `aud is not "${this.#audience}": make audience what the gate's policy or route has as audience; or it was meant for another service`,
      );
    const id = text("sub");
    const roles: unknown = claims.get("roles");
    if (id === "" || !Array.isArray(roles) || !roles.every((role) => typeof role === "string"))
      throw new UnverifiedError("sub or roles are missing");
    const [issued, expires] = [time("iat"), time("exp")];
    const now = this.#now().getTime() / 1000;
    if (issued <= 0 || expires <= issued || expires - issued > MAX_LIFE) throw new UnverifiedError("iat and exp make no sense");
    if (issued > now + this.#leeway) throw new UnverifiedError("signed in the future: set the clocks of gate and service");
    if (now >= expires + this.#leeway) throw new UnverifiedError("expired");
    return {
      id, email: text("email"), roles, organizationId: text("org"), sessionId: text("sid"),
      issued: new Date(issued * 1000), expires: new Date(expires * 1000),
    };
  }

  async #key(kid: string): Promise<KeyObject> {
    for (;;) {
      const now = this.#now().getTime();
      const age = now - this.#fetched;
      const key = age < KEEP_FOR ? this.#keys.get(kid) : undefined;
      const rested = now - this.#tried >= PAUSE || now < this.#tried;
      // A clock that was set back must not stop all fetching.
      if ((key === undefined || age >= REFRESH_AFTER || age < 0) && this.#fetching === undefined && rested) {
        this.#tried = now;
        // Not within #refresh, which may be over before it returns.
        this.#fetching = this.#refresh().finally(() => {
          this.#fetching = undefined;
        });
      }
      if (key !== undefined) return key;
      if (this.#fetching === undefined) {
        if (this.#failed) throw new KeysUnavailableError("the gate's keys can't be had");
        throw new UnverifiedError("signed by a key that the gate doesn't publish");
      }
      await this.#fetching;
    }
  }

  /** Never rejects. */
  async #refresh(): Promise<void> {
    // Whoever fetches might not heed the signal, and those who wait must not wait forever.
    const late = AbortSignal.timeout(FETCH_TIMEOUT);
    const gone = new Promise<never>((_, reject) => {
      late.addEventListener("abort", () => {
        reject(new Error("timeout"));
      });
    });
    gone.catch(() => undefined); // nobody may be left who cares
    try {
      this.#keys = keysOf(JSON.parse(await Promise.race([this.#download(late), gone])));
      this.#fetched = this.#now().getTime();
      this.#failed = false;
    } catch {
      this.#failed = true;
    }
  }

  async #download(signal: AbortSignal): Promise<string> {
    const response = await this.#fetch(this.#url, { redirect: "error", signal });
    if (response.status !== 200 || response.body === null) throw new Error("no answer");
    const chunks: Uint8Array[] = [];
    let size = 0;
    // Not all of it at once: it might be endless.
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      size += chunk.length;
      if (size > MAX_JWKS) throw new Error("size");
      chunks.push(chunk);
    }
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  }
}

/** The keys for ES256 of a JWK set (RFC 7517); those of other algorithms are not ours. */
function keysOf(set: unknown): Map<string, KeyObject> {
  const list: unknown = typeof set === "object" && set !== null && "keys" in set ? set.keys : undefined;
  if (!Array.isArray(list) || list.length > MAX_KEYS) throw new Error("no JWK set");
  const keys = new Map<string, KeyObject>();
  for (const item of list as unknown[]) {
    if (typeof item !== "object" || item === null) throw new Error("no JWK");
    const { kty, crv, alg, use, kid, x, y } = item as Record<string, unknown>;
    if (kty !== "EC" || crv !== "P-256" || alg !== "ES256" || use !== "sig" || typeof kid !== "string" || kid === "") continue;
    if (typeof x !== "string" || typeof y !== "string" || bytes(x)?.length !== 32 || bytes(y)?.length !== 32 || keys.has(kid))
      throw new Error("a malformed key");
    keys.set(kid, createPublicKey({ key: { kty, crv, x, y }, format: "jwk" }));
  }
  return keys;
}

/** base64url without padding, in the one form that it has. */
function bytes(text: string): Buffer | undefined {
  const decoded = Buffer.from(text, "base64url");
  return decoded.toString("base64url") === text ? decoded : undefined;
}

/** The members of a part of a JWT. No member may be there twice, which JSON.parse takes. */
function object(part: string, what: string): ReadonlyMap<string, unknown> {
  const refused = (why: string): UnverifiedError => new UnverifiedError(`${what}: ${why}`);
  const data = bytes(part);
  if (data === undefined) throw refused("not base64url");
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    value = JSON.parse(text);
    if (!wellFormed(value)) throw new TypeError("half a surrogate pair is no text");
  } catch {
    // A RangeError, too: what is nested deeply exhausts the stack.
    throw refused("not JSON in UTF-8");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refused("not a JSON object");
  const members = new Map<string, unknown>(Object.entries(value));
  const { count, fractions } = firstLevel(text);
  if (members.size !== count) throw refused("a member is there twice");
  if ([...members.values()].includes(null)) throw refused("a member is null");
  for (const name of fractions) members.set(name, NaN);
  return members;
}

/** Whether no text in it has half of a surrogate pair. */
function wellFormed(value: unknown): boolean {
  if (typeof value === "string") return !/\p{Surrogate}/u.test(value);
  return typeof value !== "object" || value === null || Object.entries(value).every(([name, member]) => wellFormed(name) && wellFormed(member));
}

/** Of the object whose text this is, which is valid JSON: how many members it has, which
 * are the colons outside of strings and of what is in it, and which of them are numbers that
 * are not written as whole ones. To JSON.parse 60.0 is 60; to other languages it isn't. */
function firstLevel(text: string): { count: number; fractions: string[] } {
  let depth = 0;
  let count = 0;
  let name = "";
  const fractions: string[] = [];
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}:]|-?\d[\d.eE+-]*/gs)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (depth !== 1) continue;
    else if (token === ":") count++;
    else if (token.startsWith('"')) name = token;
    else if (/[.eE]/.test(token)) fractions.push(JSON.parse(name) as string);
  }
  return { count, fractions };
}
