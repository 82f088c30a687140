package toolbox

import (
	"io"
	"net/http"
	"testing"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// TestBadSubsystems asks for what is not there; gateway/sshd tests SFTP itself.
func TestBadSubsystems(t *testing.T) {
	b := open(t)
	for _, q := range []wire.ExecStart{
		{Subsystem: "shell"},
		{Subsystem: "../sftp"},
		{Subsystem: "sftp", TTY: true},
		{Subsystem: "sftp", Command: "ls"},
		{Subsystem: "sftp", Argv: []string{"ls"}},
	} {
		s, err := b.Stream(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Wait(t.Context(), io.Discard, io.Discard)
		wantError(t, err, http.StatusBadRequest, wire.CodeBadRequest, "subsystem: ")
		s.Close()
	}
}
