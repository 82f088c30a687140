package lsp

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/files"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// fakes returns a Manager whose servers answer the first request and then say
// nothing. They wait for that request: an answer that comes before its
// question is nobody's.
func fakes(t *testing.T) (*Manager, string) {
	t.Helper()
	dir := t.TempDir()
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"capabilities":{}}}`
	script := fmt.Sprintf("#!/bin/sh\nread -r header\nprintf 'Content-Length: %d\\r\\n\\r\\n%%s' '%s'\nexec sleep 600\n", len(answer), answer)
	if err := os.WriteFile(filepath.Join(dir, "pylsp"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	table := process.NewTable(false)
	space := process.NewSpace(table, process.NewUsers("/etc"), "", dir, map[string]string{"PATH": dir + ":/bin:/usr/bin"})
	m := NewManager(process.NewRunner(space), files.New(space))
	t.Cleanup(func() {
		m.Close()
		if n := table.Len(); n != 0 {
			t.Errorf("%d processes are left", n)
		}
		table.Close()
	})
	return m, dir
}

func TestIdleServersEnd(t *testing.T) {
	m, _ := fakes(t)
	if err := m.Start(t.Context(), wire.LspServer{LanguageID: "python", PathToProject: "."}); err != nil {
		t.Fatal(err)
	}
	var s *server
	for _, e := range m.servers {
		s = e.server
	}
	leave := s.begin()
	s.used = time.Now().Add(-2 * maxIdle)
	m.reap()
	if !s.alive() || len(m.servers) != 1 {
		t.Error("a server in use was ended")
	}
	leave()
	s.used = time.Now().Add(-2 * maxIdle)
	m.reap()
	if s.alive() || len(m.servers) != 0 || m.reaper != nil {
		t.Error("an idle server goes on")
	}
}

func TestServersAreCounted(t *testing.T) {
	m, dir := fakes(t)
	for i := range maxServers + 1 {
		project := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(project, 0o755); err != nil {
			t.Fatal(err)
		}
		err := m.Start(t.Context(), wire.LspServer{LanguageID: "python", PathToProject: project})
		if (err != nil) != (i == maxServers) {
			t.Errorf("server %d: %v", i, err)
		}
	}
	if err := m.Stop(t.Context(), wire.LspServer{LanguageID: "python", PathToProject: "0"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), wire.LspServer{LanguageID: "python", PathToProject: "8"}); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}
