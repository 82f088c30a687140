// Package cluster carries calls, inventory and events between the parts of
// Atoll over NATS. On one machine the NATS server runs inside the process
// without a port; with a URL the same subjects span many machines.
//
//	runner.<id>.rpc.<Method>   a call of an engine.Runner method
//	runner.<id>.cancel         the caller of a call gave up
//	inventory.<id>             heartbeat of a runner
//	inventory                  a newcomer asks for heartbeats
//	events.<organization>      changes, for watchers
//
// Everything here can be rebuilt by runners announcing themselves again, so
// nothing is written to disk.
package cluster

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/atoll-sh/atoll/engine"
)

// maxPayload bounds one message. The largest is the answer to Instances,
// about 300 bytes a sandbox.
const maxPayload = 16 << 20

// Config says how to reach the cluster.
type Config struct {
	URL string // of a NATS server; empty runs one inside the process
	Log *slog.Logger
}

// Cluster is one process's place in the cluster.
type Cluster struct {
	log    *slog.Logger
	server *server.Server // nil when URL is set
	conn   *nats.Conn
	inv    *inventory

	mu     sync.Mutex
	stops  map[int]func()
	next   int
	closed bool
}

// Open joins the cluster.
func Open(ctx context.Context, c Config) (*Cluster, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	cl := &Cluster{log: c.Log, stops: map[int]func(){}}
	if err := cl.connect(ctx, c.URL); err != nil {
		cl.Close()
		return nil, err
	}
	inv, err := watchInventory(cl.conn, c.Log)
	if err != nil {
		cl.Close()
		return nil, err
	}
	cl.inv = inv
	return cl, nil
}

func (c *Cluster) connect(ctx context.Context, url string) error {
	opts := []nats.Option{
		nats.Name("atoll"), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			if s != nil {
				c.log.Warn("message lost", "subject", s.Subject, "error", err)
			}
		}),
	}
	if url == "" {
		if err := c.startServer(); err != nil {
			return err
		}
		opts = append(opts, nats.InProcessServer(c.server))
	}
	if d, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(time.Until(d)))
	}
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		return engine.Errorf(engine.KindUnavailable, "the cluster's NATS server does not answer").
			WithHint("check the URL given to --join and that the server runs").Wrap(err)
	}
	c.conn = conn
	return nil
}

// startServer runs a NATS server that no other process can reach.
func (c *Cluster) startServer() error {
	s, err := server.NewServer(&server.Options{
		ServerName: "atoll", DontListen: true, NoSigs: true, NoLog: true,
		MaxPayload: maxPayload, MaxPending: 64 << 20, NoSystemAccount: true,
	})
	if err != nil {
		return fmt.Errorf("make the message server: %w", err)
	}
	c.server = s
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return engine.Errorf(engine.KindInternal, "the message server did not start")
	}
	return nil
}

// Close stops every Serve and Watch of this process and leaves the cluster.
// It waits for calls that are being answered. It may be called twice.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	stops := c.stops
	c.stops = map[int]func(){}
	c.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	if c.inv != nil {
		c.inv.close()
	}
	if c.conn != nil {
		c.conn.Close()
	}
	if c.server != nil {
		c.server.Shutdown()
		c.server.WaitForShutdown()
	}
}

// own registers stop to be called by Close. The returned function calls it
// now, once, and forgets it.
func (c *Cluster) own(stop func()) (func(), error) {
	var once sync.Once
	run := func() { once.Do(stop) }
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, engine.Errorf(engine.KindUnavailable, "the server is stopping")
	}
	id := c.next
	c.next++
	c.stops[id] = run
	return func() {
		c.mu.Lock()
		delete(c.stops, id)
		c.mu.Unlock()
		run()
	}, nil
}

// token makes one token of a subject from an id. Ids with characters that
// NATS would read as structure are written in hex.
func token(id string) string {
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return "=" + hex.EncodeToString([]byte(id))
		}
	}
	if id == "" {
		return "="
	}
	return id
}
