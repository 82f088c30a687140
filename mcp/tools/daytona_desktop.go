package tools

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// onDesktop is what a tool does with the toolbox of its sandbox.
type onDesktop func(b *box, ctx context.Context, a Args) (Result, error)

// desktopTool is a tool whose only required argument, beside others, is id.
// args are the properties of its schema but id.
func (k *kit) desktopTool(name, title, description, args, required string, hints Hints, do onDesktop) Tool {
	if args != "" {
		args = "," + args
	}
	if required != "" {
		required = "," + required
	}
	return Tool{
		Name: "computer_use_" + name, Set: SetDaytona, Title: title, Description: description, Hints: hints,
		Schema: `{"type":"object","properties":{"id":{"type":"string"}` + args + `},"required":["id"` + required + `]}`,
		Handler: func(ctx context.Context, a Args) (Result, error) {
			b, err := k.box(ctx, a)
			if err != nil {
				return Result{}, err
			}
			r, err := do(b, ctx, a)
			return r, desktopError(err, a)
		},
	}
}

// Parts of schemas that several tools have.
const (
	xy         = `"x":{"type":"number"},"y":{"type":"number"}`
	area       = xy + `,"width":{"type":"number"},"height":{"type":"number"}`
	cursor     = `"show_cursor":{"type":"boolean"}`
	compressed = cursor + `,"format":{"type":"string","description":"png or jpeg"},"quality":{"type":"number","description":"1-100, of jpeg"},"scale":{"type":"number","description":"0.1-1"}`
	node       = `"node_id":{"type":"string","description":"As tree and find give it"}`
	film       = `"recording_id":{"type":"string"}`
	button     = `"button":{"type":"string","description":"left (default), right or middle"}`
	within     = `"scope":{"type":"string","description":"focused, pid or all"},"pid":{"type":"number","description":"With scope pid"}`
)

func (k *kit) daytonaDesktopTools() []Tool {
	var (
		reads = Hints{ReadOnly: true, Idempotent: true}
		acts  = Hints{Destructive: true, OpenWorld: true}
		sets  = Hints{Idempotent: true}
		loses = Hints{Destructive: true, Idempotent: true}
	)
	t := k.desktopTool
	return []Tool{
		t("start", "Start desktop", "Start the desktop of a sandbox. Call it before the other computer_use tools.", "", "", sets, func(b *box, ctx context.Context, a Args) (Result, error) { return b.startDesktop(ctx, a) }),
		t("stop", "Stop desktop", "Stop the desktop.", "", "", loses, func(b *box, ctx context.Context, _ Args) (Result, error) { return b.stopDesktop(ctx) }),
		t("status", "Desktop status", "Say whether the desktop runs.", "", "", reads, (*box).desktopStatus),
		t("screenshot", "Screenshot", "See the whole screen.", cursor, "", reads, shoot),
		t("screenshot_region", "Screenshot of a region", "See a part of the screen.", area+","+cursor, `"x","y","width","height"`, reads, shoot),
		t("screenshot_compressed", "Small screenshot", "See the whole screen, scaled or as JPEG.", compressed, "", reads, shoot),
		t("screenshot_compressed_region", "Small screenshot of a region", "See a part of the screen, scaled or as JPEG.", area+","+compressed, `"x","y","width","height"`, reads, shoot),
		t("display_info", "Display", "Tell the size of the screen.", "", "", reads, (*box).displayInfo),
		t("windows", "Windows", "List the open windows.", "", "", reads, func(b *box, ctx context.Context, _ Args) (Result, error) { return b.windows(ctx) }),
		t("mouse_position", "Mouse position", "Tell where the pointer is.", "", "", reads, func(b *box, ctx context.Context, _ Args) (Result, error) { return pointer(b.MousePosition(ctx)) }),
		t("mouse_move", "Move mouse", "Move the pointer.", xy, `"x","y"`, acts, func(b *box, ctx context.Context, a Args) (Result, error) {
			return pointer(b.MouseMove(ctx, wire.MouseMove{X: a.px("x"), Y: a.px("y")}))
		}),
		t("mouse_click", "Click", "Move the pointer and click.", xy+","+button+`,"double":{"type":"boolean"}`, `"x","y"`, acts, mouseClick),
		t("mouse_drag", "Drag", "Move the pointer with a button held.", `"start_x":{"type":"number"},"start_y":{"type":"number"},"end_x":{"type":"number"},"end_y":{"type":"number"},`+button, `"start_x","start_y","end_x","end_y"`, acts, mouseDrag),
		t("mouse_scroll", "Scroll", "Turn the mouse wheel.", xy+`,"direction":{"type":"string","description":"up or down"},"amount":{"type":"number","description":"Notches, default 3"}`, `"x","y","direction"`, acts, mouseScroll),
		t("keyboard_type", "Type", "Type text.", `"text":{"type":"string"},"delay":{"type":"number","description":"Milliseconds between characters"}`, `"text"`, acts, keyboardType),
		t("keyboard_press", "Press key", "Press one key.", `"key":{"type":"string","description":"As enter, tab, a"},"modifiers":{"type":"array","items":{"type":"string"},"description":"ctrl, alt, shift, cmd"}`, `"key"`, acts, keyboardPress),
		t("keyboard_hotkey", "Press hotkey", "Press a chord.", `"keys":{"type":"string","description":"As ctrl+c"}`, `"keys"`, acts, keyboardHotkey),
		t("accessibility_tree", "Accessibility tree", "Show what programs show, as a tree.", within+`,"max_depth":{"type":"number"}`, "", reads, a11yTree),
		t("accessibility_find", "Find nodes", "Find nodes of the accessibility tree.", within+`,"role":{"type":"string"},"name":{"type":"string"},"name_match":{"type":"string","description":"exact, substring or regex"},"states":{"type":"array","items":{"type":"string"}},"limit":{"type":"number"}`, "", reads, a11yFind),
		t("accessibility_focus", "Focus node", "Move the keyboard focus to a node.", node, `"node_id"`, acts, func(b *box, ctx context.Context, a Args) (Result, error) {
			return Text("Focused %s.", a.Str("node_id")), b.A11yFocus(ctx, a.Str("node_id"))
		}),
		t("accessibility_invoke", "Invoke node", "Call an action of a node.", node+`,"action":{"type":"string","description":"default the first"}`, `"node_id"`, acts, func(b *box, ctx context.Context, a Args) (Result, error) {
			return Text("Invoked %s.", a.Str("node_id")), b.A11yInvoke(ctx, a.Str("node_id"), a.Str("action"))
		}),
		t("accessibility_set_value", "Set value", "Set the text or number of a node.", node+`,"value":{"type":"string"}`, `"node_id","value"`, acts, func(b *box, ctx context.Context, a Args) (Result, error) {
			return Text("Set %s.", a.Str("node_id")), b.A11ySetValue(ctx, a.Str("node_id"), a.Str("value"))
		}),
		t("recording_start", "Start recording", "Record the screen to a file.", `"label":{"type":"string"}`, "", Hints{}, func(b *box, ctx context.Context, a Args) (Result, error) { return b.record(ctx, a.Str("label")) }),
		t("recording_stop", "Stop recording", "End a recording.", film, `"recording_id"`, Hints{Idempotent: true}, func(b *box, ctx context.Context, a Args) (Result, error) {
			return recording(a)(b.StopRecording(ctx, a.Str("recording_id")))
		}),
		t("recording_list", "List recordings", "List recordings.", "", "", reads, listRecordings),
		t("recording_get", "Show recording", "Show a recording.", film, `"recording_id"`, reads, func(b *box, ctx context.Context, a Args) (Result, error) {
			return recording(a)(b.Recording(ctx, a.Str("recording_id")))
		}),
		t("recording_delete", "Delete recording", "Delete a recording.", film, `"recording_id"`, loses, func(b *box, ctx context.Context, a Args) (Result, error) {
			return Text("Deleted %s.", a.Str("recording_id")), noRecording(b.DeleteRecording(ctx, a.Str("recording_id")), a)
		}),
	}
}

