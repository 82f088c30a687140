// Command atoll is the whole of Atoll in one binary: the server and the
// command line that speaks to it.
package main

import (
	"os"

	"github.com/atoll-sh/atoll/cmd/atoll/cli"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(cli.Main(options()))
}
