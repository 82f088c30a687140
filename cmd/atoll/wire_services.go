package main

import (
	"context"
	"path/filepath"
	"strconv"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/cluster"
	"github.com/atoll-sh/atoll/engine/runner"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/engine/webhook"
)

// openBox reads the keys that secrets are sealed with. Only the file of the
// home is made when it is absent: one that was named must exist, because a
// fresh key would not open what other servers sealed.
func (s *server) openBox() (*secret.Box, error) {
	if s.cfg.SecretKeyFile != "" {
		return secret.OpenFile(s.cfg.SecretKeyFile, false)
	}
	return secret.OpenFile(filepath.Join(s.cfg.Home, "secret.key"), true)
}

func (s *server) openWebhooks(ctx context.Context, db *store.Store, box *secret.Box) (err error) {
	s.hooks, err = webhook.Open(ctx, webhook.Config{Store: db, Box: box, Private: s.cfg.WebhooksPrivate, Log: s.log})
	if err == nil {
		s.later(func(context.Context) error { s.hooks.Close(); return nil })
	}
	return err
}

// announcer is a cluster whose events go to webhooks too. It is told by the
// server that made a change, so that of several servers one sends it.
type announcer struct {
	*cluster.Cluster
	hooks *webhook.Service
}

// Publish gives the event the name under which both know it.
func (a announcer) Publish(e engine.Event) {
	e.ID = ulid.Make().String()
	a.Cluster.Publish(e)
	a.hooks.Notify(e)
}

// services is what the server offers beside sandboxes.
func (s *server) services() engine.Services {
	return engine.Services{
		Secrets: s.core.Secrets(), Registries: s.core.Registries(), Catalog: s.core.Catalog(),
		WarmPools: s.core.WarmPools(), History: s.core.History(), Webhooks: s.hooks, Messages: s.hooks.Messages(), Activity: s.core.Activity(), Policies: s.core.Policies(),
		Access: s.core.Access(), Learner: s.core.Learner(),
	}
}

// tendServices keeps going what the services need, and does once what a start
// of the server is the moment for.
func (s *server) tendServices(ctx context.Context) {
	s.run(ctx, s.core.TendPools)
	s.run(ctx, func(ctx context.Context) {
		n, err := s.core.Resealed(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("secrets not sealed anew", "err", err)
		}
		if n > 0 {
			s.log.Info("secrets sealed with the new key", "count", n)
		}
	})
}

// poolCollector tells how many warm members this host's runner has and wants.
type poolCollector struct{ runner *runner.Runner }

var (
	poolReady  = prometheus.NewDesc("atoll_pool_ready", "Warm sandboxes that wait to be claimed.", []string{"image", "disk", "disk_mib"}, nil)
	poolWanted = prometheus.NewDesc("atoll_pool_wanted", "Warm sandboxes that shall wait to be claimed.", []string{"image", "disk", "disk_mib"}, nil)
)

// Describe implements prometheus.Collector.
func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- poolReady
	ch <- poolWanted
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	pools, err := c.runner.Pools(context.Background())
	if err != nil {
		return
	}
	for _, p := range pools {
		labels := []string{p.Image, p.Disk, strconv.FormatInt(p.DiskMiB, 10)}
		ch <- prometheus.MustNewConstMetric(poolReady, prometheus.GaugeValue, float64(p.Ready), labels...)
		ch <- prometheus.MustNewConstMetric(poolWanted, prometheus.GaugeValue, float64(p.Size), labels...)
	}
}
