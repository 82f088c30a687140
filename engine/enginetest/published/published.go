// Package published installs programs and libraries of the public package
// registries for tests, unmodified and at exact versions, into the user's cache
// directory: a second run needs no network. Registries, and the names of their
// hosts, fail for moments, so what they are asked for is asked for again; one
// that does not answer for minutes fails the test with its client's words.
package published

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeVersion is the Node that programs run with: some need a newer one than
// the distribution's.
const nodeVersion = "node@24.21.0"

// Node returns the path of a node command.
func Node(tb testing.TB) string {
	tb.Helper()
	return must(InstallNode(tb.Context()))(tb)
}

// InstallNode is Node outside of tests.
func InstallNode(ctx context.Context) (string, error) {
	dir, err := InstallNPM(ctx, nodeVersion)
	return filepath.Join(dir, "node_modules", "node", "bin", "node"), err
}

// NPM returns a directory whose node_modules holds the packages. Arguments that
// begin with a dash go to npm.
func NPM(tb testing.TB, packages ...string) string {
	tb.Helper()
	return must(InstallNPM(tb.Context(), packages...))(tb)
}

// InstallNPM is NPM outside of tests.
func InstallNPM(ctx context.Context, packages ...string) (string, error) {
	return cached(packages, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o644); err != nil {
			return err
		}
		// Without a lock file: it would hold addresses of one registry.
		args := append([]string{"install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"}, packages...)
		return fetch(ctx, dir, "npm", args...)
	})
}

// Python returns the python command of an environment with what the
// requirements file names. Its lines pin every package, also indirect ones.
func Python(tb testing.TB, requirements string) string {
	tb.Helper()
	text, err := os.ReadFile(requirements)
	if err != nil {
		tb.Fatal(err)
	}
	dir := must(cached([]string{"python", string(text)}, func(dir string) error {
		if err := run(tb.Context(), dir, "python3", "-m", "venv", "--clear", "venv"); err != nil {
			return err
		}
		pinned := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(pinned, text, 0o644); err != nil {
			return err
		}
		return fetch(tb.Context(), dir, "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "-r", pinned)
	}))(tb)
	return filepath.Join(dir, "venv", "bin", "python")
}

// Go returns a directory with programs of Go modules, each named after the last
// part of its package. The requirements are what a go.mod has below its module
// line; they are not ours, so that nothing of theirs gets into our go.mod.
func Go(tb testing.TB, requirements string, programs ...string) string {
	tb.Helper()
	key := append([]string{"go"}, programs...)
	return must(cached(append(key, requirements), func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module tools\n\n"+requirements), 0o644); err != nil {
			return err
		}
		args := []string{"CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off", "go", "build", "-trimpath", "-buildvcs=false", "-o", dir + "/"}
		return run(tb.Context(), dir, "env", append(args, programs...)...)
	}))(tb)
}

// must fails a test on an error.
func must(value string, err error) func(testing.TB) string {
	return func(tb testing.TB) string {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return value
	}
}

// fetch is run again after a pause, as long as it fails, a few times.
func fetch(ctx context.Context, dir, name string, args ...string) error {
	for _, pause := range []time.Duration{5 * time.Second, 20 * time.Second, time.Minute} {
		err := run(ctx, dir, name, args...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	return run(ctx, dir, name, args...)
}

// run runs a registry's client.
func run(ctx context.Context, dir, name string, args ...string) error {
	if !strings.Contains(name, "/") {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing on this machine: %w", name, err)
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// cached returns the directory for a key, and fills it unless that is done.
// Other processes wait meanwhile.
func cached(key []string, fill func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "atoll-acceptance", dirName(key))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	if err := fill(dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

var odd = regexp.MustCompile(`[^A-Za-z0-9.+-]+`)

// dirName is readable and, by its end, different for every key.
func dirName(key []string) string {
	all := strings.Join(key, "+")
	sum := sha256.Sum256([]byte(all))
	name := odd.ReplaceAllString(all, "_")
	return name[:min(len(name), 60)] + "-" + hex.EncodeToString(sum[:6])
}
