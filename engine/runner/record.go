package runner

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/network"
)

// recordVersion is the version of the record's JSON. A record of a newer
// version is left alone and makes Open fail, rather than lose a sandbox.
const recordVersion = 1

// phase is how far an instance has come. It is written before the step it
// names begins, so that a crash in the middle is finished after restart.
type phase string

const (
	phaseStarting phase = "starting" // nobody was answered yet; a restart undoes it
	phaseStarted  phase = "started"
	phaseStopping phase = "stopping"
	phaseStopped  phase = "stopped"
	phaseRemoving phase = "removing"
)

// record is what the runner's disk says of one instance. Everything else on
// the host is named after ID, so whatever has no record is an orphan. Members
// of the warm pool have none: they are made anew after a restart, because one
// that was half claimed must never be handed out again.
type record struct {
	Version int           `json:"version"`
	ID      string        `json:"id"`
	Sandbox string        `json:"sandbox"`
	Phase   phase         `json:"phase"`
	Boot    string        `json:"boot"` // boot id of the host when it started
	Launch  engine.Launch `json:"launch"`
	Image   string        `json:"image"` // pinned reference of the layers below the disk
	Slot    network.Slot  `json:"slot"`
	Handle  driver.Handle `json:"handle"`
}

// write stores the record as path. With sync it is on disk when write
// returns; without, it survives the death of this process but not of the host.
// A new record is written in place, because syncing a new file also makes its
// name durable; a later one replaces it by a rename.
func (rec record) write(path string, sync bool) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	target := path
	if errors.Is(err, fs.ErrExist) {
		target = path + ".tmp"
		f, err = os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && target != path {
		err = os.Rename(target, path)
	}
	return err
}

// readRecord reads one record. A torn one gives ok == false: its instance
// never answered its create and is removed as an orphan.
func readRecord(path string) (rec record, ok bool, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return rec, false, err
	}
	if json.Unmarshal(b, &rec) != nil || rec.ID+".json" != filepath.Base(path) {
		return rec, false, nil
	}
	if rec.Version > recordVersion {
		return rec, false, engine.Errorf(engine.KindUnsupported, "instance %s was written by a newer Atoll (record version %d)", rec.ID, rec.Version).
			WithHint("run the newer version, or move its home directory away")
	}
	return rec, true, nil
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