// px returns a coordinate in whole pixels.
func (a Args) px(name string) int { return int(math.Round(a.Num(name))) }

func (b *box) desktopStatus(ctx context.Context, _ Args) (Result, error) {
	s, err := b.DesktopStatus(ctx)
	return Text("The desktop is %s.", s), err
}

func (b *box) displayInfo(ctx context.Context, _ Args) (Result, error) {
	all, err := b.Displays(ctx)
	var lines []string
	for _, d := range all {
		lines = append(lines, fmt.Sprintf("Display %d: %d×%d at %d,%d", d.ID, d.Width, d.Height, d.X, d.Y))
	}
	return Text("%s", strings.Join(lines, "\n")), err
}

func shoot(b *box, ctx context.Context, a Args) (Result, error) {
	s := client.Shot{Format: strings.ToLower(a.Str("format")), Quality: a.px("quality"), Scale: a.Num("scale")}
	switch {
	case s.Format != "" && s.Format != "png" && s.Format != "jpeg" && s.Format != "jpg":
		return Result{}, invalid("Leave it out for png", `"format" must be png or jpeg, not %s`, quote(a.Str("format")))
	case a.Has("quality") && (s.Quality < 1 || s.Quality > 100):
		return Result{}, invalid("Leave it out for the default", `"quality" must be 1 to 100`)
	case a.Has("scale") && (s.Scale < 0.1 || s.Scale > 1):
		return Result{}, invalid("Leave it out for 1", `"scale" must be 0.1 to 1`)
	}
	if a.Has("width") {
		s.Region = &client.Region{X: a.px("x"), Y: a.px("y"), Width: a.px("width"), Height: a.px("height")}
		if s.Region.Width < 1 || s.Region.Height < 1 {
			return Result{}, invalid("They are pixels", `"width" and "height" must be at least 1`)
		}
	}
	return b.picture(ctx, a, s)
}

func pointer(p wire.Position, err error) (Result, error) {
	return Text("The pointer is at %d,%d.", p.X, p.Y), err
}

