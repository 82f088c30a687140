package tools

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// ErrShutdown is the cause of contexts that end because this server does. What
// runs in sandboxes then goes on; any other end of a call kills its command.
var ErrShutdown = errors.New("the server is shutting down")

// maxCommand is under what Linux takes as one argument of a program.
const maxCommand = 100 << 10

func (k *kit) processTools() []Tool {
	return []Tool{
		{
			Name: "sandbox_exec", Set: SetCore, Title: "Run command",
			Description: "Run a shell command. Returns exit code and output; long output keeps head and tail. After 45 s it goes on as a background process. background returns a process id at once.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"command":{"type":"string"},"cwd":{"type":"string"},"env":{"type":"object","additionalProperties":{"type":"string"}},"stdin":{"type":"string"},"timeout_s":{"type":"integer","minimum":1,"description":"Kill after"},"background":{"type":"boolean"}},"required":["id","command"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.exec,
		},
		{
			Name: "sandbox_process", Set: SetCore, Title: "Manage process",
			Description: "Poll, feed or kill a background process. output returns what is new since offset; wait_s blocks for exit.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"process":{"type":"string","description":"Omit to list"},"action":{"type":"string","enum":["output","input","kill"]},"data":{"type":"string"},"offset":{"type":"integer","minimum":0},"wait_s":{"type":"integer","minimum":0,"maximum":45}},"required":["id"],"additionalProperties":false}`,
			Hints:       Hints{OpenWorld: true}, Handler: k.process,
		},
	}
}

// exec runs a command in a toolbox session. That way it can go on when the
// caller has waited long enough, and its output stays addressable.
func (k *kit) exec(ctx context.Context, a Args) (Result, error) {
	if err := checkCommand(a); err != nil {
		return Result{}, err
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	if !a.Bool("background") {
		return k.foreground(ctx, a, b)
	}
	process := newID("p-")
	line, err := b.commandLine(ctx, a, process)
	if err != nil {
		return Result{}, err
	}
	if err := b.spawn(ctx, process, line); err != nil {
		if canceled(ctx) && !shutdown(ctx) {
			b.endQuietly(ctx, process)
		}
		return Result{}, err
	}
	r := Text("Started process %s in the background. Follow it with sandbox_process {\"id\":%q,\"process\":%q,\"wait_s\":10}.", process, a.Str("id"), process)
	r.Meta = processMeta(process, 0, nil)
	return r, nil
}

// foreground runs a command until it ends, the caller has waited long enough,
// or the caller goes away.
func (k *kit) foreground(ctx context.Context, a Args, b *box) (Result, error) {
	began := time.Now()
	patience, cancel := context.WithTimeout(ctx, k.opt.Foreground)
	defer cancel()
	process, done, err := k.runInShell(patience, a, b)
	switch {
	case err == nil:
		return k.finish(ctx, a, b, process, done, began)
	case shutdown(ctx):
		return goesOn(process), nil
	case canceled(ctx):
		b.endQuietly(ctx, process)
		return Result{}, ctx.Err()
	case patience.Err() != nil:
		return k.stillRunning(ctx, a, b, process, began)
	}
	if process != "" {
		b.endQuietly(ctx, process)
	}
	return Result{}, err
}

// runInShell runs the command in an idle shell or a new one. An idle one may
// have gone with a restart of the sandbox.
func (k *kit) runInShell(ctx context.Context, a Args, b *box) (process string, done wire.SessionExecuted, err error) {
	if process = k.shells.take(a); process != "" {
		if done, err = b.runIn(ctx, a, process); !gone(err) {
			return process, done, err
		}
		k.shells.forget(a)
	}
	process = newID("x-")
	if err = b.StartSession(ctx, process); err != nil {
		return process, done, err
	}
	done, err = b.runIn(ctx, a, process)
	return process, done, err
}

// gone tells that a session does not exist any more.
func gone(err error) bool {
	code := codeOf(err)
	return code == wire.CodeNotFound || code == wire.CodeSessionEnded
}

// runIn runs the command in a session and waits for its end. Meanwhile it
// tells now and then what the command printed last.
func (b *box) runIn(ctx context.Context, a Args, process string) (done wire.SessionExecuted, err error) {
	line, err := b.commandLine(ctx, a, process)
	if err != nil {
		return done, err
	}
	telling, stop := context.WithCancel(ctx)
	var teller sync.WaitGroup
	teller.Go(func() { b.tell(telling, a, process) })
	done, err = b.Exec(ctx, process, wire.SessionExecute{Command: line})
	stop()
	teller.Wait()
	return done, err
}

// tellEvery is how often a caller hears of a running command.
const tellEvery = 2 * time.Second

func (b *box) tell(ctx context.Context, a Args, process string) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, err := b.commandOf(ctx, process)
		if err != nil {
			continue
		}
		p, _, err := b.logs(ctx, process, c.ID, -400, 400)
		if line := lastLine(p); err == nil && line != "" && line != last {
			a.Progress(line)
			last = line
		}
	}
}

