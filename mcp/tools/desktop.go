package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (k *kit) desktopTools() []Tool {
	return []Tool{
		{
			Name: "sandbox_screenshot", Set: SetDesktop, Title: "Screenshot",
			Description: "See the desktop. region: x,y,width,height.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"region":{"type":"array","items":{"type":"integer","minimum":0}},"scale":{"type":"number","minimum":0.1,"maximum":1}},"required":["id"],"additionalProperties":false}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.screenshot,
		},
		{
			Name: "sandbox_input", Set: SetDesktop, Title: "Mouse and keyboard",
			Description: "Act on the desktop, then return a screenshot. text: what to type, or a key as ctrl+c. amount: wheel notches, negative is up.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"action":{"type":"string","enum":["click","double_click","right_click","move","drag","scroll","type","key"]},"x":{"type":"integer","minimum":0},"y":{"type":"integer","minimum":0},"to_x":{"type":"integer","minimum":0},"to_y":{"type":"integer","minimum":0},"amount":{"type":"integer"},"text":{"type":"string"}},"required":["id","action"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.desktopInput,
		},
		{
			Name: "sandbox_ui", Set: SetDesktop, Title: "Start and inspect the desktop",
			Description: "Start the desktop (snapshot atoll-desktop), and read or act on its accessibility tree: cheaper than screenshots. query: a name to find.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"op":{"type":"string","enum":["start","stop","tree","find","focus","invoke","set_value","windows","record","stop_recording"]},"query":{"type":"string"},"node":{"type":"string"},"value":{"type":"string"}},"required":["id","op"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.ui,
		},
	}
}

// desktopError says how to get a desktop, which the toolbox does in words of
// its own API.
func desktopError(err error, a Args) error {
	var e *wire.Error
	if codeOf(err) != wire.CodeNoDesktop || !errors.As(err, &e) {
		return err
	}
	if strings.Contains(e.Message, "not started") {
		return invalid(fmt.Sprintf(`Call sandbox_ui {"id":%q,"op":"start"}`, a.Str("id")), "the desktop of %s is not started", a.Str("id"))
	}
	return unsupported(`Use sandbox_create {"snapshot":"atoll-desktop"}`, "sandbox %s has no desktop", a.Str("id"))
}

func (k *kit) screenshot(ctx context.Context, a Args) (Result, error) {
	var shot client.Shot
	if a.Has("region") {
		r := a.Nums("region")
		if len(r) != 4 || r[2] < 1 || r[3] < 1 {
			return Result{}, invalid(`As "region":[0,0,640,480]`, `"region" must be x, y, width and height`)
		}
		shot.Region = &client.Region{X: int(r[0]), Y: int(r[1]), Width: int(r[2]), Height: int(r[3])}
	}
	shot.Scale = a.Num("scale")
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	return b.picture(ctx, a, shot)
}

// picture takes a picture and tells what to scale its places by.
func (b *box) picture(ctx context.Context, a Args, shot client.Shot) (Result, error) {
	mime := "image/png"
	if shot.Format == "jpeg" || shot.Format == "jpg" {
		shot.Format, mime = "jpeg", "image/jpeg"
	}
	shot.Cursor = shot.Cursor || a.Bool("show_cursor")
	p, err := b.Screenshot(ctx, shot)
	if err != nil {
		return Result{}, desktopError(err, a)
	}
	text := fmt.Sprintf("Screenshot · %s · pointer at %d,%d", size(int64(p.SizeBytes)), p.CursorPosition.X, p.CursorPosition.Y)
	if shot.Region != nil {
		text += fmt.Sprintf(" · its corner is %d,%d", shot.Region.X, shot.Region.Y)
	}
	if shot.Scale != 0 && shot.Scale != 1 {
		text += fmt.Sprintf(" · divide its places by %g", shot.Scale)
	}
	return Result{Text: text, Images: []Image{{MIME: mime, Base64: p.Screenshot}}}, nil
}

