package git

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

var configKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*\.([^\x00\n]+\.)?[A-Za-z][A-Za-z0-9-]*$`)

// scope checks where a value is kept.
func (g *Git) scope(scope, path string) (flag, dir string, err error) {
	switch scope {
	case "", "global":
		return "--global", "", nil
	case "system":
		return "--system", "", nil
	case "local":
		dir, err = g.repo(path)
		return "--local", dir, err
	}
	return "", "", wire.BadRequest("scope: %.40q is not known; use global, local or system", scope)
}

// Config reads a value; an unset one is nil.
func (g *Git) Config(ctx context.Context, key, scope, path string) (wire.GitConfigValue, error) {
	flag, dir, err := g.scope(scope, path)
	if err != nil {
		return wire.GitConfigValue{}, err
	}
	if err := checkKey(key); err != nil {
		return wire.GitConfigValue{}, err
	}
	v, err := g.value(ctx, dir, flag, key)
	return wire.GitConfigValue{Value: v}, err
}

func checkKey(key string) error {
	if !configKey.MatchString(key) {
		return wire.BadRequest("key: %.80q is not a key; use one as user.name", key)
	}
	return nil
}

func (g *Git) value(ctx context.Context, dir, flag, key string) (*string, error) {
	out, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"config", flag, "-z", "--get", "--", key}})
	if err != nil || out.code != 0 {
		return nil, err
	}
	v := strings.TrimSuffix(out.stdout, "\x00")
	return &v, nil
}

// SetConfig sets a value in place of all that the key has.
func (g *Git) SetConfig(ctx context.Context, q wire.GitSetConfig) error {
	flag, dir, err := g.scope(q.Scope, q.Path)
	if err != nil {
		return err
	}
	if err := checkKey(q.Key); err != nil {
		return err
	}
	if strings.IndexByte(q.Value, 0) >= 0 {
		return wire.BadRequest("value: it holds a NUL byte; remove it")
	}
	return g.do(ctx, command{repo: dir, args: []string{"config", flag, "--replace-all", "--", q.Key, q.Value}})
}

// SetUser sets who commits.
func (g *Git) SetUser(ctx context.Context, q wire.GitUser) error {
	if q.Name == "" || q.Email == "" {
		return wire.BadRequest("name, email: both are needed")
	}
	for key, v := range map[string]string{"user.name": q.Name, "user.email": q.Email} {
		if err := g.SetConfig(ctx, wire.GitSetConfig{Key: key, Value: v, Path: q.Path, Scope: q.Scope}); err != nil {
			return err
		}
	}
	return nil
}

// Keep stores credentials, readable, in the user's home.
func (g *Git) Keep(ctx context.Context, q wire.GitCredentials) error {
	if q.Host == "" {
		q.Host = "github.com"
	}
	if q.Protocol == "" {
		q.Protocol = "https"
	}
	fields := []string{"protocol", q.Protocol, "host", q.Host, "username", q.Username, "password", q.Password}
	var entry strings.Builder
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" || strings.ContainsAny(fields[i+1], "\x00\n\r") {
			return wire.BadRequest("%s: it is missing, or holds a line break or a NUL byte", fields[i])
		}
		entry.WriteString(fields[i] + "=" + fields[i+1] + "\n")
	}
	if q.Protocol != "https" && q.Protocol != "http" {
		return wire.BadRequest("protocol: %.40q knows no passwords; use https or http", q.Protocol)
	}
	out, err := g.run(ctx, command{failing: true, args: []string{"config", "--global", "--get-all", "credential.helper"}})
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Split(out.stdout, "\n"), "store") {
		if err := g.do(ctx, command{args: []string{"config", "--global", "--add", "credential.helper", "store"}}); err != nil {
			return err
		}
	}
	return g.do(ctx, command{args: []string{"credential-store", "store"}, stdin: entry.String(), secret: q.Password})
}
