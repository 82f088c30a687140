package image

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

// TestLayerOnTop builds a layer on an image for real, with a script of the
// test's that changes, adds and removes files.
func TestLayerOnTop(t *testing.T) {
	t.Parallel()
	before := hostState(t)
	s := startContainerd(t).open("")
	ctx := s.context(t.Context())
	c := cache{dir: filepath.Join(s.config.Cache, "images")}
	under := smallRecipe()
	cached(t, c, under)
	image, err := s.build(ctx, mustParse(t, "small"), under, nil, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	below, err := s.remember(ctx, mustParse(t, "small"), image)
	if err != nil {
		t.Fatal(err)
	}
	r := desktopRecipe(under.Distribution, below)
	r.Script = `mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
rm "$1/root/etc/cached"
echo new >"$1/root/etc/new"
echo "dlstatus:1:50:words" >&$3
echo "pmstatus:p:100:words" >&$3`
	var lines []string
	over, err := s.build(ctx, mustParse(t, "over"), r, image, func(l string) { lines = append(lines, l) })
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.remember(ctx, mustParse(t, "over"), over)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Lowers) != 2 || u.Lowers[1] != below.Lowers[0] {
		t.Fatalf("layers: got %q, want one on top of %q", u.Lowers, below.Lowers)
	}
	root := overlay(t, u.Lowers)
	if got := names(t, filepath.Join(root, "etc")); !slices.Equal(got, []string{"new"}) {
		t.Errorf("got %q, want the new file alone", got)
	}
	if !slices.Contains(u.Env, "DISPLAY=:0") {
		t.Errorf("environment: got %q", u.Env)
	}
	for _, want := range []string{"downloading packages (11%)", "installing packages (80%)", "compressing (84%)", "ready (100%)"} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, DesktopRef) && strings.Contains(l, want) }) {
			t.Errorf("progress: got %q, want %q in it", lines, want)
		}
	}
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("the build changed the host: -before +after:\n%s", diff)
	}
	if got := names(t, c.dir); len(got) != 3 {
		t.Errorf("cache: got %q, want both layers and the new one's lock", got)
	}
}

// TestLayerOnTopFails wants the words of apt in the error, and no trace.
func TestLayerOnTopFails(t *testing.T) {
	t.Parallel()
	r := desktopRecipe(smallRecipe().Distribution, Unpacked{Image: engine.Image{Digest: "sha256:x"}, Lowers: []string{t.TempDir()}})
	for script, want := range map[string]engine.Kind{
		"echo 'E: Unable to locate package xvfb' >&2; exit 100":                  engine.KindInternal,
		"echo 'E: Failed to fetch http://mirror/x' >&2; exit 100":                engine.KindUnavailable,
		"echo 'dpkg: error: No space left on device' >&2; exit 100":              engine.KindExhausted,
		"mount -t overlay overlay -o lowerdir=/nonexistent /nonexistent; exit 1": engine.KindInternal,
	} {
		r.Script = script
		dir := t.TempDir()
		_, err := cache{dir: dir}.layer(t.Context(), r, func(string) {})
		wantKind(t, err, want)
		if err != nil && !strings.Contains(err.Error(), DesktopRef) {
			t.Errorf("%s: got %v, want it to name the image", script, err)
		}
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("cache: got %q, want the lock alone", got)
		}
	}
}

func TestDesktopRecipe(t *testing.T) {
	d := distribution{Suite: "bookworm"}
	a := desktopRecipe(d, Unpacked{Image: engine.Image{Digest: "sha256:a"}})
	b := desktopRecipe(d, Unpacked{Image: engine.Image{Digest: "sha256:b"}})
	if a.key() == b.key() || a.key() == defaultRecipe(d).key() {
		t.Error("another image below: got the same key")
	}
	if slices.Contains(defaultRecipe(d).Config.Env, "DISPLAY=:0") {
		t.Error("the default image got a display")
	}
	if bytes.Contains([]byte(defaultScript), []byte("xfce")) {
		t.Error("the default image got a desktop")
	}
	if _, err := os.Stat("desktop.sh"); err != nil {
		t.Error(err)
	}
}

func mustParse(t *testing.T, name string) reference {
	t.Helper()
	r, err := parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
