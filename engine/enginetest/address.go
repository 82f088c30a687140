package enginetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddress returns an address of this computer with a port that nobody
// listens on, for a server that a test starts, and starts again, as a process of
// its own. The port lies below those that Linux gives to connections and to
// listeners that name none, so that nobody is given it meanwhile.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	const first, ports = 10_100, 20_000 // 10080 is one that browsers and Node refuse
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	tb.Fatal(err)
	return ""
}
