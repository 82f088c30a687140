package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const desktopPath = "/computeruse/"

// desktopGet asks the desktop something.
func desktopGet[T any](ctx context.Context, c *Client, path string, q url.Values) (out T, err error) {
	_, err = c.call(ctx, http.MethodGet, desktopPath+path, q, nil, &out)
	return out, err
}

// desktopPost has the desktop do something.
func desktopPost[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	_, err = c.call(ctx, http.MethodPost, desktopPath+path, nil, in, &out)
	return out, err
}

// StartDesktop starts the desktop and waits until it can be used. Commands that
// start later appear on it. It does nothing for what runs already.
func (c *Client) StartDesktop(ctx context.Context) (wire.DesktopChange, error) {
	return desktopPost[wire.DesktopChange](ctx, c, "start", nil)
}

// StopDesktop ends the desktop with all that shows on it.
func (c *Client) StopDesktop(ctx context.Context) (wire.DesktopChange, error) {
	return desktopPost[wire.DesktopChange](ctx, c, "stop", nil)
}

// DesktopStatus is wire.DesktopActive, -Partial or -Inactive.
func (c *Client) DesktopStatus(ctx context.Context) (string, error) {
	s, err := desktopGet[wire.DesktopStatus](ctx, c, "process-status", nil)
	return s.Status, err
}

func desktopProcess(name, what string) string { return "process/" + url.PathEscape(name) + "/" + what }

// DesktopProcess tells whether one of the desktop's processes runs.
func (c *Client) DesktopProcess(ctx context.Context, name string) (bool, error) {
	s, err := desktopGet[wire.DesktopProcessStatus](ctx, c, desktopProcess(name, "status"), nil)
	return s.Running, err
}

// DesktopProcessLogs returns the end of what a process wrote to its stdout.
func (c *Client) DesktopProcessLogs(ctx context.Context, name string) (string, error) {
	s, err := desktopGet[wire.DesktopProcessLogs](ctx, c, desktopProcess(name, "logs"), nil)
	return s.Logs, err
}

// DesktopProcessErrors returns the end of what a process wrote to its stderr.
func (c *Client) DesktopProcessErrors(ctx context.Context, name string) (string, error) {
	s, err := desktopGet[wire.DesktopProcessErrors](ctx, c, desktopProcess(name, "errors"), nil)
	return s.Errors, err
}

// RestartDesktopProcess ends a process and starts it again.
func (c *Client) RestartDesktopProcess(ctx context.Context, name string) error {
	_, err := desktopPost[wire.DesktopProcessRestart](ctx, c, desktopProcess(name, "restart"), nil)
	return err
}

// Region is a part of the screen.
type Region struct{ X, Y, Width, Height int }

// Shot says what picture to take. The zero value is all of the screen as PNG.
type Shot struct {
	Region  *Region // nil: the whole screen
	Cursor  bool    // draw the pointer too
	Format  string  // png or jpeg
	Quality int     // of JPEG, 1 to 100
	Scale   float64 // 0.1 to 1
}

// Screenshot takes a picture of the screen.
func (c *Client) Screenshot(ctx context.Context, s Shot) (wire.ScreenshotResponse, error) {
	path, q := "screenshot", url.Values{}
	if s.Cursor {
		q.Set("showCursor", "true")
	}
	if r := s.Region; r != nil {
		path += "/region"
		for name, v := range map[string]int{"x": r.X, "y": r.Y, "width": r.Width, "height": r.Height} {
			q.Set(name, strconv.Itoa(v))
		}
	}
	if s.Format != "" || s.Quality != 0 || s.Scale != 0 {
		path += "/compressed"
		q.Set("format", s.Format)
		if s.Quality != 0 {
			q.Set("quality", strconv.Itoa(s.Quality))
		}
		if s.Scale != 0 {
			q.Set("scale", strconv.FormatFloat(s.Scale, 'g', -1, 64))
		}
	}
	return desktopGet[wire.ScreenshotResponse](ctx, c, path, q)
}

// Displays lists the displays.
func (c *Client) Displays(ctx context.Context) ([]wire.Display, error) {
	i, err := desktopGet[wire.DisplayInfo](ctx, c, "display/info", nil)
	return i.Displays, err
}

// Windows lists the open windows.
func (c *Client) Windows(ctx context.Context) ([]wire.Window, error) {
	l, err := desktopGet[wire.Windows](ctx, c, "display/windows", nil)
	return l.Windows, err
}

// MousePosition returns where the pointer is.
func (c *Client) MousePosition(ctx context.Context) (wire.Position, error) {
	return desktopGet[wire.Position](ctx, c, "mouse/position", nil)
}

