package tools

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

func (k *kit) sandboxTools() []Tool {
	return []Tool{
		{
			Name: "sandbox_create", Set: SetCore, Title: "Create sandbox",
			Description: "Create an isolated Linux sandbox and return its id. It stops after idle_minutes without activity; files survive a stop.",
			Schema:      `{"type":"object","properties":{"name":{"type":"string"},"image":{"type":"string","description":"OCI image; default has Python, Node, git"},"snapshot":{"type":"string"},"cpu":{"type":"number"},"memory_mb":{"type":"integer"},"disk_gb":{"type":"integer"},"gpu":{"type":"integer"},"env":{"type":"object","additionalProperties":{"type":"string"}},"network":{"type":"string","enum":["full","none","allowlist"]},"allow_hosts":{"type":"array","items":{"type":"string"}},"policy":{"type":"string","description":"name"},"volumes":{"type":"array","items":{"type":"string"}},"labels":{"type":"object","additionalProperties":{"type":"string"}},"idle_minutes":{"type":"integer","minimum":0,"description":"0 = never stop"},"ttl_minutes":{"type":"integer","minimum":0,"description":"Delete after"}},"additionalProperties":false}`,
			Hints:       Hints{OpenWorld: true}, Handler: k.create,
		},
		{
			Name: "sandbox_list", Set: SetCore, Title: "List sandboxes",
			Description: "List sandboxes, or show one in detail when id is given.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"state":{"type":"string","enum":["running","stopped","paused","archived","error"]},"label":{"type":"string","description":"key=value"},"cursor":{"type":"string"}},"additionalProperties":false}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.list,
		},
		{
			Name: "sandbox_control", Set: SetCore, Title: "Start, stop or pause",
			Description: "Change a sandbox's state. extend resets its expiry.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"action":{"type":"string","enum":["start","stop","pause","resume","archive","extend"]}},"required":["id","action"],"additionalProperties":false}`,
			Hints:       Hints{Idempotent: true}, Handler: k.control,
		},
		{
			Name: "sandbox_delete", Set: SetCore, Title: "Delete sandbox",
			Description: "Delete a sandbox and its files permanently.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"}},"required":["id"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, Idempotent: true}, Permission: engine.DeleteSandboxes, Handler: k.delete,
		},
	}
}

// defaultLifecycle is what the server gives a sandbox whose creator names no
// timers. It has to be repeated when the creator names only one of them.
func defaultLifecycle() engine.Lifecycle {
	return engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: 7 * 24 * time.Hour, AutoDelete: -1}
}

func (k *kit) create(ctx context.Context, a Args) (Result, error) {
	return k.createAs(ctx, a, createRequest, func(sb engine.Sandbox) string { return sb.Name })
}

// createAs creates what the arguments ask for and tells of it by the name that
// the toolset goes by.
func (k *kit) createAs(ctx context.Context, a Args, request func(Args) (engine.CreateSandbox, error), name func(engine.Sandbox) string) (Result, error) {
	req, err := request(a)
	if err != nil {
		return Result{}, err
	}
	a.Progress("creating the sandbox")
	sb, err := k.Sandboxes.Create(ctx, req)
	if err != nil {
		return Result{}, err
	}
	return created(sb, name(sb)), nil
}

// created tells of a new sandbox under the name it is to be called by.
func created(sb engine.Sandbox, name string) Result {
	r := Text("Created sandbox %s: %s, %s. %s", name, stateWord(sb.State), resources(sb.Resources), lifetime(sb))
	if sb.Policy != "" {
		r.Text += " It is under policy " + sb.Policy + "."
	}
	if sb.State == engine.StateError {
		r = Fail("Sandbox %s was created but failed: %s. Delete it with sandbox_delete and try again.", name, strings.TrimSuffix(sb.Error, "."))
	}
	r.Sandbox, r.Meta = sb.ID, sandboxMeta(sb)
	return r
}

func createRequest(a Args) (engine.CreateSandbox, error) {
	req := engine.CreateSandbox{
		OrganizationID: a.Organization,
		Name:           a.Str("name"),
		Image:          a.Str("image"),
		Snapshot:       a.Str("snapshot"),
		Policy:         a.Str("policy"),
		Env:            a.Map("env"),
		Labels:         a.Map("labels"),
		Resources: engine.Resources{
			CPU:       a.Num("cpu"),
			MemoryMiB: int64(a.Num("memory_mb")),
			DiskMiB:   int64(a.Num("disk_gb")) << 10,
		},
	}
	if req.Image != "" && req.Snapshot != "" {
		return req, invalid("Give one of them", `"image" and "snapshot" exclude each other`)
	}
	for _, name := range []string{"cpu", "memory_mb", "disk_gb", "gpu"} {
		if a.Num(name) < 0 {
			return req, invalid("Leave it out for the default", "%q must not be negative", name)
		}
	}
	if err := notBuilt(a); err != nil {
		return req, err
	}
	var err error
	if req.Network, err = networkOf(a); err != nil {
		return req, err
	}
	if a.Has("idle_minutes") || a.Has("ttl_minutes") {
		l := defaultLifecycle()
		if a.Has("idle_minutes") {
			l.AutoStop = time.Duration(a.Num("idle_minutes")) * time.Minute
		}
		l.TTL = time.Duration(a.Num("ttl_minutes")) * time.Minute
		req.Lifecycle = &l
	}
	return req, nil
}

