package network

import (
	"os"
	"testing"

	"github.com/atoll-sh/atoll/engine/network/networktest"
)

func TestMain(m *testing.M) { os.Exit(networktest.Main(m)) }
