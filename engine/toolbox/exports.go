package toolbox

import (
	"encoding/base64"
	"maps"
	"regexp"
)

// Old published clients have no field for the environment of a command. They
// write it into the command, as lines of shell in double quotes:
//
//	sh -c "export A=$(echo 'eCB5' | base64 -d); echo '…' | base64 -d | sh"
//
// That was made for a toolbox that split the line itself. A shell would expand
// the values inside the quotes, and the inner one would read them as code: a
// value with a space loses its end, and one with a semicolon runs.
var (
	withExports = regexp.MustCompile(`^sh -c "((?:export [A-Za-z_][A-Za-z0-9_]*=\$\(echo '[A-Za-z0-9+/=]*' \| base64 -d\);)+) (echo '[A-Za-z0-9+/=]*' \| base64 -d \| sh)"$`)
	export      = regexp.MustCompile(`export ([A-Za-z0-9_]+)=\$\(echo '([A-Za-z0-9+/=]*)' \| base64 -d\);`)
)

// liftExports takes such an environment out of a command. Other commands, and
// those whose values cannot be read, stay as they are.
func liftExports(command string, envs map[string]string) (string, map[string]string) {
	m := withExports.FindStringSubmatch(command)
	if m == nil {
		return command, envs
	}
	all := maps.Clone(envs)
	if all == nil {
		all = map[string]string{}
	}
	for _, e := range export.FindAllStringSubmatch(m[1], -1) {
		value, err := base64.StdEncoding.DecodeString(e[2])
		if err != nil {
			return command, envs
		}
		all[e[1]] = string(value)
	}
	return m[2], all
}
