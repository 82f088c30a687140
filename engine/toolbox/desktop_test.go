package toolbox

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	_ "image/jpeg" // to read pictures
	_ "image/png"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// window is a program with one of everything that a desktop is used for. It
// notes what happens to it, a line of JSON each.
const window = `
import gi, json, sys
gi.require_version("Gtk", "3.0")
from gi.repository import Gtk, Gdk
log = open(sys.argv[1], "a", buffering=1)
def note(**what): log.write(json.dumps(what) + "\n")
w = Gtk.Window(title="Probe ☃")
w.set_default_size(500, 400)
w.add_events(Gdk.EventMask.ALL_EVENTS_MASK)
box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
entry = Gtk.Entry()
entry.get_accessible().set_name("Name field")
entry.connect("changed", lambda e: note(text=e.get_text()))
button = Gtk.Button(label="Press me")
button.connect("clicked", lambda b: note(clicked=1))
plain = Gtk.Button(label="Cannot be pressed"); plain.set_sensitive(False)
slider = Gtk.Scale.new_with_range(Gtk.Orientation.HORIZONTAL, 0, 100, 1)
slider.get_accessible().set_name("Volume")
slider.connect("value-changed", lambda s: note(value=s.get_value()))
area = Gtk.EventBox()
area.add_events(Gdk.EventMask.ALL_EVENTS_MASK)
kinds = {Gdk.EventType.BUTTON_PRESS: "press", Gdk.EventType._2BUTTON_PRESS: "double", Gdk.EventType.BUTTON_RELEASE: "release"}
def pressed(_, e):
    note(event=kinds.get(e.type, "other"), button=e.button, x=int(e.x_root), y=int(e.y_root))
area.connect("button-press-event", pressed)
area.connect("button-release-event", pressed)
area.connect("motion-notify-event", lambda _, e: note(event="motion", held=bool(e.state & Gdk.ModifierType.BUTTON1_MASK)))
area.connect("scroll-event", lambda _, e: note(event="scroll", direction=e.direction.value_nick))
w.connect("key-press-event", lambda _, e: note(key=Gdk.keyval_name(e.keyval), ctrl=bool(e.state & Gdk.ModifierType.CONTROL_MASK), shift=bool(e.state & Gdk.ModifierType.SHIFT_MASK)) and False)
for c in (entry, button, plain, slider): box.pack_start(c, False, False, 0)
box.pack_start(area, True, True, 0)
w.add(box)
w.show_all()
for c in (w, area): c.get_window().set_event_compression(False) # every motion counts, however late it is read
entry.grab_focus()
note(ready=1)
Gtk.main()
`

// probe is a running window.
type probe struct {
	*box
	log string
	pid int
}

// lines waits until the program has noted want times what, a part of a line.
func (p *probe) lines(what string, want int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d times %s", want, what), func() bool { return strings.Count(read(p.t, p.log), what) >= want })
}

// openDesktop starts a desktop with the window on it.
func openDesktop(t *testing.T) *probe {
	t.Helper()
	b := open(t, func(c *Config) {
		c.Env["VNC_RESOLUTION"] = "800x600"
		// The buses want a user that this machine knows.
		write(t, c.EtcDir+"/passwd", "dev:x:65534:65534::"+c.WorkDir+":/bin/bash\n")
	})
	if _, err := b.StartDesktop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &probe{box: b, log: b.dir + "/log"}
	write(t, b.dir+"/window.py", window)
	p.pid = pidOf(t, b.run("touch log; nohup /usr/bin/python3 window.py log >out 2>&1 & echo $!"))
	eventually(t, "the window: "+b.run("cat out"), func() bool { return strings.Contains(read(t, p.log), "ready") })
	eventually(t, "the window on the screen", func() bool {
		w, err := b.Windows(t.Context())
		return err == nil && len(w) == 1 && w[0].Width == 500
	})
	return p
}

