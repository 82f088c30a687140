package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atoll.yaml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:1\nregion: here\npool_size: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load("", []string{"ATOLL_CONFIG=" + path, "ATOLL_LISTEN=127.0.0.1:2", "ATOLL_POOL_SIZE=3", "OTHER=x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2" || c.Region != "here" || c.PoolSize != 3 || c.Home != Default().Home {
		t.Errorf("got %+v; want environment over file over defaults", c)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateFront(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		field  string // empty: valid
	}{
		"files":                   {func(c *Config) { c.TLSCert, c.TLSKey, c.PublicURL = "/c", "/k", "https://a.example" }, ""},
		"files, no public URL":    {func(c *Config) { c.TLSCert, c.TLSKey = "/c", "/k" }, "public_url"},
		"files, plain URL":        {func(c *Config) { c.TLSCert, c.TLSKey, c.PublicURL = "/c", "/k", "http://a.example" }, "public_url"},
		"no key":                  {func(c *Config) { c.TLSCert, c.PublicURL = "/c", "https://a.example" }, "tls_cert"},
		"relative":                {func(c *Config) { c.TLSCert, c.TLSKey, c.PublicURL = "c", "/k", "https://a.example" }, "tls_cert"},
		"ACME":                    {func(c *Config) { c.ACMEHost, c.PublicURL = "a.example, b.example", "https://a.example" }, ""},
		"ACME for an address":     {func(c *Config) { c.ACMEHost, c.PublicURL = "192.0.2.1", "https://a.example" }, "acme_host"},
		"ACME for a bare name":    {func(c *Config) { c.ACMEHost, c.PublicURL = "localhost", "https://a.example" }, "acme_host"},
		"ACME for a wildcard":     {func(c *Config) { c.ACMEHost, c.PublicURL = "*.a.example", "https://a.example" }, "acme_host"},
		"ACME and files":          {func(c *Config) { c.ACMEHost, c.TLSCert, c.TLSKey, c.PublicURL = "a.example", "/c", "/k", "https://a" }, "acme_host"},
		"directory without TLS":   {func(c *Config) { c.ACMEDirectory = "http://ca.example" }, "acme_directory"},
		"domain":                  {func(c *Config) { c.PreviewDomain = "boxes.example:8443" }, ""},
		"domain with a scheme":    {func(c *Config) { c.PreviewDomain = "https://boxes.example" }, "preview_domain"},
		"domain with a star":      {func(c *Config) { c.PreviewDomain = "*.boxes.example" }, "preview_domain"},
		"domain that is a number": {func(c *Config) { c.PreviewDomain = "127.0.0.1:80" }, "preview_domain"},
		"paths":                   {func(c *Config) { c.PreviewURLs = "path" }, ""},
		"another form":            {func(c *Config) { c.PreviewURLs = "query" }, "preview_urls"},
	} {
		cfg := Default()
		c.change(&cfg)
		err := cfg.Validate()
		if c.field == "" && err != nil || c.field != "" && (err == nil || !strings.Contains(err.Error(), c.field+":")) {
			t.Errorf("%s: got %v, want a fault of %q", name, err, c.field)
		}
	}
}

func TestOIDC(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		field  string // empty: valid
	}{
		"audience":            {func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "https://id.example/realms/a", "atoll" }, ""},
		"by the public URL":   {func(c *Config) { c.OIDCIssuer, c.PublicURL = "https://id.example", "https://atoll.example" }, ""},
		"on this machine":     {func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "http://127.0.0.1:9000", "atoll" }, ""},
		"in the clear":        {func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "http://id.example", "atoll" }, "oidc_issuer"},
		"no URL":              {func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "id.example", "atoll" }, "oidc_issuer"},
		"without an audience": {func(c *Config) { c.OIDCIssuer = "https://id.example" }, "oidc_audience"},
		"without an issuer":   {func(c *Config) { c.OIDCSignUp = true }, "oidc_issuer"},
	} {
		cfg := Default()
		c.change(&cfg)
		err := cfg.Validate()
		if c.field == "" && err != nil || c.field != "" && (err == nil || !strings.Contains(err.Error(), c.field+":")) {
			t.Errorf("%s: got %v, want a fault of %q", name, err, c.field)
		}
	}
	got := Config{PublicURL: "https://atoll.example/"}.OIDCAudiences()
	if len(got) != 2 || got[0] != "https://atoll.example/mcp" || got[1] != "https://atoll.example" {
		t.Errorf("audiences: got %v", got)
	}
}

func TestValidateNamesEveryField(t *testing.T) {
	c := Config{Home: "x", Listen: "y", PublicURL: "z", SSHListen: "2222", SSHHost: "a b", APIKey: "k", DatabaseURL: "mysql://", PoolSize: -2, DiskGiB: -1, Resolvers: "nope", LogLevel: "loud"}
	err := c.Validate()
	if err == nil {
		t.Fatal("a wrong configuration was accepted")
	}
	for _, field := range []string{"home", "listen", "public_url", "ssh_listen", "ssh_host", "api_key", "database_url", "pool_size", "disk_gib", "resolvers", "log_level"} {
		if !strings.Contains(err.Error(), field+":") {
			t.Errorf("the error does not name %s:\n%v", field, err)
		}
	}
}
