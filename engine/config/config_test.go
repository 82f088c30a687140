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
