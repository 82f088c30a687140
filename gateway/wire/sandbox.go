package wire

import (
	"net/netip"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Item is a sandbox in a list. Fields without omitempty are required by the
// contract; strict clients refuse an answer that lacks one.
type Item struct {
	ID                  string            `json:"id"`
	OrganizationID      string            `json:"organizationId"`
	Name                string            `json:"name"`
	Target              string            `json:"target"`
	RunnerID            string            `json:"runnerId,omitempty"`
	SandboxClass        string            `json:"sandboxClass,omitempty" doc:"container or linux-vm"`
	State               string            `json:"state,omitempty"`
	DesiredState        string            `json:"desiredState,omitempty"`
	Snapshot            string            `json:"snapshot,omitempty"`
	User                string            `json:"user"`
	ErrorReason         string            `json:"errorReason,omitempty"`
	Recoverable         bool              `json:"recoverable,omitempty"`
	Public              bool              `json:"public"`
	NetworkBlockAll     bool              `json:"networkBlockAll"`
	NetworkAllowList    string            `json:"networkAllowList,omitempty" doc:"comma-separated CIDRs"`
	DomainAllowList     string            `json:"domainAllowList,omitempty" doc:"comma-separated names"`
	CPU                 float64           `json:"cpu" doc:"cores"`
	GPU                 float64           `json:"gpu"`
	Memory              float64           `json:"memory" doc:"GiB"`
	Disk                float64           `json:"disk" doc:"GiB"`
	Labels              map[string]string `json:"labels"`
	AutoStopInterval    float64           `json:"autoStopInterval" doc:"minutes; 0 is off"`
	AutoPauseInterval   float64           `json:"autoPauseInterval"`
	AutoArchiveInterval float64           `json:"autoArchiveInterval" doc:"minutes"`
	AutoDeleteInterval  float64           `json:"autoDeleteInterval" doc:"minutes; 0 deletes at stop, negative is off"`
	AutoDestroyAt       string            `json:"autoDestroyAt,omitempty"`
	CreatedAt           string            `json:"createdAt,omitempty"`
	UpdatedAt           string            `json:"updatedAt,omitempty"`
	LastActivityAt      string            `json:"lastActivityAt,omitempty"`
	ToolboxProxyURL     string            `json:"toolboxProxyUrl"`

	// Below are extensions of the contract.

	Policy          string  `json:"policy,omitempty" doc:"name of the policy that the sandbox is under"`
	Class           string  `json:"class,omitempty" doc:"isolation class, also where the contract has no word for it"`
	Incarnation     uint64  `json:"incarnation,omitempty" doc:"counts the starts"`
	ImageDigest     string  `json:"imageDigest,omitempty"`
	ParentSandboxID string  `json:"parentSandboxId,omitempty" doc:"the sandbox this one was forked from"`
	StoppedAt       string  `json:"stoppedAt,omitempty"`
	TTLMinutes      float64 `json:"ttlMinutes,omitempty"`
	PIDs            int64   `json:"pids,omitempty" doc:"limit of processes"`
}

// Sandbox is a whole sandbox: an Item and what lists leave out. Clients tell
// the two apart by the env field.
type Sandbox struct {
	Item
	Env              map[string]string `json:"env"`
	KVM              bool              `json:"kvm" doc:"whether the sandbox has /dev/kvm; required by SDKs since 0.218"`
	OutboundProxyURL string            `json:"outboundProxyUrl,omitempty"`
	Volumes          []Volume          `json:"volumes,omitempty"`

	Secrets map[string]string `json:"secrets,omitempty" doc:"extension: ids of secrets by environment variable"`

	NetworkGrants []engine.NetworkGrant `json:"networkGrants,omitempty" doc:"extension: what operators allowed beside the network settings"`
	Learning      *engine.Learning      `json:"learning,omitempty" doc:"extension: when the network was, or is, open to learn a policy"`

	Timing []Stage `json:"timing,omitempty" doc:"stages of the create or start that this answers"`
	Warm   *bool   `json:"warm,omitempty" doc:"whether a ready sandbox was claimed; with timing"`
	Usage  *Stats  `json:"usage,omitempty" doc:"present with verbose=true"`
}

// Volume is a mounted volume.
type Volume struct {
	VolumeID  string `json:"volumeId"`
	MountPath string `json:"mountPath"`
	Subpath   string `json:"subpath,omitempty"`
}

// Stage is one step of a create.
type Stage struct {
	Name    string  `json:"name"`
	StartMs float64 `json:"startMs" doc:"since the request arrived"`
	TookMs  float64 `json:"tookMs"`
}

// FromItem makes the list shape of a sandbox. toolboxURL is the base that the
// client appends the id to.
func FromItem(s engine.Sandbox, toolboxURL string) Item {
	return Item{
		ID: s.ID, OrganizationID: s.OrganizationID, Name: s.Name,
		Target: s.Target, RunnerID: s.Runner,
		SandboxClass: contractClass(s.Class), State: string(s.State), DesiredState: string(s.Desired),
		Snapshot: s.Snapshot, User: s.User, ErrorReason: s.Error, Recoverable: s.Recoverable,
		Public:          s.Public,
		NetworkBlockAll: s.Network.BlockAll, NetworkAllowList: strings.Join(s.Network.AllowCIDRs, ","),
		DomainAllowList: strings.Join(s.Network.AllowDomains, ","),
		CPU:             s.Resources.CPU, GPU: float64(s.Resources.GPU),
		Memory: GiB(s.Resources.MemoryMiB), Disk: GiB(s.Resources.DiskMiB), PIDs: s.Resources.PIDs,
		Labels:              notNil(s.Labels),
		AutoStopInterval:    s.Lifecycle.AutoStop.Minutes(),
		AutoArchiveInterval: s.Lifecycle.AutoArchive.Minutes(),
		AutoDeleteInterval:  deleteMinutes(s.Lifecycle.AutoDelete),
		TTLMinutes:          s.Lifecycle.TTL.Minutes(), AutoDestroyAt: destroyAt(s),
		CreatedAt: Time(s.CreatedAt), UpdatedAt: Time(s.UpdatedAt), LastActivityAt: Time(s.LastActive),
		StoppedAt: Time(s.StoppedAt), ToolboxProxyURL: toolboxURL,
		Policy: s.Policy, Class: string(s.Class), Incarnation: s.Incarnation, ImageDigest: s.ImageDigest, ParentSandboxID: s.Parent,
	}
}

// FromSandbox makes the full shape of a sandbox.
func FromSandbox(s engine.Sandbox, toolboxURL string) Sandbox {
	d := Sandbox{Item: FromItem(s, toolboxURL), Env: notNil(s.Env), Secrets: s.Secrets, OutboundProxyURL: s.Network.OutboundProxyURL, NetworkGrants: s.Network.Grants, Learning: s.Learning}
	if len(s.Timing) > 0 {
		warm := s.Warm
		d.Warm = &warm
		d.Timing = fromStages(s.Timing)
	}
	return d
}

// Sandbox returns the engine's sandbox that d was made of.
func (d Sandbox) Sandbox() engine.Sandbox {
	s := d.Item.Sandbox()
	s.Env, s.Secrets = d.Env, d.Secrets
	s.Network.OutboundProxyURL, s.Network.Grants, s.Learning = d.OutboundProxyURL, d.NetworkGrants, d.Learning
	s.Warm = d.Warm != nil && *d.Warm
	s.Timing = stages(d.Timing)
	return s
}

// Sandbox returns the engine's sandbox that d was made of, without what lists
// leave out.
func (d Item) Sandbox() engine.Sandbox {
	return engine.Sandbox{
		ID: d.ID, OrganizationID: d.OrganizationID, Name: d.Name,
		Class: engineClass(d.Class, d.SandboxClass), State: engine.State(d.State), Desired: engine.DesiredState(d.DesiredState),
		Incarnation: d.Incarnation, Runner: d.RunnerID, Target: d.Target, Snapshot: d.Snapshot,
		ImageDigest: d.ImageDigest, User: d.User, Labels: d.Labels, Public: d.Public,
		Resources: engine.Resources{
			CPU: d.CPU, GPU: int(d.GPU), MemoryMiB: MiB(d.Memory), DiskMiB: MiB(d.Disk), PIDs: d.PIDs,
		},
		Lifecycle: engine.Lifecycle{
			AutoStop: Minutes(d.AutoStopInterval), AutoArchive: Minutes(d.AutoArchiveInterval),
			AutoDelete: Minutes(d.AutoDeleteInterval), TTL: Minutes(d.TTLMinutes),
		},
		Network: engine.NetworkPolicy{
			BlockAll: d.NetworkBlockAll, AllowCIDRs: SplitList(d.NetworkAllowList), AllowDomains: SplitList(d.DomainAllowList),
		},
		Policy: d.Policy, Error: d.ErrorReason, Recoverable: d.Recoverable, Parent: d.ParentSandboxID,
		CreatedAt: ParseTime(d.CreatedAt), UpdatedAt: ParseTime(d.UpdatedAt),
		LastActive: ParseTime(d.LastActivityAt), StoppedAt: ParseTime(d.StoppedAt),
	}
}

// contractClass names a class in the contract's words. Strict clients wait
// for ever on a word they do not know, so gvisor goes as the container it is.
func contractClass(c engine.Class) string {
	if c == engine.ClassGVisor {
		return string(engine.ClassContainer)
	}
	return string(c)
}

func engineClass(own, contract string) engine.Class {
	if own != "" {
		return engine.Class(own)
	}
	return engine.Class(contract)
}

func destroyAt(s engine.Sandbox) string {
	if s.Lifecycle.TTL <= 0 || s.CreatedAt.IsZero() {
		return ""
	}
	return Time(s.CreatedAt.Add(s.Lifecycle.TTL))
}

func deleteMinutes(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return d.Minutes()
}

func fromStages(in []engine.Stage) []Stage {
	out := make([]Stage, len(in))
	for i, s := range in {
		out[i] = Stage{Name: s.Name, StartMs: millis(s.Start), TookMs: millis(s.Took)}
	}
	return out
}

func stages(in []Stage) []engine.Stage {
	var out []engine.Stage
	for _, s := range in {
		out = append(out, engine.Stage{Name: s.Name, Start: duration(s.StartMs), Took: duration(s.TookMs)})
	}
	return out
}

func millis(d time.Duration) float64        { return float64(d) / float64(time.Millisecond) }
func duration(millis float64) time.Duration { return time.Duration(millis*1e6 + 0.5) }

// Minutes turns the wire's minutes into a duration.
func Minutes(m float64) time.Duration { return time.Duration(m * float64(time.Minute)) }

// GiB and MiB convert between the wire's and the engine's unit of size.
func GiB(mib int64) float64 { return float64(mib) / 1024 }

// MiB is the inverse of GiB.
func MiB(gib float64) int64 { return int64(gib * 1024) }

const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// Time formats t as the wire does; the zero time is empty.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// ParseTime is the inverse of Time. What cannot be read is the zero time.
func ParseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := Time(t)
	return &s
}

func parseOptionalTime(s *string) time.Time {
	if s == nil {
		return time.Time{}
	}
	return ParseTime(*s)
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// SplitList splits a comma-separated list; spaces and empty parts go.
func SplitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

const maxAllowList = 10

// parseAllowLists checks the two comma-separated lists of a request.
func parseAllowLists(cidrs, domains string) ([]string, []string, error) {
	c, d := SplitList(cidrs), SplitList(domains)
	if len(c) > maxAllowList || len(d) > maxAllowList {
		return nil, nil, engine.Errorf(engine.KindInvalid, "networkAllowList and domainAllowList hold at most %d entries", maxAllowList)
	}
	for _, cidr := range c {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			return nil, nil, engine.Errorf(engine.KindInvalid, "networkAllowList: %q is no CIDR", cidr).
				WithHint("write it as 198.51.100.0/24")
		}
	}
	return c, d, nil
}
