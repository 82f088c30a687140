// Package config holds the server's one configuration: plain structs with
// their defaults in one function. Values come from a YAML file, then from
// ATOLL_ environment variables, then from flags; Validate lists all faults.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
)

// Config is everything a server can be told.
type Config struct {
	Home   string `koanf:"home"`   // state; one server per home
	Listen string `koanf:"listen"` // host:port of the API
	// PublicURL is how clients reach the server; empty means http://Listen.
	PublicURL string `koanf:"public_url"`
	// PreviewDomain is the name below which ports of sandboxes are seen; empty
	// is the host of PublicURL, or localhost.
	PreviewDomain string `koanf:"preview_domain"`
	// PreviewURLs is host, or path where there are no names below the domain.
	PreviewURLs string `koanf:"preview_urls"`
	// TLSCert and TLSKey are PEM files; they are read again when they change.
	TLSCert string `koanf:"tls_cert"`
	TLSKey  string `koanf:"tls_key"`
	// ACMEHost is the names to get certificates for, separated by commas.
	ACMEHost string `koanf:"acme_host"`
	// ACMEEmail gets the authority's notices; empty gives none.
	ACMEEmail string `koanf:"acme_email"`
	// ACMEDirectory is the authority's URL; empty is Let's Encrypt.
	ACMEDirectory string `koanf:"acme_directory"`
	// SSHListen is host:port of the SSH gateway, or off; empty is DefaultSSH,
	// or off where that is taken.
	SSHListen string `koanf:"ssh_listen"`
	// SSHHost is how clients reach the SSH gateway, as host or host:port;
	// empty takes the host of PublicURL, else that of SSHListen.
	SSHHost string `koanf:"ssh_host"`
	// APIKey sets the administrator's key; empty makes one on first start.
	APIKey string `koanf:"api_key"`
	// OIDCIssuer is the URL of an identity provider whose access tokens are
	// taken beside API keys; empty takes keys only.
	OIDCIssuer string `koanf:"oidc_issuer"`
	// OIDCAudience is how tokens name this server, separated by commas; empty
	// is PublicURL, with and without /mcp.
	OIDCAudience string `koanf:"oidc_audience"`
	// OIDCScopeClaim and OIDCOrganizationClaim are the claims that say what a
	// token may do and which organization it is bound to.
	OIDCScopeClaim        string `koanf:"oidc_scope_claim"`
	OIDCOrganizationClaim string `koanf:"oidc_organization_claim"`
	// OIDCScopes are scopes that every token has, for providers that cannot
	// grant ours.
	OIDCScopes string `koanf:"oidc_scopes"`
	// OIDCSignUp makes a user of everybody whom the provider vouches for.
	OIDCSignUp bool `koanf:"oidc_sign_up"`
	// DatabaseURL is postgres://…; empty keeps SQLite below Home.
	DatabaseURL string `koanf:"database_url"`
	// NATSURL joins a cluster; empty runs NATS in this process, without a port.
	NATSURL string `koanf:"nats_url"`
	// SecretKeyFile holds the keys that stored secrets are sealed with; empty
	// makes one below Home. Servers that share a database share its keys.
	SecretKeyFile string `koanf:"secret_key_file"`
	// WebhooksPrivate lets webhooks go to addresses that are not of the public
	// internet, this host's own included, and in the clear.
	WebhooksPrivate bool `koanf:"webhooks_private"`
	// OutboundProxies are networks, or addresses, outside of the public internet
	// that sandboxes may have their outbound proxy in.
	OutboundProxies string `koanf:"outbound_proxies"`
	// Region is the name that sandboxes report as their target.
	Region string `koanf:"region"`

	// Containerd is the socket of a containerd to use; empty starts our own.
	Containerd string `koanf:"containerd"`
	// Runtime is the OCI runtime binary: runc or crun, or a path.
	Runtime string `koanf:"runtime"`
	// PoolSize is how many started sandboxes wait to be claimed; -1 chooses
	// by the number of cores, 0 switches the warm pool off.
	PoolSize int `koanf:"pool_size"`
	// DiskGiB is the largest size of the storage pool; 0 chooses by free space.
	DiskGiB int64 `koanf:"disk_gib"`
	// Resolvers are the DNS servers that sandboxes' questions are relayed to,
	// as ip:port, separated by commas; empty takes the host's.
	Resolvers string `koanf:"resolvers"`
	// PolicyHosts is the hosts that variables of policies stand for, as
	// NAME=host,host, separated by spaces. Empty asks the tools of the default
	// snapshot where they download packages from.
	PolicyHosts string `koanf:"policy_hosts"`

	// RateLimits are the rate limits to enforce, as NAME=REQUESTS/SECONDS,
	// separated by commas; empty limits failed authentication only.
	RateLimits string `koanf:"rate_limits"`

	LogLevel string `koanf:"log_level"` // debug, info, warn, error
}

