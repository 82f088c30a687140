package core

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Limits of what a caller may send. They keep one row small and every value
// usable where it ends up: in a host name, an environment, a query.
const (
	maxLabels     = 64
	maxLabelKey   = 128
	maxLabelValue = 1024
	maxEnv        = 512
	maxEnvValue   = 64 << 10
	maxEnvTotal   = 256 << 10
	maxList       = 64
	minMemoryMiB  = 64
	minDiskMiB    = 64
	minCPU        = 0.05
	maxTimer      = 10 * 365 * 24 * time.Hour
)

var (
	nameRule     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	snapshotRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`)
	envRule      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	userRule     = regexp.MustCompile(`^([a-z_][a-z0-9_.-]{0,31}|[0-9]{1,5})(:([a-z_][a-z0-9_.-]{0,31}|[0-9]{1,5}))?$`)
)

func invalid(format string, args ...any) *engine.Error {
	return engine.Errorf(engine.KindInvalid, format, args...)
}

// firstError returns the first error of the checks.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkCreate(req engine.CreateSandbox) error {
	if req.Snapshot != "" && req.Image != "" {
		return invalid("snapshot and image are both set").WithHint("set one of them")
	}
	return firstError(
		checkOrganization(req.OrganizationID),
		checkName("name", req.Name), checkName("target", req.Target),
		checkUser(req.User), checkEnv(req.Env), checkAttached(req.Secrets), checkLabels(req.Labels),
		checkImage(req.Image, true), checkResources(req.Resources), checkNetwork(req.Network),
		checkText("idempotency key", req.IdempotencyKey, 255),
		checkLifecycle(req.Lifecycle),
	)
}

func checkOrganization(id string) error {
	if id == "" {
		return invalid("organization is empty").WithHint("name the organization the sandbox belongs to")
	}
	return nil
}

func checkName(field, name string) error {
	if name == "" || nameRule.MatchString(name) {
		return nil
	}
	return invalid("%s %s is not allowed", field, quote(name)).
		WithHint("use 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
}

func checkSnapshotName(name string) error {
	if snapshotRule.MatchString(name) {
		return nil
	}
	return invalid("snapshot name %s is not allowed", quote(name)).
		WithHint("use 1 to 128 letters, digits and . _ - : /, beginning with a letter or digit")
}

func checkUser(user string) error {
	if user == "" || userRule.MatchString(user) {
		return nil
	}
	return invalid("user %s is not allowed", quote(user)).WithHint("use a user name or uid, or uid:gid")
}

// checkText allows printable text without control characters.
func checkText(field, text string, most int) error {
	if len(text) > most {
		return invalid("%s has %d bytes", field, len(text)).WithHint("use at most %d", most)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return invalid("%s %s holds control characters or is not UTF-8", field, quote(text)).WithHint("remove them")
	}
	return nil
}

func checkImage(ref string, emptyOK bool) error {
	switch {
	case ref == "" && emptyOK:
		return nil
	case ref == "":
		return invalid("image is empty").WithHint("name an OCI image, as debian:12")
	case strings.ContainsFunc(ref, unicode.IsSpace):
		return invalid("image %s holds white space", quote(ref)).WithHint("use an OCI reference, as debian:12")
	}
	return checkText("image", ref, 512)
}

func checkEnv(env map[string]string) error {
	if len(env) > maxEnv {
		return invalid("env has %d variables", len(env)).WithHint("use at most %d", maxEnv)
	}
	total := 0
	for k, v := range env {
		total += len(k) + len(v)
		switch {
		case !envRule.MatchString(k):
			return invalid("env key %s is not a variable name", quote(k)).
				WithHint("use letters, digits and underscores, not beginning with a digit")
		case strings.ContainsRune(v, 0):
			return invalid("env %s holds a NUL character", k).WithHint("remove it")
		case !utf8.ValidString(v):
			return invalid("env %s is not UTF-8", k).WithHint("encode the value, for example as base64")
		case len(v) > maxEnvValue:
			return invalid("env %s has %d bytes", k, len(v)).WithHint("use at most %d, or upload a file", maxEnvValue)
		}
	}
	if total > maxEnvTotal {
		return invalid("env has %d bytes", total).WithHint("use at most %d, or upload a file", maxEnvTotal)
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid("labels has %d entries", len(labels)).WithHint("use at most %d", maxLabels)
	}
	for k, v := range labels {
		if k == "" {
			return invalid("labels has an empty key").WithHint("name the label")
		}
		err := firstError(checkText("label key", k, maxLabelKey), checkText("label "+quote(k), v, maxLabelValue))
		if err != nil {
			return err
		}
	}
	return nil
}

// checkResources refuses what no host could give; zero fields are not set.
func checkResources(r engine.Resources) error {
	switch {
	case math.IsNaN(r.CPU) || math.IsInf(r.CPU, 0) || r.CPU < 0 || r.CPU > 0 && r.CPU < minCPU:
		return invalid("cpu is %v", r.CPU).WithHint("use a number of cores from %v", minCPU)
	case r.MemoryMiB < 0 || r.MemoryMiB > 0 && r.MemoryMiB < minMemoryMiB:
		return invalid("memory is %d MiB", r.MemoryMiB).WithHint("use at least %d MiB", minMemoryMiB)
	case r.DiskMiB < 0 || r.DiskMiB > 0 && r.DiskMiB < minDiskMiB:
		return invalid("disk is %d MiB", r.DiskMiB).WithHint("use at least %d MiB", minDiskMiB)
	case r.GPU < 0:
		return invalid("gpu is %d", r.GPU).WithHint("use 0 or more")
	case r.PIDs < 0 || r.PIDs > 0 && r.PIDs < 16 || r.PIDs > 4<<20:
		return invalid("pids is %d", r.PIDs).WithHint("use 16 to %d, or 0 for the default", 4<<20)
	}
	return nil
}

func checkLifecycle(l *engine.Lifecycle) error {
	if l == nil {
		return nil
	}
	return firstError(checkTimer("autoStop", l.AutoStop), checkTimer("autoArchive", l.AutoArchive),
		checkTimer("autoDelete", max(l.AutoDelete, 0)), checkTimer("ttl", l.TTL))
}

func checkTimer(field string, d time.Duration) error {
	if d < 0 || d > maxTimer {
		return invalid("%s is %v", field, d).WithHint("use 0 to switch it off, or up to ten years")
	}
	return nil
}

func checkNetwork(p engine.NetworkPolicy) error {
	if n := max(len(p.AllowCIDRs), len(p.AllowDomains)); n > maxList {
		return invalid("a network list has %d entries", n).WithHint("use at most %d", maxList)
	}
	for _, c := range p.AllowCIDRs {
		if _, err := netip.ParsePrefix(c); err != nil {
			return invalid("network allow list: %s is not a CIDR", quote(c)).WithHint("use a form like 203.0.113.0/24")
		}
	}
	for _, d := range p.AllowDomains {
		if _, err := policies.ParseHost(d); err != nil {
			return invalid("domain allow list: %s is not a host name: %v", quote(d), err).WithHint("use a form like example.com or *.example.com")
		}
	}
	if p.OutboundProxyURL == "" {
		return nil
	}
	u, err := url.Parse(p.OutboundProxyURL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return invalid("outbound proxy URL is not an http or https URL").WithHint("use a form like http://proxy.example.com:3128")
	}
	return nil
}

// checkProxy refuses an outbound proxy whose URL has a private address that is
// in none of the networks allowed. What a name in it resolves to is judged by
// the runner, with each connection.
func checkProxy(p engine.NetworkPolicy, allowed []netip.Prefix) error {
	u, err := url.Parse(p.OutboundProxyURL)
	if err != nil {
		return nil // checkNetwork says so
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil // a name
	}
	a = a.Unmap()
	holds := func(n netip.Prefix) bool { return n.Contains(a) }
	_, blocked := policies.BlockedAddress(a)
	if !slices.ContainsFunc(allowed, holds) && (blocked || slices.ContainsFunc(engine.PrivatePrefixes(), holds)) {
		return invalid("the outbound proxy's address %s is a private one", a).WithHint("the operator may allow its network with outbound_proxies")
	}
	return nil
}

// quote shows a caller's text in a message, shortened.
func quote(text string) string {
	if len(text) > 80 {
		text = strings.ToValidUTF8(text[:80], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}
