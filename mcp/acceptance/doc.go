// Package acceptance drives the MCP server with programs that others have
// published: clients, and the protocol's own conformance suite. Its tests
// install them from the npm registry into the user's cache directory, once.
package acceptance
