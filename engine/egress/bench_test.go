package egress

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/network/networktest"
)

// rules makes a list of count networks, the last of which is the good host's.
func rules(count int) engine.NetworkPolicy {
	var p engine.NetworkPolicy
	for i := range count - 1 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x14000000+uint32(i)<<8) // from 20.0.0.0 on, a /25 of each 256
		p.AllowCIDRs = append(p.AllowCIDRs, netip.PrefixFrom(netip.AddrFrom4(b), 25).String())
	}
	p.AllowCIDRs = append(p.AllowCIDRs, good4+"/32")
	return p
}

// path is one way from a sandbox to the good host, with the connections that
// measure it.
type path struct {
	name        string
	talk, flood net.Conn
	rtt, speed  []time.Duration // of each round
}

// BenchmarkEgress measures what policies cost on the path of a sandbox. Each
// round measures every path, in an order of chance, and a path's ratio is the
// median of its ratios in the rounds, so that a busy machine disturbs all alike.
// "none" has the guard and no programs at all; "again" is another like it and
// shows the noise; "bare" is a router that translates addresses, and "nft" the
// same with a chain of nftables that allows what the policy does.
func BenchmarkEgress(b *testing.B) {
	w := newWorld(b)
	must(b, networktest.In(w.net.NS, func() error { return w.sinks() }))
	open, err := network.Open(b.Context(), network.Config{ID: "e2", Index: -1})
	must(b, err)
	b.Cleanup(func() { _ = open.Destroy(context.Background()) })
	unfiltered := func() string {
		s, err := open.Acquire(b.Context())
		must(b, err)
		must(b, open.Apply(b.Context(), s, engine.NetworkPolicy{}))
		return s.NetNS
	}
	var paths []*path
	for _, k := range []struct{ name, ns string }{
		{"none", unfiltered()},
		{"again", unfiltered()},
		{"policy_10", w.slot(rules(10)).NetNS},
		{"policy_1000", w.slot(rules(1000)).NetNS},
		{"policy_100000", w.slot(rules(100_000)).NetNS},
		{"open", w.slot(engine.NetworkPolicy{}).NetNS},
		{"bare", router(b, w.net.NS, 1, nil)},
		{"nft_10", router(b, w.net.NS, 2, rules(10).AllowCIDRs)},
		{"nft_1000", router(b, w.net.NS, 3, rules(1000).AllowCIDRs)},
	} {
		p := &path{name: k.name}
		for port, c := range map[string]*net.Conn{"7001": &p.talk, "7002": &p.flood} {
			*c, err = connect(network.Slot{NetNS: k.ns}, "tcp", good4+":"+port, wait)
			must(b, err)
			defer (*c).Close()
		}
		paths = append(paths, p)
	}
	block := make([]byte, 1<<20)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		for _, i := range rand.Perm(len(paths)) { // so that none always has the same one before it
			paths[i].measure(b, block)
		}
	}
	none := paths[0]
	for _, p := range paths {
		if p != none {
			b.ReportMetric(ratio(p.rtt, none.rtt), "rr_ratio_"+p.name)
			b.ReportMetric(ratio(none.speed, p.speed), "throughput_ratio_"+p.name)
		}
	}
	b.ReportMetric(float64(middle(none.rtt, .5).Nanoseconds())/1000, "rr_none_us")
	b.ReportMetric(8/middle(none.speed, .5).Seconds(), "throughput_none_mibs")
}

// measure adds a round: the median of some exchanges of a byte, and 8 MiB.
func (p *path) measure(b *testing.B, block []byte) {
	b.Helper()
	var each []time.Duration
	for range 100 {
		begin := time.Now()
		_, err := p.talk.Write(block[:1])
		must(b, err)
		_, err = io.ReadFull(p.talk, make([]byte, 1))
		must(b, err)
		each = append(each, time.Since(begin))
	}
	p.rtt = append(p.rtt, middle(each, .5))
	begin := time.Now()
	for range 8 {
		_, err := p.flood.Write(block)
		must(b, err)
	}
	_, err := io.ReadFull(p.flood, make([]byte, 8)) // one for each MiB
	must(b, err)
	p.speed = append(p.speed, time.Since(begin))
}

