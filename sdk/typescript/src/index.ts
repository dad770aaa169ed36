/**
 * How a service behind the Gatehouse gate learns who is calling. See README.md.
 *
 * @packageDocumentation
 */
export {
  AnonymousError,
  checkInternalKey,
  DEFAULT_MAX_BYTES,
  ForbiddenError,
  HEADER_EMAIL,
  HEADER_INTERNAL_KEY,
  HEADER_ORGANIZATION_ID,
  HEADER_ROLES,
  HEADER_USER_ID,
  hashKey,
  type HeaderLines,
  type HeaderNames,
  type Key,
  MalformedError,
  type Options,
  parseKey,
  Reader,
  readUser,
  Refusal,
  User,
  type UserFields,
} from "./usercontext.js";
export {
  HEADER_ASSERTION,
  KeysUnavailableError,
  UnverifiedError,
  type VerifiedUser,
  Verifier,
  type VerifierOptions,
} from "./verifier.js";
export { currentSession, currentUser, setCurrentUser } from "./current.js";
