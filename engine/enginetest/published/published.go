// Package published installs programs and libraries of the public package
// registries for tests, unmodified and at exact versions, into the user's cache
// directory: a second run needs no network. A registry that does not answer
// fails the test with its client's words.
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
)

// nodeVersion is the Node that programs run with: some need a newer one than
// the distribution's.
const nodeVersion = "node@24.21.0"

// Node returns the path of a node command.
func Node(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(NPM(tb, nodeVersion), "node_modules", "node", "bin", "node")
}

// NPM returns a directory whose node_modules holds the packages. Arguments that
// begin with a dash go to npm.
func NPM(tb testing.TB, packages ...string) string {
	tb.Helper()
	return cached(tb, packages, func(ctx context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o644); err != nil {
			return err
		}
		// Without a lock file: it would hold addresses of one registry.
		args := append([]string{"install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"}, packages...)
		return run(ctx, dir, "npm", args...)
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
	dir := cached(tb, []string{"python", string(text)}, func(ctx context.Context, dir string) error {
		if err := run(ctx, dir, "python3", "-m", "venv", "--clear", "venv"); err != nil {
			return err
		}
		pinned := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(pinned, text, 0o644); err != nil {
			return err
		}
		return run(ctx, dir, "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "-r", pinned)
	})
	return filepath.Join(dir, "venv", "bin", "python")
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
func cached(tb testing.TB, key []string, fill func(ctx context.Context, dir string) error) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "atoll-acceptance", dirName(key))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		tb.Fatal(err)
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	if err := fill(tb.Context(), dir); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

var odd = regexp.MustCompile(`[^A-Za-z0-9.+-]+`)

// dirName is readable and, by its end, different for every key.
func dirName(key []string) string {
	all := strings.Join(key, "+")
	sum := sha256.Sum256([]byte(all))
	name := odd.ReplaceAllString(all, "_")
	return name[:min(len(name), 60)] + "-" + hex.EncodeToString(sum[:6])
}
