package session

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Every key that this package reads or writes is built in this file, and stands on
// docs/reference/redis.md.
//
//	key                             value               lives                       why
//	sess:<id>                       the record, JSON    Options.TTL, or its own     shared with express-session
//	                                                    cookie.originalMaxAge       (the prefix is an option)
//	user:<id>                       the profile, JSON   as its owner decides        shared with whoever keeps users
//	revoked:<jti>                   anything            until no verifier takes     shared; a token revoked by name
//	                                                    the token any more
//	refresh:<family>                hash, families.go   Options.RefreshTTL since    a refresh family: whose it is, and
//	                                                    the last rotation           which of its tokens is current
//	gatehouse:dead:{sess:<id>}      1, or the call      twice as long as the        a session that was ended; a late
//	                                that ended it; on   record could live; no       save of its record by another
//	                                a second line       expiry: markLife            program brings nothing back
//	                                whose it was
//	gatehouse:dead:{refresh:<f>}    the same            until no token of the       a revoked refresh family, and the
//	                                                    family is taken any more    access tokens that came from it
//	gatehouse:before:{user:<id>}    Unix milliseconds   markLife                    what the user holds that is not
//	                                                                                newer than this is revoked
//	gatehouse:seen:{sess:<id>}      Unix milliseconds   twice as long as the        last gated request, for
//	                                                    record could live; no       idle_timeout and for lists
//	                                                    expiry: markLife
//	gatehouse:sessions:{user:<id>}  sorted set: session as long as one of them      the sessions of a user that we made
//	                                ids by when they    is kept in it               or that the gate saw (index.go)
//	                                can be forgotten
//	gatehouse:families:{user:<id>}  the same, of        the same                    the refresh families of a user
//	                                families
//	gatehouse:provider:{<hash>}     the same, of        the same                    the sessions that came from a login
//	                                sessions                                        with an OpenID provider, by its sid
//	                                                                                and by its sub
//	gatehouse:logout:{<hash>}       the call that took  as long as the request is   a provider's logout request counts
//	                                it                  valid                       once, by its jti
//	gatehouse:confirm:{…}           Unix milliseconds   confirmLife                 a write for replicas to confirm
//	                                                                                (confirm.go)
//	gatehouse:feed                  1                   feedMemory                  somebody follows what ends, at some
//	                                                                                replica (feed.go)
//
// A mark lies in the cluster slot of the record that it is about, so that one
// script can change both.
//
// The names hold ids as they are. A session id opens nothing: what a browser
// must show is the id with a signature, and the secret for that is not in
// Redis. It stands in clear in the name of the record anyway, by which Express
// finds it.

const (
	prefixOurs    = "gatehouse:"
	prefixUser    = "user:"
	prefixRevoked = "revoked:"
	prefixRefresh = "refresh:"

	markDead    = prefixOurs + "dead:"
	markBefore  = prefixOurs + "before:"
	markSeen    = prefixOurs + "seen:"
	markConfirm = prefixOurs + "confirm:"

	indexSessions = prefixOurs + "sessions:"
	indexFamilies = prefixOurs + "families:"
	indexProvider = prefixOurs + "provider:"

	prefixLogout = prefixOurs + "logout:"

	keyFeed = prefixOurs + "feed"
)

// markLife is how long a mark lives that covers credentials without a known
// end: a record that never expires, or tokens of an issuer that gives them a
// year. It is longer than any of them should live.
const markLife = 400 * 24 * time.Hour

// mark returns the key of a mark about a record, in the record's cluster slot:
// the hash tag of the mark is the tag of the record where that has one, else
// all of its name. (What comes first between braces is hashed instead of the
// whole name.)
func mark(kind, record string) string {
	if tagged(record) {
		return kind + record
	}
	return kind + "{" + record + "}"
}

// tagged reports whether a key has a hash tag, by the rule of the Redis
// Cluster specification: the first { with a } behind it, not next to it.
func tagged(key string) bool {
	_, rest, open := strings.Cut(key, "{")
	return open && strings.IndexByte(rest, '}') > 0
}

// recordKeys are the keys of one session.
type recordKeys struct{ record, dead, seen string }

// keys returns the keys of a session id; ok is false for an id with braces,
// which could put the marks into another cluster slot than the record.
// express-session makes no such ids.
func (s *Store) keys(id string) (k recordKeys, ok bool) {
	if id == "" || strings.ContainsAny(id, "{}") {
		return recordKeys{}, false
	}
	record := s.o.Prefix + id
	return recordKeys{record: record, dead: mark(markDead, record), seen: mark(markSeen, record)}, true
}

func profileKey(userID string) string { return prefixUser + userID }

// userKeys are the keys about a user. They share a cluster slot.
type userKeys struct{ before, sessions, families string }

func keysOf(userID string) userKeys {
	tag := "{" + profileKey(userID) + "}"
	return userKeys{before: markBefore + tag, sessions: indexSessions + tag, families: indexFamilies + tag}
}

func beforeKey(userID string) string { return keysOf(userID).before }

// beforeParts are what the key of a user's mark begins and ends with.
func beforeParts() (head, tail string) { return markBefore + "{" + prefixUser, "}" }

func revokedTokenKey(jti string) string { return prefixRevoked + jti }

// familyKeys are the keys of one refresh family.
type familyKeys struct{ record, dead string }

// keysOfFamily returns the keys of a refresh family; ok is false for a name
// that none of ours has.
func keysOfFamily(family string) (k familyKeys, ok bool) {
	if family == "" || strings.ContainsAny(family, "{}") {
		return familyKeys{}, false
	}
	record := prefixRefresh + family
	return familyKeys{record: record, dead: mark(markDead, record)}, true
}

func revokedFamilyKey(family string) string { return markDead + "{" + prefixRefresh + family + "}" }

// A provider's names for its logins and users are personal, and as long as it
// likes: they are hashed.
func hashOf(kind string, names ...string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + strings.Join(names, "\x00")))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// isHash reports whether a text has the form of [hashOf].
func isHash(text string) bool {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(decoded) == sha256.Size && len(text) == base64.RawURLEncoding.EncodedLen(sha256.Size)
}

// maxProviderHashes is how many names a provider has for one login.
const maxProviderHashes = 2

// providerHashes name the provider's login, if it has a name for it, and its
// user. An issuer is a URL, in which no NUL can stand.
func providerHashes(l authz.ProviderLogin) []string {
	var hashes []string
	if l.Issuer != "" && l.SessionID != "" {
		hashes = append(hashes, hashOf("sid", l.Issuer, l.SessionID))
	}
	if l.Issuer != "" && l.Subject != "" {
		hashes = append(hashes, hashOf("sub", l.Issuer, l.Subject))
	}
	return hashes
}

func providerKey(hash string) string { return indexProvider + "{" + hash + "}" }

func logoutKey(issuer, jti string) string {
	return prefixLogout + "{" + hashOf("jti", issuer, jti) + "}"
}

// badPrefix says what is wrong with a prefix for session records; "" when
// nothing is.
func badPrefix(prefix string) string {
	for _, reserved := range []string{prefixOurs, prefixUser, prefixRevoked, prefixRefresh} {
		if strings.HasPrefix(reserved, prefix) || strings.HasPrefix(prefix, reserved) {
			return "session records would mix with the keys " + reserved + "…; the usual prefix is sess:"
		}
	}
	if strings.ContainsAny(prefix, "{}") && !tagged(prefix) {
		return "braces must enclose a cluster hash tag, as in {app}:sess:"
	}
	return ""
}
