package image

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/atoll-sh/atoll/engine"
)

// smallRecipe is quick to build: a few packages, unpacked and not set up.
func smallRecipe() recipe {
	r := defaultRecipe(hostDistribution(os.DirFS("/")))
	r.Variant, r.Packages, r.Script = "extract", []string{"base-files"}, ":"
	return r
}

// TestBuild builds for real, twice at the same time.
func TestBuild(t *testing.T) {
	t.Parallel()
	before := hostState(t)
	c := cache{dir: t.TempDir()}
	r := smallRecipe()
	var wg sync.WaitGroup
	var built [2]layer
	var waited [2]bool
	for i := range built {
		wg.Go(func() {
			var err error
			built[i], err = c.layer(t.Context(), r, func(l string) { waited[i] = waited[i] || strings.Contains(l, "waiting") })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if waited[0] == waited[1] || built[0] != built[1] {
		t.Errorf("two at a time: waited %v, got %+v", waited, built)
	}
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("the build changed the host: -before +after:\n%s", diff)
	}
	if got := names(t, c.dir); !cmp.Equal(got, []string{r.key(), r.key() + ".lock"}) {
		t.Errorf("cache: got %q", got)
	}
	s := startContainerd(t).open("")
	ref, err := parse("small")
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.importLayer(s.context(t.Context()), ref, r, nil, built[0])
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.remember(s.context(t.Context()), ref, image)
	if err != nil || read(t, u.Lowers[0], "etc/debian_version") == "" {
		t.Errorf("got %+v, %v", u, err)
	}
	if got := read(t, u.Lowers[0], "etc/apt/sources.list"); !strings.Contains(got, " "+r.Distribution.Suite+" main") {
		t.Errorf("sources.list: got %q", got)
	}
}

func TestCanceledBuildLeavesNothing(t *testing.T) {
	t.Parallel()
	before := hostState(t)
	c := cache{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := c.layer(ctx, smallRecipe(), func(l string) {
		if strings.Contains(l, "downloading packages (4%)") {
			cancel()
		}
	})
	wantKind(t, err, engine.KindCanceled)
	if got := names(t, c.dir); !cmp.Equal(got, []string{smallRecipe().key() + ".lock"}) {
		t.Errorf("cache: got %q, want the lock alone", got)
	}
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("the build changed the host: -before +after:\n%s", diff)
	}
}

func TestFailedBuilds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*recipe)
		want   engine.Kind
		text   string
	}{
		"mirror": {func(r *recipe) {
			r.Distribution.Sources = []string{"deb [trusted=yes] http://127.0.0.1:9/debian bookworm main"}
		}, engine.KindUnavailable, "mirror"},
		"package": {func(r *recipe) { r.Packages = []string{"no-such-package-anywhere"} }, engine.KindInternal, "cannot be built"},
	} {
		t.Run(name, func(t *testing.T) {
			r := smallRecipe()
			c.change(&r)
			dir := t.TempDir()
			_, err := cache{dir: dir}.layer(t.Context(), r, func(string) {})
			wantKind(t, err, c.want)
			if err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want it to tell of %q", err, c.text)
			}
			if got := names(t, dir); len(got) != 1 {
				t.Errorf("cache: got %q, want the lock alone", got)
			}
		})
	}
}

func TestCacheOfACrashedBuild(t *testing.T) {
	r := smallRecipe()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"no info":    func(t *testing.T, dir string) { remove(t, filepath.Join(dir, layerInfo)) },
		"no layer":   func(t *testing.T, dir string) { remove(t, filepath.Join(dir, layerFile)) },
		"cut layer":  func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, layerFile), "x") },
		"bad info":   func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, layerInfo), "{") },
		"empty info": func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, layerInfo), "") },
	} {
		t.Run(name, func(t *testing.T) {
			c := cache{dir: t.TempDir()}
			cached(t, c, r)
			if _, err := c.load(r); err != nil {
				t.Fatal(err)
			}
			spoil(t, filepath.Join(c.dir, r.key()))
			if l, err := c.load(r); err == nil {
				t.Errorf("got %+v, want none", l)
			}
		})
	}
}

// TestDamagedCacheIsBuiltAnew changes a byte, which only the digest tells.
func TestDamagedCacheIsBuiltAnew(t *testing.T) {
	t.Parallel()
	s := startContainerd(t).open("")
	r := smallRecipe()
	c := cache{dir: filepath.Join(s.config.Cache, "images")}
	cached(t, c, r)
	path := filepath.Join(c.dir, r.key(), layerFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	writeFile(t, path, string(text))
	ref, err := parse("small")
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.build(s.context(t.Context()), ref, r, nil, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.remember(s.context(t.Context()), ref, image)
	if err != nil || read(t, u.Lowers[0], "etc/debian_version") == "" {
		t.Errorf("got %+v, %v, want a new build", u, err)
	}
}

func TestOldCacheEntriesExpire(t *testing.T) {
	c := cache{dir: t.TempDir()}
	r := smallRecipe()
	cached(t, c, r)
	past := time.Now().Add(-31 * 24 * time.Hour)
	for name, when := range map[string]time.Time{"old-1": past, "new-1": time.Now(), r.key(): past} {
		dir := filepath.Join(c.dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, when, when); err != nil {
			t.Fatal(err)
		}
	}
	c.expire(r)
	if got := names(t, c.dir); !cmp.Equal(got, []string{r.key(), "new-1"}) {
		t.Errorf("got %q", got)
	}
}

// cached puts a layer of one file into the cache, as a build would.
func cached(t *testing.T, c cache, r recipe) {
	t.Helper()
	dir := filepath.Join(c.dir, r.key())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := tarOf(t, files{"etc/": "", "etc/cached": ""})
	writeFile(t, filepath.Join(dir, layerFile), string(z.EncodeAll(plain, nil)))
	writeLayerInfo(t, dir, plain)
}

// hostState is what a build must not touch.
func hostState(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, path := range []string{"/var/lib/dpkg/status", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/etc/apt", "/home"} {
		if st, err := os.Stat(path); err == nil {
			state[path] = st.ModTime().String()
		}
	}
	lists, err := filepath.Glob("/var/lib/apt/lists/*Release")
	if err != nil {
		t.Fatal(err)
	}
	state["lists"] = strings.Join(lists, " ")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(mounts) {
		if bytes.Contains(line, []byte("mmdebstrap")) {
			state["mount"] += string(line)
		}
	}
	return state
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeLayerInfo(t *testing.T, dir string, plain []byte) {
	t.Helper()
	compressed, err := os.ReadFile(filepath.Join(dir, layerFile))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(layer{Digest: digest.FromBytes(compressed), DiffID: digest.FromBytes(plain), Size: int64(len(compressed)), Built: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, layerInfo), string(text))
}
