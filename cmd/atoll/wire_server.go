package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/cluster"
	"github.com/atoll-sh/atoll/engine/config"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/engine/image"
	"github.com/atoll-sh/atoll/engine/probe"
	"github.com/atoll-sh/atoll/engine/reconcile"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/engine/webhook"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/mcp"
)

// server is a whole Atoll in one process. Its parts are closed in the reverse
// of the order in which they were opened.
type server struct {
	cfg config.Config
	log *slog.Logger
	url string

	host    *host
	core    *core.Core
	bus     *cluster.Cluster
	hooks   *webhook.Service
	closers []func(context.Context) error
	end     func()
}

// openServer opens everything. When it returns, the API answers. An
// administrator's call for shutdown calls end.
func openServer(ctx context.Context, cfg config.Config, log *slog.Logger, end func()) (*server, error) {
	s := &server{cfg: cfg, log: log, end: end}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *server) open(ctx context.Context) error {
	// The runner tells the core of changes, but exists before it.
	var tell struct {
		sync.Mutex
		core  *core.Core
		check func()
	}
	h, err := openHost(ctx, s.cfg, s.log, watchers{
		changed: func(engine.Instance) {
			tell.Lock()
			defer tell.Unlock()
			if tell.check != nil {
				tell.check()
			}
		},
		progress: func(image, text string) {
			tell.Lock()
			defer tell.Unlock()
			if tell.core != nil {
				tell.core.ReportProgress(image, text)
			}
		},
	})
	if err != nil {
		return err
	}
	s.host = h
	s.later(func(context.Context) error { h.close(); return nil })
	if err := s.openCore(ctx); err != nil {
		return err
	}
	rec, err := s.openReconcile(ctx)
	if err != nil {
		return err
	}
	tell.Lock()
	tell.core, tell.check = s.core, rec.Poke
	tell.Unlock()
	s.watchActivity(ctx)
	s.prepareImages(ctx)
	s.tendServices(ctx)
	return s.openGateway(ctx)
}

// later adds what close has to do. A nil error of an earlier one does not keep
// the rest from closing.
func (s *server) later(f func(context.Context) error) { s.closers = append(s.closers, f) }

// close ends the server and leaves sandboxes running.
func (s *server) close(ctx context.Context) error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i](ctx))
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *server) openCore(ctx context.Context) error {
	dsn := s.cfg.DatabaseURL
	if dsn == "" {
		dsn = filepath.Join(s.cfg.Home, "atoll.db")
	}
	db, err := store.Open(ctx, dsn, s.log)
	if err != nil {
		return err
	}
	s.later(func(context.Context) error { return db.Close() })
	bus, err := cluster.Open(ctx, cluster.Config{URL: s.cfg.NATSURL, Log: s.log})
	if err != nil {
		return err
	}
	s.bus = bus
	s.later(func(context.Context) error { bus.Close(); return nil })
	stop, err := bus.Serve(ctx, "runner-"+s.host.id.ID, s.host.runner)
	if err != nil {
		return err
	}
	s.later(func(context.Context) error { stop(); return nil })
	previewKey, err := secretFile(filepath.Join(s.cfg.Home, "preview.key"))
	if err != nil {
		return err
	}
	box, err := s.openBox()
	if err != nil {
		return err
	}
	if err := s.openWebhooks(ctx, db, box); err != nil {
		return err
	}
	policyHosts, err := s.cfg.PolicyVariables()
	if err != nil {
		return err
	}
	proxies, err := s.cfg.ProxyNetworks()
	if err != nil {
		return err
	}
	s.core, err = core.New(core.Config{
		Store: db, Cluster: announcer{bus, s.hooks}, Dialer: s.host.runner, Ledger: s.host.ledger, Secret: previewKey, Box: box, PolicyHosts: policyHosts, OutboundProxies: proxies, Target: s.cfg.Region, Log: s.log,
		OnDemand: []string{image.DesktopRef}, Tools: mcp.Names(),
		Identities: s.identities(), SignUp: s.cfg.OIDCSignUp,
		Doctor: func(ctx context.Context) (engine.Report, error) { return s.host.doctor(ctx) },
	})
	if err != nil {
		return err
	}
	s.later(s.core.Close)
	if s.host.filter != nil {
		s.host.filter.SetResolver(s.core.SecretResolver())
	}
	if err := s.core.EnsureDefaults(ctx, image.DefaultSnapshots()); err != nil {
		return err
	}
	secret, err := s.adminSecret()
	if err != nil {
		return err
	}
	return s.core.Keys().EnsureAdmin(ctx, secret)
}

// openReconcile brings rows and instances together before anybody may call,
// and keeps them so.
func (s *server) openReconcile(ctx context.Context) (*reconcile.Loop, error) {
	loop := reconcile.New(reconcile.Config{Core: s.core, Runners: s.bus, Log: s.log})
	if err := loop.Once(ctx); err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	if err := s.core.FinishSnapshots(ctx); err != nil {
		return nil, fmt.Errorf("finish snapshots: %w", err)
	}
	s.run(ctx, loop.Run)
	return loop, nil
}

// run keeps f going until close, which waits for it.
func (s *server) run(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	s.later(func(context.Context) error { cancel(); <-done; return nil })
}

// prepareImages has the default image ready, beside the server's work: the
// first time on a machine it is built, which takes minutes.
func (s *server) prepareImages(ctx context.Context) {
	s.run(ctx, func(ctx context.Context) {
		if err := s.core.PrepareDefaults(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("default snapshots", "err", err)
		}
		debug.FreeOSMemory() // opening and building took more than serving does
	})
}