// ratio is the median of a's rounds to b's.
func ratio(a, b []time.Duration) float64 {
	var all []float64
	for i := range a {
		all = append(all, float64(a[i])/float64(b[i]))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// router makes a sandbox's namespace behind a router's, which translates
// addresses and, when there are some, forwards to allowed networks alone.
func router(b *testing.B, internet string, n int, allowed []string) string {
	b.Helper()
	dir := b.TempDir()
	ns := map[string]string{"internet": internet}
	for _, name := range []string{"router", "sandbox"} {
		ns[name] = filepath.Join(dir, name)
		must(b, networktest.New(ns[name]))
		b.Cleanup(func() { _ = unix.Unmount(ns[name], unix.MNT_DETACH) })
	}
	run := func(where, stdin string, args ...string) {
		b.Helper()
		cmd := exec.Command("nsenter", append([]string{"--net=" + ns[where]}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	outer, inner := fmt.Sprintf("192.0.2.%d", 128+8*n), fmt.Sprintf("10.250.%d.", n)
	for _, c := range []struct{ where, line string }{
		{"router", fmt.Sprintf("link add out0 type veth peer name in%d netns %s", n, internet)},
		{"router", "link add in0 type veth peer name eth0 netns " + ns["sandbox"]},
		{"internet", fmt.Sprintf("addr add %s/31 dev in%d", outer, n)},
		{"internet", fmt.Sprintf("link set in%d up", n)},
		{"router", fmt.Sprintf("addr add 192.0.2.%d/31 dev out0", 129+8*n)},
		{"router", "addr add " + inner + "1/24 dev in0"},
		{"router", "link set out0 up"},
		{"router", "link set in0 up"},
		{"router", "route add default via " + outer},
		{"sandbox", "addr add " + inner + "2/24 dev eth0"},
		{"sandbox", "link set eth0 up"},
		{"sandbox", "route add default via " + inner + "1"},
	} {
		run(c.where, "", append([]string{"ip"}, strings.Fields(c.line)...)...)
	}
	b.Cleanup(func() { run("internet", "", "ip", "link", "del", fmt.Sprintf("in%d", n)) })
	run("router", "", "sysctl", "-qw", "net.ipv4.ip_forward=1")
	text := "table ip t {\n chain post { type nat hook postrouting priority srcnat; oifname out0 masquerade; }\n"
	if allowed != nil {
		text += " set allowed { type ipv4_addr; flags interval; elements = { " + strings.Join(allowed, ", ") + " }; }\n" +
			" chain onward { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname in0 ip daddr @allowed accept; }\n"
	}
	run("router", text+"}\n", "nft", "-f", "-")
	return ns["sandbox"]
}

// sinks answer a byte with a byte, and a MiB with a byte.
func (w *world) sinks() error {
	for port, size := range map[string]int{"7001": 1, "7002": 1 << 20} {
		l, err := net.Listen("tcp", good4+":"+port)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					for buf := make([]byte, size); ; {
						if _, err := io.ReadFull(c, buf); err != nil {
							return
						}
						if _, err := c.Write(buf[:1]); err != nil {
							return
						}
					}
				}()
			}
		}()
	}
	return nil
}

// BenchmarkUpdate measures how long policies of 10 and of 100 networks take to
// apply. The floor is what as many reads of a byte from a file take, which shows
// how late a busy machine lets a process run.
func BenchmarkUpdate(b *testing.B) {
	w := newWorld(b)
	s := w.slot(rules(10))
	zero, err := os.Open("/dev/zero")
	must(b, err)
	defer zero.Close()
	took := map[string][]time.Duration{}
	lists := map[int]engine.NetworkPolicy{}
	for _, n := range []int{10, 11, 100, 101} {
		lists[n] = rules(n)
	}
	for i := range 1000 {
		for story, do := range map[string]func(){
			"10":  func() { must(b, w.manager.Apply(b.Context(), s, lists[10+i%2])) },
			"100": func() { must(b, w.manager.Apply(b.Context(), s, lists[100+i%2])) },
			"floor": func() {
				for range 40 {
					_, _ = zero.Read(make([]byte, 1))
				}
			},
		} {
			begin := time.Now()
			do()
			took[story] = append(took[story], time.Since(begin))
		}
	}
	for story, all := range took {
		b.ReportMetric(ms(middle(all, .5)), "update_"+story+"_p50_ms")
		b.ReportMetric(ms(middle(all, .99)), "update_"+story+"_p99_ms")
	}
}

// BenchmarkCut measures how long a connection lives that a policy allows no
// longer, from the call that says so to the sandbox's seeing the end of it.
func BenchmarkCut(b *testing.B) {
	w := newWorld(b)
	must(b, networktest.In(w.net.NS, func() error { return w.sinks() }))
	s := w.slot(rules(10))
	var took []time.Duration
	for range 200 {
		must(b, w.manager.Apply(b.Context(), s, rules(10)))
		c, err := connect(s, "tcp", good4+":7001", wait)
		must(b, err)
		ended := make(chan time.Time, 1)
		go func() {
			for buf := make([]byte, 1); ; {
				if _, err := c.Write(buf); err != nil {
					break
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					break
				}
			}
			ended <- time.Now()
		}()
		time.Sleep(5 * time.Millisecond)
		begin := time.Now()
		must(b, w.manager.Apply(b.Context(), s, networks(evil4+"/32")))
		took = append(took, (<-ended).Sub(begin))
		c.Close()
	}
	b.ReportMetric(ms(middle(took, .5)), "cut_p50_ms")
	b.ReportMetric(ms(middle(took, .99)), "cut_p99_ms")
}

// BenchmarkReports measures what it costs a connection that its beginning and
// end are reported, with somebody who reads that.
func BenchmarkReports(b *testing.B) {
	w := newWorld(b)
	s := w.slot(networks(good4 + "/32"))
	defer watched(w)()
	rounds := map[bool][]time.Duration{}
	must(b, networktest.In(s.NetNS, func() error {
		for range 40 {
			for _, on := range []bool{true, false} {
				if err := w.filter.kernel.SetLogAllow(on); err != nil {
					return err
				}
				var each []time.Duration
				for range 50 {
					begin := time.Now()
					c, err := net.Dial("tcp", good4+":9000")
					if err != nil {
						return err
					}
					if _, err := c.Read(make([]byte, 1)); err != nil {
						return err
					}
					each = append(each, time.Since(begin))
					c.Close()
				}
				rounds[on] = append(rounds[on], middle(each, .5))
			}
		}
		return nil
	}))
	b.ReportMetric(ratio(rounds[true], rounds[false]), "report_ratio_connect")
}

// watched has somebody told of what the filter sees, as in a server, until the
// function that it returns is called.
func watched(w *world) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.filter.Watch(ctx, func(Holding, engine.ActivityRecord) {})
	}()
	return func() {
		cancel()
		<-done
	}
}

// BenchmarkProxy measures what the proxy adds to a TLS connection, the look-up
// of its own included.
func BenchmarkProxy(b *testing.B) {
	w := newWorld(b)
	defer watched(w)()
	direct, proxied := w.slot(networks(good4+"/32")), w.slot(domains("good.example"))
	shake := func(s network.Slot) time.Duration {
		var took time.Duration
		must(b, networktest.In(s.NetNS, func() error {
			begin := time.Now()
			c, err := net.Dial("tcp", good4+":443")
			if err != nil {
				return err
			}
			defer c.Close()
			k := tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}) //nolint:gosec // the test's own certificate
			if err := k.Handshake(); err != nil {
				return fmt.Errorf("handshake: %w", err)
			}
			took = time.Since(begin)
			return nil
		}))
		return took
	}
	var plain, by []time.Duration
	for range 200 {
		plain, by = append(plain, shake(direct)), append(by, shake(proxied))
	}
	b.ReportMetric(ms(middle(by, .5)-middle(plain, .5)), "proxy_added_p50_ms")
	b.ReportMetric(ms(middle(plain, .5)), "direct_p50_ms")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// middle is the q-quantile.
func middle(ds []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}
