package authz

import "errors"

// suspectError is a refusal of a credential that is authentic, and whose it was said to
// be. It reads as the refusal does.
type suspectError struct {
	err        error
	userID, id string // of the session, or of the refresh family
}

func (e *suspectError) Error() string { return e.err.Error() }
func (e *suspectError) Unwrap() error { return e.err }

// suspect notes whose credential was refused; nil stays nil. No part needs to be known.
func suspect(err error, userID, id string) error {
	if err == nil || userID == "" && id == "" {
		return err
	}
	return &suspectError{err: err, userID: userID, id: id}
}

// Suspect says whose credential was refused with err, as far as that is known of one
// that is authentic: the user's id, and the [Handle] of the session or of the refresh
// family, by which an operator finds it. It is for logs; the caller is nobody.
func Suspect(err error) (userID, handle string) {
	e, ok := errors.AsType[*suspectError](err)
	if !ok {
		return "", ""
	}
	if e.id != "" {
		handle = Handle(e.id)
	}
	return e.userID, handle
}

// Handle is the [Handle] of the session, or of the refresh family of the token, that
// somebody showed; "" where there is none.
func (p *Principal) Handle() string {
	if id := p.loginID(); id != "" {
		return Handle(id)
	}
	return ""
}

// loginID is the id of the session, or of the refresh family of a token.
func (p *Principal) loginID() string {
	if p.SessionID != "" {
		return p.SessionID
	}
	family, _ := p.Claims["sid"].(string)
	return family
}
