package wire

import (
	"regexp"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Page is one page of sandboxes. NextCursor is null on the last page.
type Page struct {
	Items      []Item  `json:"items"`
	NextCursor *string `json:"nextCursor"`
	Total      int     `json:"total" doc:"extension: of all pages"`
}

// NumberedPage is one page of the older, page based list.
type NumberedPage struct {
	Items      []Sandbox `json:"items"`
	Total      int       `json:"total"`
	Page       int       `json:"page"`
	TotalPages int       `json:"totalPages"`
}

// Resize is the body of a resize. Absent fields stay.
type Resize struct {
	CPU    *float64 `json:"cpu,omitempty" doc:"cores"`
	Memory *float64 `json:"memory,omitempty" doc:"GiB"`
	Disk   *float64 `json:"disk,omitempty" doc:"GiB"`
	GPU    *int     `json:"gpu,omitempty"`
	PIDs   *int64   `json:"pids,omitempty" doc:"extension: limit of processes"`
}

// Resources returns the engine's request; zero fields stay as they are.
func (r Resize) Resources() (engine.Resources, error) {
	out := engine.Resources{
		CPU: value(r.CPU), MemoryMiB: MiB(value(r.Memory)), DiskMiB: MiB(value(r.Disk)),
		GPU: value(r.GPU), PIDs: value(r.PIDs),
	}
	if out == (engine.Resources{}) {
		return out, engine.Errorf(engine.KindInvalid, "resize needs at least one of cpu, memory and disk")
	}
	if out.CPU < 0 || out.MemoryMiB < 0 || out.DiskMiB < 0 || out.PIDs < 0 || out.GPU < 0 {
		return out, engine.Errorf(engine.KindInvalid, "cpu, memory and disk must not be negative")
	}
	return out, nil
}

// FromResize makes the body that asks for r.
func FromResize(r engine.Resources) Resize {
	return Resize{
		CPU: filled(r.CPU), Memory: filled(GiB(r.MemoryMiB)), Disk: filled(GiB(r.DiskMiB)),
		GPU: filled(r.GPU), PIDs: filled(r.PIDs),
	}
}

// Labels is the body of a change of labels.
type Labels struct {
	Labels map[string]string `json:"labels"`
}

// Network is the body of a change of network settings. Absent fields stay.
type Network struct {
	BlockAll         *bool   `json:"networkBlockAll,omitempty"`
	AllowList        *string `json:"networkAllowList,omitempty"`
	DomainList       *string `json:"domainAllowList,omitempty"`
	OutboundProxyURL *string `json:"outboundProxyUrl,omitempty" doc:"extension"`
}

// Apply returns p with the wished changes.
func (n Network) Apply(p engine.NetworkPolicy) (engine.NetworkPolicy, error) {
	cidrs, domains, err := parseAllowLists(value(n.AllowList), value(n.DomainList))
	if err != nil {
		return p, err
	}
	if n.BlockAll != nil {
		p.BlockAll = *n.BlockAll
	}
	if n.AllowList != nil {
		p.AllowCIDRs = cidrs
	}
	if n.DomainList != nil {
		p.AllowDomains = domains
	}
	if n.OutboundProxyURL != nil {
		p.OutboundProxyURL = *n.OutboundProxyURL
	}
	return p, nil
}

// FromNetwork makes the body that sets all of p.
func FromNetwork(p engine.NetworkPolicy) Network {
	cidrs, domains := strings.Join(p.AllowCIDRs, ","), strings.Join(p.AllowDomains, ",")
	return Network{BlockAll: &p.BlockAll, AllowList: &cidrs, DomainList: &domains, OutboundProxyURL: &p.OutboundProxyURL}
}

// Save is the body that makes a snapshot of a sandbox.
type Save struct {
	Name          string `json:"name"`
	IncludeMemory bool   `json:"includeMemory,omitempty"`
}

// Saved is the answer to Save: the contract's sandbox, and the snapshot.
type Saved struct {
	Sandbox
	SavedSnapshot *Snapshot `json:"savedSnapshot,omitempty" doc:"extension: the new snapshot"`
}

// Fork is the body of a fork.
type Fork struct {
	Name *string `json:"name,omitempty"`
}

// Snapshot is what sandboxes are created from.
type Snapshot struct {
	ID              string   `json:"id"`
	OrganizationID  string   `json:"organizationId,omitempty"`
	General         bool     `json:"general"`
	Name            string   `json:"name"`
	ImageName       string   `json:"imageName,omitempty"`
	State           string   `json:"state"`
	Size            *float64 `json:"size" doc:"GiB"`
	Entrypoint      []string `json:"entrypoint"`
	CPU             float64  `json:"cpu"`
	GPU             float64  `json:"gpu"`
	Mem             float64  `json:"mem" doc:"GiB"`
	Disk            float64  `json:"disk" doc:"GiB"`
	ErrorReason     *string  `json:"errorReason"`
	CreatedAt       string   `json:"createdAt"`
	UpdatedAt       string   `json:"updatedAt"`
	LastUsedAt      *string  `json:"lastUsedAt"`
	RegionIDs       []string `json:"regionIds,omitempty"`
	Ref             string   `json:"ref,omitempty"`
	SourceSandboxID *string  `json:"sourceSandboxId"`
	SandboxClass    string   `json:"sandboxClass,omitempty"`

	// Below are extensions of the contract.

	SizeBytes int64             `json:"sizeBytes,omitempty"`
	User      string            `json:"user,omitempty"`
	WorkDir   string            `json:"workDir,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	DiskID    string            `json:"diskId,omitempty" doc:"the saved disk, for snapshots of sandboxes"`
	RunnerID  string            `json:"runnerId,omitempty"`
	PIDs      int64             `json:"pids,omitempty"`
	Policy    string            `json:"policy,omitempty" doc:"name of the policy that its sandbox was under, and those made from it are"`
	Progress  string            `json:"progress,omitempty" doc:"of a build under way"`
}

// SnapshotPage is one page of snapshots.
type SnapshotPage struct {
	Items      []Snapshot `json:"items"`
	Total      int        `json:"total"`
	Page       int        `json:"page"`
	TotalPages int        `json:"totalPages"`
}

// FromSnapshot makes the wire's shape of a snapshot.
func FromSnapshot(s engine.Snapshot) Snapshot {
	d := Snapshot{
		ID: s.ID, OrganizationID: s.OrganizationID, General: s.General, Name: s.Name, ImageName: s.Image,
		State: string(s.State), Entrypoint: s.Entrypoint, CPU: s.Resources.CPU, GPU: float64(s.Resources.GPU),
		Mem: GiB(s.Resources.MemoryMiB), Disk: GiB(s.Resources.DiskMiB), PIDs: s.Resources.PIDs,
		ErrorReason: filled(s.Error), CreatedAt: Time(s.CreatedAt), UpdatedAt: Time(s.UpdatedAt),
		LastUsedAt: optionalTime(s.LastUsedAt), Ref: s.ImageDigest, SourceSandboxID: filled(s.SourceSandbox),
		SandboxClass: string(engine.ClassContainer),
		SizeBytes:    s.SizeBytes, User: s.User, WorkDir: s.WorkDir, Env: s.Env, DiskID: s.Disk, RunnerID: s.Runner,
		Policy: s.Policy, Progress: s.Progress,
	}
	if s.SizeBytes > 0 {
		d.Size = filled(float64(s.SizeBytes) / (1 << 30))
	}
	return d
}

// Snapshot returns the engine's snapshot that d was made of.
func (d Snapshot) Snapshot() engine.Snapshot {
	return engine.Snapshot{
		ID: d.ID, OrganizationID: d.OrganizationID, Name: d.Name, General: d.General,
		State: engine.SnapshotState(d.State), Image: d.ImageName, ImageDigest: d.Ref, Disk: d.DiskID, Runner: d.RunnerID,
		User: d.User, WorkDir: d.WorkDir, Env: d.Env, Entrypoint: d.Entrypoint,
		Resources: engine.Resources{CPU: d.CPU, GPU: int(d.GPU), MemoryMiB: MiB(d.Mem), DiskMiB: MiB(d.Disk), PIDs: d.PIDs},
		SizeBytes: d.SizeBytes, SourceSandbox: value(d.SourceSandboxID), Error: value(d.ErrorReason), Policy: d.Policy, Progress: d.Progress,
		CreatedAt: ParseTime(d.CreatedAt), UpdatedAt: ParseTime(d.UpdatedAt), LastUsedAt: parseOptionalTime(d.LastUsedAt),
	}
}

// CreateSnapshot is the body that makes a snapshot of an image.
type CreateSnapshot struct {
	Name       string           `json:"name"`
	ImageName  *string          `json:"imageName,omitempty"`
	Entrypoint []string         `json:"entrypoint,omitempty"`
	CPU        *float64         `json:"cpu,omitempty"`
	GPU        *int             `json:"gpu,omitempty"`
	Memory     *float64         `json:"memory,omitempty" doc:"GiB"`
	Disk       *float64         `json:"disk,omitempty" doc:"GiB"`
	BuildInfo  *CreateBuildInfo `json:"buildInfo,omitempty"`
	RegionID   *string          `json:"regionId,omitempty"`

	// Below are extensions of the contract.

	PIDs     *int64  `json:"pids,omitempty"`
	Username *string `json:"username,omitempty" doc:"of the image's registry"`
	Password *string `json:"password,omitempty"`
}

var (
	snapshotName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/-]*$`)
	tagged       = regexp.MustCompile(`(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})$`)
)

