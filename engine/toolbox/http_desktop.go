package toolbox

import (
	"net/http"
)

// need is what a call about the desktop needs to be answered by the worker.
// Without it the toolbox answers by itself.
type need int

const (
	needDesktop need = iota // a started desktop
	needImage               // one in the image: a worker is started
	needWorker              // nothing: a worker is started
	needStatus              // as needDesktop; without it, it is inactive
	needProcess             // as needDesktop; without it, it does not run
	needStop                // as needDesktop; without it, there is nothing to do
)

const (
	startPath   = "/computeruse/start"
	stopPath    = "/computeruse/stop"
	sessionPath = "/internal/session"
)

// desktopOp is an operation on the desktop.
type desktopOp struct {
	pattern string
	kind    kind
	need    need
	handle  func(*desktopServer, http.ResponseWriter, *http.Request) error
}

// desktopOps lists them all. The toolbox forwards them; the worker does them.
func desktopOps() []desktopOp {
	return []desktopOp{
		{"POST " + startPath, work, needImage, (*desktopServer).start},
		{"POST " + stopPath, work, needStop, (*desktopServer).stop},
		{"GET /computeruse/status", quiet, needStatus, (*desktopServer).status},
		{"GET /computeruse/process-status", quiet, needStatus, (*desktopServer).status},
		{"GET /computeruse/process/{process}/status", quiet, needProcess, (*desktopServer).processStatus},
		{"GET /computeruse/process/{process}/logs", brief, needDesktop, (*desktopServer).processLogs},
		{"GET /computeruse/process/{process}/errors", brief, needDesktop, (*desktopServer).processErrors},
		{"POST /computeruse/process/{process}/restart", work, needDesktop, (*desktopServer).processRestart},

		{"GET /computeruse/screenshot", brief, needDesktop, (*desktopServer).screenshot},
		{"GET /computeruse/screenshot/compressed", brief, needDesktop, (*desktopServer).screenshotCompressed},
		{"GET /computeruse/screenshot/region", brief, needDesktop, (*desktopServer).screenshotRegion},
		{"GET /computeruse/screenshot/region/compressed", brief, needDesktop, (*desktopServer).screenshotRegionCompressed},
		{"GET /computeruse/display/info", brief, needDesktop, (*desktopServer).displayInfo},
		{"GET /computeruse/display/windows", brief, needDesktop, (*desktopServer).windows},

		{"GET /computeruse/mouse/position", brief, needDesktop, (*desktopServer).mousePosition},
		{"POST /computeruse/mouse/move", brief, needDesktop, (*desktopServer).mouseMove},
		{"POST /computeruse/mouse/click", brief, needDesktop, (*desktopServer).mouseClick},
		{"POST /computeruse/mouse/drag", brief, needDesktop, (*desktopServer).mouseDrag},
		{"POST /computeruse/mouse/scroll", brief, needDesktop, (*desktopServer).mouseScroll},
		{"POST /computeruse/keyboard/type", work, needDesktop, (*desktopServer).keyboardType},
		{"POST /computeruse/keyboard/key", brief, needDesktop, (*desktopServer).keyboardPress},
		{"POST /computeruse/keyboard/hotkey", brief, needDesktop, (*desktopServer).keyboardHotkey},

		{"GET /computeruse/recordings", brief, needWorker, (*desktopServer).recordings},
		{"POST /computeruse/recordings/start", brief, needDesktop, (*desktopServer).recordingStart},
		{"POST /computeruse/recordings/stop", brief, needWorker, (*desktopServer).recordingStop},
		{"GET /computeruse/recordings/{id}", brief, needWorker, (*desktopServer).recording},
		{"DELETE /computeruse/recordings/{id}", brief, needWorker, (*desktopServer).recordingDelete},
		{"GET /computeruse/recordings/{id}/download", work, needWorker, (*desktopServer).recordingDownload},

		{"GET /computeruse/a11y/tree", brief, needDesktop, (*desktopServer).a11yTree},
		{"POST /computeruse/a11y/find", brief, needDesktop, (*desktopServer).a11yFind},
		{"POST /computeruse/a11y/node/focus", brief, needDesktop, (*desktopServer).a11yFocus},
		{"POST /computeruse/a11y/node/invoke", brief, needDesktop, (*desktopServer).a11yInvoke},
		{"POST /computeruse/a11y/node/value", brief, needDesktop, (*desktopServer).a11yValue},
	}
}

// desktopRoutes are the toolbox's own routes of these operations.
func (t *Toolbox) desktopRoutes() []route {
	var routes []route
	for _, op := range desktopOps() {
		routes = append(routes, route{op.pattern, op.kind, func(w http.ResponseWriter, r *http.Request) error {
			return t.desktop.serve(w, r, op.need)
		}})
	}
	return routes
}
