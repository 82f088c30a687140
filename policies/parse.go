package policies

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Bounds of a document. They keep what a policy compiles to small enough for a
// kernel map, and its evaluation quick.
const (
	MaxDocument = 256 << 10 // bytes
	maxRules    = 1000
	maxTargets  = 10_000 // hosts and networks of all rules
	maxGlobs    = 1000
)

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// document is the YAML form.
type document struct {
	Name        string       `yaml:"name"`
	Description string       `yaml:"description,omitempty"`
	Egress      docEgress    `yaml:"egress,omitempty"`
	Resources   docResources `yaml:"resources,omitempty"`
	Tools       docTools     `yaml:"tools,omitempty"`
	Enforcement string       `yaml:"enforcement,omitempty"` // of exec and files: required or best-effort
	Exec        docPaths     `yaml:"exec,omitempty"`
	Files       docFiles     `yaml:"files,omitempty"`
	Lifecycle   docLifecycle `yaml:"lifecycle,omitempty"`
	Secrets     docSecrets   `yaml:"secrets,omitempty"`
}

type docEgress struct {
	Default string    `yaml:"default,omitempty"`
	Rules   []docRule `yaml:"rules,omitempty"`
	TLS     docTLS    `yaml:"tls,omitempty"`
}

type docTLS struct {
	ECH string `yaml:"ech,omitempty"` // refuse, outer
}

type docRule struct {
	Name  string   `yaml:"name"`
	Allow []string `yaml:"allow,omitempty"`
	Deny  []string `yaml:"deny,omitempty"`
	Ports []string `yaml:"ports,omitempty"`
}

type docResources struct {
	CPU       float64 `yaml:"cpu,omitempty"`
	Memory    string  `yaml:"memory,omitempty"` // 512Mi, 4Gi
	Disk      string  `yaml:"disk,omitempty"`
	PIDs      int64   `yaml:"pids,omitempty"`
	Sandboxes int     `yaml:"sandboxes,omitempty"`
}

type docTools struct {
	Allow    []string `yaml:"allow,omitempty"`
	Deny     []string `yaml:"deny,omitempty"`
	ReadOnly bool     `yaml:"readOnly,omitempty"`
}

type docPaths struct {
	Allow []string `yaml:"allow,omitempty"`
	Deny  []string `yaml:"deny,omitempty"`
}

type docFiles struct {
	Read  docPaths `yaml:"read,omitempty"`
	Write docPaths `yaml:"write,omitempty"`
}

type docLifecycle struct {
	AutoStop string `yaml:"autoStop,omitempty"` // 15m, 2h
	TTL      string `yaml:"ttl,omitempty"`
}

type docSecrets struct {
	Allow []string `yaml:"allow,omitempty"`
}

// Parse reads a document. Unknown fields are faults, since a misspelt "deny"
// would open what it was meant to close. The error names every fault, one a
// line, each with the field it is in.
func Parse(text []byte) (*Policy, error) {
	if len(text) > MaxDocument {
		return nil, fmt.Errorf("the policy has %d bytes, of at most %d", len(text), MaxDocument)
	}
	var doc document
	if err := yaml.UnmarshalWithOptions(text, &doc, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read the policy: %w", errors.New(yaml.FormatError(err, false, true)))
	}
	var f faults
	p := doc.policy(&f)
	if len(f) > 0 {
		return nil, f
	}
	return p, nil
}

// faults are what is wrong with a document.
type faults []string

// Error lists the faults, one a line.
func (f faults) Error() string { return strings.Join(f, "\n") }

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, field+": "+fmt.Sprintf(format, args...))
}