// finish makes the answer for a command that has ended. The shell is free for
// the next command, unless the answer leaves some of the output out.
func (k *kit) finish(ctx context.Context, a Args, b *box, process string, done wire.SessionExecuted, began time.Time) (Result, error) {
	took := time.Since(began)
	if done.ExitCode == nil || done.Output == nil {
		return Result{}, engine.Errorf(engine.KindInternal, "sandbox %s did not say how the command ended", b.id)
	}
	var out capture
	out.write([]byte(*done.Output))
	if out.total >= 15<<20 { // the toolbox sends the last 16 MiB
		if _, end, err := b.logs(ctx, process, done.CmdID, -1, 1); err == nil && end > out.total {
			out.dropped += end - out.total
			out.total = end
		}
	}
	r := finished(a, process, *done.ExitCode, took, &out, k.denied(ctx, a, began))
	surplus := ""
	if out.cut() {
		surplus = k.shells.keep(a, b, process)
	} else {
		surplus = k.shells.put(a, b, process)
	}
	if surplus != "" {
		b.endQuietly(ctx, surplus)
	}
	return r, nil
}

func shutdown(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrShutdown) }

func goesOn(process string) Result {
	return Fail("The server is shutting down. The command goes on as process %s; look at it with sandbox_process once the server is back.", process)
}

func finished(a Args, process string, code int, took time.Duration, out *capture, denied []engine.AccessRequest) Result {
	status := fmt.Sprintf("exit %d · %s", code, seconds(took))
	if limit := a.Int("timeout_s", 0); limit > 0 && (code == 124 || code == 137) && took >= time.Duration(limit)*time.Second {
		status = fmt.Sprintf("exit %d · timed out after %d s and was killed; raise timeout_s or leave it out", code, limit)
	}
	status += denialLines(denied)
	where := fmt.Sprintf(`read it with sandbox_process {"id":%q,"process":%q,"offset":%d}`, a.Str("id"), process, out.headEnd())
	r := Text("%s\n%s", status, out.text(maxText-len(status)-1, where))
	r.Text = strings.TrimRight(r.Text, "\n")
	r.Meta = map[string]any{metaExec: map[string]any{"exitCode": code, "ms": took.Milliseconds(), "bytes": out.total}}
	denialMeta(r.Meta, denied)
	return r
}

