import { createHash, timingSafeEqual } from "node:crypto";

/** The headers in which the gate passes the identity on, and the one in which services
 * show their key to each other, unless {@link Options} say otherwise. */
export const HEADER_USER_ID = "x-user-id";
export const HEADER_EMAIL = "x-user-email";
export const HEADER_ROLES = "x-user-roles";
export const HEADER_ORGANIZATION_ID = "x-org-id";
export const HEADER_INTERNAL_KEY = "x-internal-api-key";

/** Bounds the identity headers of one request, all values together, in bytes. It is twice
 * what the gate writes at most by default. */
export const DEFAULT_MAX_BYTES = 16 << 10;

/** What node:http keeps by default. */
const MAX_HEADERS = 1000;

/** The gate marks callers that showed an internal API key by this before their id. */
const SERVICE_PREFIX = "service:";

/** What a {@link User} is made of. */
export interface UserFields {
  readonly id: string;
  readonly email?: string;
  readonly roles?: readonly string[];
  readonly organizationId?: string;
}

/** User is who is calling, as the gate found out. It can't be changed. */
export class User {
  /** Never empty. */
  readonly id: string;
  /** "" when the gate knows none. */
  readonly email: string;
  readonly roles: readonly string[];
  /** The organization that the user works in now; "" when there is none. */
  readonly organizationId: string;

  constructor(fields: UserFields) {
    if (fields.id === "") throw new TypeError("usercontext: a user has an id; for nobody use undefined");
    this.id = fields.id;
    this.email = fields.email ?? "";
    this.roles = Object.freeze([...(fields.roles ?? [])]);
    this.organizationId = fields.organizationId ?? "";
    Object.freeze(this);
  }

  /** The name of the service that is calling, when the caller is no person but showed an
   * internal API key at the gate; else undefined. */
  service(): string | undefined {
    const name = this.id.startsWith(SERVICE_PREFIX) ? this.id.slice(SERVICE_PREFIX.length) : "";
    return name === "" ? undefined : name;
  }

  /** Whether the user has at least one of the roles. It is false when none are asked for,
   * and the empty string is no role, so a forgotten setting opens nothing. Roles are
   * compared character for character. */
  hasRole(...anyOf: readonly string[]): boolean {
    return anyOf.some((role) => role !== "" && this.roles.includes(role));
  }

  /** The form in which Gatehouse's auth API answers a user. */
  toJSON(): { userId: string; email: string; roles: readonly string[]; organizationId: string } {
    return { userId: this.id, email: this.email, roles: this.roles, organizationId: this.organizationId };
  }
}

/** Refusal is why a request is not served. The message names headers and never repeats a
 * value: it is for the log. The client is told `status` and `answer`. */
export abstract class Refusal extends Error {
  abstract readonly status: number;
  abstract readonly answer: string;
}

/** No identity header at all: the gate let the request through without an identity, as
 * the route's policy allows, and the service wants one. */
export class AnonymousError extends Refusal {
  override readonly name = "AnonymousError";
  readonly status = 401;
  readonly answer = "No token provided";
}

/** Headers that the gate cannot have written. It deserves an alarm: somebody reached the
 * service around the gate. */
export class MalformedError extends Refusal {
  override readonly name = "MalformedError";
  readonly status = 400;
  readonly answer = "Bad request";
}

/** A known caller who may not do this, or a caller without the internal key. */
export class ForbiddenError extends Refusal {
  override readonly name = "ForbiddenError";
  readonly status = 403;
  readonly answer = "Forbidden";
}

/**
 * HeaderLines are the headers of a request as they arrived: a request of node:http (or of
 * Express, or `request.raw` of Fastify), its `rawHeaders`, or pairs of name and value.
 *
 * `req.headers` won't do, and is refused: Node has joined or dropped repeated headers in
 * it. A Fetch `Headers` object is a list of pairs in which repeated headers are joined by
 * a comma and a space; what is joined is refused as malformed by the space.
 */
export type HeaderLines =
  | { readonly rawHeaders: readonly string[] }
  | readonly string[]
  | Iterable<readonly [name: string, value: string]>;

/** The names of the headers; see {@link Options}. */
export interface HeaderNames {
  readonly userId?: string;
  readonly email?: string;
  readonly roles?: string;
  readonly organizationId?: string;
  readonly internalKey?: string;
}

/** Options configure a {@link Reader}. Without any it reads what the gate writes by
 * default. */
