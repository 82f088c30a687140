// Package acceptance drives the MCP server with programs that others have
// published. Its tests install them from the npm registry into the user's
// cache directory, once.
package acceptance
