package policies

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/goccy/go-yaml"
)

// Format writes a policy as a document that Parse reads as the same policy.
func Format(p *Policy) ([]byte, error) {
	doc := document{
		Name: p.Name, Description: p.Description, Egress: formatEgress(p.Egress),
		Resources: docResources{CPU: p.Resources.CPU, Memory: formatSize(p.Resources.MemoryMiB), Disk: formatSize(p.Resources.DiskMiB), PIDs: p.Resources.PIDs, Sandboxes: p.Resources.Sandboxes},
		Tools:     docTools(p.Tools),
		Exec:      docPaths(p.Exec),
		Files:     docFiles{Read: docPaths(p.Files.Read), Write: docPaths(p.Files.Write)},
		Lifecycle: docLifecycle{AutoStop: formatDuration(p.Lifecycle.AutoStop), TTL: formatDuration(p.Lifecycle.TTL)},
		Secrets:   docSecrets(p.Secrets),
	}
	text, err := yaml.MarshalWithOptions(doc, yaml.IndentSequence(true))
	if err != nil {
		return nil, err
	}
	_, err = Parse(text)
	return text, err
}

func formatEgress(e Egress) docEgress {
	d := docEgress{Default: string(e.Default)}
	if e.Default == "" {
		d.Default = string(Deny)
	}
	for _, r := range e.Rules {
		rule := docRule{Name: r.Name, Ports: formatPorts(r.Ports)}
		var targets []string
		for _, h := range r.Hosts {
			targets = append(targets, string(h))
		}
		for _, n := range r.Networks {
			targets = append(targets, formatNetwork(n))
		}
		if r.Verdict == Allow {
			rule.Allow = targets
		} else {
			rule.Deny = targets
		}
		d.Rules = append(d.Rules, rule)
	}
	return d
}

func formatNetwork(n netip.Prefix) string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.String()
}

func formatPorts(ports []Ports) []string {
	var out []string
	for _, p := range ports {
		switch {
		case p.Protocol == ICMP:
			out = append(out, string(ICMP))
		case p.First == p.Last:
			out = append(out, fmt.Sprintf("%d/%s", p.First, p.Protocol))
		default:
			out = append(out, fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol))
		}
	}
	return out
}

func formatSize(mib int64) string {
	switch {
	case mib == 0:
		return ""
	case mib%(1<<10) == 0:
		return fmt.Sprintf("%dGi", mib>>10)
	}
	return fmt.Sprintf("%dMi", mib)
}

func formatDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}
