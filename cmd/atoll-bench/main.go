// Command atoll-bench measures a server it starts itself and, in the same run
// on the same machine and image, the peers that are installed: nerdctl, ctr,
// podman and docker. It prints a table with ratios and the create's waterfall,
// and writes bench.json. It judges nothing: no number here fails a build.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sort"
	"syscall"
	"time"
)

// row is one measurement. Ratio is Value divided by the value that Against
// names; 0 means there was nothing to compare with.
type row struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Against string  `json:"against"`
	Ratio   float64 `json:"ratio"`
	Detail  string  `json:"detail,omitempty"`
}

type bench struct {
	srv   *server
	peers string // folder with nerdctl and ctr
	n     int
	rows  []row
	stage map[string][]waterfall // by kind of create
}

func main() {
	atoll := flag.String("atoll", "bin/atoll", "the binary to measure")
	peers := flag.String("peers", "bin/peers", "folder with nerdctl and ctr")
	out := flag.String("o", "bench.json", "where the rows are written")
	n := flag.Int("n", 30, "repetitions of each create")
	only := flag.String("only", "", "run only the steps whose name matches this expression")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // a closed pipe must not keep the server from being taken down
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *atoll, *peers, *out, *only, *n); err != nil {
		fmt.Fprintln(os.Stderr, "atoll-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, atoll, peers, out, only string, n int) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(atoll)
	if err != nil {
		return err
	}
	if peers, err = filepath.Abs(peers); err != nil {
		return err
	}
	srv, err := startServer(ctx, bin)
	if err != nil {
		return err
	}
	defer srv.stop()
	b := &bench{srv: srv, peers: peers, n: n, stage: map[string][]waterfall{}}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"idle memory", b.idle},
		{"warm create", b.warm},
		{"cold create", b.cold},
		{"empty pool", b.empty},
		{"exec", b.exec},
		{"exec over MCP", b.execMCP},
		{"gateway overhead", b.overhead},
		{"idle WebSockets", b.sockets},
		{"TypeScript SDK", b.sdk},
		{"files", b.files},
		{"streaming", b.streaming},
		{"network policies", b.egress},
		{"activity", b.activity},
		{"fork and snapshot", b.fork},
		{"burst of 50", b.burst},
		{"peers", b.runPeers},
	} {
		if !wanted.MatchString(step.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "… %s\n", step.name)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	b.print(os.Stdout)
	data, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// value returns a row's value, or 0.
func (b *bench) value(name string) float64 {
	for _, r := range b.rows {
		if r.Name == name {
			return r.Value
		}
	}
	return 0
}

// against adds a row compared with the row named other, when there is one.
func (b *bench) against(r row, other string) {
	if v := b.value(other); v > 0 {
		r.Against, r.Ratio = other, r.Value/v
	}
	b.add(r)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile returns the q-quantile of ds by the nearest rank.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	s := append([]time.Duration(nil), ds...)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}
