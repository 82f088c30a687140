package tools

import (
	"context"
	"fmt"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

func (k *kit) snapshotTools() []Tool {
	return []Tool{{
		Name: "sandbox_snapshot", Set: SetCore, Title: "Snapshot or fork",
		Description: "Save a sandbox's files as a snapshot; fork starts copies instead. With no id, list snapshots.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"name":{"type":"string"},"fork":{"type":"integer","minimum":1,"maximum":10,"description":"number of copies"}},"additionalProperties":false}`,
		Hints:       Hints{}, Handler: k.snapshot,
	}}
}

func (k *kit) snapshot(ctx context.Context, a Args) (Result, error) {
	switch {
	case !a.Has("id") && (a.Has("name") || a.Has("fork")):
		return Result{}, invalid("Name the sandbox to save or fork; sandbox_list shows them", `"id" is missing`)
	case !a.Has("id"):
		return k.listSnapshots(ctx, a)
	case a.Has("fork"):
		return k.fork(ctx, a)
	case a.Str("name") == "":
		return Result{}, invalid(`As {"name":"after-setup"}; sandbox_create takes it as "snapshot"`, `"name" is missing for a snapshot`)
	}
	a.Progress("saving the disk")
	s, err := k.Snapshots.Save(ctx, a.ref(), a.Str("name"))
	if err != nil {
		return Result{}, err
	}
	return Text(`Saved snapshot %s (%s). sandbox_create {"snapshot":%q} starts from it.`, s.Name, size(s.SizeBytes), s.Name), nil
}

// fork makes copies. When one fails, the answer names those that exist.
func (k *kit) fork(ctx context.Context, a Args) (Result, error) {
	copies := a.Int("fork", 1)
	var made []string
	for i := range copies {
		name := a.Str("name")
		if name != "" && copies > 1 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		a.Progress(fmt.Sprintf("fork %d of %d", i+1, copies))
		sb, err := k.Snapshots.Fork(ctx, a.ref(), name)
		if err != nil && len(made) == 0 {
			return Result{}, err
		}
		if err != nil {
			return Fail("Made %d of %d forks: %s. Then: %s", len(made), copies, strings.Join(made, ", "), explain(err, a).Text), nil
		}
		made = append(made, sb.Name)
	}
	r := Text("Forked %s into %s, running.", a.Str("id"), strings.Join(made, ", "))
	r.Meta = map[string]any{metaSandbox: map[string]any{"forks": made}}
	return r, nil
}

func (k *kit) listSnapshots(ctx context.Context, a Args) (Result, error) {
	page, err := k.Snapshots.List(ctx, engine.SnapshotQuery{OrganizationID: a.Organization, Limit: 100})
	if err != nil {
		return Result{}, err
	}
	if len(page.Items) == 0 {
		return Text("No snapshots."), nil
	}
	var lines []string
	for _, s := range page.Items {
		line := fmt.Sprintf("%s  %s  %s", s.Name, s.State, resources(s.Resources))
		if s.SourceSandbox != "" {
			line += "  of sandbox " + s.SourceSandbox
		}
		if s.Error != "" {
			line += "  " + s.Error
		}
		lines = append(lines, line)
	}
	head := fmt.Sprintf("%d of %d snapshots\n", len(page.Items), max(page.Total, len(page.Items)))
	return Result{Text: head + clip(strings.Join(lines, "\n"), maxText-len(head), "there are too many to show")}, nil
}
