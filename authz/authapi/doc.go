// Package authapi is the HTTP door: the auth API, by which people and programs
// get sessions and tokens, renew them, change them and lose them, the public
// keys, and the console.
//
//	api, err := authapi.New(authapi.Options{Store: store, Cookies: signer, UserStore: users, Verifier: verifier})
//	server := &http.Server{Handler: api}
//
// One call goes newCall → route → its operation → reply. An operation returns
// what to answer or an error; nothing is written before it is done, so a
// failure and a panic anywhere have an answer of their own. Errors become
// answers in one place, by the table that the gate has, too.
//
// Callers are authenticated as at the gate, by an [authz.Authorizer] with
// policies of its own that ask the store itself for every request. Identity
// headers mean nothing here.
//
// [OpenAPI] describes the calls; the tests hold it true.
//
// The package keeps nothing: what the calls need of others is in ports.go. It
// leaves out TLS, and CORS: the API is for pages of its own origin and for
// programs.
package authapi