// input does one thing and shows what came of it.
func (k *kit) desktopInput(ctx context.Context, a Args) (Result, error) {
	if err := checkInput(a); err != nil {
		return Result{}, err
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	if err := b.act(ctx, a); err != nil {
		return Result{}, desktopError(err, a)
	}
	return b.picture(ctx, a, client.Shot{Cursor: true})
}

// checkInput tells which arguments an action lacks.
func checkInput(a Args) error {
	action := a.Str("action")
	need := map[string][]string{"drag": {"x", "y", "to_x", "to_y"}, "move": {"x", "y"}, "scroll": {"amount"}, "type": {"text"}, "key": {"text"}}[action]
	for _, name := range need {
		if !a.Has(name) || name == "text" && a.Str(name) == "" {
			return invalid(fmt.Sprintf("It takes %s", strings.Join(need, ", ")), "%q is missing for action %s", name, action)
		}
	}
	if a.Has("x") != a.Has("y") {
		return invalid("Give both, or neither to act where the pointer is", `"x" and "y" go together`)
	}
	if a.Has("amount") && a.Int("amount", 0) == 0 {
		return invalid("Positive is down, negative up", `"amount" must not be 0`)
	}
	return nil
}

// act moves, clicks or types.
func (b *box) act(ctx context.Context, a Args) error {
	var err error
	x, y := a.Int("x", 0), a.Int("y", 0)
	switch action := a.Str("action"); action {
	case "click", "double_click", "right_click":
		q := wire.MouseClick{Double: action == "double_click", X: a.pixel("x"), Y: a.pixel("y")}
		if action == "right_click" {
			q.Button = "right"
		}
		_, err = b.MouseClick(ctx, q)
	case "move":
		_, err = b.MouseMove(ctx, wire.MouseMove{X: x, Y: y})
	case "drag":
		_, err = b.MouseDrag(ctx, wire.MouseDrag{StartX: x, StartY: y, EndX: a.Int("to_x", 0), EndY: a.Int("to_y", 0)})
	case "scroll":
		amount, direction := a.Int("amount", 0), "down"
		if amount < 0 {
			amount, direction = -amount, "up"
		}
		err = b.MouseScroll(ctx, wire.MouseScroll{X: a.pixel("x"), Y: a.pixel("y"), Direction: direction, Amount: &amount})
	case "type":
		err = b.TypeText(ctx, wire.KeyboardType{Text: a.Str("text")})
	case "key":
		err = b.Hotkey(ctx, a.Str("text"))
	}
	return err
}

// pixel returns a coordinate, or nil when it was not given.
func (a Args) pixel(name string) *int {
	if !a.Has(name) {
		return nil
	}
	v := a.Int(name, 0)
	return &v
}

func (k *kit) ui(ctx context.Context, a Args) (Result, error) {
	op := a.Str("op")
	switch {
	case (op == "focus" || op == "invoke" || op == "set_value") && a.Str("node") == "":
		return Result{}, invalid("Take it from op tree or find", `"node" is missing for op %s`, op)
	case op == "find" && a.Str("query") == "":
		return Result{}, invalid(`As "query":"Save"`, `"query" is missing for op find`)
	case op == "set_value" && !a.Has("value"):
		return Result{}, invalid("It is the new text or number", `"value" is missing for op set_value`)
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	r, err := b.ui(ctx, a, op)
	return r, desktopError(err, a)
}

func (b *box) ui(ctx context.Context, a Args, op string) (Result, error) {
	switch op {
	case "start":
		return b.startDesktop(ctx, a)
	case "stop":
		return b.stopDesktop(ctx)
	case "tree":
		return b.tree(ctx, "all", 0, -1)
	case "find":
		return b.findNodes(ctx, wire.A11yFind{Scope: "all", Name: a.Str("query")})
	case "focus":
		return Text("Focused %s.", a.Str("node")), b.A11yFocus(ctx, a.Str("node"))
	case "invoke":
		return Text("Invoked %s.", a.Str("node")), b.A11yInvoke(ctx, a.Str("node"), a.Str("value"))
	case "set_value":
		return Text("Set %s.", a.Str("node")), b.A11ySetValue(ctx, a.Str("node"), a.Str("value"))
	case "record":
		return b.record(ctx, a.Str("value"))
	case "stop_recording":
		return b.stopRecordings(ctx)
	}
	return b.windows(ctx)
}

func (b *box) startDesktop(ctx context.Context, a Args) (Result, error) {
	a.Progress("starting the desktop")
	c, err := b.StartDesktop(ctx)
	if err != nil {
		return Result{}, desktopError(err, a)
	}
	running := 0
	for _, p := range c.Status {
		if p.Running {
			running++
		}
	}
	text := fmt.Sprintf("The desktop runs, %d of %d programs.", running, len(c.Status))
	if d, err := b.Displays(ctx); err == nil && len(d) > 0 {
		text += fmt.Sprintf(" The screen has %d×%d pixels.", d[0].Width, d[0].Height)
	}
	return Text("%s", text), nil
}

func (b *box) stopDesktop(ctx context.Context) (Result, error) {
	_, err := b.StopDesktop(ctx)
	return Text("The desktop is stopped."), err
}

func (b *box) windows(ctx context.Context) (Result, error) {
	all, err := b.Windows(ctx)
	if err != nil {
		return Result{}, err
	}
	var t strings.Builder
	fmt.Fprintf(&t, "%d windows\n", len(all))
	for _, w := range all {
		fmt.Fprintf(&t, "%d  %q  %d,%d %d×%d", w.ID, w.Title, w.X, w.Y, w.Width, w.Height)
		if w.IsActive {
			t.WriteString("  active")
		}
		t.WriteString("\n")
	}
	return Text("%s", clip(strings.TrimRight(t.String(), "\n"), maxText, "there are too many to show")), nil
}

// tree shows what programs show, a line for each thing. A depth of -1 is all
// of it, 0 the root alone.
func (b *box) tree(ctx context.Context, scope string, pid, depth int) (Result, error) {
	tree, err := b.A11yTree(ctx, scope, pid, depth)
	if err != nil {
		return Result{}, err
	}
	var lines []string
	var walk func(n *wire.A11yNode, indent string)
	walk = func(n *wire.A11yNode, indent string) {
		if n == nil {
			return
		}
		lines = append(lines, indent+nodeLine(n))
		for _, c := range n.Children {
			walk(c, indent+" ")
		}
	}
	walk(tree.Root, "")
	return nodeList(lines, tree.Truncated), nil
}

func (b *box) findNodes(ctx context.Context, q wire.A11yFind) (Result, error) {
	found, err := b.A11yFind(ctx, q)
	if err != nil {
		return Result{}, err
	}
	var lines []string
	for _, n := range found.Matches {
		lines = append(lines, nodeLine(n))
	}
	return nodeList(lines, found.Truncated), nil
}

func nodeList(lines []string, truncated bool) Result {
	head := fmt.Sprintf("%d nodes", len(lines))
	if truncated {
		head += ", there are more"
	}
	return Text("%s\n%s", head, clip(strings.Join(lines, "\n"), maxText-len(head)-1, "find what you look for by name"))
}

// nodeLine names a node last, because the id is what acting on it takes.
func nodeLine(n *wire.A11yNode) string {
	line := n.Role
	if n.Name != "" {
		line += " " + quoted(n.Name)
	}
	if r := n.Bounds; r.Width > 0 {
		line += fmt.Sprintf(" at %d,%d %d×%d", r.X, r.Y, r.Width, r.Height)
	}
	if len(n.Actions) > 0 {
		line += " (" + strings.Join(n.Actions, ", ") + ")"
	}
	return line + "  " + n.ID
}

func (b *box) record(ctx context.Context, label string) (Result, error) {
	r, err := b.StartRecording(ctx, label)
	return Text("Recording %s to %s.", r.ID, r.FilePath), err
}

// stopRecordings ends all that run.
func (b *box) stopRecordings(ctx context.Context) (Result, error) {
	all, err := b.Recordings(ctx)
	if err != nil {
		return Result{}, err
	}
	var done []string
	for _, r := range all {
		if r.Status != wire.RecordingActive {
			continue
		}
		if r, err = b.StopRecording(ctx, r.ID); err != nil {
			return Result{}, err
		}
		done = append(done, recordingLine(r))
	}
	if len(done) == 0 {
		return Text("Nothing was being recorded."), nil
	}
	return Text("Stopped.\n%s", strings.Join(done, "\n")), nil
}

func recordingLine(r wire.Recording) string {
	return fmt.Sprintf("%s  %s  %.0f s  %s  %s", r.ID, r.Status, r.DurationSeconds, size(r.SizeBytes), r.FilePath)
}
