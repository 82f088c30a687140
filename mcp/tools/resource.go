package tools

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// What resources there are, as templates. A path is from the root; log is the
// output of a background process.
const (
	FileTemplate = "sandbox://{id}/{+path}"
	LogTemplate  = "sandbox://{id}/logs/{process}"
)

// maxResource is the largest resource. Clients put them into conversations
// whole.
const maxResource = 1 << 20

// Resource is what a URI stands for. Text or Blob is set, or neither for an
// empty one.
type Resource struct {
	URI, MIME string
	Text      string
	Blob      []byte
}

// location is a parsed URI.
type location struct {
	sandbox string
	path    string // absolute; empty for a log
	process string
}

// parseURI takes a URI of one of the templates apart. What lies in /logs of a
// sandbox has no URI, because those of logs look the same.
func parseURI(uri string) (location, error) {
	bad := invalid("As sandbox://box/home/atoll/notes.txt or sandbox://box/logs/p-1a2b3c4d", `"uri" is not one of a sandbox: %s`, quote(uri))
	rest, ok := strings.CutPrefix(uri, "sandbox://")
	id, p, _ := strings.Cut(rest, "/")
	if !ok || id == "" {
		return location{}, bad
	}
	id, err := url.PathUnescape(id)
	if err != nil {
		return location{}, bad
	}
	if p, err = url.PathUnescape(p); err != nil || strings.ContainsRune(p, 0) {
		return location{}, bad
	}
	if process, ok := strings.CutPrefix(p, "logs/"); ok && process != "" && !strings.Contains(process, "/") {
		return location{sandbox: id, process: process}, nil
	}
	return location{sandbox: id, path: path.Clean("/" + p)}, nil
}

// uriOf is the reverse of parseURI for a file.
func uriOf(sandbox, file string) string {
	return "sandbox://" + url.PathEscape(sandbox) + (&url.URL{Path: file}).EscapedPath()
}

// at opens the sandbox of a location for the caller.
func (k *kit) at(ctx context.Context, organization string, l location) (*box, Args, error) {
	a := Args{Organization: organization}.with(map[string]any{"id": l.sandbox, "path": l.path, "process": l.process})
	b, err := k.box(ctx, a)
	return b, a, err
}

// Look tells in what state the resource is, without reading it: the answer
// changes when the resource does. A file that is not there is an error.
func (k *Kit) Look(ctx context.Context, organization, uri string) (state string, err error) {
	l, err := parseURI(uri)
	if err != nil {
		return "", err
	}
	b, a, err := k.kit.at(ctx, organization, l)
	if err != nil {
		return "", boxError(err, l.sandbox)
	}
	if l.process != "" {
		c, err := b.commandOf(ctx, l.process)
		if err != nil {
			return "", boxError(err, l.sandbox)
		}
		_, end, err := b.logs(ctx, l.process, c.ID, -1, 1)
		return fmt.Sprintf("%d %s", end, statusWord(c.ExitCode)), boxError(err, l.sandbox)
	}
	f, err := b.Info(ctx, l.path)
	if err != nil {
		return "", boxError(noFile(err, a), l.sandbox)
	}
	return fmt.Sprintf("%d %s", f.Size, f.ModifiedAt.Format(time.RFC3339Nano)), nil
}

// ReadResource returns what a URI stands for, for the caller's organization.
func (k *Kit) ReadResource(ctx context.Context, organization, uri string) (Resource, error) {
	l, err := parseURI(uri)
	if err != nil {
		return Resource{}, err
	}
	b, a, err := k.kit.at(ctx, organization, l)
	if err != nil {
		return Resource{}, boxError(err, l.sandbox)
	}
	read := b.fileResource
	if l.process != "" {
		read = b.logResource
	}
	r, err := read(ctx, a, l)
	r.URI = uri
	return r, boxError(err, l.sandbox)
}

// logResource returns the end of a process's output.
func (b *box) logResource(ctx context.Context, _ Args, l location) (Resource, error) {
	c, err := b.commandOf(ctx, l.process)
	if err != nil {
		return Resource{}, err
	}
	out, _, err := b.logs(ctx, l.process, c.ID, -maxResource, maxResource)
	return Resource{MIME: "text/plain", Text: printable(withoutMarkers(out))}, err
}