// DefaultSSH is where the SSH gateway listens when nothing was said.
const DefaultSSH = "127.0.0.1:2222"

// Default returns the configuration of a server that was told nothing.
func Default() Config {
	return Config{
		Home:                  "/var/lib/atoll",
		OIDCScopeClaim:        "scope",
		OIDCOrganizationClaim: "organization",
		Listen:                "127.0.0.1:7777",
		PreviewURLs:           "host",
		Region:                "local",
		Runtime:               "runc",
		PoolSize:              -1,
		LogLevel:              "info",
	}
}

// Load reads the file (empty: $ATOLL_CONFIG, or none) and the environment over
// the defaults.
func Load(path string, environ []string) (Config, error) {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(Default(), "koanf"), nil); err != nil {
		return Config{}, err
	}
	if path == "" {
		path = lookup(environ, "ATOLL_CONFIG")
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      "ATOLL_",
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(k, v string) (string, any) {
			return strings.ToLower(strings.TrimPrefix(k, "ATOLL_")), v
		},
	}), nil)
	if err != nil {
		return Config{}, err
	}
	var c Config
	if err := k.Unmarshal("", &c); err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

func lookup(environ []string, key string) string {
	for _, kv := range environ {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v
		}
	}
	return ""
}

// Validate returns all faults at once, each naming the field.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	if !filepath.IsAbs(c.Home) {
		bad("home", "%q is not an absolute path", c.Home)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen", "%q is not host:port", c.Listen)
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("public_url", "%q is not an http or https URL", c.PublicURL)
		}
	}
	c.validateFront(bad)
	c.validateOIDC(bad)
	if _, _, err := net.SplitHostPort(c.SSHListen); err != nil && c.SSHListen != "" && c.SSHListen != "off" {
		bad("ssh_listen", "%q is neither host:port nor off", c.SSHListen)
	}
	if _, _, err := c.SSHAddress(); err != nil {
		bad("ssh_host", "%v", err)
	}
	if c.APIKey != "" && len(c.APIKey) < 16 {
		bad("api_key", "needs at least 16 characters")
	}
	if c.DatabaseURL != "" && !strings.HasPrefix(c.DatabaseURL, "postgres://") && !strings.HasPrefix(c.DatabaseURL, "postgresql://") {
		bad("database_url", "must begin with postgres://")
	}
	if c.SecretKeyFile != "" && !filepath.IsAbs(c.SecretKeyFile) {
		bad("secret_key_file", "%q is not an absolute path", c.SecretKeyFile)
	}
	if c.PoolSize < -1 || c.PoolSize > 1000 {
		bad("pool_size", "%d is not between -1 and 1000", c.PoolSize)
	}
	if c.DiskGiB < 0 {
		bad("disk_gib", "is negative")
	}
	if _, err := c.DNS(); err != nil {
		bad("resolvers", "%v", err)
	}
	if _, err := c.PolicyVariables(); err != nil {
		bad("policy_hosts", "%v", err)
	}
	if _, err := c.ProxyNetworks(); err != nil {
		bad("outbound_proxies", "%v", err)
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		bad("log_level", "%q is not debug, info, warn or error", c.LogLevel)
	}
	return errors.Join(errs...)
}

// list splits what commas or blanks separate.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// ProxyNetworks parses OutboundProxies.
func (c Config) ProxyNetworks() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list(c.OutboundProxies) {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is neither a network nor an address", s)
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, n.Masked())
	}
	return out, nil
}

// DNS parses Resolvers. Empty means the host's.
func (c Config) DNS() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range list(c.Resolvers) {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is not ip or ip:port", s)
			}
			ap = netip.AddrPortFrom(a, 53)
		}
		out = append(out, ap)
	}
	return out, nil
}

// Warm is the number of warm members to keep: PoolSize, or one a core between
// two and sixteen, because each costs about 10 MB.
func (c Config) Warm() int {
	if c.PoolSize >= 0 {
		return c.PoolSize
	}
	return min(max(runtime.NumCPU(), 2), 16)
}
