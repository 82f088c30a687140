package cli

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progress shows on a terminal how far a transfer is.
type progress struct {
	done  atomic.Int64
	total int64
	stop  chan struct{}
	ended chan struct{}
}

// progress begins to show; total 0 is unknown. The caller must end it.
func (a *app) progress(what string, total int64) *progress {
	p := &progress{total: total, stop: make(chan struct{}), ended: make(chan struct{})}
	if _, ok := terminal(a.err); !ok {
		close(p.ended)
		return p
	}
	go p.show(a.err, what)
	return p
}

func (p *progress) show(w io.Writer, what string) {
	defer close(p.ended)
	began := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.stop:
			if shown {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case now := <-tick.C:
			if took := now.Sub(began); took > time.Second {
				shown = true
				fmt.Fprint(w, "\r\x1b[K"+p.line(what, took))
			}
		}
	}
}

func (p *progress) line(what string, took time.Duration) string {
	done := p.done.Load()
	rate := bytesText(int64(float64(done) / took.Seconds()))
	if p.total > 0 {
		return fmt.Sprintf("%s: %s of %s (%d%%), %s/s", what, bytesText(done), bytesText(p.total), done*100/p.total, rate)
	}
	return fmt.Sprintf("%s: %s, %s/s", what, bytesText(done), rate)
}

func (p *progress) end() {
	close(p.stop)
	<-p.ended
}

// reader counts what is read from r.
func (p *progress) reader(r io.Reader) io.Reader { return counter{r, &p.done} }

type counter struct {
	io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (c counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}