// networkOf reads what the sandbox may talk to. Hosts that are addresses or
// networks are open on every port, names on 80 and 443.
func networkOf(a Args) (engine.NetworkPolicy, error) {
	var p engine.NetworkPolicy
	hosts, mode := a.List("allow_hosts"), a.Str("network")
	switch {
	case mode == "none" && len(hosts) > 0, mode == "full" && len(hosts) > 0:
		return p, invalid(`Use "network":"allowlist" with it`, `"allow_hosts" and "network":%q exclude each other`, mode)
	case mode == "allowlist" && len(hosts) == 0:
		return p, invalid(`Name hosts, as ["example.com","*.example.org","203.0.113.0/24"], or use "network":"none"`, `"network":"allowlist" needs "allow_hosts"`)
	}
	p.BlockAll = mode == "none"
	allowHosts(&p, hosts)
	return p, nil
}

// allowHosts adds names, addresses and networks to what a policy allows.
func allowHosts(p *engine.NetworkPolicy, hosts []string) {
	for _, h := range hosts {
		h = strings.TrimSpace(h)
		if addr, err := netip.ParseAddr(h); err == nil {
			h = netip.PrefixFrom(addr, addr.BitLen()).String()
		}
		if strings.Contains(h, "/") {
			p.AllowCIDRs = append(p.AllowCIDRs, h)
		} else {
			p.AllowDomains = append(p.AllowDomains, h)
		}
	}
}

// notBuilt refuses arguments whose feature this server lacks, so that nobody
// believes in a limit or a disk that is not there.
func notBuilt(a Args) error {
	if list, _ := a.m["volumes"].([]any); len(list) > 0 {
		return unsupported("Keep files in one sandbox, which survive a stop, or save it with sandbox_snapshot", `"volumes" are not built yet`)
	}
	if a.Num("gpu") > 0 {
		return unsupported("Create the sandbox without it", `"gpu" is not built yet`)
	}
	return nil
}

func (k *kit) list(ctx context.Context, a Args) (Result, error) {
	if a.Has("id") {
		sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
		if err != nil {
			return Result{}, err
		}
		return Result{Text: k.detail(ctx, sb), Meta: sandboxMeta(sb), Sandbox: sb.ID}, nil
	}
	q := engine.SandboxQuery{OrganizationID: a.Organization, Limit: 50, Cursor: a.Str("cursor")}
	if label := a.Str("label"); label != "" {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return Result{}, invalid(`As {"label":"team=web"}`, `"label" must be key=value, not %q`, label)
		}
		q.Labels = map[string]string{key: value}
	}
	if state := a.Str("state"); state != "" {
		q.States = []engine.State{stateOf(state)}
	}
	page, err := k.Sandboxes.List(ctx, q)
	if err != nil {
		return Result{}, err
	}
	return listText(page, time.Now()), nil
}

func listText(page engine.SandboxPage, now time.Time) Result {
	if len(page.Items) == 0 {
		return Text("No sandboxes match. sandbox_create makes one.")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d sandboxes", len(page.Items), max(page.Total, len(page.Items)))
	if page.Next != "" {
		fmt.Fprintf(&b, `; more with "cursor":%q`, page.Next)
	}
	b.WriteString("\n")
	for _, sb := range page.Items {
		fmt.Fprintf(&b, "%s  %s  %s  %s  used %s", sb.Name, stateWord(sb.State), from(sb), resources(sb.Resources), ago(sb.LastActive, now))
		if l := pairs(sb.Labels); l != "" {
			b.WriteString("  " + l)
		}
		b.WriteString("\n")
	}
	return Result{Text: clip(strings.TrimRight(b.String(), "\n"), maxText, "narrow the list with state or label")}
}

func (k *kit) detail(ctx context.Context, sb engine.Sandbox) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s. %s\n", sb.Name, stateWord(sb.State), lifetime(sb))
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	row("id", sb.ID)
	row("error", sb.Error)
	row("from", from(sb))
	row("size", resources(sb.Resources))
	row("user", sb.User)
	row("labels", pairs(sb.Labels))
	row("env", strings.Join(slices.Sorted(maps.Keys(sb.Env)), ", "))
	if sb.Network.BlockAll {
		row("network", "none")
	}
	row("policy", sb.Policy)
	row("created", ago(sb.CreatedAt, time.Now()))
	row("used", ago(sb.LastActive, time.Now()))
	if k.Inspector != nil && sb.State == engine.StateStarted {
		ref := engine.SandboxRef{OrganizationID: sb.OrganizationID, IDOrName: sb.ID}
		if st, err := k.Inspector.Stats(ctx, ref); err == nil {
			row("in use", fmt.Sprintf("%s memory, %s disk, %d processes", size(int64(st.MemoryBytes)), size(int64(st.DiskBytes)), st.PIDs))
		}
	}
	return clip(strings.TrimRight(b.String(), "\n"), maxText, "the rest is long labels or variables")
}

