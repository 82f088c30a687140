// Package secret keeps values that their owners want to use but nobody to
// read: it seals them for the database, and says what stands for them inside
// sandboxes until they leave for a host that may have them.
package secret

import (
	"context"
	"log/slog"
	"slices"
	"strings"
)

// PlaceholderPrefix begins what stands in a sandbox's environment for a value.
const PlaceholderPrefix = "dtn_secret_"

// Placeholder stands for the value of the secret with this id.
func Placeholder(id string) string { return PlaceholderPrefix + id }

// Value is a secret's value. It prints, logs and encodes as stars; Reveal is
// the one way to what it holds.
type Value struct{ text *string } // a pointer, which prints as such where methods are not called

// NewValue wraps a value.
func NewValue(text string) Value { return Value{&text} }

// Reveal returns the value. Whoever calls it must not keep, log or answer it.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

const hidden = "********"

// String hides the value.
func (Value) String() string { return hidden }

// GoString hides the value.
func (Value) GoString() string { return hidden }

// LogValue hides the value.
func (Value) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the value.
func (Value) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Binding is one value that a sandbox may use, and where it may go.
type Binding struct {
	Name        string // what its owner calls it; never a secret itself
	Placeholder string
	Value       Value
	// Hosts are the names, as api.example.com or *.example.com, to which the
	// value may be sent. Empty means none: the placeholder stays as it is.
	Hosts []string
}

// Resolver gives what substitutes placeholders in a sandbox's traffic. It
// answers with the secrets that are attached to the sandbox at this moment;
// a secret that was deleted or detached is not among them. It is called inside
// the server only, and its answer never leaves it.
type Resolver interface {
	Resolve(ctx context.Context, sandboxID string) ([]Binding, error)
}

// Allows tells whether the value may be sent to host, which is a name without
// a port. A pattern *.example.com stands for names below example.com.
func (b Binding) Allows(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host != "" && slices.ContainsFunc(b.Hosts, func(pattern string) bool {
		pattern = strings.ToLower(strings.TrimSuffix(pattern, "."))
		if below, ok := strings.CutPrefix(pattern, "*."); ok {
			return strings.HasSuffix(host, "."+below)
		}
		return pattern == host
	})
}
