// Package mcp serves Atoll to agents over the Model Context Protocol: on
// standard input and output for an agent on the same computer, and over
// streamable HTTP for all others. Both protocol eras, with and without
// sessions, are answered on one endpoint.
//
// The tools are plain values in mcp/tools that know nothing of any SDK; this
// package binds them to mcp-go and adds what a server that faces models and
// networks needs: its own argument check, panics turned into tool errors,
// ordered progress, keep-alives, guards against foreign web pages, sessions
// that belong to one principal, and cancellation that reaches one's own calls
// only.
package mcp
