package toolbox

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the desktop's worker, as the toolbox is.
func TestMain(m *testing.M) {
	if os.Args[0] == DesktopWorker {
		os.Exit(DesktopMain())
	}
	os.Exit(m.Run())
}
