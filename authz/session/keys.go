package session

import (
	"strings"
	"time"
)

// Every key that this package reads or writes is built in this file.
//
//	key                           value               lives                       why
//	sess:<id>                     the record, JSON    Options.TTL, or its own     shared with express-session
//	                                                  cookie.originalMaxAge       (the prefix is an option)
//	user:<id>                     the profile, JSON   as its owner decides        shared with whoever keeps users
//	revoked:<jti>                 anything            until no verifier takes     shared; a token revoked by name
//	                                                  the token any more
//	gatehouse:dead:{sess:<id>}    1                   twice as long as the        a session that was ended; a late
//	                                                  record could live; no       save of its record by another
//	                                                  expiry: markLife            program brings nothing back
//	gatehouse:dead:{refresh:<f>}  1                   until no token of the       a revoked refresh family, and the
//	                                                  family is taken any more    access tokens that came from it
//	gatehouse:before:{user:<id>}  Unix milliseconds   markLife                    what the user holds that is not
//	                                                                              newer than this is revoked
//	gatehouse:seen:{sess:<id>}    Unix milliseconds   twice as long as the        last gated request, for
//	                                                  record could live; no       idle_timeout
//	                                                  expiry: markLife
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

	markDead   = prefixOurs + "dead:"
	markBefore = prefixOurs + "before:"
	markSeen   = prefixOurs + "seen:"
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

func beforeKey(userID string) string { return markBefore + "{" + profileKey(userID) + "}" }

func revokedTokenKey(jti string) string { return prefixRevoked + jti }

func revokedFamilyKey(family string) string { return markDead + "{" + prefixRefresh + family + "}" }

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
