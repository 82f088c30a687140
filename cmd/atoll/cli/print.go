package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// json prints v as indented JSON.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// asJSON tells whether -o json was given.
func (a *app) asJSON() bool { return a.format == "json" }

// sandboxJSON is the API's shape of a sandbox.
func sandboxJSON(s engine.Sandbox, url string) wire.Sandbox {
	return wire.FromSandbox(s, url+"/toolbox")
}

// table prints rows in columns; the first row is the head.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return t.Flush()
}

// colour wraps text in an escape sequence when out is a terminal that wants it.
func (a *app) colour(code, text string) string {
	if _, ok := terminal(a.out); !ok || a.env("NO_COLOR") != "" || a.env("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (a *app) state(s string) string {
	switch s {
	case string(engine.StateStarted), string(engine.SnapshotActive):
		return a.colour("32", s)
	case string(engine.StateError), string(engine.StateBuildFailed):
		return a.colour("31", s)
	}
	return s
}

// age tells how long ago t was, in its largest unit.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// mib prints a size given in MiB.
func mib(n int64) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%dGi", n/1024)
	}
	return fmt.Sprintf("%dMi", n)
}

// bytesText prints a number of bytes.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 4; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}

// waterfall draws the stages of a create as bars on one scale.
func waterfall(w io.Writer, stages []engine.Stage, warm bool) {
	const width = 40
	var total time.Duration
	longest := 0
	for _, s := range stages {
		total = max(total, s.Start+s.Took)
		longest = max(longest, len(s.Name))
	}
	if total <= 0 {
		return
	}
	kind := "cold start"
	if warm {
		kind = "claimed from the warm pool"
	}
	fmt.Fprintf(w, "%s in %s\n", kind, millis(total))
	for _, s := range stages {
		from := int(int64(s.Start) * width / int64(total))
		length := max(int(int64(s.Took)*width/int64(total)), 1)
		from = min(from, width-1)
		length = min(length, width-from)
		bar := strings.Repeat(" ", from) + strings.Repeat("█", length) + strings.Repeat(" ", width-from-length)
		fmt.Fprintf(w, "  %-*s |%s| %9s\n", longest, s.Name, bar, millis(s.Took))
	}
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// pairs parses KEY=value arguments of the named flag.
func pairs(flag string, args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok || k == "" {
			return nil, usagef("--%s: %q is not of the form KEY=value", flag, arg)
		}
		out[k] = v
	}
	return out, nil
}

func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range sortedKeys(labels) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}
