package authz

import "time"

// FeedKind is what an event of the revocation feed says.
type FeedKind string

// The kinds of events. The first five say that something ended; the others say how far
// the listener can rely on having heard of it.
const (
	FeedSessionEnded  FeedKind = "session.ended"
	FeedUserRevoked   FeedKind = "user.revoked"
	FeedUserDisabled  FeedKind = "user.disabled"
	FeedTokenRevoked  FeedKind = "token.revoked"
	FeedFamilyRevoked FeedKind = "family.revoked"

	// FeedReset: what ended before this moment is not known in full. Whoever holds
	// something admitted earlier asks anew about it.
	FeedReset FeedKind = "reset"
	// FeedLag: what ends from now on may be told late. Nothing is lost by that: FeedLive
	// follows when all was told, or FeedReset.
	FeedLag FeedKind = "lag"
	// FeedLive: what ends is told as it happens again, and nothing before was left out.
	FeedLive FeedKind = "live"
)

// FeedKinds are all kinds of events.
func FeedKinds() []FeedKind {
	return []FeedKind{
		FeedSessionEnded, FeedUserRevoked, FeedUserDisabled, FeedTokenRevoked, FeedFamilyRevoked, FeedReset, FeedLag, FeedLive,
	}
}

// Why a session ended, and why there is a reset.
const (
	FeedReasonRevoked = "revoked" // a call ended it: a logout, an administrator, an idle timeout
	FeedReasonGone    = "gone"    // its record is not there any more: it ran out, or another program removed it

	FeedReasonNew     = "new"     // a listener without a place to go on from
	FeedReasonUnknown = "unknown" // the place to go on from is not known, or too old
	FeedReasonMissed  = "missed"  // Redis was not heard for a time, or is another server
	FeedReasonFlushed = "flushed" // Redis was emptied, or so many changes came at once that they were not looked at
)

// FeedEvent is an event of the revocation feed. Fields that its kind doesn't have are
// zero. No field opens anything.
type FeedEvent struct {
	// ID is the place behind the event, to go on from.
	ID   string
	Kind FeedKind
	// Session is the handle of a session, or of a refresh family: see [Handle].
	Session string
	UserID  string // "" where it is not known
	TokenID string // jti
	Reason  string
	// Time is when it was heard of here.
	Time time.Time
	// Before is the user's mark: what is not newer ended.
	Before time.Time
	// Expires is until when the mark is kept; what it covers has run out by then.
	Expires time.Time
}
