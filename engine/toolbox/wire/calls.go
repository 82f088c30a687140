package wire

// CallsSocket is the name of a socket beside the toolbox's own, on which it
// tells the server for which call a process works. A message is one Begun.
const CallsSocket = "calls.sock"

// Begun says that what process PID does, and makes others do, is for a call
// from a time on, or from its begin when it is the first about that process.
type Begun struct {
	PID  int    `json:"pid"`
	At   int64  `json:"at"`             // nanoseconds since boot
	Call string `json:"call,omitempty"` // empty: for none
	For  int    `json:"for,omitempty"`  // not for a call, but for this process of the sandbox
}
