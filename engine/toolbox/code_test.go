package toolbox

import (
	"bytes"
	"encoding/base64"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// debian is a change that makes a toolbox use the distribution's interpreters,
// which have the packages that charts and TypeScript need.
func debian(c *Config) { c.Env["PATH"] = "/usr/bin:/bin" }

const figures = `
import matplotlib.pyplot as plt
import sys
plt.plot([1, 2, 3], [4, 5, float('nan')], label='up')
plt.title('Line'); plt.xlabel('x'); plt.ylabel('y')
plt.show()
plt.scatter([1, 2], [0, 8]); plt.xscale('log'); plt.show()
plt.bar(['a', 'b'], [3, 4.5], label='g'); plt.show()
plt.pie([1, 3], labels=['p', 'q']); plt.show()
plt.boxplot([[1, 2, 3, 4, 50]]); plt.show()
f, (a, b) = plt.subplots(1, 2); f.suptitle('Two'); a.plot([1, 2]); b.bar(['x'], [1]); plt.show()
print('shown', plt.get_fignums(), [m for m in sys.modules if 'atoll' in m])
`

func TestCharts(t *testing.T) {
	b := open(t, debian)
	res, err := b.CodeRun(t.Context(), wire.CodeRunRequest{Language: "python", Code: figures})
	must(t, err)
	if res.ExitCode != 0 || !strings.HasSuffix(res.Result, "shown [] []\n") {
		t.Fatalf("got %d %s", res.ExitCode, res.Result)
	}
	type chart struct {
		Type, Title, X, Scale string
		Elements              []map[string]any
	}
	var got []chart
	for _, c := range res.Artifacts.Charts {
		b, err := base64.StdEncoding.DecodeString(c.PNG)
		if err == nil {
			_, err = png.Decode(bytes.NewReader(b))
		}
		if err != nil {
			t.Errorf("%s: the picture: %v", c.Type, err)
		}
		if c.Type == "composite_chart" {
			for _, e := range c.Elements {
				for k := range e {
					if k != "type" {
						delete(e, k)
					}
				}
			}
		}
		got = append(got, chart{c.Type, c.Title, c.XLabel, c.XScale, c.Elements})
	}
	want := []chart{
		{"line", "Line", "x", "linear", []map[string]any{{"label": "up", "points": []any{[]any{1., 4.}, []any{2., 5.}}}}},
		{"scatter", "", "", "log", []map[string]any{{"label": "0", "points": []any{[]any{1., 0.}, []any{2., 8.}}}}},
		{"bar", "", "", "", []map[string]any{{"label": "a", "group": "g", "value": "3"}, {"label": "b", "group": "g", "value": "4.5"}}},
		{"pie", "", "", "", []map[string]any{{"label": "p", "angle": 90., "radius": 1.}, {"label": "q", "angle": 270., "radius": 1.}}},
		{"box_and_whisker", "", "", "", []map[string]any{{"label": "1", "min": 1., "first_quartile": 2., "median": 3., "third_quartile": 4., "max": 4., "outliers": []any{50.}}}},
		{"composite_chart", "Two", "", "", []map[string]any{{"type": "line"}, {"type": "bar"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestChartsOfOthers checks that a program cannot have the toolbox, which may be
// root, read files for it.
func TestChartsOfOthers(t *testing.T) {
	b := open(t, debian)
	secret := b.dir + "/../secret"
	write(t, secret, `{"type":"line","title":"secret","elements":[]}`)
	for _, make := range []string{"os.symlink(secret, path)", "os.mkfifo(path)", "os.mkdir(path)"} {
		res, err := b.CodeRun(t.Context(), wire.CodeRunRequest{
			Language: "python", Argv: []string{secret},
			Code: "import os, sys\nsecret = sys.argv[1]\npath = open('/proc/self/cmdline').read().split('\\0')[4]\nprint(path)\n" + make,
		})
		if err != nil || res.ExitCode != 0 || len(res.Artifacts.Charts) != 0 {
			t.Errorf("%s: got %+v, %v, want no charts", make, res, err)
		}
		if _, err := os.Lstat(strings.TrimSpace(res.Result)); err == nil {
			t.Errorf("%s: %s was left", make, res.Result)
		}
	}
}
