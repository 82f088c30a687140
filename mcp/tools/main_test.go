package tools_test

import (
	"os"
	"testing"

	"github.com/atoll-sh/atoll/mcp/mcptest"
)

func TestMain(m *testing.M) {
	mcptest.Desktop()
	os.Exit(m.Run())
}