func pidOf(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

func at(n int) *int { return &n }

// picture decodes a screenshot.
func picture(t *testing.T, s wire.ScreenshotResponse, err error) (image.Image, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(s.Screenshot)
	if err != nil || len(b) != s.SizeBytes {
		t.Fatalf("got %d bytes, %v, want %d", len(b), err, s.SizeBytes)
	}
	img, kind, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img, kind
}

// TestDesktop uses a real X server with a real program on it.
func TestDesktop(t *testing.T) {
	t.Parallel()
	p := openDesktop(t)
	t.Run("processes", p.processes)
	t.Run("display", p.display)
	t.Run("mouse", p.mouse)
	t.Run("keyboard", p.keyboard)
	t.Run("screenshots", p.screenshots)
	t.Run("accessibility", p.accessibility)
	t.Run("recordings", p.recordings)
	t.Run("bad input", p.badInput)
	t.Run("restart", p.restart)
	t.Run("stop", p.stop)
}

func (p *probe) processes(t *testing.T) {
	ctx := t.Context()
	again, err := p.StartDesktop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if x := again.Status["xvfb"]; !x.Running || x.PID == 0 || !x.AutoRestart || x.Priority >= again.Status["xfce4"].Priority || len(again.Status) != 4 {
		t.Errorf("got %+v", again.Status)
	}
	if s, err := p.DesktopStatus(ctx); err != nil || s != wire.DesktopActive {
		t.Errorf("status: got %q, %v", s, err)
	}
	if status, _, body := p.send("GET", "/computeruse/status", nil); status != 200 || !strings.Contains(body, "active") {
		t.Errorf("got %d %s", status, body)
	}
	if on, err := p.DesktopProcess(ctx, "xvfb"); err != nil || !on {
		t.Errorf("xvfb: got %v, %v", on, err)
	}
	if out, err := p.DesktopProcessLogs(ctx, "xvfb"); err != nil {
		t.Errorf("logs: got %q, %v", out, err)
	}
	if out, err := p.DesktopProcessErrors(ctx, "xvfb"); err != nil {
		t.Errorf("errors: got %q, %v", out, err)
	}
	if uid := p.run("stat -c %u /proc/" + fmt.Sprint(again.Status["xvfb"].PID)); uid != "65534\n" {
		t.Errorf("Xvfb runs as %s, want the sandbox's user", uid)
	}
}

func (p *probe) display(t *testing.T) {
	d, err := p.Displays(t.Context())
	if err != nil || len(d) != 1 || d[0] != (wire.Display{Width: 800, Height: 600, IsActive: true}) {
		t.Errorf("got %+v, %v", d, err)
	}
	w, err := p.Windows(t.Context())
	if err != nil || len(w) != 1 || w[0].Title != "Probe ☃" || w[0].ID == 0 {
		t.Errorf("got %+v, %v", w, err)
	}
}

func (p *probe) mouse(t *testing.T) {
	ctx := t.Context()
	if at, err := p.MouseMove(ctx, wire.MouseMove{X: 250, Y: 300}); err != nil || at != (wire.Position{X: 250, Y: 300}) {
		t.Errorf("move: got %+v, %v", at, err)
	}
	if at, err := p.MousePosition(ctx); err != nil || at != (wire.Position{X: 250, Y: 300}) {
		t.Errorf("position: got %+v, %v", at, err)
	}
	if _, err := p.MouseClick(ctx, wire.MouseClick{}); err != nil { // where the pointer is
		t.Error(err)
	}
	p.lines(`"event": "press", "button": 1, "x": 250, "y": 300`, 1)
	for button, n := range map[string]int{"right": 3, "middle": 2} {
		if got, err := p.MouseClick(ctx, wire.MouseClick{X: at(240), Y: at(310), Button: button}); err != nil || got.X != 240 {
			t.Error(got, err)
		}
		p.lines(fmt.Sprintf(`"event": "press", "button": %d, "x": 240, "y": 310`, n), 1)
	}
	if _, err := p.MouseClick(ctx, wire.MouseClick{X: at(200), Y: at(320), Double: true}); err != nil {
		t.Error(err)
	}
	p.lines(`"event": "double", "button": 1`, 1)
	if got, err := p.MouseDrag(ctx, wire.MouseDrag{StartX: 100, StartY: 250, EndX: 300, EndY: 350}); err != nil || got != (wire.Position{X: 300, Y: 350}) {
		t.Errorf("drag: got %+v, %v", got, err)
	}
	p.lines(`"event": "motion", "held": true`, 3)
	p.lines(`"event": "release", "button": 1, "x": 300, "y": 350`, 1)
	for _, direction := range []string{"up", "down"} {
		if err := p.MouseScroll(ctx, wire.MouseScroll{X: at(200), Y: at(320), Direction: direction, Amount: at(3)}); err != nil {
			t.Error(err)
		}
		p.lines(fmt.Sprintf(`"direction": "%s"`, direction), 3)
	}
}

func (p *probe) keyboard(t *testing.T) {
	ctx := t.Context()
	p.run("truncate -s 0 log")
	text := `Hello, World! ~{}|"<>? äöüß€ Žluťoučký кот 猫も 😀 ½ñ Ω≠∞ ελληνικά 한국어 עברית`
	if err := p.TypeText(ctx, wire.KeyboardType{Text: text}); err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	ascii := asciiJSON(string(quoted))
	eventually(t, "the text "+ascii+" in "+read(t, p.log), func() bool { return strings.Contains(read(t, p.log), `{"text": `+ascii+`}`) })
	if err := p.Hotkey(ctx, "Ctrl+A"); err != nil {
		t.Error(err)
	}
	p.lines(`{"key": "a", "ctrl": true, "shift": false}`, 1)
	if err := p.PressKey(ctx, wire.KeyboardPress{Key: "BackSpace"}); err != nil {
		t.Error(err)
	}
	p.lines(`{"text": ""}`, 1)
	if err := p.TypeText(ctx, wire.KeyboardType{Text: "one\ttwo", Delay: 5}); err != nil { // tab leaves the entry
		t.Error(err)
	}
	p.lines(`{"text": "one"}`, 1)
	for chord, want := range map[string]string{
		"F5": `"key": "F5"`, "Return": `"key": "Return"`, "ArrowLeft": `"key": "Left"`, "escape": `"key": "Escape"`,
		"ctrl+shift+t": `"key": "T", "ctrl": true, "shift": true`, "num_plus": `"key": "KP_Add"`, "A": `"key": "A", "ctrl": false, "shift": true`,
	} {
		if err := p.Hotkey(ctx, chord); err != nil {
			t.Errorf("%s: %v", chord, err)
		}
		p.lines(want, 1)
	}
	if err := p.PressKey(ctx, wire.KeyboardPress{Key: "x", Modifiers: []string{"control", "shift"}}); err != nil {
		t.Error(err)
	}
	p.lines(`"key": "X", "ctrl": true, "shift": true`, 1)
}

// asciiJSON writes a JSON text as Python does.
func asciiJSON(s string) string {
	out, err := exec.Command("/usr/bin/python3", "-c", "import json,sys; print(json.dumps(json.loads(sys.argv[1])), end='')", s).Output()
	if err != nil {
		panic(err)
	}
	return string(out)
}

func (p *probe) screenshots(t *testing.T) {
	ctx := t.Context()
	if _, err := p.MouseMove(ctx, wire.MouseMove{X: 700, Y: 500}); err != nil { // nothing but the background
		t.Fatal(err)
	}
	shot := func(s client.Shot) (image.Image, string) {
		t.Helper()
		r, err := p.Screenshot(ctx, s)
		if err == nil && r.CursorPosition != (wire.Position{X: 700, Y: 500}) {
			t.Errorf("pointer: got %+v", r.CursorPosition)
		}
		return picture(t, r, err)
	}
	whole, kind := shot(client.Shot{})
	if kind != "png" || whole.Bounds().Size() != image.Pt(800, 600) {
		t.Errorf("got %s %v", kind, whole.Bounds())
	}
	if whole.At(100, 380) == whole.At(790, 590) {
		t.Error("the window has the background's colour")
	}
	part, _ := shot(client.Shot{Region: &client.Region{X: 90, Y: 370, Width: 20, Height: 10}})
	if part.Bounds().Size() != image.Pt(20, 10) || part.At(part.Bounds().Min.X+10, part.Bounds().Min.Y+5) != whole.At(100, 375) {
		t.Errorf("region: got %v", part.Bounds())
	}
	small, kind := shot(client.Shot{Format: "jpeg", Quality: 50, Scale: 0.5})
	if kind != "jpeg" || small.Bounds().Size() != image.Pt(400, 300) {
		t.Errorf("got %s %v", kind, small.Bounds())
	}
	half, kind := shot(client.Shot{Format: "png", Scale: 0.25, Region: &client.Region{Width: 400, Height: 200}})
	if kind != "png" || half.Bounds().Size() != image.Pt(100, 50) {
		t.Errorf("got %s %v", kind, half.Bounds())
	}
	around := &client.Region{X: 680, Y: 480, Width: 40, Height: 40}
	without, _ := shot(client.Shot{Region: around})
	with, _ := shot(client.Shot{Region: around, Cursor: true})
	if same(without, with) {
		t.Error("the pointer does not show")
	}
}

func same(a, b image.Image) bool {
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			if a.At(a.Bounds().Min.X+x, a.Bounds().Min.Y+y) != b.At(b.Bounds().Min.X+x, b.Bounds().Min.Y+y) {
				return false
			}
		}
	}
	return true
}

