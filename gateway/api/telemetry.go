package api

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type metricSeries struct {
	Name   string        `json:"metricName"`
	Points []metricPoint `json:"dataPoints"`
}

type metricPoint struct {
	Timestamp string  `json:"timestamp"`
	Value     float64 `json:"value"`
}

type metricsAnswer struct {
	Series []metricSeries `json:"series"`
}

// metric is one series that can be asked for.
type metric struct {
	name string
	of   func(engine.Sample) float64
}

// metrics are the contract's names. Sizes are bytes, utilization is percent of
// the limit, the limit of the processor is in cores.
func metrics() []metric {
	return []metric{
		{"daytona.sandbox.cpu.utilization", func(s engine.Sample) float64 { return percent(s.CPU, s.CPULimit) }},
		{"daytona.sandbox.cpu.limit", func(s engine.Sample) float64 { return s.CPULimit }},
		{"daytona.sandbox.memory.usage", func(s engine.Sample) float64 { return float64(s.MemoryBytes) }},
		{"daytona.sandbox.memory.limit", func(s engine.Sample) float64 { return float64(s.MemoryLimit) }},
		{"daytona.sandbox.memory.cache", func(s engine.Sample) float64 { return float64(s.CacheBytes) }},
		{"daytona.sandbox.filesystem.usage", func(s engine.Sample) float64 { return float64(s.DiskBytes) }},
		{"daytona.sandbox.filesystem.total", func(s engine.Sample) float64 { return float64(s.DiskTotal) }},
	}
}

func percent(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole * 100
}

// registerTelemetry leaves logs and traces out: nothing collects them, and an
// empty page would say that there were none.
func (a *API) registerTelemetry() {
	handle(a, "GET", "/sandbox/{sandboxId}/telemetry/metrics", "What a sandbox used in the last day", a.metrics)
}

type metricsInput struct {
	SandboxID
	From  time.Time `query:"from" required:"true"`
	To    time.Time `query:"to" required:"true"`
	Names []string  `query:"metricNames,explode" doc:"empty: all; unknown ones have no points"`
}

// maxMetrics bounds the names of one request.
const maxMetrics = 64

func (a *API) metrics(ctx context.Context, in *metricsInput) (metricsAnswer, error) {
	if len(in.Names) > maxMetrics {
		return metricsAnswer{}, engine.Errorf(engine.KindInvalid, "metricNames has %d entries", len(in.Names)).WithHint("use at most %d", maxMetrics)
	}
	samples, err := a.Services.History.Samples(ctx, ref(ctx, in.ID), in.From, in.To)
	if err != nil {
		return metricsAnswer{}, err
	}
	out := metricsAnswer{Series: []metricSeries{}}
	for _, m := range metrics() {
		if oneOf(in.Names, m.name) {
			out.Series = append(out.Series, m.series(samples))
		}
	}
	return out, nil
}

func (m metric) series(samples []engine.Sample) metricSeries {
	s := metricSeries{Name: m.name, Points: make([]metricPoint, len(samples))}
	for i, sample := range samples {
		s.Points[i] = metricPoint{wire.Time(sample.Time), m.of(sample)}
	}
	return s
}
