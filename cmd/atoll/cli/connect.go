package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/client"
)

// credentials is the file that a server writes for those who may read it.
type credentials struct {
	URL    string `json:"url"`
	APIKey string `json:"apiKey"`
}

// client connects to the server that flags, environment and files name.
func (a *app) client() (*client.Client, error) {
	where, key, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	return client.New(where, key, client.Options{UserAgent: "atoll-cli/" + a.Version})
}

// endpoint finds the server's URL and the key. A key that was found in a file
// goes only to the server it belongs to, unless the home was named on purpose.
func (a *app) endpoint() (where, key string, err error) {
	asked := orElse(a.url, a.env("ATOLL_URL"))
	if key := a.env("ATOLL_API_KEY"); key != "" {
		return orElse(asked, a.fileURL()), key, nil
	}
	if c, err := readCredentials(filepath.Join(a.home, "credentials.json")); err == nil {
		if asked == "" || a.home != defaultHome || sameServer(asked, c.URL) {
			return orElse(asked, orElse(c.URL, defaultURL)), c.APIKey, nil
		}
	}
	asked = orElse(asked, defaultURL)
	for _, path := range a.otherCredentials() {
		if c, err := readCredentials(path); err == nil && sameServer(asked, c.URL) {
			return asked, c.APIKey, nil
		}
	}
	return "", "", engine.Errorf(engine.KindUnauthenticated, "no API key was found for %s", asked).
		WithHint("set ATOLL_API_KEY, or ATOLL_HOME to the server's directory; on the server's machine you may need sudo")
}

func (a *app) fileURL() string {
	if c, err := readCredentials(filepath.Join(a.home, "credentials.json")); err == nil && c.URL != "" {
		return c.URL
	}
	return defaultURL
}

// otherCredentials lists where else a key may lie: the user's own file, and
// those of servers with another home that run on this machine.
func (a *app) otherCredentials() []string {
	var paths []string
	if dir := a.env("XDG_CONFIG_HOME"); dir != "" {
		paths = append(paths, filepath.Join(dir, "atoll", "credentials.json"))
	} else if home := a.env("HOME"); home != "" {
		paths = append(paths, filepath.Join(home, ".config", "atoll", "credentials.json"))
	}
	running, _ := filepath.Glob("/run/atoll/*/credentials.json")
	return append(paths, running...)
}

func readCredentials(path string) (credentials, error) {
	var c credentials
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.APIKey == "" {
		err = errors.New("no key in " + path)
	}
	return c, err
}

// sameServer compares two URLs by host and port.
func sameServer(a, b string) bool {
	x, y := hostPort(a), hostPort(b)
	return x != "" && x == y
}

func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if host == "localhost" || host == "0.0.0.0" || host == "::" || host == "::1" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func ref(name string) engine.SandboxRef { return engine.SandboxRef{IDOrName: name} }

// toolbox connects to the toolbox of a sandbox.
func (a *app) toolbox(ctx context.Context, c *client.Client, sandbox string) (http.RoundTripper, error) {
	return c.Toolboxes().Toolbox(ctx, ref(sandbox))
}

// completionWait bounds how long a shell waits for names.
const completionWait = 2 * time.Second

// sandboxNames completes the names of sandboxes; many: for every argument.
func (a *app) sandboxNames(many bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.names(cmd.Context(), prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) names(ctx context.Context, prefix string) []string {
	c, err := a.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	page, err := c.Sandboxes().List(ctx, engine.SandboxQuery{NamePrefix: prefix, Limit: 200})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range page.Items {
		names = append(names, s.Name+"\t"+string(s.State))
	}
	return names
}
