package policies

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/goccy/go-yaml"
)

// Case is one row of a table that a policy is tested with.
type Case struct {
	Name    string // for people; may be empty
	Request Request
	Allow   bool
	Rule    string // that must decide; empty: any
}

// Table is a policy's name and what it must decide.
type Table struct {
	Policy    string              // may be empty
	Variables map[string][]string // hosts for the policy's variables
	Cases     []Case
}

// docTable is the YAML form of a table:
//
//	policy: python-packages        # name of a preset, or a file beside this one
//	variables: {PYTHON_INDEX_HOSTS: [mirror.example.com]}
//	cases:
//	  - connect: example.com:443/tcp
//	    expect: deny
//	  - lookup: example.com
//	    expect: allow
//	    rule: mirrors
type docTable struct {
	Policy    string              `yaml:"policy"`
	Variables map[string][]string `yaml:"variables"`
	Cases     []docCase           `yaml:"cases"`
}

type docCase struct {
	Name    string `yaml:"name"`
	Connect string `yaml:"connect"`
	Lookup  string `yaml:"lookup"`
	Tool    string `yaml:"tool"`
	Changes bool   `yaml:"changes"` // of tool
	Exec    string `yaml:"exec"`
	Read    string `yaml:"read"`
	Write   string `yaml:"write"`
	Secret  string `yaml:"secret"`
	Sandbox docAsk `yaml:"sandbox"`
	Expect  string `yaml:"expect"`
	Rule    string `yaml:"rule"`
}

// docAsk is the size and the timers of a sandbox. Timers that are left out are
// off.
type docAsk struct {
	CPU       float64 `yaml:"cpu"`
	Memory    string  `yaml:"memory"`
	Disk      string  `yaml:"disk"`
	PIDs      int64   `yaml:"pids"`
	Sandboxes int     `yaml:"sandboxes"` // that exist already
	AutoStop  string  `yaml:"autoStop"`
	TTL       string  `yaml:"ttl"`
}

func (d docAsk) request(f *faults) SandboxRequest {
	r := docResources{CPU: d.CPU, Memory: d.Memory, Disk: d.Disk, PIDs: d.PIDs, Sandboxes: d.Sandboxes}
	return SandboxRequest{Resources: r.resources(f), Lifecycle: docLifecycle{AutoStop: d.AutoStop, TTL: d.TTL}.lifecycle(f, "lifecycle")}
}

// ParseTable reads a table.
func ParseTable(text []byte) (t Table, err error) {
	var doc docTable
	if len(text) > MaxDocument {
		return Table{}, fmt.Errorf("the table has %d bytes, of at most %d", len(text), MaxDocument)
	}
	if err := yaml.UnmarshalWithOptions(text, &doc, yaml.Strict()); err != nil {
		return Table{}, fmt.Errorf("read the table: %w", errors.New(yaml.FormatError(err, false, true)))
	}
	var f faults
	for i, d := range doc.Cases {
		field := fmt.Sprintf("cases[%d]", i)
		c := Case{Name: d.Name, Allow: d.Expect == string(Allow), Rule: d.Rule}
		if !c.Allow && d.Expect != string(Deny) {
			f.add(field+".expect", "%q is neither allow nor deny", d.Expect)
		}
		if c.Request, err = d.request(); err != nil {
			f.add(field, "%v", err)
		}
		t.Cases = append(t.Cases, c)
	}
	if len(doc.Cases) == 0 {
		f.add("cases", "there are none")
	}
	if len(f) > 0 {
		return Table{}, f
	}
	t.Policy, t.Variables = doc.Policy, doc.Variables
	return t, nil
}

func (d docCase) request() (Request, error) {
	var all []Request
	var err error
	if d.Connect != "" {
		var r ConnectRequest
		r, err = ParseConnect(d.Connect)
		all = append(all, r)
	}
	for _, q := range []struct {
		text string
		make func(string) Request
	}{
		{d.Lookup, func(s string) Request { return LookupRequest{Name: s} }},
		{d.Tool, func(s string) Request { return ToolRequest{Tool: s, Changes: d.Changes} }},
		{d.Exec, func(s string) Request { return ExecRequest{Path: s} }},
		{d.Read, func(s string) Request { return FileRequest{Path: s} }},
		{d.Write, func(s string) Request { return FileRequest{Path: s, Write: true} }},
		{d.Secret, func(s string) Request { return SecretRequest{Name: s} }},
	} {
		if q.text != "" {
			all = append(all, q.make(q.text))
		}
	}
	if d.Sandbox != (docAsk{}) {
		var f faults
		if all = append(all, d.Sandbox.request(&f)); len(f) > 0 {
			return nil, f
		}
	}
	if err == nil && len(all) != 1 {
		return nil, errors.New("a case asks one of connect, lookup, tool, exec, read, write, secret, sandbox")
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// ParseConnect reads "example.com:443", "192.0.2.1:53/udp", "[2001:db8::1]:443"
// or "192.0.2.1/icmp". Without a protocol it means TCP.
func ParseConnect(text string) (ConnectRequest, error) {
	where, protocol, given := strings.Cut(text, "/")
	r := ConnectRequest{Protocol: TCP}
	if given {
		r.Protocol = Protocol(protocol)
	}
	host := where
	if r.Protocol != ICMP {
		i := strings.LastIndexByte(where, ':')
		if i < 0 {
			return r, fmt.Errorf("%q has no port, as example.com:443", text)
		}
		ports, err := ParsePorts(where[i+1:])
		if err != nil {
			return r, err
		}
		host, r.Port = where[:i], ports[0].First
	}
	switch r.Protocol {
	case TCP, UDP, ICMP:
	default:
		return r, fmt.Errorf("%q names protocol %q, which is none of tcp, udp, icmp", text, protocol)
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		r.Address = a
		return r, nil
	}
	if _, err := CanonicalName(host); err != nil {
		return r, err
	}
	r.Host = host
	return r, nil
}

// Failure is a case that did not go as expected.
type Failure struct {
	Case Case
	Got  Decision
}

// String says what was asked, expected and decided.
func (f Failure) String() string {
	want, got := Deny, Deny
	if f.Case.Allow {
		want = Allow
	}
	if f.Got.Allow {
		got = Allow
	}
	s := fmt.Sprintf("%s: %s by %s, want %s", f.Case.Request, got, f.Got.Rule, want)
	if f.Case.Rule != "" {
		s += " by " + f.Case.Rule
	}
	if f.Case.Name != "" {
		s = f.Case.Name + ": " + s
	}
	return s
}

// Check decides every case and returns those that went otherwise.
func Check(p *Policy, cases []Case) []Failure {
	var failed []Failure
	for _, c := range cases {
		d := Decide(p, c.Request)
		if d.Allow != c.Allow || c.Rule != "" && d.Rule != c.Rule {
			failed = append(failed, Failure{Case: c, Got: d})
		}
	}
	return failed
}
