// Package browser holds the tests that look at the demo page and at the console
// as people do: with a real Chromium, on what `gatehouse demo` runs.
//
// The tests are the *.mjs files, one story each; the Go test starts the demo
// and runs them with Node. Chromium is the program that GATEHOUSE_CHROMIUM
// names, or chromium, chromium-browser, google-chrome or google-chrome-stable
// in PATH. Where it, Node, its modules, Envoy or Redis are missing the tests
// are skipped, and fail where CI is set.
//
// With SCREENSHOTS=docs/images (a directory, from the repository's root) they
// also take the pictures of the documentation; ALL_SCREENSHOTS=1 takes further
// ones, of the dark and the narrow look, to be looked at and thrown away.
package browser
