// Package acceptance drives a real server with published, unmodified clients:
// the TypeScript SDK in its current version and in an old one, the Python SDK,
// and packages of agent frameworks that are built on them. They come from the
// package registries into the user's cache directory, once. The test writes
// docs/sdk.md and docs/acceptance.md.
//
// The package also holds tests of the wire's contract that need a real sandbox:
// error bodies, required fields, and recorded requests.
package acceptance

//go:generate go test -run TestClients . -all -update