// Request checks the wire's rules and returns the engine's request.
func (c CreateSnapshot) Request(organization string) (engine.CreateSnapshot, error) {
	image, err := c.image()
	if err != nil {
		return engine.CreateSnapshot{}, err
	}
	if err := CheckSnapshotName(c.Name); err != nil {
		return engine.CreateSnapshot{}, err
	}
	return engine.CreateSnapshot{
		OrganizationID: organization, Name: c.Name, Image: image, Entrypoint: c.Entrypoint,
		Resources: engine.Resources{
			CPU: value(c.CPU), GPU: value(c.GPU), MemoryMiB: MiB(value(c.Memory)), DiskMiB: MiB(value(c.Disk)), PIDs: value(c.PIDs),
		},
		Username: value(c.Username), Password: value(c.Password),
	}, nil
}

func (c CreateSnapshot) image() (string, error) {
	if (c.ImageName == nil) == (c.BuildInfo == nil) {
		return "", engine.Errorf(engine.KindInvalid, "exactly one of imageName and buildInfo is needed")
	}
	if c.BuildInfo != nil {
		return c.BuildInfo.Image()
	}
	image := *c.ImageName
	if !tagged.MatchString(image) || strings.HasSuffix(image, ":latest") {
		return "", engine.Errorf(engine.KindInvalid, "imageName: %q has no tag or digest that stays the same", image).
			WithHint("name a version, as debian:12.5")
	}
	return image, nil
}