// find returns the only node that matches.
func (p *probe) find(t *testing.T, q wire.A11yFind) *wire.A11yNode {
	t.Helper()
	m, err := p.A11yFind(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Matches) != 1 || m.Truncated {
		t.Fatalf("%+v: got %d nodes, truncated %v, want one", q, len(m.Matches), m.Truncated)
	}
	return m.Matches[0]
}

func (p *probe) accessibility(t *testing.T) {
	ctx := t.Context()
	p.run("truncate -s 0 log")
	tree, err := p.A11yTree(ctx, "pid", p.pid, -1)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Root == nil || tree.Root.Role != "application" || tree.Truncated || len(tree.Root.Children) != 1 || tree.Root.Children[0].Name != "Probe ☃" {
		t.Fatalf("got %+v", tree.Root)
	}
	if all, err := p.A11yTree(ctx, "all", 0, 1); err != nil || len(all.Root.Children) == 0 || len(all.Root.Children[0].Children) != 0 {
		t.Errorf("all: got %+v, %v", all.Root, err)
	}
	if root, err := p.A11yTree(ctx, "pid", p.pid, 0); err != nil || root.Root.Children != nil {
		t.Errorf("the root alone: got %+v, %v", root.Root, err)
	}
	if _, err := p.MouseMove(ctx, wire.MouseMove{X: 250, Y: 300}); err != nil {
		t.Error(err)
	}
	if focused, err := p.A11yTree(ctx, "focused", 0, 1); err != nil || focused.Root.ID != tree.Root.ID {
		t.Errorf("focused: got %+v, %v", focused.Root, err)
	}
	button := p.find(t, wire.A11yFind{Scope: "all", Role: "button", Name: "press ME"})
	if b := button.Bounds; b.Width < 100 || b.Height < 10 || !slices.Contains(button.States, "sensitive") || len(button.Actions) == 0 {
		t.Errorf("got %+v", button)
	}
	if err := p.A11yInvoke(ctx, button.ID, ""); err != nil {
		t.Error(err)
	}
	p.lines(`{"clicked": 1}`, 1)
	if err := p.A11yInvoke(ctx, button.ID, button.Actions[0]); err != nil {
		t.Error(err)
	}
	p.lines(`{"clicked": 1}`, 2)
	entry := p.find(t, wire.A11yFind{Scope: "pid", PID: p.pid, Name: "Name field", NameMatch: "exact", States: []string{"editable", "showing"}})
	if err := p.A11ySetValue(ctx, entry.ID, "wrütten"); err != nil {
		t.Error(err)
	}
	p.lines(`{"text": "wr\u00fctten"}`, 1)
	if err := p.A11yFocus(ctx, entry.ID); err != nil {
		t.Error(err)
	}
	if err := p.TypeText(ctx, wire.KeyboardType{Text: "!"}); err != nil {
		t.Error(err)
	}
	p.lines(`!`, 1)
	slider := p.find(t, wire.A11yFind{Scope: "pid", PID: p.pid, Name: "^Vol.me$", NameMatch: "regex", Role: "slider"})
	if err := p.A11ySetValue(ctx, slider.ID, "42"); err != nil {
		t.Error(err)
	}
	p.lines(`{"value": 42.0}`, 1)
	if m, err := p.A11yFind(ctx, wire.A11yFind{Scope: "all", Limit: 1}); err != nil || len(m.Matches) != 1 || !m.Truncated {
		t.Errorf("limit: got %+v, %v", m, err)
	}
	if m, err := p.A11yFind(ctx, wire.A11yFind{Scope: "all", Name: "no such thing"}); err != nil || m.Matches == nil || len(m.Matches) != 0 || m.Truncated {
		t.Errorf("no match: got %+v, %v", m, err)
	}
	_, err = p.A11yFind(ctx, wire.A11yFind{Scope: "pid", PID: 1 << 22})
	wantError(t, err, 404, wire.CodeNotFound, "process")
	wantError(t, p.A11yFocus(ctx, ":1.999:/org/a11y/atspi/accessible/1"), 404, wire.CodeNotFound, "gone")
	wantError(t, p.A11yFocus(ctx, tree.Root.ID+"9"), 404, wire.CodeNotFound, "gone")
	wantError(t, p.A11yFocus(ctx, "n"), 400, wire.CodeBadRequest, "id")
	wantError(t, p.A11yInvoke(ctx, button.ID, "fly"), 400, wire.CodeBadRequest, button.Actions[0])
	wantError(t, p.A11yInvoke(ctx, tree.Root.ID, ""), 400, wire.CodeBadRequest, "no action")
	wantError(t, p.A11ySetValue(ctx, slider.ID, "loud"), 400, wire.CodeBadRequest, "number")
	wantError(t, p.A11ySetValue(ctx, tree.Root.ID, "x"), 400, wire.CodeBadRequest, "neither")
}

