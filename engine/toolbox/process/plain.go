package process

import (
	"slices"
	"strings"
)

// A shell costs as much as most of the commands that it is started for. When a
// command line is plain words, a shell would do nothing but run the program,
// so it is run without one.

// plainBytes may stand in a word without meaning anything to a shell.
const plainBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,="

// shellWords are commands and keywords that a shell has itself and does
// differently from a program of the same name, or has no program for.
var shellWords = strings.Fields(`alias bg bind break builtin caller case cd command compgen complete compopt
	continue coproc declare dirs disown do done echo elif else enable esac eval exec exit export fc fg fi for
	function getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read
	readarray readonly return select set shift shopt source suspend test then time times trap type typeset
	ulimit umask unalias unset until wait while . : [`)

// plain takes a command line apart when it is plain words whose first names a
// program of the system's. Otherwise a shell has to look at it.
func plain(script, dir string, env map[string]string) (path string, argv []string, ok bool) {
	argv = strings.Fields(script)
	if len(argv) == 0 || strings.ContainsAny(script, "\n\r\v\f") || strings.ContainsAny(argv[0], "/=") || slices.Contains(shellWords, argv[0]) {
		return "", nil, false
	}
	for _, w := range argv {
		if strings.Trim(w, plainBytes) != "" || w[0] == '=' { // zsh looks up =program
			return "", nil, false
		}
	}
	for k := range env {
		if k == "BASH_ENV" || k == "ENV" || strings.HasPrefix(k, "BASH_FUNC_") {
			return "", nil, false // the shell would read these first
		}
	}
	path, err := LookPath(argv[0], dir, env)
	// Programs elsewhere may be scripts without an interpreter line, which
	// only a shell can run.
	system := strings.HasPrefix(path, "/usr/bin/") || strings.HasPrefix(path, "/bin/")
	return path, argv, err == nil && system
}
