package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
)

// sshHost is what may stand in a command without quotes.
var sshHost = regexp.MustCompile(`^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$`)

// SSHAddress is what clients reach the SSH gateway by. An empty host is the one
// that they reach the API by; port 0 is the one that the gateway listens on.
func (c Config) SSHAddress() (host string, port int, err error) {
	if host = c.SSHHost; host == "" {
		return c.sshDefaultHost(), 0, nil
	}
	if h, p, serr := net.SplitHostPort(host); serr == nil {
		host = h
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return "", 0, fmt.Errorf("%q is not a port", p)
		}
	}
	if !sshHost.MatchString(host) {
		return "", 0, fmt.Errorf("%q is not a host", host)
	}
	return host, port, nil
}

func (c Config) sshDefaultHost() string {
	if u, err := url.Parse(c.PublicURL); err == nil && sshHost.MatchString(u.Hostname()) {
		return u.Hostname()
	}
	listen := c.SSHListen
	if listen == "" {
		listen = DefaultSSH
	}
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() || !sshHost.MatchString(host) {
		return ""
	}
	return host
}
