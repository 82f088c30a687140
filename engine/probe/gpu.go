package probe

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// gpu opens each device, since a node may outlive its driver or be forbidden.
func gpu(context.Context, Options) engine.Check {
	nvidia, _ := filepath.Glob("/dev/nvidia[0-9]*")
	others, _ := filepath.Glob("/dev/dri/renderD*")
	if len(nvidia)+len(others) == 0 {
		return engine.Check{Detail: "none"}
	}
	var works, broken []string
	for _, p := range append(nvidia, others...) {
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", p, err))
			continue
		}
		unix.Close(fd)
		works = append(works, p)
	}
	if len(broken) > 0 {
		return bad("cannot be opened: "+strings.Join(broken, ", "), "check the driver with nvidia-smi, and the device permissions of the server's service")
	}
	return good(strings.Join(works, ", "))
}
