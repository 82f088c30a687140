// Package clients knows how each agent is told of an MCP server: where its
// configuration lies on every system, and in which format. It changes one
// entry in a file and keeps every other byte, comments included.
//
// An Agent is data; the formats are functions on bytes; only Apply touches the
// disk.
package clients
