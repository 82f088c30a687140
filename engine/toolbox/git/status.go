package git

import (
	"context"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Status compares the working tree, the index and the upstream.
func (g *Git) Status(ctx context.Context, path string) (wire.GitStatus, error) {
	dir, err := g.repo(path)
	if err != nil {
		return wire.GitStatus{}, err
	}
	args := []string{"--no-optional-locks", "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all"}
	out, err := g.run(ctx, command{repo: dir, args: args})
	if err != nil {
		return wire.GitStatus{}, err
	}
	s := parseStatus(out.stdout)
	if s.BranchPublished || s.Detached {
		return s, nil
	}
	// A branch without an upstream may have been pushed all the same.
	out, err = g.run(ctx, command{repo: dir, args: []string{"for-each-ref", "--count=1", "--format=yes", "refs/remotes/*/" + s.CurrentBranch}})
	s.BranchPublished = out.stdout != ""
	return s, err
}

// parseStatus reads porcelain v2 with NUL ends. Lines it does not know are
// skipped, as that format asks.
func parseStatus(text string) wire.GitStatus {
	s := wire.GitStatus{FileStatus: []wire.GitFileStatus{}}
	lines := strings.Split(text, "\x00")
	for i := 0; i < len(lines); i++ {
		kind, rest, _ := strings.Cut(lines[i], " ")
		switch kind {
		case "#":
			header(&s, rest)
		case "?":
			s.FileStatus = append(s.FileStatus, wire.GitFileStatus{Name: rest, Staging: wire.GitUntracked, Worktree: wire.GitUntracked})
		case "1", "2", "u":
			f, ok := parseEntry(kind, rest)
			if kind == "2" && i+1 < len(lines) {
				i++
				f.Extra = lines[i]
			}
			if ok {
				s.FileStatus = append(s.FileStatus, f)
			}
		}
	}
	return s
}

func header(s *wire.GitStatus, line string) {
	key, v, _ := strings.Cut(line, " ")
	switch key {
	case "branch.head":
		s.CurrentBranch = v
		if v == "(detached)" {
			s.CurrentBranch, s.Detached = "HEAD", true
		}
	case "branch.upstream":
		s.Upstream = v
	case "branch.ab": // missing when the upstream is gone
		s.BranchPublished = true
		ahead, behind, _ := strings.Cut(v, " ")
		s.Ahead, _ = strconv.Atoi(strings.TrimPrefix(ahead, "+"))
		s.Behind, _ = strconv.Atoi(strings.TrimPrefix(behind, "-"))
	}
}

// parseEntry reads a changed file. The path is the last field and may hold
// blanks; how many fields are before it depends on the kind.
func parseEntry(kind, line string) (f wire.GitFileStatus, ok bool) {
	n := map[string]int{"1": 8, "2": 9, "u": 10}[kind]
	fields := strings.SplitN(line, " ", n)
	if len(fields) < n || len(fields[0]) != 2 {
		return f, false
	}
	f.Name = fields[n-1]
	f.Staging, f.Worktree = change(fields[0][0]), change(fields[0][1])
	if kind == "u" {
		f.Staging, f.Worktree = wire.GitUnmerged, wire.GitUnmerged
	}
	return f, true
}

func change(letter byte) wire.GitChange {
	switch letter {
	case 'M', 'T':
		return wire.GitModified
	case 'A':
		return wire.GitAdded
	case 'D':
		return wire.GitDeleted
	case 'R':
		return wire.GitRenamed
	case 'C':
		return wire.GitCopied
	case 'U':
		return wire.GitUnmerged
	}
	return wire.GitUnmodified
}