func (d *document) policy(f *faults) *Policy {
	if !nameRule.MatchString(d.Name) {
		f.add("name", "%q is not 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit", d.Name)
	}
	if len(d.Description) > 1000 || strings.ContainsAny(d.Description, "\x00\r") {
		f.add("description", "it is longer than 1000 bytes, or holds control characters")
	}
	p := &Policy{
		Name: d.Name, Description: strings.TrimSpace(d.Description),
		Egress:     d.Egress.egress(f),
		Resources:  d.Resources.resources(f),
		Tools:      Tools{Allow: d.Tools.Allow, Deny: d.Tools.Deny, ReadOnly: d.Tools.ReadOnly},
		BestEffort: d.Enforcement == "best-effort",
		Exec:       Paths(d.Exec),
		Files:      Files{Read: Paths(d.Files.Read), Write: Paths(d.Files.Write)},
		Lifecycle:  d.Lifecycle.lifecycle(f, "lifecycle"),
		Secrets:    Secrets{Allow: d.Secrets.Allow},
	}
	if d.Enforcement != "" && d.Enforcement != "required" && !p.BestEffort {
		f.add("enforcement", "%q is neither required nor best-effort", d.Enforcement)
	}
	for _, l := range []struct {
		field string
		globs []string
	}{
		{"tools.allow", p.Tools.Allow},
		{"tools.deny", p.Tools.Deny},
		{"exec.allow", p.Exec.Allow},
		{"exec.deny", p.Exec.Deny},
		{"files.read.allow", p.Files.Read.Allow},
		{"files.read.deny", p.Files.Read.Deny},
		{"files.write.allow", p.Files.Write.Allow},
		{"files.write.deny", p.Files.Write.Deny},
		{"secrets.allow", p.Secrets.Allow},
	} {
		checkGlobs(f, l.field, l.globs)
	}
	return p
}

func checkGlobs(f *faults, field string, globs []string) {
	if len(globs) > maxGlobs {
		f.add(field, "it has %d patterns, of at most %d", len(globs), maxGlobs)
	}
	for i, g := range globs {
		if err := checkGlob(g); err != nil {
			f.add(fmt.Sprintf("%s[%d]", field, i), "%v", err)
		}
		if strings.HasPrefix(field, "exec") || strings.HasPrefix(field, "files") {
			if !strings.HasPrefix(g, "/") && !strings.HasPrefix(g, "**") {
				f.add(fmt.Sprintf("%s[%d]", field, i), "%q begins neither with / nor with **, so no absolute path matches it", g)
			}
		}
	}
}

func (d docEgress) egress(f *faults) Egress {
	e := Egress{Default: Deny}
	switch Verdict(d.Default) {
	case Deny, "":
	case Allow:
		e.Default = Allow
	default:
		f.add("egress.default", "%q is neither allow nor deny", d.Default)
	}
	switch e.ECH = ECH(d.TLS.ECH); e.ECH {
	case "", ECHRefuse, ECHOuter:
	default:
		f.add("egress.tls.ech", "%q is neither refuse nor outer", d.TLS.ECH)
	}
	if len(d.Rules) > maxRules {
		f.add("egress.rules", "there are %d, of at most %d", len(d.Rules), maxRules)
		return e
	}
	seen, targets := map[string]bool{}, 0
	for i, r := range d.Rules {
		field := fmt.Sprintf("egress.rules[%d]", i)
		if !nameRule.MatchString(r.Name) {
			f.add(field+".name", "%q is not a name of letters, digits, dots, dashes and underscores; it is shown in denials", r.Name)
		} else if seen[r.Name] {
			f.add(field+".name", "%q is taken by an earlier rule", r.Name)
		}
		seen[r.Name] = true
		rule := r.rule(f, field)
		targets += len(rule.Hosts) + len(rule.Networks)
		e.Rules = append(e.Rules, rule)
	}
	if targets > maxTargets {
		f.add("egress.rules", "there are %d hosts and networks, of at most %d", targets, maxTargets)
	}
	return e
}