// stillRunning makes the answer for a command that goes on.
func (k *kit) stillRunning(ctx context.Context, a Args, b *box, process string, began time.Time) (Result, error) {
	c, err := b.commandOf(ctx, process)
	if err != nil {
		return Result{}, err
	}
	out, err := b.tail(ctx, process, c.ID)
	if err != nil {
		return Result{}, err
	}
	status := fmt.Sprintf("running · %s so far, now background process %s. Follow it with sandbox_process {\"id\":%q,\"process\":%q,\"offset\":%d,\"wait_s\":30}",
		seconds(time.Since(began)), process, a.Str("id"), process, out.total)
	denied := k.denied(ctx, a, began)
	status += denialLines(denied)
	where := fmt.Sprintf(`read it from offset %d`, out.headEnd())
	r := Text("%s\n%s", status, out.text(maxText-len(status)-1, where))
	r.Text = strings.TrimRight(r.Text, "\n")
	r.Meta = processMeta(process, out.total, nil)
	denialMeta(r.Meta, denied)
	return r, nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func checkCommand(a Args) error {
	command := a.Str("command")
	switch {
	case strings.TrimSpace(command) == "":
		return invalid(`As {"command":"ls -l"}`, `"command" is empty`)
	case strings.ContainsRune(command, 0):
		return invalid("Write binary data with sandbox_write and encoding base64", `"command" holds a NUL byte`)
	case len(command) > maxCommand:
		return invalid("Save the script with sandbox_write and run the file", `"command" has %d bytes; at most %d are possible`, len(command), maxCommand)
	case strings.ContainsRune(a.Str("cwd"), 0):
		return invalid("Leave it out", `"cwd" holds a NUL byte`)
	case a.Bool("background") && a.Has("stdin"):
		return invalid("Send it with sandbox_process and action input", `"stdin" and "background" exclude each other`)
	}
	for name, value := range a.Map("env") {
		if !envName.MatchString(name) {
			return invalid("Use letters, digits and _, not starting with a digit", `"env" has the name %s`, quote(name))
		}
		if strings.ContainsRune(value, 0) {
			return invalid("Leave it out", `"env" has a NUL byte in %s`, name)
		}
	}
	return nil
}

// commandLine makes what the session's shell runs. The command is evaluated in
// a subshell, so that neither its syntax nor what it sets or exits disturbs
// the session. Everything but input for background processes is closed.
func (b *box) commandLine(ctx context.Context, a Args, process string) (string, error) {
	var line strings.Builder
	line.WriteString("(")
	if cwd := a.Str("cwd"); cwd != "" {
		cwd, err := b.path(ctx, cwd)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&line, "cd -- %s || exit; ", shellQuote(cwd))
	}
	env := a.Map("env")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&line, "export %s=%s; ", name, shellQuote(env[name]))
	}
	if limit := a.Int("timeout_s", 0); limit > 0 {
		fmt.Fprintf(&line, `exec timeout -k 5 %d "${BASH:-/bin/sh}" -c `, limit)
	} else {
		line.WriteString("eval ")
	}
	line.WriteString(shellQuote(a.Str("command")) + ")")
	switch {
	case a.Has("stdin"):
		file := "/tmp/.atoll-stdin-" + process
		if err := b.upload(ctx, file, []byte(a.Str("stdin"))); err != nil {
			return "", err
		}
		return fmt.Sprintf("{ rm -f %s; %s; } < %s", file, line.String(), file), nil
	case !a.Bool("background"):
		line.WriteString(" </dev/null")
	}
	return line.String(), nil
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// endQuietly ends a session even when the caller is gone.
func (b *box) endQuietly(ctx context.Context, process string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = b.EndSession(ctx, process)
}

