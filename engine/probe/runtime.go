package probe

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// The escapes that a runtime is checked for, with the releases that closed
// them.
const escape2024 = "CVE-2024-21626"

func escapesOf2025() []string { return []string{"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"} }

// runtimeVersion refuses a runtime whose escape works against us too.
func runtimeVersion(ctx context.Context, o Options) engine.Check {
	v, text, err := versionOf(ctx, o.Runtime)
	if err != nil {
		return bad(o.Runtime+" cannot be run: "+err.Error(), "apt-get install runc")
	}
	if !strings.HasPrefix(text, "runc") {
		return good(text)
	}
	if v.atLeast(1, 1, 12) {
		return good(text)
	}
	if how := repaired(ctx, o.Runtime, escape2024); how != "" {
		return good(text + ", with the repair of " + escape2024 + " (" + how + ")")
	}
	return bad(text+" has the known escape "+escape2024, "apt-get install --only-upgrade runc, or install 1.1.12 or later")
}

// escapes2025 says honestly what is open. They need a process that has the
// host's root, which no process of a sandbox is.
func escapes2025(ctx context.Context, o Options) engine.Check {
	v, text, err := versionOf(ctx, o.Runtime)
	if err != nil || !strings.HasPrefix(text, "runc") {
		return good("not about this runtime")
	}
	if v.atLeast(1, 4, 0) || v.minor == 3 && v.atLeast(1, 3, 3) || v.minor == 2 && v.atLeast(1, 2, 8) {
		return good(text + " has the repairs")
	}
	var open []string
	for _, cve := range escapesOf2025() {
		if repaired(ctx, o.Runtime, cve) == "" {
			open = append(open, cve)
		}
	}
	if len(open) == 0 {
		return good(text + " has the distribution's repairs")
	}
	return bad(fmt.Sprintf("%s shows no repair of %s; the user namespace of each sandbox limits what they give", text, strings.Join(open, ", ")),
		"install runc 1.2.8, 1.3.3, 1.4.0 or later when the distribution has it")
}

func crun(ctx context.Context, _ Options) engine.Check {
	v, text, err := versionOf(ctx, "crun")
	switch {
	case err != nil:
		return engine.Check{OK: true, Detail: "not installed; it would start sandboxes faster from version 1.21 on"}
	case !v.atLeast(1, 21, 0):
		return engine.Check{OK: true, Detail: text + ", too old to be used"}
	}
	return good(text)
}

// version is that of a runtime. A release candidate counts as the release
// before, since it may lack what the release has.
type version struct{ major, minor, patch int }

func (v version) atLeast(major, minor, patch int) bool {
	if v.major != major {
		return v.major > major
	}
	if v.minor != minor {
		return v.minor > minor
	}
	return v.patch >= patch
}

// versionOf runs program --version. The text is its first line without noise.
func versionOf(ctx context.Context, program string) (version, string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return version{}, "", err
	}
	v, text := parseVersion(string(out))
	return v, text, nil
}

func parseVersion(out string) (version, string) {
	first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	name, number, _ := strings.Cut(strings.Replace(first, " version", "", 1), " ")
	var v version
	// crun's development releases have two numbers only.
	_, _ = fmt.Sscanf(number, "%d.%d.%d", &v.major, &v.minor, &v.patch)
	rest := number
	if i := strings.IndexAny(number, "-~"); i >= 0 {
		rest = number[i:]
		var rc int
		if n, _ := fmt.Sscanf(strings.TrimLeft(rest, "-~"), "rc.%d", &rc); n == 1 && !(v.minor == 4 && rc >= 3) && v.patch == 0 {
			v.minor, v.patch = v.minor-1, 0
		}
	}
	return v, strings.TrimSpace(name + " " + number)
}

// repaired tells how a distribution says that it closed cve in the package of
// program: in the package's version where we know it, else in its changelog.
// Empty means that nothing says so.
func repaired(ctx context.Context, program, cve string) string {
	path, err := exec.LookPath(program)
	if err != nil || !strings.HasPrefix(path, "/usr/") {
		return "" // not a package's
	}
	name := filepath.Base(program)
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		return ""
	}
	pkg := strings.TrimSpace(string(out))
	if cve == escape2024 && knownRepair(pkg) {
		return "package " + pkg
	}
	for _, f := range []string{"changelog.Debian.gz", "changelog.Debian.amd64.gz", "changelog.gz"} {
		if mentions(filepath.Join("/usr/share/doc", name, f), cve) {
			return "changelog of package " + pkg
		}
	}
	return ""
}

// knownRepair knows the first packages that closed CVE-2024-21626.
func knownRepair(pkg string) bool {
	for _, p := range []struct {
		prefix string
		from   int // the number after prefix
	}{
		{"1.0.0~rc93+ds1-5+deb11u", 3}, // Debian 11
		{"1.1.5+ds1-1+deb12u", 1},      // Debian 12
		{"1.1.7-0ubuntu1~20.04.", 2},   // Ubuntu 20.04
		{"1.1.7-0ubuntu1~22.04.", 2},   // Ubuntu 22.04
		{"1.1.7-0ubuntu2.", 2},         // Ubuntu 23.10
	} {
		rest, ok := strings.CutPrefix(pkg, p.prefix)
		var n int
		if ok {
			if k, _ := fmt.Sscanf(rest, "%d", &n); k == 1 && n >= p.from {
				return true
			}
		}
	}
	return false
}

// mentions searches a compressed changelog; false when it is not there.
func mentions(path, text string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return false
	}
	b, err := io.ReadAll(io.LimitReader(z, 1<<20))
	return (err == nil || len(b) > 0) && strings.Contains(string(b), text)
}
