package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/activity"
	"github.com/atoll-sh/atoll/engine"
)

// processActivity says by which hooks this host tells what processes do.
func processActivity(context.Context, Options) engine.Check {
	missing, err := activity.Try()
	if err != nil {
		return bad("processes are not recorded: "+err.Error(), "use Linux 6.1 or later with CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_EVENTS")
	}
	detail := "programs, connections and privileges from typed tracepoints"
	switch err := fileEvents(); {
	case errors.Is(err, errSilentOverlay):
		detail += ", files from the file system"
		missing = append(missing, "writes to files that were there before, which needs a newer kernel")
	case err != nil:
		missing = append(missing, "files ("+err.Error()+"), which needs Linux 5.17 with CONFIG_FANOTIFY")
	default:
		detail += ", files from the file system"
	}
	if features.HaveProgramType(ebpf.LSM) == nil {
		detail += "; LSM hooks would load, the recorder does not use them"
	} else {
		detail += "; LSM hooks are refused here"
	}
	if len(missing) > 0 {
		detail += "; not told: " + strings.Join(missing, "; ")
	}
	return good(detail)
}

// errSilentOverlay is that of kernels where an overlay's disk does not tell of
// writes through the overlay.
var errSilentOverlay = errors.New("the disk below an overlay does not tell of writes")

// fileEvents writes to a file of an overlay and asks the file system below what
// happened.
func fileEvents() error {
	return withOverlay(func(root, upper string) error {
		path := filepath.Join(root, "there")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		group, err := activity.NewGroup(upper)
		if err != nil {
			return err
		}
		defer unix.Close(group)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if _, err := unix.Read(group, make([]byte, 4096)); errors.Is(err, unix.EAGAIN) {
			return errSilentOverlay
		} else if err != nil {
			return err
		}
		return nil
	})
}