func newID(prefix string) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// process looks after a command that runs in the background.
func (k *kit) process(ctx context.Context, a Args) (Result, error) {
	action := a.Str("action")
	process := a.Str("process")
	switch {
	case process == "" && action != "" && action != "output":
		return Result{}, invalid("Call without action to list them", `"process" is missing for action %q`, action)
	case strings.ContainsAny(process, "/?#\x00"), process == "..":
		return Result{}, invalid("Call without it to list them", `"process" is not a process id: %s`, quote(process))
	case a.Has("data") && action != "input":
		return Result{}, invalid(`Add "action":"input"`, `"data" needs action input`)
	case action == "input" && !a.Has("data"):
		return Result{}, invalid(`As "data":"yes"; a newline is added`, `"data" is missing for action input`)
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	if process == "" {
		return b.listProcesses(ctx)
	}
	command, err := b.commandOf(ctx, process)
	if err != nil {
		return Result{}, err
	}
	switch action {
	case "input":
		if err := b.input(ctx, process, command.ID, strings.TrimSuffix(a.Str("data"), "\n")); err != nil {
			return Result{}, err
		}
		if !a.Has("wait_s") && !a.Has("offset") {
			return Text("Sent to %s. Read the answer with sandbox_process and wait_s.", process), nil
		}
	case "kill":
		return b.killProcess(ctx, process, command)
	}
	return b.processOutput(ctx, a, process, command)
}

// commandOf returns the last command of a session.
func (b *box) commandOf(ctx context.Context, process string) (wire.Command, error) {
	s, err := b.Session(ctx, process)
	if absent(err) || err == nil && len(s.Commands) == 0 {
		return wire.Command{}, invalid(fmt.Sprintf(`sandbox_process {"id":%q} lists them; a restart of the sandbox ends them all`, b.id),
			"there is no process %s", quote(process))
	}
	if err != nil {
		return wire.Command{}, err
	}
	return s.Commands[len(s.Commands)-1], nil
}

func (b *box) listProcesses(ctx context.Context) (Result, error) {
	all, err := b.Sessions(ctx)
	if err != nil {
		return Result{}, err
	}
	var lines []string
	for _, s := range all {
		if len(s.Commands) == 0 {
			continue
		}
		c := s.Commands[len(s.Commands)-1]
		if strings.HasPrefix(s.SessionID, "x-") && c.ExitCode != nil {
			continue // a shell of ours, between commands
		}
		lines = append(lines, fmt.Sprintf("%s  %s  %s", s.SessionID, statusWord(c.ExitCode), firstLine(asGiven(c.Command))))
	}
	if len(lines) == 0 {
		return Text("No background processes. sandbox_exec with background starts one."), nil
	}
	head := fmt.Sprintf("%d processes\n", len(lines))
	return Result{Text: head + clip(strings.Join(lines, "\n"), maxText-len(head), "there are too many to show")}, nil
}

func (b *box) killProcess(ctx context.Context, process string, c wire.Command) (Result, error) {
	out, err := b.tail(ctx, process, c.ID)
	if err != nil {
		return Result{}, err
	}
	if err := b.EndSession(ctx, process); err != nil {
		return Result{}, err
	}
	status := "Killed " + process + "; its last output:"
	if c.ExitCode != nil {
		status = fmt.Sprintf("%s had ended with exit %d and is now forgotten; its last output:", process, *c.ExitCode)
	}
	return Text("%s\n%s", status, out.text(maxText/2, "it is gone")), nil
}

// tail reads all output there is, keeping the ends.
func (b *box) tail(ctx context.Context, process, command string) (*capture, error) {
	var out capture
	for {
		p, next, err := b.logs(ctx, process, command, out.total, 4<<20)
		if err != nil {
			return nil, err
		}
		at := out.total
		out.write(p)
		out.total = next // bytes that are not text count one, and arrive as more
		if next <= at {
			return &out, nil
		}
	}
}

// processOutput returns what is new since offset. Without an offset it shows
// both ends of all there is. With wait_s it waits for the end of the process.
func (b *box) processOutput(ctx context.Context, a Args, process string, c wire.Command) (Result, error) {
	deadline := time.Now().Add(time.Duration(a.Int("wait_s", 0)) * time.Second)
	for c.ExitCode == nil && time.Now().Before(deadline) {
		select {
		case <-time.After(min(200*time.Millisecond, time.Until(deadline))):
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
		var err error
		if c, err = b.Command(ctx, process, c.ID); err != nil {
			return Result{}, err
		}
	}
	status := statusWord(c.ExitCode)
	if !a.Has("offset") {
		out, err := b.tail(ctx, process, c.ID)
		if err != nil {
			return Result{}, err
		}
		head := fmt.Sprintf("%s · %d bytes · next offset %d\n", status, out.total, out.total)
		r := Text("%s%s", head, out.text(maxText-len(head), fmt.Sprintf("read it from offset %d", out.headEnd())))
		r.Meta = processMeta(process, out.total, c.ExitCode)
		return r, nil
	}
	offset := a.Int("offset", 0)
	p, next, err := b.logs(ctx, process, c.ID, offset, maxText-200)
	if err != nil {
		return Result{}, err
	}
	more := ""
	if next-offset >= maxText/2 {
		more = ", there may be more"
	}
	text := printable(withoutMarkers(p))
	if len(text) == 0 {
		text = "(nothing new)"
	}
	r := Text("%s · bytes %d-%d · next offset %d%s\n%s", status, offset, next, next, more, text)
	r.Meta = processMeta(process, next, c.ExitCode)
	return r, nil
}

// asGiven takes the command back out of a line that commandLine made.
func asGiven(line string) string {
	end := strings.LastIndex(line, "')")
	for _, before := range []string{"eval '", "-c '"} {
		if at := strings.Index(line, before); at >= 0 && at+len(before) <= end {
			return strings.ReplaceAll(line[at+len(before):end], `'\''`, "'")
		}
	}
	return line
}

func statusWord(code *int) string {
	if code == nil {
		return "running"
	}
	return fmt.Sprintf("exit %d", *code)
}

func processMeta(process string, offset int, code *int) map[string]any {
	m := map[string]any{"process": process, "offset": offset}
	if code != nil {
		m["exitCode"] = *code
	}
	return map[string]any{metaProcess: m}
}

func firstLine(s string) string {
	line, _, cut := strings.Cut(strings.TrimSpace(s), "\n")
	if len(line) > 120 {
		line, cut = cutEnd(line[:120]), true
	}
	if cut {
		line += " …"
	}
	return line
}
