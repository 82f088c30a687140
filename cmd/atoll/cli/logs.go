package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"

	"github.com/atoll-sh/atoll/engine"
)

type logsOptions struct {
	session, command string
	follow           bool
}

func newLogsCommand(a *app) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Show what the entrypoint or a session's command printed",
		Long: "Shows the output of the sandbox's entrypoint, or of a command in a session.\n" +
			"Without --command it is the session's last one.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.sandboxNames(false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.session, "session", "s", "", "session; the entrypoint when not given")
	f.StringVarP(&o.command, "command", "c", "", "id of a command of the session")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the command ends")
	return cmd
}

func (a *app) logs(ctx context.Context, name string, o logsOptions) error {
	if o.command != "" && o.session == "" {
		return usagef("--command needs --session")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	rt, err := a.toolbox(ctx, c, name)
	if err != nil {
		return err
	}
	path, err := logPath(ctx, rt, o)
	if err != nil {
		return err
	}
	if o.follow {
		return a.followLogs(ctx, rt, path)
	}
	var logs toolbox.CommandLogs
	if err := toolboxGet(ctx, rt, path, nil, &logs); err != nil {
		return explainLogs(ctx, rt, o, err)
	}
	if a.asJSON() {
		return a.json(logs)
	}
	d := demux{out: a.out, err: a.err}
	if err := d.write([]byte(logs.Output)); err != nil {
		return err
	}
	return d.flush()
}

func logPath(ctx context.Context, rt http.RoundTripper, o logsOptions) (string, error) {
	if o.session == "" || o.session == "entrypoint" {
		return "/process/session/entrypoint/logs", nil
	}
	if o.command != "" {
		return "/process/session/" + o.session + "/command/" + o.command + "/logs", nil
	}
	all, err := sessions(ctx, rt)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.SessionID == o.session && len(s.Commands) > 0 {
			o.command = s.Commands[len(s.Commands)-1].ID
			return logPath(ctx, rt, o)
		}
	}
	return "", engine.Errorf(engine.KindNotFound, "no session %s with a command", o.session).WithHint("%s", sessionHint(all))
}

func sessions(ctx context.Context, rt http.RoundTripper) ([]toolbox.Session, error) {
	var all []toolbox.Session
	return all, toolboxGet(ctx, rt, "/process/session", nil, &all)
}

func sessionHint(all []toolbox.Session) string {
	var names []string
	for _, s := range all {
		names = append(names, s.SessionID)
	}
	if len(names) == 0 {
		return "the sandbox has no sessions; what atoll exec prints is not kept"
	}
	return "the sessions are " + strings.Join(names, ", ") + "; choose one with --session"
}

// explainLogs tells what there is when there is no entrypoint.
func explainLogs(ctx context.Context, rt http.RoundTripper, o logsOptions, err error) error {
	var e *engine.Error
	if o.session != "" || !errors.As(err, &e) || e.Kind != engine.KindNotFound {
		return err
	}
	all, serr := sessions(ctx, rt)
	if serr != nil {
		return err
	}
	return e.WithHint("%s", sessionHint(all))
}

func (a *app) followLogs(ctx context.Context, rt http.RoundTripper, path string) error {
	u := url.URL{Scheme: "ws", Host: "toolbox", Path: path, RawQuery: "follow=true"}
	ws, res, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: rt}})
	if err != nil {
		return dialError(ctx, res, err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	d := demux{out: a.out, err: a.err}
	for {
		_, b, err := ws.Read(ctx)
		switch {
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
			return d.flush()
		case ctx.Err() != nil:
			return nil // the user has seen enough
		case err != nil:
			return engine.Errorf(engine.KindUnavailable, "the stream of logs broke").Wrap(err)
		}
		if err := d.write(b); err != nil {
			return fmt.Errorf("write logs: %w", err)
		}
	}
}

// demux splits a marked stream: three equal bytes 1 or 2 say whose the next
// bytes are. A marker may be split over writes.
type demux struct {
	out, err io.Writer
	onErr    bool
	held     []byte // what may be the beginning of a marker
}

func (d *demux) write(b []byte) error {
	b = append(d.held, b...)
	d.held = nil
	for {
		i, next := marker(b)
		if i < 0 {
			keep := partial(b)
			d.held = append(d.held, b[len(b)-keep:]...)
			return d.emit(b[:len(b)-keep])
		}
		if err := d.emit(b[:i]); err != nil {
			return err
		}
		d.onErr, b = next == 2, b[i+3:]
	}
}

// flush ends the stream: what looked like a marker was none.
func (d *demux) flush() error {
	b := d.held
	d.held = nil
	return d.emit(b)
}

func (d *demux) emit(b []byte) error {
	w := d.out
	if d.onErr {
		w = d.err
	}
	if len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// marker finds the first marker and its channel; -1 when there is none.
func marker(b []byte) (int, byte) {
	one, two := bytes.Index(b, []byte{1, 1, 1}), bytes.Index(b, []byte{2, 2, 2})
	if one >= 0 && (two < 0 || one < two) {
		return one, 1
	}
	return two, 2
}

// partial returns how many bytes at the end may begin a marker.
func partial(b []byte) int {
	n := 0
	for n < 2 && n < len(b) {
		c := b[len(b)-1-n]
		if (c != 1 && c != 2) || (n > 0 && c != b[len(b)-1]) {
			break
		}
		n++
	}
	return n
}
