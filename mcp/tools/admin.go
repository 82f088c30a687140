package tools

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Keys lists API keys, without what makes them keys. engine.KeyRing is one.
type Keys interface {
	List(ctx context.Context, p engine.Principal) ([]engine.APIKey, error)
}

// Usage tells what an organization uses. engine.Organizations is one.
type Usage interface {
	Usage(ctx context.Context, p engine.Principal, id string) (engine.Usage, error)
}

// Audit tells who changed what. engine.AuditLog is one.
type Audit interface {
	Audit(ctx context.Context, p engine.Principal, q engine.AuditQuery) (engine.AuditPage, error)
}

func (k *kit) adminTools() []Tool {
	return []Tool{
		{
			Name: "account_info", Set: SetAdmin, Title: "Account",
			Description: "Show the organization's usage and limits, its API keys, or its audit log.",
			Schema:      `{"type":"object","properties":{"about":{"type":"string","enum":["usage","keys","audit"]},"cursor":{"type":"string"}},"required":["about"],"additionalProperties":false}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.account,
		},
		{
			Name: "snapshot_delete", Set: SetAdmin, Title: "Delete snapshot",
			Description: "Delete a snapshot permanently.",
			Schema:      `{"type":"object","properties":{"name":{"type":"string"}},"required":["name"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, Idempotent: true}, Permission: engine.DeleteSnapshots, Handler: k.deleteSnapshot,
		},
	}
}

// account asks the services with the caller's principal, as the REST API does.
func (k *kit) account(ctx context.Context, a Args) (Result, error) {
	if a.Has("cursor") && a.Str("about") != "audit" {
		return Result{}, invalid("Leave it out; only audit has pages", `"cursor" is for audit`)
	}
	switch a.Str("about") {
	case "keys":
		return k.listKeys(ctx, a)
	case "audit":
		return k.audit(ctx, a)
	}
	return k.usage(ctx, a)
}

func lacking(what string) error {
	return unsupported("Ask your user to look on the server", "this server does not offer %s here", what)
}

// allowed asks what the route of the REST API asks.
func allowed(a Args, permission string) error {
	if err := engine.Authorize(a.Principal, permission, ""); err != nil {
		e := engine.AsError(err)
		return e.WithHint("%s; ask your user for one", e.Hint)
	}
	return nil
}

func (k *kit) usage(ctx context.Context, a Args) (Result, error) {
	if k.Usage == nil {
		return Result{}, lacking("usage")
	}
	if err := allowed(a, engine.ReadLimits); err != nil {
		return Result{}, err
	}
	u, err := k.Usage.Usage(ctx, a.Principal, a.Organization)
	if err != nil {
		return Result{}, err
	}
	var b strings.Builder
	for _, r := range u.Regions {
		fmt.Fprintf(&b, "Region %s, class %s: %s cpu, %s GiB memory, %s GiB disk, %s gpu\n", r.Region, r.Class,
			share(r.CPU, r.Limits.TotalCPU), share(float64(r.MemoryMiB)/1024, r.Limits.TotalMemory),
			share(float64(r.DiskMiB)/1024, r.Limits.TotalDisk), share(float64(r.GPU), r.Limits.TotalGPU))
	}
	fmt.Fprintf(&b, "Snapshots: %s", share(float64(u.Snapshots), u.Quota.SnapshotQuota))
	return Text("%s", clip(b.String(), maxText, "there are too many regions to show")), nil
}

// share prints how much of a limit is used; nil is no limit.
func share(used float64, limit *float64) string {
	if limit == nil || *limit < 0 {
		return fmt.Sprintf("%.4g", used)
	}
	return fmt.Sprintf("%.4g of %.4g", used, *limit)
}

func (k *kit) listKeys(ctx context.Context, a Args) (Result, error) {
	if k.Keys == nil {
		return Result{}, lacking("keys")
	}
	keys, err := k.Keys.List(ctx, a.Principal)
	if err != nil {
		return Result{}, err
	}
	lines := []string{fmt.Sprintf("%d keys", len(keys))}
	now := time.Now()
	for _, key := range keys {
		may := strings.Join(key.Permissions, " ")
		switch {
		case key.Unrestricted:
			may = "unrestricted"
		case may == "":
			may = "no permissions"
		}
		line := fmt.Sprintf("%s  %s…%s  %s  used %s", quoted(key.Name), key.Prefix, key.Suffix, may, ago(key.LastUsedAt, now))
		if !key.ExpiresAt.IsZero() {
			line += "  until " + key.ExpiresAt.UTC().Format(time.DateOnly)
		}
		lines = append(lines, line)
	}
	return Text("%s", clip(strings.Join(lines, "\n"), maxText, "there are too many to show")), nil
}

func (k *kit) audit(ctx context.Context, a Args) (Result, error) {
	if k.Audit == nil {
		return Result{}, lacking("an audit log")
	}
	if err := allowed(a, engine.ReadAudit); err != nil {
		return Result{}, err
	}
	page, err := k.Audit.Audit(ctx, a.Principal, engine.AuditQuery{OrganizationID: a.Organization, Limit: 50, Next: a.Str("cursor")})
	if err != nil {
		return Result{}, err
	}
	head := fmt.Sprintf("%d of %d entries, newest first", len(page.Items), max(page.Total, len(page.Items)))
	if page.Next != "" {
		head += fmt.Sprintf(`; more with "cursor":%q`, page.Next)
	}
	lines := []string{head}
	for _, e := range page.Items {
		who := e.ActorEmail
		if who == "" {
			who = e.KeyPrefix + "…" + e.KeySuffix
		}
		line := fmt.Sprintf("%s  %s  %s %s %s  %d", e.At.UTC().Format(time.DateTime), who, e.Action, e.TargetType, quoted(e.TargetID), e.Status)
		if tool := e.Metadata["tool"]; tool != "" {
			line += "  " + tool
		}
		if e.Error != "" {
			line += "  " + quoted(e.Error)
		}
		lines = append(lines, line)
	}
	return Text("%s", clip(strings.Join(lines, "\n"), maxText, "go on with cursor")), nil
}

func (k *kit) deleteSnapshot(ctx context.Context, a Args) (Result, error) {
	if strings.TrimSpace(a.Str("name")) == "" {
		return Result{}, invalid("sandbox_snapshot without arguments lists them", `"name" is empty`)
	}
	if err := k.Snapshots.Delete(ctx, engine.SnapshotRef{OrganizationID: a.Organization, IDOrName: a.Str("name")}); err != nil {
		if engine.KindOf(err) == engine.KindNotFound {
			return Result{}, invalid("sandbox_snapshot without arguments lists them", `there is no snapshot with the "name" %s`, quote(a.Str("name")))
		}
		return Result{}, err
	}
	return Text("Deleted snapshot %s.", a.Str("name")), nil
}