func (b *box) fileResource(ctx context.Context, a Args, l location) (Resource, error) {
	f, err := b.Info(ctx, l.path)
	switch {
	case err != nil:
		return Resource{}, noFile(err, a)
	case f.IsDir:
		return b.dirResource(ctx, a, l)
	case f.Size > maxResource:
		return Resource{}, invalid("Read parts of it with sandbox_read", "%s has %s, at most %s are a resource", l.path, size(f.Size), size(maxResource))
	}
	content, err := b.download(ctx, l.path, maxResource)
	if err != nil {
		return Resource{}, noFile(err, a)
	}
	kind := http.DetectContentType(content)
	if utf8.Valid(content) && !slices.Contains(content, 0) {
		return Resource{MIME: "text/plain", Text: string(content)}, nil
	}
	return Resource{MIME: kind, Blob: content}, nil
}

// dirResource lists what is in a directory, by URI.
func (b *box) dirResource(ctx context.Context, a Args, l location) (Resource, error) {
	all, err := b.List(ctx, l.path, 1)
	if err != nil {
		return Resource{}, noFile(err, a)
	}
	var lines []string
	for _, f := range all {
		lines = append(lines, uriOf(l.sandbox, path.Join(l.path, f.Name))+slash(f))
	}
	return Resource{MIME: "text/uri-list", Text: clip(strings.Join(lines, "\n"), maxResource, "there are too many to list")}, nil
}

func slash(f wire.FileInfo) string {
	if f.IsDir {
		return "/"
	}
	return ""
}

// maxOffered is how many values a completion offers; the protocol's limit.
const maxOffered = 100

// CompleteResource offers values for a variable of a template that begin with
// what was typed: ids of the caller's sandboxes, paths, or processes. known
// holds the variables that have a value already. What cannot be looked up
// offers nothing.
func (k *Kit) CompleteResource(ctx context.Context, organization, variable, typed string, known map[string]string) []string {
	var all []string
	var err error
	switch variable {
	case "id":
		all, err = k.kit.sandboxNames(ctx, organization)
	case "path", "process":
		all, err = k.kit.inside(ctx, organization, known["id"], variable, typed)
	}
	if err != nil {
		return nil
	}
	return offered(all, typed)
}

// CompleteSnapshot offers names of snapshots.
func (k *Kit) CompleteSnapshot(ctx context.Context, organization, typed string) []string {
	page, err := k.kit.Snapshots.List(ctx, engine.SnapshotQuery{OrganizationID: organization, Limit: maxOffered})
	if err != nil {
		return nil
	}
	var all []string
	for _, s := range page.Items {
		all = append(all, s.Name)
	}
	return offered(all, typed)
}

func offered(all []string, typed string) []string {
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, typed) })
	slices.Sort(all)
	return all[:min(len(all), maxOffered)]
}

func (k *kit) sandboxNames(ctx context.Context, organization string) ([]string, error) {
	page, err := k.Sandboxes.List(ctx, engine.SandboxQuery{OrganizationID: organization, Limit: maxOffered})
	var all []string
	for _, sb := range page.Items {
		all = append(all, sb.Name)
	}
	return all, err
}

// inside lists what a sandbox has: processes, or the directory that is typed.
func (k *kit) inside(ctx context.Context, organization, id, variable, typed string) ([]string, error) {
	if id == "" {
		return nil, nil
	}
	b, _, err := k.at(engine.WithoutActivity(ctx), organization, location{sandbox: id})
	if err != nil {
		return nil, err
	}
	var all []string
	if variable == "process" {
		sessions, err := b.Sessions(ctx)
		for _, s := range sessions {
			if len(s.Commands) > 0 {
				all = append(all, s.SessionID)
			}
		}
		return all, err
	}
	dir := typed[:strings.LastIndex(typed, "/")+1]
	files, err := b.List(ctx, path.Clean("/"+dir), 1)
	for _, f := range files {
		all = append(all, dir+f.Name+slash(f))
	}
	return all, err
}

// Sandboxes lists the caller's sandboxes as resources: their root directories.
func (k *Kit) Sandboxes(ctx context.Context, organization string) ([]string, error) {
	names, err := k.kit.sandboxNames(ctx, organization)
	for i, name := range names {
		names[i] = uriOf(name, "/")
	}
	return names, err
}
