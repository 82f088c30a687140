// Package wire holds the JSON shapes of the control API and their conversion
// to and from the engine's types. The API's handlers and the client both use
// it, so a field that one side forgets is found by the round-trip tests.
package wire
