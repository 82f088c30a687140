package desktop

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxFilms bounds recordings at the same time: each takes most of a core.
	maxFilms = 2
	// maxFilmTime and maxFilmSize end a recording that nobody ends.
	maxFilmTime = 4 * time.Hour
	maxFilmSize = 4 << 30
	// maxLabel bounds a label, maxListed the list of recordings.
	maxLabel  = 100
	maxListed = 1000
	// filmStart is how long the first frame may take, filmEnd the end.
	filmStart = 15 * time.Second
	filmEnd   = 20 * time.Second
	frameRate = "15"
)

// films are the recordings in a directory: beside each film lies a file that
// describes it, so that they outlive the sandbox's stop.
type films struct {
	dir string

	mu     sync.Mutex
	active map[string]*film
}

// film is a recording under way.
type film struct {
	info wire.Recording
	cmd  *exec.Cmd
	errs tail
	done chan struct{} // closed when it has ended and is described as it is
}

func newFilms(dir string) *films { return &films{dir: dir, active: map[string]*film{}} }

var filmID = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

func noFilm(id string) error {
	return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "there is no recording %.60q", id)
}

// Record begins a recording and answers when the first frame is taken.
func (d *Desktop) Record(q wire.StartRecording) (wire.Recording, error) {
	if len(q.Label) > maxLabel {
		return wire.Recording{}, wire.BadRequest("label: it is longer than %d bytes", maxLabel)
	}
	if _, err := d.Screen(); err != nil {
		return wire.Recording{}, err
	}
	program, err := d.ffmpeg()
	if err != nil {
		return wire.Recording{}, err
	}
	d.mu.Lock()
	display := d.display
	d.mu.Unlock()
	return d.films.begin(program, display, q.Label)
}

// fileName makes a name of a label.
func fileName(label string, at time.Time) string {
	label = strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, label), "-.")
	if label == "" {
		label = "recording"
	}
	return label + "_" + at.Format("20060102-150405.000") + ".mp4"
}

func (s *films) begin(program, display, label string) (wire.Recording, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.active) >= maxFilms {
		return wire.Recording{}, wire.BadRequest("there are %d recordings under way already; stop one first", maxFilms)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return wire.Recording{}, wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "make the directory of recordings: %v", err)
	}
	now := time.Now().UTC()
	f := &film{done: make(chan struct{})}
	f.info = wire.Recording{ID: strings.ToLower(rand.Text()), FileName: fileName(label, now), StartTime: now.Format(time.RFC3339Nano), Status: wire.RecordingActive}
	f.info.FilePath = filepath.Join(s.dir, f.info.FileName)
	if err := s.shoot(f, program, display); err != nil {
		os.Remove(f.info.FilePath)
		return wire.Recording{}, wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "start recording: %v", err)
	}
	s.active[f.info.ID] = f
	if err := s.store(f.info); err != nil {
		delete(s.active, f.info.ID)
		_ = f.cmd.Process.Kill()
		os.Remove(f.info.FilePath)
		return wire.Recording{}, wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "describe the recording: %v", err)
	}
	return f.info, nil
}

// shoot starts ffmpeg and waits for the first frame.
func (s *films) shoot(f *film, program, display string) error {
	progress, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	f.cmd = exec.Command(program, "-nostdin", "-loglevel", "error", "-progress", "pipe:3", "-stats_period", "0.2",
		"-f", "x11grab", "-framerate", frameRate, "-i", display,
		"-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
		"-t", fmt.Sprint(maxFilmTime.Seconds()), "-fs", fmt.Sprint(int64(maxFilmSize)), "-movflags", "+faststart", "-y", f.info.FilePath)
	f.cmd.Stderr = &f.errs
	f.cmd.ExtraFiles = []*os.File{theirs}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	err = start(f.cmd)
	theirs.Close()
	if err != nil {
		progress.Close()
		return err
	}
	rolling := make(chan struct{})
	go watchFrames(progress, rolling) // ends with ffmpeg
	ended := make(chan struct{})
	go func() { // ends with ffmpeg
		err := f.cmd.Wait()
		close(ended)
		s.finish(f, err)
	}()
	select {
	case <-rolling:
		return nil
	case <-ended:
		return fmt.Errorf("ffmpeg ended: %s", lastLines(f.errs.String()))
	case <-time.After(filmStart):
		_ = f.cmd.Process.Kill()
		return errors.New("ffmpeg took no picture")
	}
}

// watchFrames closes rolling when ffmpeg reports its first frame, and reads on
// so that it never waits for us.
func watchFrames(r *os.File, rolling chan<- struct{}) {
	defer r.Close()
	var seen []byte
	buf := make([]byte, 1024)
	for {
		n, err := r.Read(buf)
		if rolling != nil {
			seen = append(seen, buf[:n]...)
			if i := bytes.Index(seen, []byte("frame=")); i >= 0 && i+6 < len(seen) && seen[i+6] != '0' {
				close(rolling)
				rolling = nil
			} else if i >= 0 {
				seen = seen[i+6:]
			}
		}
		if err != nil {
			return
		}
	}
}