func (k *kit) control(ctx context.Context, a Args) (Result, error) {
	var sb engine.Sandbox
	var err error
	switch action := a.Str("action"); action {
	case "start":
		a.Progress("starting")
		sb, err = k.Sandboxes.Start(ctx, a.ref())
	case "stop":
		a.Progress("stopping")
		k.shells.forget(a)
		sb, err = k.Sandboxes.Stop(ctx, a.ref(), engine.StopOptions{})
	case "extend":
		return k.extend(ctx, a)
	case "resume":
		return Result{}, unsupported(`Use "start"; files are kept across a stop`, `"action":"resume" is not built yet`)
	default:
		return Result{}, unsupported(`Use "stop"; files are kept and "start" brings it back`, `"action":%q is not built yet`, action)
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Text: fmt.Sprintf("%s is %s. %s", sb.Name, stateWord(sb.State), lifetime(sb)), Meta: sandboxMeta(sb), Sandbox: sb.ID}, nil
}

// extend moves the expiry to a full term from now and counts as activity.
func (k *kit) extend(ctx context.Context, a Args) (Result, error) {
	sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	if sb.State == engine.StateStarted {
		box, err := k.box(ctx, a)
		if err != nil {
			return Result{}, err
		}
		if err := box.Touch(ctx); err != nil {
			return Result{}, err
		}
	}
	if sb.Lifecycle.TTL > 0 {
		ttl := (time.Since(sb.CreatedAt) + sb.Lifecycle.TTL).Round(time.Minute)
		if sb, err = k.Sandboxes.Update(ctx, a.ref(), engine.UpdateSandbox{TTL: &ttl}); err != nil {
			return Result{}, err
		}
	}
	return Result{Text: fmt.Sprintf("%s is extended. %s", sb.Name, lifetime(sb)), Meta: sandboxMeta(sb), Sandbox: sb.ID}, nil
}

func (k *kit) delete(ctx context.Context, a Args) (Result, error) {
	k.shells.forget(a)
	sb, err := k.Sandboxes.Delete(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	return Result{Text: fmt.Sprintf("Deleted %s.", a.Str("id")), Sandbox: sb.ID}, nil
}

// stateWord is a state in the words of the tools.
func stateWord(s engine.State) string {
	if s == engine.StateStarted {
		return "running"
	}
	return strings.ReplaceAll(string(s), "_", " ")
}

func stateOf(word string) engine.State {
	if word == "running" {
		return engine.StateStarted
	}
	return engine.State(word)
}

func resources(r engine.Resources) string {
	return fmt.Sprintf("%g cpu, %d MiB memory, %g GiB disk", r.CPU, r.MemoryMiB, float64(r.DiskMiB)/1024)
}

func from(sb engine.Sandbox) string {
	if sb.Snapshot == "" {
		return "image"
	}
	return sb.Snapshot
}

func lifetime(sb engine.Sandbox) string {
	var parts []string
	switch l := sb.Lifecycle; {
	case l.AutoStop > 0 && l.Ephemeral():
		parts = append(parts, fmt.Sprintf("Is deleted after %d idle minutes or when it stops.", int(l.AutoStop.Minutes())))
	case l.AutoStop > 0:
		parts = append(parts, fmt.Sprintf("Stops after %d idle minutes and keeps its files.", int(l.AutoStop.Minutes())))
	case l.Ephemeral():
		parts = append(parts, "Is deleted when it stops.")
	}
	if ttl := sb.Lifecycle.TTL; ttl > 0 {
		parts = append(parts, "Is deleted at "+sb.CreatedAt.Add(ttl).UTC().Format("2006-01-02 15:04 UTC."))
	}
	return strings.Join(parts, " ")
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}

func sandboxMeta(sb engine.Sandbox) map[string]any {
	m := map[string]any{"id": sb.ID, "name": sb.Name, "state": string(sb.State)}
	if len(sb.Timing) > 0 {
		m["warm"], m["timing"] = sb.Warm, sb.Timing
	}
	return map[string]any{metaSandbox: m}
}