export interface Options {
  /** In any case; they must be those of the gate's `identity.headers`. The gate protects
   * the names that it was configured with and no others, so a service that listens to
   * different ones believes the client. */
  readonly names?: HeaderNames;
  /** Bounds the identity headers, all values together. It should be no less than the
   * gate's `identity.max_header_bytes`. Default: {@link DEFAULT_MAX_BYTES}. */
  readonly maxBytes?: number;
  /** The clock by which keys expire. */
  readonly now?: () => Date;
  /** Learns of every request that the middleware refuses, for the log; requireRole tells
   * the reader of the requireUser or optionalUser before it. It must not throw. */
  readonly onRefusal?: (refusal: Refusal, request: object) => void;
}

/** Key is an internal API key as the service that checks it knows it: only its hash. The
 * key itself should be random and long; a plain hash is no protection for a word that can
 * be guessed. */
export interface Key {
  /** Of the key's bytes, as they are sent: 32 bytes. */
  readonly sha256: Uint8Array;
  /** Valid before this moment; undefined: does not expire. */
  readonly expires?: Date;
}

const KINDS = ["userId", "email", "roles", "organizationId"] as const;
type Kind = (typeof KINDS)[number];

const STANDARD: Required<HeaderNames> = {
  userId: HEADER_USER_ID,
  email: HEADER_EMAIL,
  roles: HEADER_ROLES,
  organizationId: HEADER_ORGANIZATION_ID,
  internalKey: HEADER_INTERNAL_KEY,
};

/** Reader reads the identity headers. The functions of this package are those of a Reader
 * without options. */
export class Reader {
  readonly #names: Required<HeaderNames>; // lower case
  readonly #maxBytes: number;
  readonly #now: () => Date;
  readonly #onRefusal: (refusal: Refusal, request: object) => void;

