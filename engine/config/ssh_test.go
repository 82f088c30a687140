package config

import "testing"

func TestSSHAddress(t *testing.T) {
	for _, c := range []struct {
		listen, host, public, want string
		port                       int
	}{
		{"", "", "", "127.0.0.1", 0},
		{"", "", "https://atoll.example.com/x", "atoll.example.com", 0},
		{"0.0.0.0:22", "", "", "", 0},
		{":22", "", "", "", 0},
		{"[::]:22", "", "", "", 0},
		{"192.0.2.1:22", "", "", "192.0.2.1", 0},
		{"", "ssh.example.com", "https://atoll.example.com", "ssh.example.com", 0},
		{"", "ssh.example.com:2200", "", "ssh.example.com", 2200},
		{"", "[2001:db8::1]:22", "", "2001:db8::1", 22},
		{"", "2001:db8::1", "", "2001:db8::1", 0},
	} {
		host, port, err := Config{SSHListen: c.listen, SSHHost: c.host, PublicURL: c.public}.SSHAddress()
		if err != nil || host != c.want || port != c.port {
			t.Errorf("%+v: got %q, %d, %v", c, host, port, err)
		}
	}
	for _, host := range []string{"a b", "-oProxyCommand=x", "a:0", "a:99999", "a:b", "$(x)", "a;b", "\n"} {
		if got, _, err := (Config{SSHHost: host}).SSHAddress(); err == nil {
			t.Errorf("%q was taken as %q", host, got)
		}
	}
}