func (p *probe) recordings(t *testing.T) {
	ctx := t.Context()
	r, err := p.StartRecording(ctx, "my film/../1")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != wire.RecordingActive || r.ID == "" || filepath.Base(r.FilePath) != r.FileName || !strings.HasPrefix(r.FileName, "my-film-..-1_") {
		t.Errorf("got %+v", r)
	}
	wantError(t, p.DeleteRecording(ctx, r.ID), 409, wire.CodeRecordingActive, "stop")
	_, err = p.DownloadRecording(ctx, r.ID)
	wantError(t, err, 400, wire.CodeRecordingActive, "stop")
	done, err := p.Client.StopRecording(ctx, r.ID)
	if err != nil || done.Status != wire.RecordingCompleted || done.SizeBytes == 0 || done.EndTime == "" {
		t.Fatalf("got %+v, %v", done, err)
	}
	_, err = p.Client.StopRecording(ctx, r.ID)
	wantError(t, err, 400, wire.CodeBadRequest, "over")
	if got, err := p.Recording(ctx, r.ID); err != nil || got != done {
		t.Errorf("got %+v, %v, want %+v", got, err, done)
	}
	if list, err := p.Recordings(ctx); err != nil || len(list) != 1 || list[0].ID != r.ID {
		t.Errorf("got %+v, %v", list, err)
	}
	body, err := p.DownloadRecording(ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	film, err := io.ReadAll(body)
	if err != nil || int64(len(film)) != done.SizeBytes {
		t.Fatalf("got %d bytes, %v, want %d", len(film), err, done.SizeBytes)
	}
	write(t, p.dir+"/film.mp4", string(film))
	out := p.run("ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 film.mp4")
	if out != "h264,800,600\n" {
		t.Errorf("ffprobe: got %q", out)
	}
	status, h, part := p.send("GET", "/computeruse/recordings/"+r.ID+"/download", nil, "Range", "bytes=4-7")
	if status != 206 || part != "ftyp" || h.Get("Content-Type") != "video/mp4" {
		t.Errorf("range: got %d %q %v", status, part, h)
	}
	if err := p.DeleteRecording(ctx, r.ID); err != nil {
		t.Error(err)
	}
	_, err = p.Recording(ctx, r.ID)
	wantError(t, err, 404, wire.CodeNotFound, r.ID)
	if got := p.run("ls " + filepath.Dir(r.FilePath)); got != "" {
		t.Errorf("left: %s", got)
	}
}

func (p *probe) badInput(t *testing.T) {
	before, err := p.MousePosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		part               string
	}{
		{"POST", "mouse/move", `{"x":800,"y":0}`, 400, "800 by 600"},
		{"POST", "mouse/move", `{"x":-1,"y":0}`, 400, "not on the screen"},
		{"POST", "mouse/move", `{"x":"1"}`, 400, "whole number"},
		{"POST", "mouse/move", ``, 400, "empty"},
		{"POST", "mouse/click", `{"x":1,"y":1,"button":"fourth"}`, 400, "left, right or middle"},
		{"POST", "mouse/click", `{"x":1}`, 400, "both"},
		{"POST", "mouse/drag", `{"startX":1,"startY":1,"endX":9999,"endY":1}`, 400, "not on the screen"},
		{"POST", "mouse/scroll", `{"x":1,"y":1,"direction":"sideways"}`, 400, "direction"},
		{"POST", "mouse/scroll", `{"direction":"up","amount":-1}`, 400, "amount"},
		{"POST", "mouse/scroll", `{"direction":"up","amount":100000}`, 400, "amount"},
		{"POST", "keyboard/type", `{"text":"a\u0000b"}`, 400, "control character"},
		{"POST", "keyboard/type", `{"text":"a","delay":-1}`, 400, "delay"},
		{"POST", "keyboard/key", `{"key":"nosuch"}`, 400, "no key"},
		{"POST", "keyboard/key", `{}`, 400, "empty"},
		{"POST", "keyboard/key", `{"key":"a","modifiers":["hyper"]}`, 400, "modifier"},
		{"POST", "keyboard/hotkey", `{"keys":"ctrl+"}`, 400, "without a key"},
		{"POST", "keyboard/hotkey", `{"keys":""}`, 400, "empty"},
		{"GET", "screenshot?showCursor=maybe", ``, 400, "true or false"},
		{"GET", "screenshot/region?x=0&y=0&width=10", ``, 400, "height: it is missing"},
		{"GET", "screenshot/region?x=0&y=0&width=0&height=5", ``, 400, "region"},
		{"GET", "screenshot/region?x=-5&y=0&width=5&height=5", ``, 400, "not on the screen"},
		{"GET", "screenshot/region?x=790&y=0&width=20&height=5", ``, 400, "beyond"},
		{"GET", "screenshot/region?x=a&y=0&width=20&height=5", ``, 400, "whole number"},
		{"GET", "screenshot/compressed?format=webp", ``, 400, "png or jpeg"},
		{"GET", "screenshot/compressed?quality=101", ``, 400, "quality"},
		{"GET", "screenshot/compressed?quality=0", ``, 400, "quality"},
		{"GET", "screenshot/compressed?scale=2", ``, 400, "scale"},
		{"GET", "screenshot/compressed?scale=NaN", ``, 400, "scale"},
		{"GET", "process/nosuch/status", ``, 404, "xvfb"},
		{"GET", "process/nosuch/logs", ``, 404, "xvfb"},
		{"GET", "process/nosuch/errors", ``, 404, "xvfb"},
		{"POST", "process/nosuch/restart", ``, 404, "xvfb"},
		{"POST", "recordings/start", `{"label":"` + strings.Repeat("x", 101) + `"}`, 400, "label"},
		{"POST", "recordings/stop", `{}`, 400, "id"},
		{"POST", "recordings/stop", `{"id":"nosuch"}`, 404, "no recording"},
		{"GET", "recordings/..%2fx", ``, 404, "no recording"},
		{"DELETE", "recordings/nosuch", ``, 404, "no recording"},
		{"GET", "recordings/nosuch/download", ``, 404, "no recording"},
		{"GET", "a11y/tree?scope=some", ``, 400, "scope"},
		{"GET", "a11y/tree?scope=pid", ``, 400, "pid"},
		{"GET", "a11y/tree?scope=all&maxDepth=-2", ``, 400, "maxDepth"},
		{"GET", "a11y/tree?scope=all&maxDepth=x", ``, 400, "whole number"},
		{"POST", "a11y/find", `{"scope":"all","nameMatch":"fuzzy"}`, 400, "nameMatch"},
		{"POST", "a11y/find", `{"scope":"all","nameMatch":"regex","name":"("}`, 400, "regular"},
		{"POST", "a11y/find", `{"scope":"all","states":["odd"]}`, 400, "states"},
		{"POST", "a11y/find", `{"scope":"all","limit":5000}`, 400, "limit"},
		{"GET", "nosuch", ``, 404, "no operation"},
	} {
		var body io.Reader
		if c.method == "POST" {
			body = strings.NewReader(c.body)
		}
		status, _, got := p.send(c.method, "/computeruse/"+c.path, body, "Content-Type", "application/json")
		var e wire.ErrorResponse
		if err := json.Unmarshal([]byte(got), &e); err != nil || status != c.status || !strings.Contains(e.Message, c.part) || e.Source != wire.Source {
			t.Errorf("%s %s %.40s: got %d %s, want %d and %q", c.method, c.path, c.body, status, got, c.status, c.part)
		}
	}
	if after, err := p.MousePosition(t.Context()); err != nil || after != before {
		t.Errorf("the pointer moved from %+v to %+v, %v", before, after, err)
	}
}

