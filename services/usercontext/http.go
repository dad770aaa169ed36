package usercontext

import (
	"encoding/json"
	"errors"
	"net/http"
)

// Require serves next to authenticated callers only, with the [User] in the
// request's context. Malformed identity headers are answered 400
// {"error":"Bad request"}, none at all 401 {"error":"No token provided"}.
func Require(next http.Handler) http.Handler { return defaultReader.Require(next) }

// Require is the function [Require] for this Reader's headers.
func (r *Reader) Require(next http.Handler) http.Handler {
	return r.read(next, false)
}

// Optional serves next to anonymous callers too, for whom [FromContext]
// finds no user. Malformed identity headers are answered 400 {"error":"Bad
// request"}: they are never taken for anonymous.
func Optional(next http.Handler) http.Handler { return defaultReader.Optional(next) }

// Optional is the function [Optional] for this Reader's headers.
func (r *Reader) Optional(next http.Handler) http.Handler {
	return r.read(next, true)
}

func (r *Reader) read(next http.Handler, anonymous bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a, err := r.Verified(req.Context(), req.Header)
		if err != nil && (!anonymous || !errors.Is(err, ErrAnonymous)) {
			r.refuse(w, req, err)
			return
		}
		// An anonymous caller's context carries no user, even if one from
		// elsewhere was in it.
		next.ServeHTTP(w, req.WithContext(NewAssertionContext(req.Context(), a)))
	})
}

// RequireRole returns middleware that serves users with at least one of the
// roles, and answers others 403 {"error":"Forbidden"}. With no roles, or
// empty ones, it serves nobody.
//
// It goes inside [Require] or [Optional], which read the user: without a
// user in the context it answers 401 {"error":"No token provided"}.
func RequireRole(anyOf ...string) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			user, ok := FromContext(req.Context())
			if !ok {
				writeRefusal(w, ErrAnonymous)
				return
			}
			if !user.HasRole(anyOf...) {
				writeRefusal(w, ErrForbidden)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

// RequireInternalKey returns middleware for calls from service to service,
// which don't come through the gate: the header x-internal-api-key must hold
// one of the keys, of which several can be valid while one is rotated.
// Otherwise (missing, wrong, expired, sent twice, spelt with underscores, or
// no keys configured) it answers 403 {"error":"Forbidden"}. The comparison
// takes constant time.
//
// The gate removes that header from everything that clients send, so such a
// route can't be reached through it. It reads no user: the caller is a
// service. Handlers must not log the header.
func RequireInternalKey(keys ...Key) func(next http.Handler) http.Handler {
	return defaultReader.RequireInternalKey(keys...)
}

// RequireInternalKey is the function [RequireInternalKey] for this Reader's
// header and clock.
func (r *Reader) RequireInternalKey(keys ...Key) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if err := r.CheckInternalKey(req.Header, keys...); err != nil {
				r.refuse(w, req, err)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

func (r *Reader) refuse(w http.ResponseWriter, req *http.Request, err error) {
	r.onRefusal(req.Context(), err)
	writeRefusal(w, err)
}

// writeRefusal answers as the gate would.
func writeRefusal(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrAnonymous):
		WriteError(w, http.StatusUnauthorized, "No token provided")
	case errors.Is(err, ErrMalformed):
		WriteError(w, http.StatusBadRequest, "Bad request")
	case errors.Is(err, ErrKeysUnavailable):
		w.Header().Set("Retry-After", "1")
		WriteError(w, http.StatusServiceUnavailable, "Authentication unavailable")
	default:
		WriteError(w, http.StatusForbidden, "Forbidden")
	}
}

// WriteError answers as the gate does: the status, and the JSON object
// {"error":message} with nothing around it, not even a newline.
func WriteError(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(struct {
		Error string `json:"error"`
	}{message})
	if err != nil { // a struct of one string can always be marshalled
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone, and with it who could be told
}