// MouseMove moves the pointer and returns where it is then.
func (c *Client) MouseMove(ctx context.Context, q wire.MouseMove) (wire.Position, error) {
	return desktopPost[wire.Position](ctx, c, "mouse/move", q)
}

// MouseClick clicks.
func (c *Client) MouseClick(ctx context.Context, q wire.MouseClick) (wire.Position, error) {
	return desktopPost[wire.Position](ctx, c, "mouse/click", q)
}

// MouseDrag moves the pointer with a button held.
func (c *Client) MouseDrag(ctx context.Context, q wire.MouseDrag) (wire.Position, error) {
	return desktopPost[wire.Position](ctx, c, "mouse/drag", q)
}

// MouseScroll turns the wheel.
func (c *Client) MouseScroll(ctx context.Context, q wire.MouseScroll) error {
	_, err := desktopPost[wire.Scrolled](ctx, c, "mouse/scroll", q)
	return err
}

// TypeText types text.
func (c *Client) TypeText(ctx context.Context, q wire.KeyboardType) error {
	_, err := desktopPost[struct{}](ctx, c, "keyboard/type", q)
	return err
}

// PressKey presses one key with modifiers.
func (c *Client) PressKey(ctx context.Context, q wire.KeyboardPress) error {
	_, err := desktopPost[struct{}](ctx, c, "keyboard/key", q)
	return err
}

// Hotkey presses a chord, as ctrl+c.
func (c *Client) Hotkey(ctx context.Context, keys string) error {
	_, err := desktopPost[struct{}](ctx, c, "keyboard/hotkey", wire.KeyboardHotkey{Keys: keys})
	return err
}

func recordingPath(id string) string { return "recordings/" + url.PathEscape(id) }

// StartRecording begins to film the screen.
func (c *Client) StartRecording(ctx context.Context, label string) (wire.Recording, error) {
	return desktopPost[wire.Recording](ctx, c, "recordings/start", wire.StartRecording{Label: label})
}

// StopRecording ends a recording; its file is whole then.
func (c *Client) StopRecording(ctx context.Context, id string) (wire.Recording, error) {
	return desktopPost[wire.Recording](ctx, c, "recordings/stop", wire.StopRecording{ID: id})
}

// Recordings lists recordings, oldest first.
func (c *Client) Recordings(ctx context.Context) ([]wire.Recording, error) {
	l, err := desktopGet[wire.Recordings](ctx, c, "recordings", nil)
	return l.Recordings, err
}

// Recording describes a recording.
func (c *Client) Recording(ctx context.Context, id string) (wire.Recording, error) {
	return desktopGet[wire.Recording](ctx, c, recordingPath(id), nil)
}

// DownloadRecording returns the film, MP4. Close it.
func (c *Client) DownloadRecording(ctx context.Context, id string) (io.ReadCloser, error) {
	res, err := c.do(ctx, http.MethodGet, desktopPath+recordingPath(id)+"/download", nil, nil, "")
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// DeleteRecording removes a recording that is over.
func (c *Client) DeleteRecording(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodDelete, desktopPath+recordingPath(id), nil, nil, nil)
	return err
}

// A11yTree returns what programs show, as assistive technology sees it. The
// scope is focused, pid or all; a depth of -1 is everything.
func (c *Client) A11yTree(ctx context.Context, scope string, pid, depth int) (wire.A11yTree, error) {
	q := url.Values{"scope": {scope}, "maxDepth": {strconv.Itoa(depth)}}
	if pid != 0 {
		q.Set("pid", strconv.Itoa(pid))
	}
	return desktopGet[wire.A11yTree](ctx, c, "a11y/tree", q)
}

// A11yFind looks for nodes.
func (c *Client) A11yFind(ctx context.Context, q wire.A11yFind) (wire.A11yMatches, error) {
	return desktopPost[wire.A11yMatches](ctx, c, "a11y/find", q)
}

// A11yFocus moves the keyboard's focus to a node.
func (c *Client) A11yFocus(ctx context.Context, id string) error {
	_, err := desktopPost[struct{}](ctx, c, "a11y/node/focus", wire.A11yTarget{ID: id})
	return err
}

// A11yInvoke calls an action of a node; an empty one is its first.
func (c *Client) A11yInvoke(ctx context.Context, id, action string) error {
	_, err := desktopPost[struct{}](ctx, c, "a11y/node/invoke", wire.A11yInvoke{ID: id, Action: action})
	return err
}

// A11ySetValue writes a node's text or number.
func (c *Client) A11ySetValue(ctx context.Context, id, value string) error {
	_, err := desktopPost[struct{}](ctx, c, "a11y/node/value", wire.A11ySetValue{ID: id, Value: value})
	return err
}