func (d docRule) rule(f *faults, field string) EgressRule {
	r := EgressRule{Name: d.Name, Verdict: Allow}
	list, key := d.Allow, ".allow"
	switch {
	case len(d.Allow) > 0 && len(d.Deny) > 0:
		f.add(field, "it both allows and denies; make two rules of it")
	case len(d.Deny) > 0:
		r.Verdict, list, key = Deny, d.Deny, ".deny"
	case len(d.Allow) == 0:
		f.add(field, "it neither allows nor denies anything")
	}
	for i, target := range list {
		r.addTarget(f, fmt.Sprintf("%s%s[%d]", field, key, i), target)
	}
	for i, text := range d.Ports {
		p, err := ParsePorts(text)
		if err != nil {
			f.add(fmt.Sprintf("%s.ports[%d]", field, i), "%v", err)
			continue
		}
		r.Ports = append(r.Ports, p...)
	}
	return r
}

// addTarget adds a host, an address, a network or a variable.
func (r *EgressRule) addTarget(f *faults, field, target string) {
	if m := variableRule.FindStringSubmatch(target); m != nil {
		if r.Verdict != Allow {
			f.add(field, "%s stands in a rule that denies, which would deny nothing where it has no value", target)
		}
		r.Variables = append(r.Variables, m[1])
		return
	}
	if n, err := parseNetwork(target); err == nil {
		r.Networks = append(r.Networks, n)
		return
	} else if strings.ContainsAny(target, "/:") {
		f.add(field, "%v", err)
		return
	}
	h, err := ParseHost(target)
	if err != nil {
		f.add(field, "%v", err)
		return
	}
	r.Hosts = append(r.Hosts, h)
}

func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no network, as 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if n.Addr().Is4In6() {
		if n.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q mixes IPv4 and IPv6", text)
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	if n != n.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits beyond its length; %s is the network", text, n.Masked())
	}
	return n, nil
}

// ParsePorts reads "443", "443/tcp", "8000-8999/udp" or "icmp". Without a
// protocol it means TCP and UDP.
func ParsePorts(text string) ([]Ports, error) {
	if text == string(ICMP) {
		return []Ports{{Protocol: ICMP}}, nil
	}
	numbers, protocol, given := strings.Cut(text, "/")
	if given && protocol != string(TCP) && protocol != string(UDP) {
		return nil, fmt.Errorf("%q is not of the form 443, 443/tcp, 8000-8999/udp or icmp", text)
	}
	from, to, isRange := strings.Cut(numbers, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return nil, fmt.Errorf("%q is no port or range of ports from 1 to 65535", text)
	}
	var all []Ports
	for _, p := range []Protocol{TCP, UDP} {
		if !given || protocol == string(p) {
			all = append(all, Ports{Protocol: p, First: uint16(first), Last: uint16(last)})
		}
	}
	return all, nil
}

func (d docResources) resources(f *faults) Resources {
	r := Resources{CPU: d.CPU, PIDs: d.PIDs, Sandboxes: d.Sandboxes}
	r.MemoryMiB = size(f, "resources.memory", d.Memory)
	r.DiskMiB = size(f, "resources.disk", d.Disk)
	for field, negative := range map[string]bool{"cpu": d.CPU < 0, "pids": d.PIDs < 0, "sandboxes": d.Sandboxes < 0} {
		if negative {
			f.add("resources."+field, "it is negative")
		}
	}
	return r
}

// size reads 512Mi or 4Gi as MiB.
func size(f *faults, field, text string) int64 {
	if text == "" {
		return 0
	}
	for suffix, factor := range map[string]int64{"Mi": 1, "Gi": 1 << 10, "Ti": 1 << 20} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			if n, err := strconv.ParseInt(number, 10, 32); err == nil && n > 0 {
				return n * factor
			}
		}
	}
	f.add(field, "%q is not of the form 512Mi or 4Gi", text)
	return 0
}

func (d docLifecycle) lifecycle(f *faults, field string) Lifecycle {
	return Lifecycle{AutoStop: duration(f, field+".autoStop", d.AutoStop), TTL: duration(f, field+".ttl", d.TTL)}
}

func duration(f *faults, field, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		f.add(field, "%q is not of the form 15m or 2h", text)
		return 0
	}
	return d
}
