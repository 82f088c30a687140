package wire

import (
	"regexp"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// CreateSandbox is the body of a create. Pointers tell absent from zero.
type CreateSandbox struct {
	Name                 *string             `json:"name,omitempty" doc:"unique; the id when absent"`
	Snapshot             *string             `json:"snapshot,omitempty" doc:"id or name"`
	User                 *string             `json:"user,omitempty"`
	Env                  map[string]string   `json:"env,omitempty"`
	Labels               map[string]string   `json:"labels,omitempty"`
	Public               *bool               `json:"public,omitempty"`
	NetworkBlockAll      *bool               `json:"networkBlockAll,omitempty"`
	NetworkAllowList     *string             `json:"networkAllowList,omitempty"`
	DomainAllowList      *string             `json:"domainAllowList,omitempty"`
	OutboundProxyURL     *string             `json:"outboundProxyUrl,omitempty"`
	OtelEndpointOverride *string             `json:"otelEndpointOverride,omitempty"`
	Target               *string             `json:"target,omitempty"`
	CPU                  *float64            `json:"cpu,omitempty" doc:"cores"`
	GPU                  *int                `json:"gpu,omitempty"`
	Spot                 *bool               `json:"spot,omitempty"`
	Memory               *float64            `json:"memory,omitempty" doc:"GiB"`
	Disk                 *float64            `json:"disk,omitempty" doc:"GiB"`
	AutoStopInterval     *float64            `json:"autoStopInterval,omitempty" doc:"minutes"`
	AutoPauseInterval    *float64            `json:"autoPauseInterval,omitempty" doc:"minutes"`
	AutoArchiveInterval  *float64            `json:"autoArchiveInterval,omitempty" doc:"minutes"`
	AutoDeleteInterval   *float64            `json:"autoDeleteInterval,omitempty" doc:"minutes"`
	TTLMinutes           *float64            `json:"ttlMinutes,omitempty"`
	Volumes              []Volume            `json:"volumes,omitempty"`
	BuildInfo            *CreateBuildInfo    `json:"buildInfo,omitempty"`
	LinkedSandbox        *string             `json:"linkedSandbox,omitempty"`
	Secrets              []map[string]string `json:"secrets,omitempty"`

	// Below are extensions of the contract.

	Image          *string    `json:"image,omitempty" doc:"OCI reference to create from, instead of a snapshot"`
	Policy         *string    `json:"policy,omitempty" doc:"name of the policy to be under; clients that cannot send it set the label atoll.policy"`
	Class          *string    `json:"class,omitempty" enum:"container,gvisor,linux-vm"`
	Cold           bool       `json:"cold,omitempty" doc:"claim no ready sandbox"`
	Resources      *Resources `json:"resources,omitempty" doc:"exact limits, also over those of a snapshot"`
	IdempotencyKey *string    `json:"idempotencyKey,omitempty" doc:"a repeated call answers with the first one's sandbox"`
}

// CreateBuildInfo asks for an image to be built.
type CreateBuildInfo struct {
	DockerfileContent string   `json:"dockerfileContent"`
	ContextHashes     []string `json:"contextHashes,omitempty"`
}

// Resources is exact limits. Zero fields are the snapshot's.
type Resources struct {
	CPU       float64 `json:"cpu,omitempty"`
	MemoryMiB int64   `json:"memoryMiB,omitempty"`
	DiskMiB   int64   `json:"diskMiB,omitempty"`
	GPU       int     `json:"gpu,omitempty"`
	PIDs      int64   `json:"pids,omitempty"`
}

// Defaults of the contract for the timers of a new sandbox.
const (
	defaultAutoStop    = 15 * time.Minute
	defaultAutoArchive = 7 * 24 * time.Hour
	// MaxAutoArchive is what an interval of 0 means.
	MaxAutoArchive = 30 * 24 * time.Hour
)

// Request checks the wire's rules and returns the engine's request for the
// organization. What the engine checks itself is left to it.
func (c CreateSandbox) Request(organization string) (engine.CreateSandbox, error) {
	req := engine.CreateSandbox{
		OrganizationID: organization,
		Name:           value(c.Name), Snapshot: value(c.Snapshot), Image: value(c.Image), User: value(c.User),
		Env: c.Env, Labels: c.Labels, Public: value(c.Public), Target: value(c.Target),
		Policy: value(c.Policy), Class: engine.Class(value(c.Class)), Cold: c.Cold, IdempotencyKey: value(c.IdempotencyKey),
	}
	for _, step := range []func(*engine.CreateSandbox) error{c.unbuilt, c.image, c.resources, c.network, c.lifecycle, c.secrets} {
		if err := step(&req); err != nil {
			return engine.CreateSandbox{}, err
		}
	}
	return req, nil
}

// unbuilt refuses what this server cannot honour yet: ignoring a wish for a
// volume would be worse than an error.
func (c CreateSandbox) unbuilt(*engine.CreateSandbox) error {
	for name, asked := range map[string]bool{
		"volumes":              len(c.Volumes) > 0,
		"linkedSandbox":        value(c.LinkedSandbox) != "",
		"otelEndpointOverride": value(c.OtelEndpointOverride) != "",
		"spot":                 value(c.Spot),
	} {
		if asked {
			return NotBuilt(name)
		}
	}
	switch {
	case value(c.AutoPauseInterval) != 0 && value(c.AutoStopInterval) != 0:
		return engine.Errorf(engine.KindInvalid, "autoStopInterval and autoPauseInterval are both set").WithHint("set one of them")
	case value(c.AutoPauseInterval) != 0:
		return ErrNoPause()
	}
	return nil
}

// ErrNoPause is the error of a wish to pause.
func ErrNoPause() *engine.Error {
	return engine.Errorf(engine.KindUnsupported, "autoPauseInterval: this class of sandbox cannot be paused").
		WithHint("use autoStopInterval")
}

// NotBuilt is the error of a field or operation that is not there yet.
func NotBuilt(what string) *engine.Error {
	e := engine.Errorf(engine.KindUnsupported, "%s is not built yet", what)
	e.Code = CodeNotBuilt
	return e
}

func (c CreateSandbox) image(req *engine.CreateSandbox) error {
	if c.BuildInfo == nil {
		return nil
	}
	if req.Snapshot != "" {
		return engine.Errorf(engine.KindInvalid, "snapshot and buildInfo exclude each other")
	}
	ref, err := c.BuildInfo.Image()
	req.Image = ref
	return err
}

var fromLine = regexp.MustCompile(`(?i)^FROM\s+(\S+)$`)

// Image returns the reference of a build that is nothing but an image, which
// is how clients spell "create from this image".
func (b CreateBuildInfo) Image() (string, error) {
	m := fromLine.FindStringSubmatch(strings.TrimSpace(b.DockerfileContent))
	if m == nil || len(b.ContextHashes) > 0 {
		return "", NotBuilt("buildInfo with more than a FROM line").
			WithHint("push the image to a registry and name it, or make a snapshot of a sandbox")
	}
	return m[1], nil
}

func (c CreateSandbox) resources(req *engine.CreateSandbox) error {
	if c.CPU != nil || c.GPU != nil || c.Memory != nil || c.Disk != nil {
		if req.Snapshot != "" {
			return engine.Errorf(engine.KindInvalid, "Cannot specify Sandbox resources when using a snapshot").
				WithHint("leave cpu, memory, disk and gpu out, or resize later")
		}
		req.Resources = engine.Resources{
			CPU: value(c.CPU), GPU: value(c.GPU), MemoryMiB: MiB(value(c.Memory)), DiskMiB: MiB(value(c.Disk)),
		}
	}
	if r := c.Resources; r != nil {
		req.Resources = engine.Resources(*r)
	}
	if r := req.Resources; r.CPU < 0 || r.MemoryMiB < 0 || r.DiskMiB < 0 || r.GPU < 0 || r.PIDs < 0 {
		return engine.Errorf(engine.KindInvalid, "cpu, memory, disk and gpu must not be negative")
	}
	return nil
}

func (c CreateSandbox) network(req *engine.CreateSandbox) error {
	cidrs, domains, err := parseAllowLists(value(c.NetworkAllowList), value(c.DomainAllowList))
	req.Network = engine.NetworkPolicy{
		BlockAll: value(c.NetworkBlockAll), AllowCIDRs: cidrs, AllowDomains: domains,
		OutboundProxyURL: value(c.OutboundProxyURL),
	}
	return err
}

func (c CreateSandbox) secrets(req *engine.CreateSandbox) (err error) {
	if len(c.Secrets) > 0 {
		req.Secrets, err = Attachments(c.Secrets)
	}
	return err
}

func (c CreateSandbox) lifecycle(req *engine.CreateSandbox) error {
	if c.AutoStopInterval == nil && c.AutoArchiveInterval == nil && c.AutoDeleteInterval == nil && c.TTLMinutes == nil {
		return nil
	}
	l := engine.Lifecycle{AutoStop: defaultAutoStop, AutoArchive: defaultAutoArchive, AutoDelete: -time.Minute}
	for _, t := range []struct {
		name string
		from *float64
		to   *time.Duration
		conv func(string, float64) (time.Duration, error)
	}{
		{"autoStopInterval", c.AutoStopInterval, &l.AutoStop, Interval},
		{"autoArchiveInterval", c.AutoArchiveInterval, &l.AutoArchive, ArchiveInterval},
		{"autoDeleteInterval", c.AutoDeleteInterval, &l.AutoDelete, DeleteInterval},
		{"ttlMinutes", c.TTLMinutes, &l.TTL, Interval},
	} {
		if t.from == nil {
			continue
		}
		d, err := t.conv(t.name, *t.from)
		if err != nil {
			return err
		}
		*t.to = d
	}
	req.Lifecycle = &l
	return nil
}

const maxMinutes = 100 * 365 * 24 * 60

// Interval checks a timer in minutes; 0 is off.
func Interval(name string, minutes float64) (time.Duration, error) {
	if minutes < 0 || minutes > maxMinutes {
		return 0, engine.Errorf(engine.KindInvalid, "%s must be 0 (off) or a number of minutes", name)
	}
	return Minutes(minutes), nil
}

// ArchiveInterval checks the archive timer; 0 is the longest.
func ArchiveInterval(name string, minutes float64) (time.Duration, error) {
	d, err := Interval(name, minutes)
	if err == nil && d > MaxAutoArchive {
		return 0, engine.Errorf(engine.KindInvalid, "%s is at most %.0f minutes", name, MaxAutoArchive.Minutes())
	}
	if d == 0 {
		d = MaxAutoArchive
	}
	return d, err
}

// DeleteInterval checks the delete timer; negative is off, 0 deletes at stop.
func DeleteInterval(name string, minutes float64) (time.Duration, error) {
	if minutes < 0 {
		return -time.Minute, nil
	}
	return Interval(name, minutes)
}

// FromCreate makes the body that asks for req.
func FromCreate(req engine.CreateSandbox) CreateSandbox {
	c := CreateSandbox{
		Name: filled(req.Name), Snapshot: filled(req.Snapshot), Image: filled(req.Image), User: filled(req.User),
		Env: req.Env, Labels: req.Labels, Public: filled(req.Public), Target: filled(req.Target),
		Policy: filled(req.Policy), Class: filled(string(req.Class)), Cold: req.Cold, IdempotencyKey: filled(req.IdempotencyKey),
		NetworkBlockAll:  filled(req.Network.BlockAll),
		NetworkAllowList: filled(strings.Join(req.Network.AllowCIDRs, ",")),
		DomainAllowList:  filled(strings.Join(req.Network.AllowDomains, ",")),
		OutboundProxyURL: filled(req.Network.OutboundProxyURL),
	}
	if req.Resources != (engine.Resources{}) {
		r := Resources(req.Resources)
		c.Resources = &r
	}
	if len(req.Secrets) > 0 {
		c.Secrets = []map[string]string{req.Secrets}
	}
	if l := req.Lifecycle; l != nil {
		c.AutoStopInterval = minutes(l.AutoStop)
		c.AutoArchiveInterval = minutes(l.AutoArchive)
		c.AutoDeleteInterval = minutes(l.AutoDelete)
		c.TTLMinutes = minutes(l.TTL)
	}
	return c
}

func minutes(d time.Duration) *float64 {
	m := d.Minutes()
	return &m
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// filled returns nil for the zero value, so that it is left out.
func filled[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