// restart ends the X server, which takes the window along, and goes on.
func (p *probe) restart(t *testing.T) {
	ctx := t.Context()
	display := p.run("echo $DISPLAY")
	if err := p.RestartDesktopProcess(ctx, "xvfb"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.MouseMove(ctx, wire.MouseMove{X: 5, Y: 6}); err != nil {
		t.Error(err)
	}
	pid := p.run("pgrep -x Xvfb -s " + p.session())
	p.run("kill -9 " + pid)
	eventually(t, "Xvfb to come back by itself", func() bool {
		_, err := p.MouseMove(ctx, wire.MouseMove{X: 5, Y: 6})
		return err == nil && p.run("pgrep -x Xvfb -s "+p.session()+" || true") != pid
	})
	if got := p.run("echo $DISPLAY"); got != display || !strings.HasPrefix(got, ":") {
		t.Errorf("display: got %q, want %q as before", got, display)
	}
	err := p.RestartDesktopProcess(ctx, "xfce4")
	if _, missing := exec.LookPath("xfce4-session"); missing != nil {
		wantError(t, err, 503, wire.CodeNoDesktop, "not installed")
	}
}

// session is that of the desktop's processes: its worker's.
func (p *probe) session() string {
	p.tb.desktop.mu.Lock()
	defer p.tb.desktop.mu.Unlock()
	return fmt.Sprint(p.tb.desktop.worker.child.PID)
}

func (p *probe) stop(t *testing.T) {
	ctx := t.Context()
	film, err := p.StartRecording(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	session := p.session()
	stopped, err := p.StopDesktop(ctx)
	if err != nil || len(stopped.Status) != 4 || stopped.Status["xvfb"].Running {
		t.Errorf("got %+v, %v", stopped, err)
	}
	eventually(t, "all processes but the worker to end", func() bool { return p.run("pgrep -s "+session+" || true") == session+"\n" })
	if got := p.run(`echo "$DISPLAY"`); got != "\n" {
		t.Errorf("DISPLAY: got %q, want none", got)
	}
	if s, err := p.DesktopStatus(ctx); err != nil || s != wire.DesktopInactive {
		t.Errorf("status: got %q, %v", s, err)
	}
	// Recordings are files, and are there without a desktop, also once its
	// worker has ended.
	for range 2 {
		if got, err := p.Recording(ctx, film.ID); err != nil || got.Status != wire.RecordingCompleted || got.SizeBytes == 0 {
			t.Errorf("got %+v, %v, want a film that was completed by the stop", got, err)
		}
		p.tb.desktop.mu.Lock()
		p.tb.desktop.dropLocked(p.tb.desktop.worker)
		p.tb.desktop.mu.Unlock()
	}
	if err := p.DeleteRecording(ctx, film.ID); err != nil {
		t.Error(err)
	}
	if _, err := p.StopDesktop(ctx); err != nil {
		t.Error(err)
	}
	if _, err := p.StartDesktop(ctx); err != nil {
		t.Errorf("start again: %v", err)
	}
}

// TestNoDesktop calls everything where there is no desktop, or none yet.
func TestNoDesktop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path, part string
	}{
		"not in the image": {"/nonexistent", "atoll-desktop"},
		"not started":      {"/usr/local/bin:/usr/bin:/bin", "POST /computeruse/start"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, func(cfg *Config) { cfg.Env["PATH"] = c.path })
			for _, op := range desktopOps() {
				method, path, _ := strings.Cut(op.pattern, " ")
				path = strings.NewReplacer("{process}", "xvfb", "{id}", "nosuch").Replace(path)
				if path == startPath && name == "not started" {
					continue
				}
				var body io.Reader
				if method == "POST" {
					body = strings.NewReader(`{"id":"nosuch"}`)
				}
				want, part := http.StatusServiceUnavailable, c.part
				switch op.need {
				case needStatus, needProcess, needStop:
					want, part = http.StatusOK, ""
				case needWorker:
					want, part = http.StatusNotFound, "no recording"
					if path == "/computeruse/recordings" {
						want, part = http.StatusOK, "[]"
					}
				}
				if status, _, got := b.send(method, path, body, "Content-Type", "application/json"); status != want || !strings.Contains(got, part) {
					t.Errorf("%s %s: got %d %s, want %d and %q", method, path, status, got, want, part)
				}
			}
		})
	}
}

