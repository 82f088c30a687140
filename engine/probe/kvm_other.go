//go:build !amd64

package probe

import (
	"context"
	"os"

	"github.com/atoll-sh/atoll/engine"
)

func kvm(context.Context, Options) engine.Check {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return engine.Check{Detail: "not available: " + err.Error()}
	}
	f.Close()
	return engine.Check{Detail: "/dev/kvm can be opened; whether it runs a guest is not tried on this architecture"}
}
