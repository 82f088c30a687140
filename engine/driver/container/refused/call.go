package refused

import (
	"encoding/json"
	"fmt"
	"time"
)

// Call is one or several refused calls.
type Call struct {
	Instance string        `json:"instance"`
	Time     time.Duration `json:"time"` // since boot
	Name     string        `json:"name"` // of the system call, as "mount"
	// Detail is its arguments in the form name=value, with texts as they were in
	// the caller's memory.
	Detail string `json:"detail,omitempty"`
	Cut    bool   `json:"cut,omitempty"` // a text is longer than what is here
	Caller Caller `json:"caller"`
	// Times is how many calls this stands for. More than 1: the same one, by the
	// same process, since it was told last.
	Times uint64 `json:"times"`
	// Lost is how many calls before this one could not be told.
	Lost uint64 `json:"lost,omitempty"`
}

// Caller is who made a call; the zero value when it ended while it waited.
type Caller struct {
	ID      int    `json:"id,omitempty"` // of the process, as the host counts
	Thread  int    `json:"thread,omitempty"`
	Inner   int    `json:"inner,omitempty"` // ID as the sandbox counts
	Started uint64 `json:"started,omitempty"`
	UID     uint32 `json:"uid,omitempty"` // as the host counts
	Command string `json:"command,omitempty"`
}

// Tick is the unit of Caller.Started: the kernel tells the begin of a process
// since boot in these.
const Tick = 10 * time.Millisecond

// maxDetail bounds Call.Detail, and maxMessage an encoded call.
const (
	maxDetail  = 2 << 10
	maxMessage = 32 << 10
)

func (c *Call) encode() ([]byte, error) { return json.Marshal(c) }

func decode(b []byte) (Call, error) {
	var c Call
	if err := json.Unmarshal(b, &c); err != nil {
		return Call{}, fmt.Errorf("a message about a refused call: %w", err)
	}
	return c, nil
}
