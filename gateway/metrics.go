package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
)

// metrics holds what the gateway measures.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	creates  *prometheus.HistogramVec
	stages   *prometheus.HistogramVec
}

func newMetrics(reg *prometheus.Registry, census func(context.Context) (map[engine.State]int, error)) (*metrics, error) {
	m := &metrics{
		registry: reg,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "atoll_http_request_duration_seconds", Help: "Time of HTTP requests by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 12),
		}, []string{"method", "route", "code"}),
		creates: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "atoll_sandbox_create_duration_seconds", Help: "Time of successful creates; start is warm or cold.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"start"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "atoll_sandbox_create_stage_duration_seconds", Help: "Time of each stage of creates.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 12),
		}, []string{"stage", "start"}),
	}
	all := []prometheus.Collector{m.requests, m.creates, m.stages}
	if census != nil {
		all = append(all, newStates(census))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(method, route string, code int, took time.Duration) {
	m.requests.WithLabelValues(known(method), route, strconv.Itoa(code)).Observe(took.Seconds())
}

// known keeps invented methods from making ever new time series.
func known(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}

func (m *metrics) created(s engine.Sandbox, took time.Duration) {
	start := "cold"
	if s.Warm {
		start = "warm"
	}
	m.creates.WithLabelValues(start).Observe(took.Seconds())
	for _, st := range s.Timing {
		m.stages.WithLabelValues(st.Name, start).Observe(st.Took.Seconds())
	}
}

// guardMetrics serves metrics to anybody on this machine and to administrators:
// they tell of every organization.
func (s *Server) guardMetrics(g *auth.Guard) http.HandlerFunc {
	h := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	keyed := g.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := auth.From(r.Context())
		if err := auth.Permit(p, auth.PermissionAdmin); err != nil {
			writeError(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	}))
	return func(w http.ResponseWriter, r *http.Request) {
		if auth.Local(r) && r.Header.Get("Authorization") == "" {
			h.ServeHTTP(w, r)
			return
		}
		keyed.ServeHTTP(w, r)
	}
}

// states counts the sandboxes of all organizations by state when it is asked.
type states struct {
	census func(context.Context) (map[engine.State]int, error)
	desc   *prometheus.Desc
}

func newStates(census func(context.Context) (map[engine.State]int, error)) *states {
	return &states{census: census, desc: prometheus.NewDesc("atoll_sandboxes", "Sandboxes by state.", []string{"state"}, nil)}
}

// Describe implements prometheus.Collector.
func (s *states) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

// Collect implements prometheus.Collector.
func (s *states) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	counts, err := s.census(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(s.desc, err)
		return
	}
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), string(state))
	}
}
