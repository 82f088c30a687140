package tools

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxFound is how many lines a search collects at most.
const maxFound = 5000

func (k *kit) find(ctx context.Context, a Args) (Result, error) {
	from := 0
	if c := a.Str("cursor"); c != "" {
		n, err := strconv.Atoi(c)
		if err != nil || n < 0 {
			return Result{}, invalid("Use the one from the last answer, or none for the start", `"cursor" is not valid: %s`, quote(c))
		}
		from = n
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	path, err := b.path(ctx, a.Str("path"))
	if err != nil {
		return Result{}, err
	}
	if path == "" {
		path = "."
	}
	var lines []string
	if a.Str("glob") == "" && a.Str("grep") == "" {
		lines, err = b.listing(ctx, path, a.Int("depth", 1))
	} else {
		lines, err = b.search(ctx, a, path)
	}
	if err != nil {
		return Result{}, noFile(err, a)
	}
	return foundText(path, lines, from), nil
}

// foundText shows as many lines as fit, from line number from on.
func foundText(path string, lines []string, from int) Result {
	if len(lines) == 0 {
		return Text("Nothing found in %s.", path)
	}
	if from >= len(lines) {
		return Text("No more; there were %d.", len(lines))
	}
	var b strings.Builder
	next := from
	for next < len(lines) && b.Len()+len(lines[next]) < maxText-300 {
		b.WriteString(lines[next] + "\n")
		next++
	}
	more := ""
	if next < len(lines) {
		more = fmt.Sprintf(`; more with "cursor":"%d"`, next)
	}
	total := strconv.Itoa(len(lines))
	if len(lines) >= maxFound {
		total = "over " + total
	}
	return Text("%s · %d-%d of %s%s\n%s", path, from+1, next, total, more, strings.TrimRight(b.String(), "\n"))
}

func (b *box) listing(ctx context.Context, path string, depth int) ([]string, error) {
	files, err := b.List(ctx, path, depth)
	if err != nil {
		return nil, err
	}
	lines := make([]string, 0, len(files))
	for _, f := range files {
		name := f.Name
		if depth > 1 && f.Path != "" {
			name = f.Path
		}
		if f.IsDir {
			lines = append(lines, printable([]byte(name))+"/")
			continue
		}
		lines = append(lines, fmt.Sprintf("%s  %s", printable([]byte(name)), size(f.Size)))
	}
	return lines, nil
}

// search runs find and grep in the sandbox, which every image with a shell
// has. Directories of version control and packages are left out.
func (b *box) search(ctx context.Context, a Args, path string) ([]string, error) {
	for _, name := range []string{"glob", "grep", "path"} {
		if strings.ContainsAny(a.Str(name), "\x00\n") {
			return nil, invalid("Give one line", "%q holds a line break or NUL byte", name)
		}
	}
	out, err := b.execute(ctx, searchCommand(a, path), 60)
	if err != nil {
		if codeOf(err) == wire.CodeExecTimeout {
			return nil, invalid(`Narrow it with "path", "glob" or "depth"`, "the search took longer than 60 s")
		}
		return nil, err
	}
	text := strings.TrimRight(printable([]byte(out.Result)), "\n")
	if out.ExitCode == noSuchDir {
		return nil, noSuchFile(a)
	}
	if out.ExitCode == badRegex {
		return nil, invalid("Use extended regex, as \"foo|bar[0-9]+\"; escape ( [ { for plain text", `"grep" is not valid: %s`, clip(text, 200, "cut"))
	}
	if text == "" {
		return nil, nil
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if len(l) > 300 {
			lines[i] = cutEnd(l[:300]) + " …"
		}
	}
	return lines, nil
}

// Exit codes of the search that no program in it uses.
const (
	noSuchDir = 91
	badRegex  = 92
)

func searchCommand(a Args, path string) string {
	var c strings.Builder
	fmt.Fprintf(&c, "cd -- %s 2>/dev/null || exit %d; ", shellQuote(path), noSuchDir)
	if g := a.Str("grep"); g != "" {
		fmt.Fprintf(&c, "printf x | grep -E -e %s 2>&1 >/dev/null; [ $? -gt 1 ] && exit %d; ", shellQuote(g), badRegex)
	}
	c.WriteString("find . ")
	if d := a.Int("depth", 0); d > 0 {
		fmt.Fprintf(&c, "-maxdepth %d ", d)
	}
	c.WriteString(`\( -name .git -o -name node_modules -o -name __pycache__ \) -prune -o `)
	if glob := a.Str("glob"); glob != "" {
		c.WriteString(globTest(glob))
	}
	if g := a.Str("grep"); g != "" {
		fmt.Fprintf(&c, "-type f -exec grep -nHIE -e %s -- {} + 2>/dev/null", shellQuote(g))
	} else {
		c.WriteString(`! -name . -print 2>/dev/null`)
	}
	fmt.Fprintf(&c, ` | sed 's|^\./||' | head -n %d`, maxFound)
	if a.Str("grep") == "" {
		c.WriteString(" | sort")
	}
	return c.String()
}

// globTest matches names, or whole paths when the pattern has a slash. find's
// * crosses slashes, so ** means the same.
func globTest(glob string) string {
	glob = strings.TrimPrefix(glob, "./")
	if rest, ok := strings.CutPrefix(glob, "**/"); ok && !strings.Contains(rest, "/") {
		glob = rest
	}
	if !strings.Contains(glob, "/") {
		return "-name " + shellQuote(glob) + " "
	}
	return "-path " + shellQuote("./"+strings.ReplaceAll(glob, "**/", "*")) + " "
}
