package toolbox

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// said is what a program said, joined by channel.
type said struct {
	Out, Err, Error, End string
}

func (b *box) interpret(q wire.InterpreterExecute) (said, error) {
	return b.interpretTill(b.t.Context(), q, nil)
}

func (b *box) interpretTill(ctx context.Context, q wire.InterpreterExecute, seen func(wire.InterpreterChunk)) (said, error) {
	var s said
	end, err := b.Interpret(ctx, q, func(c wire.InterpreterChunk) error {
		switch c.Type {
		case wire.ChunkStdout:
			s.Out += c.Text
		case wire.ChunkStderr:
			s.Err += c.Text
		case wire.ChunkError:
			s.Error += c.Name + ": " + c.Value + "\n" + c.Traceback
		}
		if seen != nil {
			seen(c)
		}
		return nil
	})
	s.End = end
	return s, err
}

// ask runs a program that must complete and returns its output.
func (b *box) ask(contextID, code string) string {
	b.t.Helper()
	s, err := b.interpret(wire.InterpreterExecute{Code: code, ContextID: contextID})
	if err != nil || s.Error != "" || s.End != wire.Completed {
		b.t.Fatalf("%s: got %+v, %v", code, s, err)
	}
	return s.Out
}

func TestInterpreter(t *testing.T) {
	b := open(t, debian)
	const trace = "Traceback (most recent call last):\n  File \"<code-%s>\", line 1, in <module>\n    "
	tests := []struct {
		name, code string
		want       said
	}{
		{"print", "print('é', 1); import sys; n = sys.stderr.write('oops')", said{Out: "é 1\n", Err: "oops"}},
		{"value", "x = 20\nx + 22", said{Out: "42\n"}},
		{"state", "y = x; _", said{Out: "42\n"}},
		{"no value", "None", said{}},
		{"only a comment", "# nothing", said{}},
		{"processes", "import os, subprocess; print('a'); sys.stdout.flush(); subprocess.run(['sh', '-c', 'id -u; echo e >&2']); os.system('printf z'); None", said{Out: "a\n41234\nz", Err: "e\n"}},
		{"input", "input()", said{Error: "EOFError: EOF when reading a line\n" + strings.Replace(trace, "%s", "7", 1) + "input()\nEOFError: EOF when reading a line\n"}},
		{"syntax", "x = = 1", said{Error: "SyntaxError: invalid syntax (<code-8>, line 1)\n  File \"<code-8>\", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n"}},
		{"output before an error", "print('p', end=''); 1/0", said{Out: "p", Error: "ZeroDivisionError: division by zero\n" + strings.Replace(trace, "%s", "9", 1) + "print('p', end=''); 1/0\n                         ~^~\nZeroDivisionError: division by zero\n"}},
		{"exit", "import sys; sys.exit()", said{}},
		{"main", "import pickle\nclass C: pass\npickle.loads(pickle.dumps(C())).__class__ is C, __name__", said{Out: "(True, '__main__')\n"}},
		{"large", "print('ü' * 300000)", said{Out: strings.Repeat("ü", 300000) + "\n"}},
		{"closed streams", "import os; os.close(1); os.close(2); print('still')", said{Out: "still\n"}},
		{"after all that", "x", said{Out: "20\n"}},
		{"surrogates", "print('\\ud800')", said{Out: "\ufffd\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := b.interpret(wire.InterpreterExecute{Code: tt.code})
			tt.want.End = wire.Completed
			if tt.name == "processes" && (got.Out == "41234\na\nz" || got.Out == "41234\nza\n") {
				// What a process prints comes by another pipe than what Python
				// prints; only within each the order is certain.
				got.Out = tt.want.Out
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
	s, err := b.interpret(wire.InterpreterExecute{Code: "import os; os.environ['E'], os.environ['FROM_IMAGE'], os.getcwd()", Envs: map[string]string{"E": "e"}})
	if want := "('e', '1', '" + b.dir + "')\n"; err != nil || s.Out != want {
		t.Errorf("got %+v, %v, want %s", s, err, want)
	}
	if got := b.ask("", "'E' in os.environ"); got != "False\n" {
		t.Errorf("a program's environment stayed: %s", got)
	}
}

func TestInterpreterContexts(t *testing.T) {
	b := open(t, debian)
	ctx := t.Context()
	b.run("mkdir sub")
	one, err := b.CreateContext(ctx, wire.CreateContext{Cwd: "sub"})
	must(t, err)
	two, err := b.CreateContext(ctx, wire.CreateContext{Language: "python"})
	must(t, err)
	if one.Cwd != b.dir+"/sub" || one.Language != "python" || !one.Active || one.CreatedAt.IsZero() {
		t.Errorf("got %+v", one)
	}
	b.ask("", "v = 0")
	b.ask(one.ID, "v = 1")
	b.ask(two.ID, "v = 2")
	if got := b.ask("default", "v") + b.ask(one.ID, "import os; v, os.getcwd()") + b.ask(two.ID, "v"); got != "0\n(1, '"+b.dir+"/sub')\n2\n" {
		t.Errorf("the states are %q", got)
	}
	list, err := b.Contexts(ctx)
	must(t, err)
	if diff := cmp.Diff([]wire.InterpreterContext{one, two}, list); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	must(t, b.DeleteContext(ctx, one.ID))
	wantError(t, b.DeleteContext(ctx, one.ID), 404, wire.CodeNotFound, one.ID)
	wantError(t, b.DeleteContext(ctx, "default"), 400, wire.CodeBadRequest, "default")
	_, err = b.interpret(wire.InterpreterExecute{Code: "v", ContextID: one.ID})
	wantError(t, err, 400, wire.CodeBadRequest, "not found")
	_, err = b.interpret(wire.InterpreterExecute{Code: " "})
	wantError(t, err, 400, wire.CodeBadRequest, "code:")
	_, err = b.CreateContext(ctx, wire.CreateContext{Language: "ruby"})
	wantError(t, err, 400, wire.CodeBadRequest, "language:")
	_, err = b.CreateContext(ctx, wire.CreateContext{Cwd: "/nowhere"})
	wantError(t, err, 400, wire.CodeBadRequest, "/nowhere")

	// One that ends itself is gone; the default one comes back new.
	_, err = b.interpret(wire.InterpreterExecute{Code: "import os; os._exit(3)", ContextID: two.ID})
	wantError(t, err, 410, wire.CodeSessionEnded, "exit code 3")
	if list, err := b.Contexts(ctx); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no contexts", list, err)
	}
	_, err = b.interpret(wire.InterpreterExecute{Code: "import os; os._exit(0)"})
	wantError(t, err, 410, wire.CodeSessionEnded, "state is lost")
	if got := b.ask("", "'v' in dir()"); got != "False\n" {
		t.Errorf("got %q from a new interpreter", got)
	}
	none := open(t, func(c *Config) { c.Env["PATH"] = "/nowhere" })
	_, err = none.CreateContext(ctx, wire.CreateContext{})
	wantError(t, err, 501, wire.CodeNotImplemented, "python3 is not installed")
}

func TestInterpreterStops(t *testing.T) {
	b := open(t, debian)
	b.ask("", "import subprocess, signal, time") // starting takes its time
	timeout := 1.0
	for name, code := range map[string]string{
		"sleeps": "import time; keep = 1; time.sleep(300)",
		"prints": "keep = 1\nwhile True: print('x' * 1000)",
		"child":  "import subprocess; keep = 1; subprocess.run(['sleep', '300'])",
	} {
		_, err := b.interpret(wire.InterpreterExecute{Code: code, Timeout: &timeout})
		wantError(t, err, 408, wire.CodeExecTimeout, "timeout")
		if got := b.ask("", "keep"); got != "1\n" {
			t.Errorf("%s: the state is lost: %q", name, got)
		}
	}
	stubborn := "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import time\nwhile True: time.sleep(1)"
	_, err := b.interpret(wire.InterpreterExecute{Code: stubborn, Timeout: &timeout})
	wantError(t, err, 408, wire.CodeExecTimeout, "timeout")
	if got := b.ask("", "'keep' in dir()"); got != "False\n" {
		t.Errorf("got %q, want a new interpreter", got)
	}

	// Leaving interrupts.
	ctx, cancel := context.WithCancel(t.Context())
	_, err = b.interpretTill(ctx, wire.InterpreterExecute{Code: "import time\ntry: print('go', flush=True); time.sleep(300)\nfinally: left = 1"}, func(wire.InterpreterChunk) { cancel() })
	if err == nil {
		t.Error("got no error after leaving")
	}
	if got := b.ask("", "left"); got != "1\n" {
		t.Errorf("got %q", got)
	}
	s, err := b.interpret(wire.InterpreterExecute{Code: "raise KeyboardInterrupt"})
	if err != nil || s.End != wire.Interrupted {
		t.Errorf("got %+v, %v, want it interrupted", s, err)
	}

	// Deleting ends what runs and what waits.
	c, err := b.CreateContext(t.Context(), wire.CreateContext{})
	must(t, err)
	errs := make(chan error, 2)
	started := make(chan struct{})
	var once sync.Once
	go func() {
		_, err := b.interpretTill(t.Context(), wire.InterpreterExecute{Code: "print(1); import time; time.sleep(300)", ContextID: c.ID}, func(wire.InterpreterChunk) { once.Do(func() { close(started) }) })
		errs <- err
	}()
	<-started
	go func() {
		_, err := b.interpret(wire.InterpreterExecute{Code: "1", ContextID: c.ID})
		errs <- err
	}()
	must(t, b.DeleteContext(t.Context(), c.ID))
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("got no error from a deleted context")
		}
	}
	eventually(t, "all calls to end", func() bool {
		s, err := b.Status(t.Context())
		return err == nil && s.Busy == 0
	})
}

// TestInterpreterQueues checks that programs run one at a time, in order.
func TestInterpreterQueues(t *testing.T) {
	b := open(t, debian)
	b.ask("", "seen = []; import time")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if _, err := b.interpret(wire.InterpreterExecute{Code: "n = len(seen); time.sleep(0.02); seen.append(n)"}); err != nil {
				t.Error(i, err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("programs are stuck")
	}
	if got := b.ask("", "seen"); got != "[0, 1, 2, 3, 4, 5]\n" {
		t.Errorf("got %s", got)
	}
}
