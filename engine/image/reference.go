package image

import (
	"cmp"
	"net"
	"net/netip"
	"strings"

	"github.com/containerd/nerdctl/v2/pkg/referenceutil"

	"github.com/atoll-sh/atoll/engine"
)

// The images that are built from the distribution's packages and never pulled.
const (
	DefaultRef = "atoll:default"
	DesktopRef = "atoll:desktop" // on top of the default one
)

// reference is an image's name in full. containerd stores images under it, as
// nerdctl does, so that both see the same ones.
type reference struct {
	name   string // docker.io/library/python:3.12, or repo@digest
	domain string // docker.io
	repo   string // docker.io/library/python
	digest string // sha256:…; empty when the name has none
}

// parse reads a reference as people write it: python, ghcr.io/o/r:v1,
// 127.0.0.1:5000/r@sha256:…. A digest makes a tag beside it meaningless.
func parse(ref string) (reference, error) {
	bad := func(why string) (reference, error) {
		return reference{}, engine.Errorf(engine.KindInvalid, "image %q is not a valid reference: %s", ref, why).
			WithHint("write it as [registry/]name[:tag] or name@sha256:digest, as in python:3.12-slim")
	}
	if strings.Contains(ref, "://") {
		return bad("it has a scheme")
	}
	p, err := referenceutil.Parse(ref)
	if err != nil {
		return bad(err.Error())
	}
	if p.Protocol != "" || p.Domain == "" {
		return bad("it names no image in a registry")
	}
	r := reference{name: p.String(), domain: p.Domain, repo: p.Name(), digest: p.Digest.String()}
	if r.digest != "" {
		r.name = r.pinned(r.digest)
	}
	return r, nil
}

// built is the short name of an image that is built here, empty for others.
func (r reference) built() string {
	for _, short := range []string{DefaultRef, DesktopRef} {
		if r.name == "docker.io/library/"+short {
			return short
		}
	}
	return ""
}

// shown is the name to answer with.
func (r reference) shown() string {
	return cmp.Or(r.built(), r.name)
}

// pinned is the name of exactly the content with this digest.
func (r reference) pinned(digest string) string { return r.repo + "@" + digest }

// loopback tells whether the registry is on this machine, so that plain HTTP
// leaves no trace on a network.
func (r reference) loopback() bool {
	host := r.domain
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// Pin returns a reference that goes on naming exactly this image when its tag
// has moved on. Image and Remove take it like any other. What outlives a
// moment, as a sandbox's record, should keep this one.
func Pin(i engine.Image) string {
	r, err := parse(i.Ref)
	if err != nil || i.Digest == "" {
		return i.Ref
	}
	return r.pinned(i.Digest)
}