// CheckSnapshotName tells whether a snapshot may have this name.
func CheckSnapshotName(name string) error {
	if len(name) > 255 || !snapshotName.MatchString(name) {
		return engine.Errorf(engine.KindInvalid, "name: %q is no name for a snapshot", name).
			WithHint("use letters, digits and . _ - : /")
	}
	return nil
}

// FromCreateSnapshot makes the body that asks for req.
func FromCreateSnapshot(req engine.CreateSnapshot) CreateSnapshot {
	return CreateSnapshot{
		Name: req.Name, ImageName: &req.Image, Entrypoint: req.Entrypoint,
		CPU: filled(req.Resources.CPU), GPU: filled(req.Resources.GPU), PIDs: filled(req.Resources.PIDs),
		Memory: filled(GiB(req.Resources.MemoryMiB)), Disk: filled(GiB(req.Resources.DiskMiB)),
		Username: filled(req.Username), Password: filled(req.Password),
	}
}

// Stats is one sample of a sandbox's use.
type Stats struct {
	Time        string  `json:"time"`
	CPUNanos    uint64  `json:"cpuNanos" doc:"since start"`
	MemoryBytes uint64  `json:"memoryBytes"`
	PIDs        uint64  `json:"pids"`
	DiskBytes   uint64  `json:"diskBytes" doc:"used on the writable disk"`
	OOMKills    uint64  `json:"oomKills"`
	LastOOM     *string `json:"lastOom,omitempty"`
}

