package toolbox

import (
	"context"
	"errors"
	"image"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/desktop"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// DesktopWorker is the name by which this program is the desktop's worker.
const DesktopWorker = "atoll-desktop"

// DesktopMain is the worker: it serves the operations on the desktop on the
// socket that is its file 3, until it is told to end.
func DesktopMain() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		log.Error("desktop", "err", err)
		return 1
	}
	syscall.CloseOnExec(3)
	desktop.Quiet()
	env := map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	d := desktop.New(env, env["HOME"])
	s := &http.Server{Handler: (&desktopServer{d, log}).handler(), ReadHeaderTimeout: 30 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; _ = s.Close() }()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Error("desktop", "err", err)
	}
	d.Stop()
	return 0
}

// desktopServer answers in the worker.
type desktopServer struct {
	desktop *desktop.Desktop
	log     *slog.Logger
}

func (s *desktopServer) handler() http.Handler {
	mux := http.NewServeMux()
	for _, op := range desktopOps() {
		mux.HandleFunc(op.pattern, func(w http.ResponseWriter, r *http.Request) {
			w2 := &writer{ResponseWriter: w}
			if err := op.handle(s, w2, r); err != nil {
				fail(s.log, w2, r, err)
			}
		})
	}
	mux.HandleFunc("GET "+sessionPath, func(w http.ResponseWriter, _ *http.Request) {
		_ = writeJSON(w, http.StatusOK, s.desktop.Session())
	})
	return mux
}

// done is the answer of operations that have none.
func done(w http.ResponseWriter) error { return writeJSON(w, http.StatusOK, struct{}{}) }

func (s *desktopServer) start(w http.ResponseWriter, r *http.Request) error {
	if err := s.desktop.Start(r.Context()); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.DesktopChange{Message: "the desktop is started", Status: s.desktop.Processes()})
}

func (s *desktopServer) stop(w http.ResponseWriter, _ *http.Request) error {
	s.desktop.Stop()
	return writeJSON(w, http.StatusOK, wire.DesktopChange{Message: "the desktop is stopped", Status: s.desktop.Processes()})
}

func (s *desktopServer) status(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, wire.DesktopStatus{Status: s.desktop.Status()})
}

func (s *desktopServer) processStatus(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("process")
	running, err := s.desktop.Running(name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.DesktopProcessStatus{ProcessName: name, Running: running})
}

func (s *desktopServer) processLogs(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("process")
	logs, _, err := s.desktop.Output(name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.DesktopProcessLogs{ProcessName: name, Logs: logs})
}

func (s *desktopServer) processErrors(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("process")
	_, errs, err := s.desktop.Output(name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.DesktopProcessErrors{ProcessName: name, Errors: errs})
}

func (s *desktopServer) processRestart(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("process")
	if err := s.desktop.Restart(name); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.DesktopProcessRestart{ProcessName: name, Message: name + " is restarted"})
}

// onScreen calls f with the screen and answers with what it returns.
func onScreen[T any](s *desktopServer, w http.ResponseWriter, f func(*desktop.Screen) (T, error)) error {
	screen, err := s.desktop.Screen()
	if err != nil {
		return err
	}
	v, err := f(screen)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// actOn reads a request and calls f with it and the screen.
func actOn[Q, T any](s *desktopServer, w http.ResponseWriter, r *http.Request, f func(*desktop.Screen, Q) (T, error)) error {
	var q Q
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	return onScreen(s, w, func(screen *desktop.Screen) (T, error) { return f(screen, q) })
}

// query reads typed parameters of a URL; the first that is wrong stays in err.
type query struct {
	r   *http.Request
	err error
}

func (q *query) text(name string) string { return q.r.URL.Query().Get(name) }

func parsed[T any](q *query, name, what string, parse func(string) (T, error)) (v T) {
	text := q.text(name)
	if text == "" {
		return v
	}
	v, err := parse(text)
	if err != nil && q.err == nil {
		q.err = wire.BadRequest("%s: %.40q is not %s", name, text, what)
	}
	return v
}

func (q *query) integer(name string) int { return parsed(q, name, "a whole number", strconv.Atoi) }

func (q *query) flag(name string) bool { return parsed(q, name, "true or false", strconv.ParseBool) }

func (q *query) decimal(name string) float64 {
	return parsed(q, name, "a number", func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

// required refuses a request that lacks one of the parameters.
func (q *query) required(names ...string) {
	for _, n := range names {
		if q.text(n) == "" && q.err == nil {
			q.err = wire.BadRequest("%s: it is missing", n)
		}
	}
}

// maxCoordinate is beyond every screen.
const maxCoordinate = 1 << 15

// region reads the region of a picture.
func (q *query) region() *image.Rectangle {
	q.required("x", "y", "width", "height")
	x, y, w, h := q.integer("x"), q.integer("y"), q.integer("width"), q.integer("height")
	for _, n := range []int{x, y, w, h} {
		if (n < 0 || n > maxCoordinate) && q.err == nil {
			q.err = wire.BadRequest("x, y, width, height: %d is not on the screen", n)
		}
	}
	// Not image.Rect, which would mend it.
	return &image.Rectangle{Min: image.Pt(x, y), Max: image.Pt(x+w, y+h)}
}

func (q *query) compression(shot desktop.Shot) desktop.Shot {
	shot.Format, shot.Quality, shot.Scale = strings.ToLower(q.text("format")), q.integer("quality"), q.decimal("scale")
	for name, unset := range map[string]bool{"quality": shot.Quality == 0, "scale": shot.Scale == 0} {
		if q.text(name) != "" && unset && q.err == nil {
			q.err = wire.BadRequest("%s: 0 is not possible", name)
		}
	}
	return shot
}

func (s *desktopServer) picture(w http.ResponseWriter, q *query, shot desktop.Shot) error {
	shot.Cursor = q.flag("showCursor")
	if q.err != nil {
		return q.err
	}
	return onScreen(s, w, func(screen *desktop.Screen) (wire.ScreenshotResponse, error) { return screen.Picture(shot) })
}

func (s *desktopServer) screenshot(w http.ResponseWriter, r *http.Request) error {
	return s.picture(w, &query{r: r}, desktop.Shot{})
}

func (s *desktopServer) screenshotCompressed(w http.ResponseWriter, r *http.Request) error {
	q := &query{r: r}
	return s.picture(w, q, q.compression(desktop.Shot{}))
}

func (s *desktopServer) screenshotRegion(w http.ResponseWriter, r *http.Request) error {
	q := &query{r: r}
	return s.picture(w, q, desktop.Shot{Region: q.region()})
}

func (s *desktopServer) screenshotRegionCompressed(w http.ResponseWriter, r *http.Request) error {
	q := &query{r: r}
	return s.picture(w, q, q.compression(desktop.Shot{Region: q.region()}))
}

func (s *desktopServer) displayInfo(w http.ResponseWriter, _ *http.Request) error {
	return onScreen(s, w, (*desktop.Screen).Info)
}

func (s *desktopServer) windows(w http.ResponseWriter, _ *http.Request) error {
	return onScreen(s, w, (*desktop.Screen).Windows)
}

func (s *desktopServer) mousePosition(w http.ResponseWriter, _ *http.Request) error {
	return onScreen(s, w, (*desktop.Screen).Pointer)
}

func (s *desktopServer) mouseMove(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, (*desktop.Screen).Move)
}

func (s *desktopServer) mouseClick(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, (*desktop.Screen).Click)
}

func (s *desktopServer) mouseDrag(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, (*desktop.Screen).Drag)
}

