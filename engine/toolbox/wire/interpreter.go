package wire

import "time"

// CreateContext asks for an interpreter with a state of its own.
type CreateContext struct {
	Cwd      string `json:"cwd,omitempty"`      // empty: the work directory
	Language string `json:"language,omitempty"` // python, the default, is the only one
}

// InterpreterContext is an interpreter that keeps its state between programs.
type InterpreterContext struct {
	ID        string    `json:"id"`
	Cwd       string    `json:"cwd"`
	Language  string    `json:"language"`
	Active    bool      `json:"active"` // its process lives
	CreatedAt time.Time `json:"createdAt"`
}

// InterpreterContexts lists contexts, oldest first, without the default one.
type InterpreterContexts struct {
	Contexts []InterpreterContext `json:"contexts"`
}

// InterpreterExecute is the one message of a client on the WebSocket
// /process/interpreter/execute.
type InterpreterExecute struct {
	Code      string            `json:"code"`
	ContextID string            `json:"contextId,omitempty"` // empty: the default context
	Envs      map[string]string `json:"envs,omitempty"`      // for this program only
	Timeout   *float64          `json:"timeout,omitempty"`   // seconds; absent: 600, 0: none
}

// InterpreterChunk is a message of the toolbox on that WebSocket. The last one
// is a control chunk with the text completed or interrupted.
type InterpreterChunk struct {
	Type      string `json:"type"` // stdout, stderr, error, control
	Text      string `json:"text"`
	Name      string `json:"name"`      // of an error: its class
	Value     string `json:"value"`     // of an error: its message
	Traceback string `json:"traceback"` // of an error
}

// The types of an InterpreterChunk, and the texts of a control chunk.
const (
	ChunkStdout  = "stdout"
	ChunkStderr  = "stderr"
	ChunkError   = "error"
	ChunkControl = "control"

	Completed   = "completed"
	Interrupted = "interrupted"
)

// CloseTimeout is the code that the WebSocket is closed with when a program's
// time ran out.
const CloseTimeout = 4008