// FromStats makes the wire's shape of a sample.
func FromStats(s engine.Stats) Stats {
	return Stats{
		Time: Time(s.Time), CPUNanos: s.CPUNanos, MemoryBytes: s.MemoryBytes, PIDs: s.PIDs,
		DiskBytes: s.DiskBytes, OOMKills: s.OOMKills, LastOOM: optionalTime(s.LastOOM),
	}
}

// Stats returns the engine's sample.
func (d Stats) Stats() engine.Stats {
	return engine.Stats{
		Time: ParseTime(d.Time), CPUNanos: d.CPUNanos, MemoryBytes: d.MemoryBytes, PIDs: d.PIDs,
		DiskBytes: d.DiskBytes, OOMKills: d.OOMKills, LastOOM: parseOptionalTime(d.LastOOM),
	}
}

// Report is what the host can do.
type Report struct {
	Checks []Check `json:"checks"`
}

// Check is one line of a Report.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// FromReport makes the wire's shape of a report.
func FromReport(r engine.Report) Report {
	out := Report{Checks: make([]Check, len(r.Checks))}
	for i, c := range r.Checks {
		out.Checks[i] = Check(c)
	}
	return out
}

// Report returns the engine's report.
func (d Report) Report() engine.Report {
	var out engine.Report
	for _, c := range d.Checks {
		out.Checks = append(out.Checks, engine.Check(c))
	}
	return out
}

// Event is one change.
type Event struct {
	ID             string                `json:"id,omitempty"`
	Type           string                `json:"type"`
	OrganizationID string                `json:"organizationId"`
	Time           time.Time             `json:"time"`
	Sandbox        *Sandbox              `json:"sandbox,omitempty"`
	Snapshot       *Snapshot             `json:"snapshot,omitempty"`
	Access         *engine.AccessRequest `json:"access,omitempty"`
	Old            string                `json:"oldState,omitempty"`
	New            string                `json:"newState,omitempty"`
}

// FromEvent makes the wire's shape of an event.
func FromEvent(e engine.Event, toolboxURL string) Event {
	d := Event{ID: e.ID, Type: e.Type, OrganizationID: e.OrganizationID, Time: e.Time, Access: e.Access, Old: e.Old, New: e.New}
	if e.Sandbox != nil {
		s := FromSandbox(*e.Sandbox, toolboxURL)
		d.Sandbox = &s
	}
	if e.Snapshot != nil {
		s := FromSnapshot(*e.Snapshot)
		d.Snapshot = &s
	}
	return d
}

// Event returns the engine's event.
func (d Event) Event() engine.Event {
	e := engine.Event{ID: d.ID, Type: d.Type, OrganizationID: d.OrganizationID, Time: d.Time, Access: d.Access, Old: d.Old, New: d.New}
	if d.Sandbox != nil {
		s := d.Sandbox.Sandbox()
		e.Sandbox = &s
	}
	if d.Snapshot != nil {
		s := d.Snapshot.Snapshot()
		e.Snapshot = &s
	}
	return e
}