// TestDesktopFails wants no trace of a start that failed, and words that help.
func TestDesktopFails(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *Config) { c.Env["VNC_RESOLUTION"] = "big" })
	_, err := b.StartDesktop(t.Context())
	wantError(t, err, 400, wire.CodeBadRequest, "VNC_RESOLUTION")
	b.run("mkdir bin; printf '#!/bin/sh\\necho no screen here >&2; exit 1\\n' >bin/Xvfb; chmod +x bin/Xvfb")
	b = open(t, func(c *Config) { c.Env["PATH"] = b.dir + "/bin:/usr/bin:/bin" })
	_, err = b.StartDesktop(t.Context())
	wantError(t, err, 500, wire.CodeInternal, "no screen here")
	if s, err := b.DesktopStatus(t.Context()); err != nil || s != wire.DesktopInactive {
		t.Errorf("status: got %q, %v", s, err)
	}
	_, err = b.Windows(t.Context())
	wantError(t, err, 503, wire.CodeNoDesktop, "not started")
}

// TestDesktopWithoutHelpers has an X server and nothing else.
func TestDesktopWithoutHelpers(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.run("mkdir bin; ln -s $(command -v Xvfb) bin/Xvfb")
	b = open(t, func(c *Config) { c.Env["PATH"] = b.dir + "/bin" })
	if _, err := b.StartDesktop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := b.DesktopStatus(t.Context()); err != nil || s != wire.DesktopActive {
		t.Errorf("status: got %q, %v", s, err)
	}
	_, err := b.StartRecording(t.Context(), "")
	wantError(t, err, 503, wire.CodeNoFFmpeg, "ffmpeg")
	_, err = b.A11yTree(t.Context(), "all", 0, -1)
	wantError(t, err, 503, wire.CodeA11yUnavailable, "accessibility")
}
