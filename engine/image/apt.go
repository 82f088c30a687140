package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
)

// distribution says where packages come from: the suite of the host, at the
// mirrors that the host uses.
type distribution struct {
	ID      string   // debian or ubuntu
	Suite   string   // bookworm
	Sources []string // one-line apt sources; none: mmdebstrap's own for the suite
}

// hostDistribution reads the distribution of the file system given, which is
// the host's root. A host that is neither Debian nor Ubuntu gets Debian's
// stable release.
func hostDistribution(root fs.FS) distribution {
	d := distribution{ID: "debian", Suite: "bookworm"}
	switch os := osRelease(root); {
	case os["ID"] == "debian" && os["VERSION_CODENAME"] != "":
		d.Suite = os["VERSION_CODENAME"]
	case os["UBUNTU_CODENAME"] != "": // Ubuntu and what is made from it
		d.ID, d.Suite = "ubuntu", os["UBUNTU_CODENAME"]
	case os["DEBIAN_CODENAME"] != "":
		d.Suite = os["DEBIAN_CODENAME"]
	}
	for _, s := range hostSources(root) {
		d.Sources = append(d.Sources, d.lines(s)...)
	}
	if !slices.ContainsFunc(d.Sources, func(l string) bool { return strings.Contains(l, " "+d.Suite+" ") }) {
		d.Sources = nil
	}
	return d
}

func osRelease(root fs.FS) map[string]string {
	text, err := fs.ReadFile(root, "etc/os-release")
	if err != nil {
		text, _ = fs.ReadFile(root, "usr/lib/os-release") // absent on odd hosts: the default applies
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[k] = strings.Trim(v, `"'`)
		}
	}
	return values
}

// source is one entry of apt's configuration.
type source struct {
	uris, suites, components []string
	signedBy                 string // path of a keyring; empty: apt's trusted ones
}

// hostSources reads all enabled binary sources in both formats. What cannot be
// read or understood is left out.
func hostSources(root fs.FS) []source {
	names := []string{"etc/apt/sources.list"}
	for _, pattern := range []string{"etc/apt/sources.list.d/*.list", "etc/apt/sources.list.d/*.sources"} {
		found, _ := fs.Glob(root, pattern) // the pattern is right
		names = append(names, found...)
	}
	var all []source
	for _, name := range names {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		if path.Ext(name) == ".sources" {
			all = append(all, parseDeb822(text)...)
		} else {
			all = append(all, parseOneLine(text)...)
		}
	}
	return all
}

// parseOneLine reads lines as "deb [signed-by=/k.gpg arch=amd64] URI SUITE COMPONENT…".
func parseOneLine(text []byte) []source {
	var all []source
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, o := range strings.Fields(options) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.signedBy = keyring(v)
				}
			}
			rest = after
		}
		if f := strings.Fields(rest); len(f) >= 2 {
			s.uris, s.suites, s.components = f[:1], f[1:2], f[2:]
			all = append(all, s)
		}
	}
	return all
}

// parseDeb822 reads stanzas of fields, as in debian.sources.
func parseDeb822(text []byte) []source {
	var all []source
	fields := map[string]string{}
	last := ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && fields["enabled"] != "no" {
			all = append(all, source{
				uris:       strings.Fields(fields["uris"]),
				suites:     strings.Fields(fields["suites"]),
				components: strings.Fields(fields["components"]),
				signedBy:   keyring(fields["signed-by"]),
			})
		}
		clear(fields)
		last = ""
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		switch key, value, ok := strings.Cut(line, ":"); {
		case strings.TrimSpace(line) == "":
			flush()
		case strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		case ok:
			last = strings.ToLower(key)
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return all
}

// keyring keeps paths of keyrings only: an embedded key or a fingerprint does
// not fit into a one-line source, and apt trusts the distribution's own keys
// without.
func keyring(value string) string {
	if strings.HasPrefix(value, "/") && !strings.ContainsAny(value, " ,]") {
		return value
	}
	return ""
}

// lines returns what s has of the distribution itself. Sources of other people
// stay out of the image, and so do backports and proposed updates.
func (d distribution) lines(s source) []string {
	components := slices.DeleteFunc(slices.Clone(s.components), func(c string) bool { return c != "main" && c != "universe" })
	if !slices.Contains(components, "main") {
		return nil
	}
	var lines []string
	for _, uri := range s.uris {
		if !fetchable(uri) {
			continue
		}
		for _, suite := range s.suites {
			if suite == d.Suite || suite == d.Suite+"-updates" || suite == d.Suite+"-security" {
				lines = append(lines, line(s.signedBy, uri, suite, components))
			}
		}
	}
	return lines
}

// fetchable tells whether a sandbox could use the mirror too.
func fetchable(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return false
	}
	host := u.Hostname()
	return host != "localhost" && !strings.HasPrefix(host, "127.") && host != "::1"
}

func line(signedBy, uri, suite string, components []string) string {
	options := ""
	if signedBy != "" {
		options = "[signed-by=" + signedBy + "] "
	}
	return fmt.Sprintf("deb %s%s %s %s", options, uri, suite, strings.Join(components, " "))
}
