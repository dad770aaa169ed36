// Package authapi is the HTTP door: the auth API, by which people and programs
// get sessions and tokens, renew them, change them and lose them, the public
// keys, and the console.
package authapi