  /** Throws when a name is no possible header name, or two of them are the same; `-` and
   * `_` count as the same, as they do for CGI and WSGI servers. */
  constructor(options: Options = {}) {
    const names = { ...STANDARD };
    const seen = new Map<string, string>();
    for (const kind of [...KINDS, "internalKey"] as const) {
      const name = options.names?.[kind] ?? STANDARD[kind];
      if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name))
        throw new TypeError(`usercontext: ${kind}: ${JSON.stringify(name)} is not a header name`);
      names[kind] = lower(name);
      const other = seen.get(fold(name));
      if (other !== undefined)
        throw new TypeError(`usercontext: ${other} and ${kind} both name the header ${names[kind]}: give each its own`);
      seen.set(fold(name), kind);
    }
    this.#names = names;
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
    if (!Number.isSafeInteger(this.#maxBytes) || this.#maxBytes <= 0)
      throw new TypeError(`usercontext: maxBytes is ${String(options.maxBytes)}: give a positive number of bytes`);
    this.#now = options.now ?? (() => new Date());
    this.#onRefusal = options.onRefusal ?? (() => undefined);
  }

  /**
   * The user from the headers that the gate set; undefined for an anonymous caller, with
   * no identity header at all. Throws {@link MalformedError} for what the gate cannot have
   * written:
   *
   * - Id, email and organization are visible ASCII in which %XX stands for the bytes of
   *   other characters in UTF-8. They are decoded once, and have no control characters.
   * - Roles are a JSON array of strings in ASCII. A missing header means no roles; an
   *   empty one is malformed.
   * - An empty email or organization is the same as a missing one. An empty or missing id
   *   beside any other identity header is malformed.
   * - A header twice, or a name with `_` in place of `-`, even alone, is malformed.
   * - So is a request of 1000 headers, or of as many as the server's maxHeadersCount, because
   *   node:http keeps no more; gateways pass on a tenth of that. Of `rawHeaders` alone
   *   nobody can tell what maxHeadersCount was: give the request where it is not 1000.
   */
  readUser(headers: HeaderLines): User | undefined {
    // node:http drops headers beyond its maxHeadersCount without a word.
    const kept: unknown = "rawHeaders" in headers ? headers.rawHeaders : headers;
    const most = mostHeaders(headers);
    if (Array.isArray(kept) && typeof kept[0] === "string" && kept.length >= 2 * most)
      throw new MalformedError(`${most} headers or more, of which node:http may have dropped some`);
    const found = new Map<Kind, string>();
    let size = 0;
    for (const [name, value] of lines(headers)) {
      for (const kind of KINDS) {
        if (!this.#isFor(name, kind, MalformedError)) continue;
        if (found.has(kind)) throw new MalformedError(`${this.#names[kind]} is there more than once`);
        found.set(kind, value);
        size += Buffer.byteLength(value, "latin1");
      }
    }
    if (size > this.#maxBytes)
      throw new MalformedError(`identity headers of ${size} bytes where at most ${this.#maxBytes} are accepted`);
    if (found.size === 0) return undefined;
    if (!found.get("userId"))
      throw new MalformedError(`identity headers without a value of ${this.#names.userId}`);
    const decoded = <T>(kind: Kind, decode: (value: string) => T, missing: T): T => {
      const value = found.get(kind);
      if (value === undefined) return missing;
      try {
        return decode(value);
      } catch (error) {
        if (error instanceof Fault) throw new MalformedError(`${this.#names[kind]}: ${error.message}`);
        throw error;
      }
    };
    return new User({
      id: decoded("userId", decodeText, ""),
      email: decoded("email", decodeText, ""),
      roles: decoded<readonly string[]>("roles", decodeRoles, []),
      organizationId: decoded("organizationId", decodeText, ""),
    });
  }

  /**
   * Throws {@link ForbiddenError} unless the headers show one of the keys: missing, wrong,
   * expired, sent twice, spelt with underscores, or no keys configured. The comparison
   * takes constant time.
   *
   * It is for calls from service to service, which don't come through the gate: the gate
   * removes the header from everything that clients send. It reads no user.
   */
  checkInternalKey(headers: HeaderLines, keys: readonly Key[]): void {
    const name = this.#names.internalKey;
    const shown = [...lines(headers)].filter(([n]) => this.#isFor(n, "internalKey", ForbiddenError)).map(([, value]) => value);
    const [key, second] = shown;
    if (key === undefined) throw new ForbiddenError(`no ${name}`);
    if (second !== undefined) throw new ForbiddenError(`${name} is there more than once`);
    if (key === "") throw new ForbiddenError(`empty ${name}`);
    // A character above a byte did not come from the wire, and would be cut to one.
    if (/[^\0-\xff]/.test(key)) throw new ForbiddenError(`${name} is not made of bytes`);
    // Every key is compared, whichever matches, and hashes rather than keys are, so the
    // time taken depends on nothing secret.
    const sum = createHash("sha256").update(key, "latin1").digest();
    const now = this.#now().getTime();
    let admitted = false;
    for (const { sha256, expires } of keys) {
      const same = sha256.length === sum.length && timingSafeEqual(sha256, sum);
      const valid = expires === undefined || now < expires.getTime();
      admitted = (same && valid) || admitted;
    }
    if (!admitted) throw new ForbiddenError(`${name} is none of the ${keys.length} keys, or has expired`);
  }

  /** For middleware of one's own: tells `onRefusal`. */
  refused(refusal: Refusal, request: object): void {
    this.#onRefusal(refusal, request);
  }

  #isFor(name: string, kind: Kind | "internalKey", refusal: new (message: string) => Refusal): boolean {
    const wanted = this.#names[kind];
    if (fold(name) !== fold(wanted)) return false;
    if (lower(name) !== wanted) throw new refusal(`a header is spelt like ${wanted} with - and _ exchanged`);
    return true;
  }
}

export const defaultReader = new Reader();

/** {@link Reader.readUser} for the default names. */
export function readUser(headers: HeaderLines): User | undefined {
  return defaultReader.readUser(headers);
}

/** {@link Reader.checkInternalKey} for the default name. */
export function checkInternalKey(headers: HeaderLines, keys: readonly Key[]): void {
  defaultReader.checkInternalKey(headers, keys);
}

/** The Key of a raw key that does not expire, for programs that hold the raw key
 * themselves, such as tests. */
export function hashKey(raw: string): Key {
  return { sha256: createHash("sha256").update(raw, "utf8").digest() };
}

/**
 * Reads a Key as an operator writes it: the SHA-256 hash in 64 hexadecimal digits, and
 * optionally @ and the moment it expires, by RFC 3339 or as a date, which means its
 * beginning in UTC. The hash of the empty string is refused: it is what a script computes
 * whose variable was not set. Errors don't repeat the text.
 */
export function parseKey(text: string): Key {
  const at = text.indexOf("@");
  const digits = at < 0 ? text : text.slice(0, at);
  if (!/^[0-9A-Fa-f]{64}$/.test(digits))
    throw new TypeError(
      `usercontext: a key is given as its SHA-256 hash: 64 hexadecimal digits, not ${digits.length} characters of another kind`,
    );
  const sha256 = Buffer.from(digits, "hex");
  if (sha256.equals(hashKey("").sha256))
    throw new TypeError("usercontext: this is the SHA-256 hash of an empty key: hash the key itself");
  return at < 0 ? { sha256 } : { sha256, expires: parseExpiry(text.slice(at + 1)) };
}

function parseExpiry(text: string): Date {
  const form = /^([1-9]\d{3}-\d{2}-\d{2})(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))?$/.exec(text);
  const day = form?.[1];
  const midnight = new Date(`${day ?? ""}T00:00:00Z`);
  // Date takes the 30th of February for a day in March.
  if (day === undefined || Number.isNaN(midnight.getTime()) || midnight.toISOString().slice(0, 10) !== day)
    throw new TypeError("usercontext: a key expires at a date such as 2027-01-01 or a time such as 2027-01-01T12:00:00Z");
  return form?.[2] === undefined ? midnight : new Date(text);
}

/** Why a value is malformed, in words that don't repeat it. */
class Fault extends Error {}

const CONTROL = /\p{Cc}/u;
const LONE_SURROGATE = /\p{Surrogate}/u; // with the flag u, halves of a pair don't match

/** Undoes the gate's encoding of id, email and organization. */
function decodeText(value: string): string {
  if (/[^!-~]/.test(value)) throw new Fault("not visible ASCII");
  let text: string;
  try {
    text = decodeURIComponent(value); // refuses what is no UTF-8, too
  } catch {
    throw new Fault("a malformed escape, or not UTF-8 after decoding");
  }
  if (CONTROL.test(text)) throw new Fault("control character");
  return text;
}

/** Reads a JSON array of strings that is written in ASCII. */
function decodeRoles(value: string): string[] {
  if (/[^ -~]/.test(value)) throw new Fault("not printable ASCII");
  let roles: unknown;
  try {
    roles = JSON.parse(value);
  } catch {
    // Its message quotes the value.
  }
  if (!Array.isArray(roles) || !roles.every((role) => typeof role === "string"))
    throw new Fault("not a JSON array of strings");
  for (const role of roles) {
    if (LONE_SURROGATE.test(role)) throw new Fault("not UTF-8 after decoding");
    if (CONTROL.test(role)) throw new Fault("control character");
  }
  return roles;
}

/** The headers as pairs. Not exported by the package. */
export function headerPairs(headers: HeaderLines): Iterable<readonly [string, string]> {
  return lines(headers);
}

/** How many headers node:http keeps of this request. */
function mostHeaders(headers: HeaderLines): number {
  const { httpVersionMajor, socket } = headers as { httpVersionMajor?: unknown; socket?: { server?: { maxHeadersCount?: unknown } } };
  // HTTP/2 refuses too many, and its socket must be left alone.
  const count = httpVersionMajor === 1 ? socket?.server?.maxHeadersCount : undefined;
  return typeof count === "number" && count > 0 ? count : MAX_HEADERS;
}

function* lines(headers: HeaderLines): Generator<readonly [string, string]> {
  const from: unknown = "rawHeaders" in headers ? headers.rawHeaders : headers;
  // Adapters and mocks make requests that didn't come over a wire.
  if (Array.isArray(from) && from.length === 0 && "headers" in headers && Object.keys(headers.headers ?? {}).length > 0)
    throw new TypeError("usercontext: the request has headers and no rawHeaders: give pairs of name and value, one for each header");
  if (Array.isArray(from) && from.every((item) => typeof item === "string")) {
    if (from.length % 2 !== 0) throw new TypeError("usercontext: raw headers come in pairs: name, value, name, value");
    for (let i = 0; i < from.length; i += 2) yield [from[i] as string, from[i + 1] as string];
    return;
  }
  if (typeof from !== "object" || from === null || !(Symbol.iterator in from))
    throw new TypeError(
      "usercontext: give the request or its rawHeaders: in req.headers, repeated headers are joined or dropped",
    );
  for (const pair of from as Iterable<unknown>) {
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string" || typeof pair[1] !== "string")
      throw new TypeError("usercontext: headers are pairs of a name and one value");
    yield [pair[0], pair[1]];
  }
}

// ASCII only: toLowerCase makes a k of the Kelvin sign.
function lower(name: string): string {
  return name.replace(/[A-Z]/g, (c) => c.toLowerCase());
}

function fold(name: string): string {
  return lower(name).replaceAll("_", "-");
}
