package wire

// ScreenshotResponse is a picture of the screen. Screenshot is base64.
type ScreenshotResponse struct {
	Screenshot     string   `json:"screenshot"`
	CursorPosition Position `json:"cursorPosition"`
	SizeBytes      int      `json:"sizeBytes"` // of the picture, before base64
}

// Position is a place on the screen, in pixels from its top left corner.
type Position struct {
	X int `json:"x"`
	Y int `json:"y"`
}

// MouseMove moves the pointer. Missing coordinates are 0.
type MouseMove struct {
	X int `json:"x"`
	Y int `json:"y"`
}

// MouseClick moves the pointer and clicks. Without coordinates it clicks where
// the pointer is.
type MouseClick struct {
	X      *int   `json:"x,omitempty"`
	Y      *int   `json:"y,omitempty"`
	Button string `json:"button,omitempty"` // left, the default, right or middle
	Double bool   `json:"double,omitempty"`
}

// MouseDrag moves the pointer with a button held.
type MouseDrag struct {
	StartX int    `json:"startX"`
	StartY int    `json:"startY"`
	EndX   int    `json:"endX"`
	EndY   int    `json:"endY"`
	Button string `json:"button,omitempty"`
}

// MouseScroll turns the wheel. Without coordinates it turns it where the
// pointer is.
type MouseScroll struct {
	X         *int   `json:"x,omitempty"`
	Y         *int   `json:"y,omitempty"`
	Direction string `json:"direction"`        // up or down; left and right are additions
	Amount    *int   `json:"amount,omitempty"` // notches; absent: 1
}

// Scrolled is the answer to MouseScroll.
type Scrolled struct {
	Success bool `json:"success"`
}

// KeyboardType types text. Delay is in milliseconds, between characters.
type KeyboardType struct {
	Text  string `json:"text"`
	Delay int    `json:"delay,omitempty"`
}

// KeyboardPress presses one key while the modifiers are held.
type KeyboardPress struct {
	Key       string   `json:"key"`
	Modifiers []string `json:"modifiers,omitempty"` // ctrl, alt, shift, cmd
}

// KeyboardHotkey presses a chord, as ctrl+c.
type KeyboardHotkey struct {
	Keys string `json:"keys"`
}

// DisplayInfo lists the displays; there is one.
type DisplayInfo struct {
	Displays []Display `json:"displays"`
}

// Display is one display.
type Display struct {
	ID       int  `json:"id"`
	X        int  `json:"x"`
	Y        int  `json:"y"`
	Width    int  `json:"width"`
	Height   int  `json:"height"`
	IsActive bool `json:"isActive"`
}

// Windows lists the open windows, oldest first.
type Windows struct {
	Windows []Window `json:"windows"`
}

// Window is an open window. Its place is that of its content, without frame.
type Window struct {
	ID       int64  `json:"id"`
	Title    string `json:"title"`
	X        int    `json:"x"`
	Y        int    `json:"y"`
	Width    int    `json:"width"`
	Height   int    `json:"height"`
	IsActive bool   `json:"isActive"`
}

// The states of a desktop.
const (
	DesktopActive   = "active"   // all that the image has runs
	DesktopPartial  = "partial"  // some of it does
	DesktopInactive = "inactive" // not started
)

// DesktopStatus is the state of the desktop in one word.
type DesktopStatus struct {
	Status string `json:"status"`
}

// DesktopChange is the answer to a start or stop: the processes by name.
type DesktopChange struct {
	Message string                    `json:"message"`
	Status  map[string]DesktopProcess `json:"status"`
}

// DesktopProcess is one of the processes that make the desktop. Those of a
// lower priority start first. PID is absent while it does not run.
type DesktopProcess struct {
	Running     bool `json:"running"`
	AutoRestart bool `json:"autoRestart"`
	Priority    int  `json:"priority"`
	PID         int  `json:"pid,omitempty"`
}

// DesktopProcessStatus tells whether a process runs.
type DesktopProcessStatus struct {
	ProcessName string `json:"processName"`
	Running     bool   `json:"running"`
}

// DesktopProcessLogs is the end of what a process wrote to its stdout.
type DesktopProcessLogs struct {
	ProcessName string `json:"processName"`
	Logs        string `json:"logs"`
}

// DesktopProcessErrors is the end of what a process wrote to its stderr.
type DesktopProcessErrors struct {
	ProcessName string `json:"processName"`
	Errors      string `json:"errors"`
}

// DesktopProcessRestart is the answer to a restart.
type DesktopProcessRestart struct {
	ProcessName string `json:"processName"`
	Message     string `json:"message"`
}

// StartRecording begins a recording. The label becomes part of the file's name.
type StartRecording struct {
	Label string `json:"label,omitempty"`
}

// StopRecording ends a recording.
type StopRecording struct {
	ID string `json:"id"`
}

// The states of a recording.
const (
	RecordingActive    = "recording"
	RecordingCompleted = "completed"
	RecordingFailed    = "failed" // it broke off; the file may hold what came before
)

// Recording is a film of the screen, a file of the sandbox. Times are RFC 3339.
type Recording struct {
	ID              string  `json:"id"`
	FileName        string  `json:"fileName"`
	FilePath        string  `json:"filePath"`
	StartTime       string  `json:"startTime"`
	EndTime         string  `json:"endTime,omitempty"`
	Status          string  `json:"status"`
	DurationSeconds float64 `json:"durationSeconds"`
	SizeBytes       int64   `json:"sizeBytes"`
}

// Recordings lists recordings, oldest first.
type Recordings struct {
	Recordings []Recording `json:"recordings"`
}

// A11yNode is one thing that a program shows, as assistive technology sees it.
// ID is bus-name:object-path.
type A11yNode struct {
	ID          string      `json:"id"`
	Role        string      `json:"role"`
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Bounds      A11yBounds  `json:"bounds"`
	States      []string    `json:"states"`
	Actions     []string    `json:"actions"`
	Children    []*A11yNode `json:"children,omitempty"`
}

// A11yBounds is a node's place on the screen. Nodes without one have zeros.
type A11yBounds struct {
	X      int `json:"x"`
	Y      int `json:"y"`
	Width  int `json:"width"`
	Height int `json:"height"`
}

// A11yTree is a tree of nodes. Truncated tells that there are more.
type A11yTree struct {
	Root      *A11yNode `json:"root"`
	Truncated bool      `json:"truncated"`
}

// A11yFind looks for nodes. Empty fields match everything.
type A11yFind struct {
	Scope     string   `json:"scope,omitempty"` // focused, the default, pid or all
	PID       int      `json:"pid,omitempty"`   // with scope pid
	Role      string   `json:"role,omitempty"`
	Name      string   `json:"name,omitempty"`
	NameMatch string   `json:"nameMatch,omitempty"` // exact, substring, the default, or regex
	States    []string `json:"states,omitempty"`    // all of them
	Limit     int      `json:"limit,omitempty"`     // 0: 100
}

// A11yMatches are the nodes that A11yFind found, without their children.
type A11yMatches struct {
	Matches   []*A11yNode `json:"matches"`
	Truncated bool        `json:"truncated"`
}

// A11yTarget names a node.
type A11yTarget struct {
	ID string `json:"id"`
}

// A11yInvoke calls an action of a node; an empty one is the first.
type A11yInvoke struct {
	ID     string `json:"id"`
	Action string `json:"action,omitempty"`
}

// A11ySetValue writes a node's text or number.
type A11ySetValue struct {
	ID    string `json:"id"`
	Value string `json:"value"`
}