func (s *desktopServer) mouseScroll(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, func(screen *desktop.Screen, q wire.MouseScroll) (wire.Scrolled, error) {
		return wire.Scrolled{Success: true}, screen.Scroll(q)
	})
}

func (s *desktopServer) keyboardType(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, func(screen *desktop.Screen, q wire.KeyboardType) (struct{}, error) {
		return struct{}{}, screen.Type(r.Context(), q)
	})
}

func (s *desktopServer) keyboardPress(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, func(screen *desktop.Screen, q wire.KeyboardPress) (struct{}, error) {
		return struct{}{}, screen.Press(q)
	})
}

func (s *desktopServer) keyboardHotkey(w http.ResponseWriter, r *http.Request) error {
	return actOn(s, w, r, func(screen *desktop.Screen, q wire.KeyboardHotkey) (struct{}, error) {
		return struct{}{}, screen.Hotkey(q)
	})
}

func (s *desktopServer) recordings(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, s.desktop.Recordings())
}

func (s *desktopServer) recording(w http.ResponseWriter, r *http.Request) error {
	rec, err := s.desktop.Recording(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rec)
}

func (s *desktopServer) recordingStart(w http.ResponseWriter, r *http.Request) error {
	var q wire.StartRecording
	if r.ContentLength != 0 { // the body is optional
		if err := readJSON(w, r, &q); err != nil {
			return err
		}
	}
	rec, err := s.desktop.Record(q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, rec)
}

func (s *desktopServer) recordingStop(w http.ResponseWriter, r *http.Request) error {
	var q wire.StopRecording
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	rec, err := s.desktop.StopRecording(q.ID)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rec)
}

func (s *desktopServer) recordingDelete(w http.ResponseWriter, r *http.Request) error {
	if err := s.desktop.DeleteRecording(r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *desktopServer) recordingDownload(w http.ResponseWriter, r *http.Request) error {
	f, rec, err := s.desktop.OpenRecording(r.PathValue("id"))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "video/mp4")
	w.Header().Set("Content-Disposition", disposition("attachment", "", rec.FileName))
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}

func (s *desktopServer) a11yTree(w http.ResponseWriter, r *http.Request) error {
	q := &query{r: r}
	pid, depth := q.integer("pid"), -1
	if q.text("maxDepth") != "" {
		depth = q.integer("maxDepth")
	}
	if q.err != nil {
		return q.err
	}
	tree, err := s.desktop.Tree(r.Context(), q.text("scope"), pid, depth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tree)
}

func (s *desktopServer) a11yFind(w http.ResponseWriter, r *http.Request) error {
	var q wire.A11yFind
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	found, err := s.desktop.Find(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

// onNode reads a request about a node and calls f with it.
func onNode[Q any](w http.ResponseWriter, r *http.Request, f func(context.Context, Q) error) error {
	var q Q
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if err := f(r.Context(), q); err != nil {
		return err
	}
	return done(w)
}

func (s *desktopServer) a11yFocus(w http.ResponseWriter, r *http.Request) error {
	return onNode(w, r, s.desktop.Focus)
}

func (s *desktopServer) a11yInvoke(w http.ResponseWriter, r *http.Request) error {
	return onNode(w, r, s.desktop.Invoke)
}

func (s *desktopServer) a11yValue(w http.ResponseWriter, r *http.Request) error {
	return onNode(w, r, s.desktop.SetValue)
}
