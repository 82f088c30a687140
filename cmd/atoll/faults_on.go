//go:build atollfaults

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var faultHits atomic.Int64

// faultPoint kills this process at the step that ATOLL_FAULT names, as
// "step" or "step:n" for its n-th passing. The file named by ATOLL_FAULT_FILE,
// when set, holds the same and is read at every step, so that a test can arm a
// running server.
var faultPoint = func(step string) {
	want := os.Getenv("ATOLL_FAULT")
	if path := os.Getenv("ATOLL_FAULT_FILE"); path != "" {
		b, _ := os.ReadFile(path)
		want = strings.TrimSpace(string(b))
	}
	name, nth, _ := strings.Cut(want, ":")
	if name != step {
		return
	}
	if n, err := strconv.ParseInt(nth, 10, 64); err == nil && faultHits.Add(1) < n {
		return
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}
