// Package engine holds Atoll's domain: what a sandbox, snapshot, runner and
// image are, the states a sandbox may be in, the one error type, and the
// service interfaces that the gateway, the MCP server and the CLI are written
// against. It does no I/O. engine/core implements the services on a server;
// gateway/client implements the same interfaces over HTTP.
package engine