func (s *server) openGateway(ctx context.Context) error {
	urls := &previewURLs{Previews: s.core.Previews()}
	// Sessions of agents survive a restart, but not a change of the key.
	sessionKey := sha256.Sum256([]byte("mcp sessions of " + s.cfg.APIKey))
	agents, err := mcp.New(
		mcp.Backend{
			Sandboxes: s.core.Sandboxes(), Snapshots: s.core.Snapshots(), Toolboxes: s.core.Toolboxes(), Inspector: s.core.Inspector(),
			Previews: urls, Activity: s.core.Activity(), Denials: s.core.Access(), Policy: egress.FromNetwork,
			Keys: s.core.Accounts().Keys, Usage: s.core.Accounts().Organizations, Audit: s.core.Accounts().Audit,
		},
		mcp.Options{
			Version: version, Log: s.log, SessionKey: sessionKey[:],
			Principal: func(r *http.Request) (engine.Principal, bool) { return auth.From(r.Context()) },
			Limit:     auth.Count,
			Audit: func(ctx context.Context, e engine.AuditEntry) {
				from := auth.OriginOf(ctx)
				e.IP, e.UserAgent, e.Source = from.IP, from.UserAgent, cmp.Or(from.Source, "mcp")
				s.core.Accounts().Audit.Record(e)
			},
		})
	if err != nil {
		return err
	}
	limits, err := auth.ParseLimits(s.cfg.RateLimits)
	if err != nil {
		return errors.Join(err, agents.Close())
	}
	tlsConfig, err := s.tls()
	if err != nil {
		return errors.Join(err, agents.Close())
	}
	ssh, err := s.openSSH(ctx)
	if err != nil {
		return errors.Join(err, agents.Close())
	}
	front, err := gateway.Open(ctx, gateway.Config{
		SSH: s.core.SSH(), SSHGateway: ssh,
		Listen: s.cfg.Listen, Sandboxes: s.core.Sandboxes(), Snapshots: s.core.Snapshots(), Toolboxes: s.core.Toolboxes(),
		Events: s.core.Events(), Keys: s.core.Keys(), Inspector: s.core.Inspector(), Accounts: s.core.Accounts(), Limits: limits, MCP: agents.Handler(),
		Previews: s.core.Previews(), PreviewDomain: s.cfg.PreviewDomain, PreviewPaths: s.cfg.PreviewURLs == "path", TLS: tlsConfig, Services: s.services(),
		Metrics: s.metrics(), Census: s.core.CountSandboxes, Log: s.log, Shutdown: s.end, PublicURL: s.cfg.PublicURL, Issuer: s.cfg.OIDCIssuer, Version: version, Region: s.cfg.Region,
	})
	if err != nil {
		return errors.Join(err, agents.Close())
	}
	urls.front.Store(front)
	s.later(front.Close)
	// Closed first: an agent's open stream would hold the gateway's end up.
	s.later(func(context.Context) error { return agents.Close() })
	s.url = apiURL(s.cfg, front.Addr().String())
	return s.publishCredentials()
}

// metrics is the registry, with what the host side can tell.
func (s *server) metrics() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(poolCollector{s.host.runner})
	return reg
}

// credentials is the file that tells a local client where and with which key.
type credentials struct {
	URL    string `json:"url"`
	APIKey string `json:"apiKey"`
}

// adminSecret is the administrator's key: as configured, else as stored, else
// a new one, stored before it is used.
func (s *server) adminSecret() (string, error) {
	path := filepath.Join(s.cfg.Home, "credentials.json")
	var c credentials
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", engine.Errorf(engine.KindInvalid, "%s cannot be read", path).WithHint("remove it to have a new key made").Wrap(err)
	}
	if s.cfg.APIKey != "" {
		c.APIKey = s.cfg.APIKey
	}
	if c.APIKey == "" {
		c.APIKey = core.NewSecret()
	}
	s.cfg.APIKey = c.APIKey
	c.URL = apiURL(s.cfg, s.cfg.Listen)
	return c.APIKey, c.write(path)
}

// publishCredentials writes the file with the address that is really served,
// and once more where root's clients find the servers that run now.
func (s *server) publishCredentials() error {
	c := credentials{URL: s.url, APIKey: s.cfg.APIKey}
	return errors.Join(c.write(filepath.Join(s.cfg.Home, "credentials.json")), c.write(filepath.Join(s.host.runDir, "credentials.json")))
}

func (c credentials) write(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), 0o600)
}

// networkLists is doctor's row about the lists of networks and names that
// sandboxes may reach: what enforces them, or why nothing can.
func networkLists(on bool, why error, tcx func() error) engine.Check {
	c := engine.Check{Name: "network lists", OK: on}
	switch {
	case !on:
		c.Detail, c.Fix = "not enforced, and refused", "use Linux 5.12 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and a BPF file system"
		if why != nil {
			c.Detail += ": " + why.Error()
		}
	case tcx() == nil:
		c.Detail = "enforced by programs in the kernel (TCX)"
	default:
		c.Detail = "enforced by programs in the kernel (clsact)"
	}
	return c
}

// doctor is what this host can do, and what the server chose on it.
func (h *host) doctor(ctx context.Context) (engine.Report, error) {
	report := probe.Host(ctx, probe.Options{Home: h.cfg.Home, Runtime: h.cfg.Runtime})
	caps := h.disks.Capabilities()
	report.Checks = append(report.Checks, engine.Check{
		Name: "storage pool", OK: caps.Reflink && caps.HardLimit, Detail: caps.Detail,
	}, networkLists(h.filter != nil, h.unfiltered, probe.TCX), processRecords(h.tracer != nil, h.untraced))
	if c, err := h.driver.Probe(ctx); err == nil {
		report.Checks = append(report.Checks, c.Checks...)
	}
	return report, nil
}