// finish notes how a recording ended.
func (s *films) finish(f *film, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	if s.active[f.info.ID] != f {
		return // it never began
	}
	delete(s.active, f.info.ID)
	f.info.Status = wire.RecordingCompleted
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != 255 { // 255 is how it ends when it was asked to
		f.info.Status = wire.RecordingFailed
	}
	f.info.EndTime = time.Now().UTC().Format(time.RFC3339Nano)
	_ = s.store(f.info) // a full disk; get tells what can be told
}

// store writes the description beside the film.
func (s *films) store(r wire.Recording) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, r.ID+".json")
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// get describes one recording.
func (s *films) get(id string) (wire.Recording, error) {
	if !filmID.MatchString(id) {
		return wire.Recording{}, noFilm(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.getLocked(id)
}

func (s *films) getLocked(id string) (wire.Recording, error) {
	var r wire.Recording
	f := s.active[id]
	if f != nil {
		r = f.info
	} else if err := s.load(id, &r); err != nil {
		return r, err
	}
	info, err := os.Stat(r.FilePath)
	if err == nil {
		r.SizeBytes = info.Size()
	}
	if f == nil && r.Status == wire.RecordingActive { // the sandbox ended under it
		r.Status = wire.RecordingFailed
		if err == nil {
			r.EndTime = info.ModTime().UTC().Format(time.RFC3339Nano)
		}
	}
	from, err1 := time.Parse(time.RFC3339Nano, r.StartTime)
	to, err2 := time.Parse(time.RFC3339Nano, r.EndTime)
	if r.EndTime == "" {
		to, err2 = time.Now(), nil
	}
	if err1 == nil && err2 == nil {
		r.DurationSeconds = max(0, to.Sub(from).Seconds())
	}
	return r, nil
}

// load reads a description. Commands of the sandbox may have written anything
// there, so only a film in the same directory is believed.
func (s *films) load(id string, r *wire.Recording) error {
	file, err := os.Open(filepath.Join(s.dir, id+".json"))
	if err != nil {
		return noFilm(id)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil || json.Unmarshal(b, r) != nil || r.ID != id || filepath.Base(r.FileName) != r.FileName {
		return noFilm(id)
	}
	r.FilePath = filepath.Join(s.dir, r.FileName)
	return nil
}

// Recordings lists all recordings, oldest first.
func (d *Desktop) Recordings() wire.Recordings {
	s := d.films
	s.mu.Lock()
	defer s.mu.Unlock()
	all := wire.Recordings{Recordings: []wire.Recording{}}
	entries, _ := os.ReadDir(s.dir) // no directory: no recordings
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !filmID.MatchString(id) || len(all.Recordings) == maxListed {
			continue
		}
		if r, err := s.getLocked(id); err == nil {
			all.Recordings = append(all.Recordings, r)
		}
	}
	slices.SortFunc(all.Recordings, func(a, b wire.Recording) int { return strings.Compare(a.StartTime, b.StartTime) })
	return all
}

// Recording describes one recording.
func (d *Desktop) Recording(id string) (wire.Recording, error) { return d.films.get(id) }

// StopRecording ends a recording and answers when its file is whole.
func (d *Desktop) StopRecording(id string) (wire.Recording, error) {
	if id == "" {
		return wire.Recording{}, wire.BadRequest("id: it is empty; give the id of a recording")
	}
	r, err := d.films.get(id)
	if err != nil {
		return r, err
	}
	if r.Status != wire.RecordingActive {
		return r, wire.BadRequest("id: recording %s is over already (%s)", id, r.Status)
	}
	d.films.stop(id)
	return d.films.get(id)
}

// stop ends one that is under way and waits for its end.
func (s *films) stop(id string) {
	s.mu.Lock()
	f := s.active[id]
	s.mu.Unlock()
	if f == nil {
		return
	}
	_ = f.cmd.Process.Signal(syscall.SIGINT)
	ctx, cancel := context.WithTimeout(context.Background(), filmEnd)
	defer cancel()
	select {
	case <-f.done:
	case <-ctx.Done():
		_ = f.cmd.Process.Kill()
		<-f.done
	}
}

func (s *films) stopAll() {
	s.mu.Lock()
	ids := make([]string, 0, len(s.active))
	for id := range s.active {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { s.stop(id) })
	}
	wg.Wait()
}

// OpenRecording opens a film that is whole, for the caller to close.
func (d *Desktop) OpenRecording(id string) (*os.File, wire.Recording, error) {
	r, err := d.films.get(id)
	if err != nil {
		return nil, r, err
	}
	if r.Status == wire.RecordingActive {
		return nil, r, wire.Errorf(http.StatusBadRequest, wire.CodeRecordingActive, "recording %s is still active: stop it first", id)
	}
	f, err := os.Open(r.FilePath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "the file of recording %s is gone: %s", id, r.FilePath)
	}
	if err != nil {
		return nil, r, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, r, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "%s is not a file", r.FilePath)
	}
	return f, r, nil
}

// DeleteRecording removes a recording that is over.
func (d *Desktop) DeleteRecording(id string) error {
	r, err := d.films.get(id)
	if err != nil {
		return err
	}
	if r.Status == wire.RecordingActive {
		return wire.Errorf(http.StatusConflict, wire.CodeRecordingActive, "recording %s is still active: stop it first", id)
	}
	if err := os.Remove(r.FilePath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(filepath.Join(d.films.dir, id+".json"))
}
