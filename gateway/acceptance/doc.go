// Package acceptance drives a real server with the published, unmodified
// TypeScript SDK, in its current version and in an old one. Its test installs
// them from the npm registry into the user's cache directory, once, and writes
// docs/sdk.md.
package acceptance

//go:generate go test -run TestSDK . -update
