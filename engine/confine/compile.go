package confine

import (
	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// What the toolbox needs in every sandbox, whatever a policy says: its program,
// its sockets and its state. Only the state and the certificates lie on the
// sandbox's disk, and nobody but root inside can write there.
var (
	ownPrograms = []string{"/.atoll/**"}
	ownFiles    = []string{
		"/.atoll/**", "/run/atoll/**", "/run/atoll-sudo.sock",
		"/var/lib/atoll", "/var/lib/atoll/**", "/tmp/.atoll", "/tmp/.atoll/**", "/etc/atoll", "/etc/atoll/**",
	}
)

// offDisk are files that do not lie on the sandbox's disk: the kernel's, and
// those that are made anew at each start. A list that names what is allowed
// means the disk, and does not forget /dev/null; one that denies may name these.
var offDisk = []string{"/proc/**", "/dev/**", "/sys/**", "/etc/hostname", "/etc/hosts"}

// compile says in the kernel's words what policies.Decide says of each path.
func compile(r *engine.ExecFileRules) enforce.Rules {
	return enforce.Rules{
		Exec:  list("exec", r.Exec, ownPrograms, nil),
		Read:  list("files/read", r.Read, ownFiles, offDisk),
		Write: list("files/write", r.Write, ownFiles, offDisk),
	}
}

// list is empty for paths that neither allow nor deny anything.
func list(section string, p policies.Paths, own, open []string) enforce.List {
	var l enforce.List
	if len(p.Allow) == 0 && len(p.Deny) == 0 {
		return l
	}
	l.Deny = len(p.Allow) > 0
	for _, path := range p.Deny {
		l.Rules = append(l.Rules, enforce.Rule{Name: section + "/deny", Path: path, Deny: true})
	}
	for _, path := range p.Allow {
		l.Rules = append(l.Rules, enforce.Rule{Name: section + "/allow", Path: path})
	}
	for _, path := range own {
		l.Rules = append(l.Rules, enforce.Rule{Name: "engine", Path: path, Override: true})
	}
	if l.Deny {
		for _, path := range open {
			l.Rules = append(l.Rules, enforce.Rule{Name: "engine", Path: path})
		}
	}
	return l
}