// checkButton tells whether the mouse has such a button.
func checkButton(a Args) error {
	switch a.Str("button") {
	case "", "left", "right", "middle":
		return nil
	}
	return invalid("Leave it out for left", `"button" must be left, right or middle, not %s`, quote(a.Str("button")))
}

func mouseClick(b *box, ctx context.Context, a Args) (Result, error) {
	if err := checkButton(a); err != nil {
		return Result{}, err
	}
	x, y := a.px("x"), a.px("y")
	return pointer(b.MouseClick(ctx, wire.MouseClick{X: &x, Y: &y, Button: a.Str("button"), Double: a.Bool("double")}))
}

func mouseDrag(b *box, ctx context.Context, a Args) (Result, error) {
	if err := checkButton(a); err != nil {
		return Result{}, err
	}
	return pointer(b.MouseDrag(ctx, wire.MouseDrag{StartX: a.px("start_x"), StartY: a.px("start_y"), EndX: a.px("end_x"), EndY: a.px("end_y"), Button: a.Str("button")}))
}

func mouseScroll(b *box, ctx context.Context, a Args) (Result, error) {
	x, y, amount := a.px("x"), a.px("y"), 3
	if a.Has("amount") {
		amount = a.px("amount")
	}
	switch d := a.Str("direction"); {
	case d != "up" && d != "down":
		return Result{}, invalid(`As "direction":"down"`, `"direction" must be up or down, not %s`, quote(d))
	case amount < 1:
		return Result{}, invalid("Leave it out for 3", `"amount" must be at least 1`)
	}
	err := b.MouseScroll(ctx, wire.MouseScroll{X: &x, Y: &y, Direction: a.Str("direction"), Amount: &amount})
	return Text("Scrolled %s by %d.", a.Str("direction"), amount), err
}

func keyboardType(b *box, ctx context.Context, a Args) (Result, error) {
	if a.Num("delay") < 0 {
		return Result{}, invalid("Leave it out", `"delay" must not be negative`)
	}
	return Text("Typed."), b.TypeText(ctx, wire.KeyboardType{Text: a.Str("text"), Delay: a.px("delay")})
}

func keyboardPress(b *box, ctx context.Context, a Args) (Result, error) {
	return Text("Pressed %s.", a.Str("key")), b.PressKey(ctx, wire.KeyboardPress{Key: a.Str("key"), Modifiers: a.List("modifiers")})
}

func keyboardHotkey(b *box, ctx context.Context, a Args) (Result, error) {
	return Text("Pressed %s.", a.Str("keys")), b.Hotkey(ctx, a.Str("keys"))
}

func checkScope(a Args) error {
	switch s := a.Str("scope"); {
	case s != "" && s != "focused" && s != "pid" && s != "all":
		return invalid("Leave it out for focused", `"scope" must be focused, pid or all, not %s`, quote(s))
	case s == "pid" && a.Num("pid") < 1:
		return invalid("computer_use_windows and ps tell it", `"pid" is missing for scope pid`)
	}
	return nil
}

func a11yTree(b *box, ctx context.Context, a Args) (Result, error) {
	if err := checkScope(a); err != nil {
		return Result{}, err
	}
	depth := -1
	if a.Has("max_depth") {
		depth = a.px("max_depth")
	}
	if depth < -1 {
		return Result{}, invalid("Leave it out for everything", `"max_depth" must be 0 or more`)
	}
	return b.tree(ctx, a.Str("scope"), a.px("pid"), depth)
}

func a11yFind(b *box, ctx context.Context, a Args) (Result, error) {
	if err := checkScope(a); err != nil {
		return Result{}, err
	}
	switch m := a.Str("name_match"); m {
	case "", "exact", "substring", "regex":
	default:
		return Result{}, invalid("Leave it out for substring", `"name_match" must be exact, substring or regex, not %s`, quote(m))
	}
	return b.findNodes(ctx, wire.A11yFind{
		Scope: a.Str("scope"), PID: a.px("pid"), Role: a.Str("role"), Name: a.Str("name"), NameMatch: a.Str("name_match"),
		States: a.List("states"), Limit: a.px("limit"),
	})
}

func listRecordings(b *box, ctx context.Context, _ Args) (Result, error) {
	all, err := b.Recordings(ctx)
	lines := []string{fmt.Sprintf("%d recordings", len(all))}
	for _, r := range all {
		lines = append(lines, recordingLine(r))
	}
	return Text("%s", clip(strings.Join(lines, "\n"), maxText, "there are too many to show")), err
}

// recording shows one, or says which are there.
func recording(a Args) func(wire.Recording, error) (Result, error) {
	return func(r wire.Recording, err error) (Result, error) {
		return Text("%s", recordingLine(r)), noRecording(err, a)
	}
}

func noRecording(err error, a Args) error {
	if !absent(err) {
		return err
	}
	return invalid("computer_use_recording_list has those there are", `there is no recording with "recording_id" %s`, quote(a.Str("recording_id")))
}
