// Package sudo lets the sandbox's user act as root inside the sandbox. The
// usual program needs a setuid bit, which no_new_privs takes away, so a client
// under the same name asks the toolbox, which is root already, to run the
// command with the client's own file descriptors. It gives no power over the
// host: the user owns the sandbox anyway.
package sudo

import (
	"encoding/json"
	"fmt"
	"strings"
)

// DefaultSocket is where the toolbox listens inside the sandbox.
const DefaultSocket = "/run/atoll-sudo.sock"

// request is what the client asks for. Its stdin, stdout and stderr travel
// beside it as file descriptors.
type request struct {
	User  string            `json:"user"` // empty: root
	Argv  []string          `json:"argv"` // empty with Shell or Login
	Shell bool              `json:"shell"`
	Login bool              `json:"login"`
	Home  bool              `json:"home"`
	Keep  bool              `json:"keep"` // the whole environment
	Env   map[string]string `json:"env"`  // of the caller
	Set   map[string]string `json:"set"`  // VAR=value before the command
	Cwd   string            `json:"cwd"`
}

// message is what follows on the connection: signals from the client, one
// result from the toolbox.
type message struct {
	Signal int    `json:"signal,omitempty"`
	Exit   *int   `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"`
}

// action is what an invocation wants besides running a command.
type action int

const (
	run action = iota
	showVersion
	validate // -v and -k: there is no password to remember
	list     // -l
	usage
)

// parse reads the arguments after "sudo".
func parse(args []string) (request, action, error) {
	q := request{Set: map[string]string{}}
	todo := run
	for len(args) > 0 {
		a := args[0]
		if a == "--" {
			args = args[1:]
			break
		}
		if len(a) < 2 || a[0] != '-' {
			break
		}
		args = args[1:]
		var err error
		if strings.HasPrefix(a, "--") {
			args, err = q.long(a[2:], args, &todo)
		} else {
			args, err = q.short(a[1:], args, &todo)
		}
		if err != nil {
			return q, todo, err
		}
	}
	for len(args) > 0 {
		k, v, ok := strings.Cut(args[0], "=")
		if !ok || !isName(k) {
			break
		}
		q.Set[k] = v
		args = args[1:]
	}
	q.Argv = args
	if todo == run && len(q.Argv) == 0 && !q.Shell && !q.Login {
		todo = usage
	}
	return q, todo, nil
}

// short reads a group of single-letter options; one that takes a value uses
// the rest of the group or the next argument.
func (q *request) short(group string, rest []string, todo *action) ([]string, error) {
	for i, c := range group {
		if strings.ContainsRune("ugpCDhRTrt", c) && c != 'h' {
			v := group[i+1:]
			if v == "" {
				if len(rest) == 0 {
					return nil, fmt.Errorf("option requires an argument -- '%c'", c)
				}
				v, rest = rest[0], rest[1:]
			}
			q.value(c, v)
			return rest, nil
		}
		if err := q.flag(c, todo); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (q *request) value(c rune, v string) {
	switch c {
	case 'u':
		q.User = strings.TrimPrefix(v, "#") + strings.TrimPrefix(q.User, "root")
	case 'g':
		if q.User == "" {
			q.User = "root"
		}
		q.User += ":" + strings.TrimPrefix(v, "#")
	case 'D':
		q.Cwd = v
	}
}

func (q *request) flag(c rune, todo *action) error {
	switch c {
	case 'E', 'P':
		q.Keep = q.Keep || c == 'E'
	case 'i':
		q.Login = true
	case 's':
		q.Shell = true
	case 'H':
		q.Home = true
	case 'n', 'S', 'b', 'A', 'B': // no password is ever asked
	case 'k', 'K', 'v':
		*todo = validate
	case 'l':
		*todo = list
	case 'V':
		*todo = showVersion
	case 'h':
		*todo = usage
	default:
		return fmt.Errorf("invalid option -- '%c'", c)
	}
	return nil
}

func (q *request) long(name string, rest []string, todo *action) ([]string, error) {
	name, v, has := strings.Cut(name, "=")
	for _, o := range []struct {
		name string
		c    rune
		arg  bool
	}{
		{"user", 'u', true},
		{"group", 'g', true},
		{"chdir", 'D', true},
		{"prompt", 'p', true},
		{"login", 'i', false},
		{"shell", 's', false},
		{"set-home", 'H', false},
		{"non-interactive", 'n', false},
		{"stdin", 'S', false},
		{"validate", 'v', false},
		{"list", 'l', false},
		{"version", 'V', false},
		{"help", 'h', false},
		{"reset-timestamp", 'k', false},
		{"remove-timestamp", 'K', false},
		{"preserve-env", 'E', false},
		{"preserve-groups", 'P', false},
		{"background", 'b', false},
		{"askpass", 'A', false},
	} {
		if o.name != name {
			continue
		}
		if !o.arg {
			return rest, q.flag(o.c, todo)
		}
		if !has {
			if len(rest) == 0 {
				return nil, fmt.Errorf("option '--%s' requires an argument", name)
			}
			v, rest = rest[0], rest[1:]
		}
		q.value(o.c, v)
		return rest, nil
	}
	return nil, fmt.Errorf("unrecognized option '--%s'", name)
}

func isName(s string) bool {
	for i, c := range s {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func encode(v any) []byte {
	b, _ := json.Marshal(v) // plain structs always marshal
	return append(b, '\n')
}
