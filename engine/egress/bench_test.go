package egress

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

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

// BenchmarkEgress measures what the programs cost on the path of a sandbox, in
// turns so that a busy machine disturbs all alike. Lists of 10 and of 10,000
// networks are compared with a policy that allows everything, which the same
// programs carry out.
func BenchmarkEgress(b *testing.B) {
	w := newWorld(b)
	must(b, networktest.In(w.net.NS, func() error { return w.sinks() }))
	kinds := []struct {
		name string
		slot network.Slot
	}{{"open", w.slot(engine.NetworkPolicy{})}, {"10", w.slot(rules(10))}, {"10000", w.slot(rules(10_000))}}
	var talks, floods []net.Conn
	for _, k := range kinds {
		for port, list := range map[string]*[]net.Conn{"7001": &talks, "7002": &floods} {
			c, err := connect(k.slot, "tcp", good4+":"+port, wait)
			must(b, err)
			defer c.Close()
			*list = append(*list, c)
		}
	}
	rtt, speed := make([][]time.Duration, 3), make([][]time.Duration, 3)
	block := make([]byte, 1<<20)
	for range 60 {
		for i := range kinds {
			for range 100 {
				begin := time.Now()
				_, err := talks[i].Write(block[:1])
				must(b, err)
				_, err = io.ReadFull(talks[i], make([]byte, 1))
				must(b, err)
				rtt[i] = append(rtt[i], time.Since(begin))
			}
			begin := time.Now()
			for range 8 {
				_, err := floods[i].Write(block)
				must(b, err)
			}
			_, err := io.ReadFull(floods[i], make([]byte, 8)) // one for each MiB
			must(b, err)
			speed[i] = append(speed[i], time.Since(begin))
		}
	}
	for i, k := range kinds[1:] {
		b.ReportMetric(float64(middle(rtt[i+1], .5))/float64(middle(rtt[0], .5)), "rr_ratio_"+k.name)
		b.ReportMetric(float64(middle(speed[0], .5))/float64(middle(speed[i+1], .5)), "throughput_ratio_"+k.name)
	}
	b.ReportMetric(float64(middle(rtt[0], .5).Nanoseconds())/1000, "rr_open_us")
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

// BenchmarkUpdate measures how long a policy of 100 networks takes to apply.
func BenchmarkUpdate(b *testing.B) {
	w := newWorld(b)
	s := w.slot(rules(10))
	var took []time.Duration
	for i := range 500 {
		p := rules(100 + i%2)
		begin := time.Now()
		must(b, w.manager.Apply(b.Context(), s, p))
		took = append(took, time.Since(begin))
	}
	b.ReportMetric(ms(middle(took, .99)), "update_p99_ms")
	b.ReportMetric(ms(middle(took, .5)), "update_p50_ms")
}

// BenchmarkProxy measures what the proxy adds to a TLS connection, the look-up
// of its own included.
func BenchmarkProxy(b *testing.B) {
	w := newWorld(b)
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
