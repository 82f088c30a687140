package core

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	toolboxclient "github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
	"github.com/atoll-sh/atoll/policies"
)

// toolHosts are the hosts that package managers of the default snapshot are set
// up to download from.
type toolHosts struct {
	mu    sync.Mutex // held while they are asked
	hosts map[string][]string
	err   error
	asked time.Time // zero: never
}

const (
	askToolsLimit = time.Minute
	askToolsAgain = time.Minute // after a failure
)

// policyHosts returns the hosts that variables of policies stand for: what the
// operator said, else what the tools of the default snapshot say of themselves.
// A variable without hosts is missing; the error says why, for the log.
func (c *Core) policyHosts(ctx context.Context, names []string) (map[string][]string, error) {
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return len(c.PolicyHosts[n]) > 0 })
	if !slices.Contains(missing, policies.PythonIndexHosts) && !slices.Contains(missing, policies.NodeIndexHosts) {
		return c.PolicyHosts, nil
	}
	found, err := c.askTools(ctx)
	out := maps.Clone(found)
	if out == nil {
		out = map[string][]string{}
	}
	maps.Copy(out, c.PolicyHosts)
	return out, err
}

// askTools asks once, and again a while after it did not work.
func (c *Core) askTools(ctx context.Context) (map[string][]string, error) {
	t := &c.tools
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.asked.IsZero() && (t.err == nil || c.Now().Sub(t.asked) < askToolsAgain) {
		return t.hosts, t.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askToolsLimit)
	defer cancel()
	text, err := c.runOffline(ctx, toolsScript)
	if engine.KindOf(err) == engine.KindUnavailable {
		return nil, err // the snapshot is being built, or the runner is away
	}
	t.hosts, t.err, t.asked = readToolHosts(text), err, c.Now()
	if err != nil {
		c.Log.Warn("the default snapshot's tools do not tell where they download from", "error", err)
	}
	return t.hosts, t.err
}

// toolsScript prints a line for each URL: the variable, then the URL. Without an
// index in its configuration, pip's own default counts, which has a host of its
// own for files.
const toolsScript = `
npm config get registry 2>/dev/null | sed 's/^/NODE_INDEX_HOSTS /' &
config=$(pip config list 2>/dev/null)
echo "$config" | sed -nE "s/^(global|install)\.(extra-)?index-url='?([^']*)'?$/\3/p" | tr ' ' '\n' | sed '/./s/^/PYTHON_INDEX_HOSTS /'
echo "$config" | grep -qE '^(global|install)\.index-url=' || python3 -c 'from pip._internal.models.index import PyPI
for url in PyPI.url, "https://" + PyPI.file_storage_domain: print("PYTHON_INDEX_HOSTS", url)' 2>/dev/null
wait
exit 0
`

// readToolHosts reads what toolsScript printed. What is no name of a host is
// left out.
func readToolHosts(text string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		variable, where, ok := strings.Cut(strings.TrimSpace(line), " ")
		u, err := url.Parse(where)
		if !ok || err != nil || u.Scheme != "https" || variable != policies.PythonIndexHosts && variable != policies.NodeIndexHosts {
			continue
		}
		if _, err := policies.CanonicalName(u.Hostname()); err == nil && !slices.Contains(out[variable], u.Hostname()) {
			out[variable] = append(out[variable], u.Hostname())
		}
	}
	return out
}

// runOffline runs a script in an instance of the default snapshot that has no
// network and no row, and returns what it printed. A crash leaves an orphan,
// which reconcile removes.
func (c *Core) runOffline(ctx context.Context, script string) (string, error) {
	if c.Dialer == nil {
		return "", engine.Errorf(engine.KindUnsupported, "this server does not reach toolboxes")
	}
	sn, err := c.usable(ctx, engine.SnapshotRef{OrganizationID: engine.DefaultOrganization, IDOrName: c.DefaultSnapshot})
	if err != nil {
		return "", err
	}
	runners := c.Cluster.Runners(ctx)
	i := slices.IndexFunc(runners, func(r engine.RunnerInfo) bool { return sn.Runner == "" || r.ID == sn.Runner })
	if i < 0 {
		return "", engine.Errorf(engine.KindUnavailable, "no runner has the default snapshot")
	}
	id := uuid.NewString()
	ctx, end, err := c.ops.begin(ctx, id, opCreate, askToolsLimit)
	if err != nil {
		return "", err
	}
	defer end()
	r := c.Cluster.Client(runners[i].ID)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
		defer cancel()
		c.pools.drop(id)
		if err := r.Remove(ctx, id); err != nil {
			c.Log.Warn("instance not removed yet", "sandbox", id, "error", err)
		}
	}()
	_, err = r.Launch(ctx, engine.Launch{
		Sandbox: id, Incarnation: 1, Name: "policy-hosts", Class: engine.ClassContainer,
		Snapshot: sn.Name, Image: sn.Image, ImageDigest: sn.ImageDigest, Disk: sn.Disk, User: cmp.Or(sn.User, defaultUser), WorkDir: sn.WorkDir,
		Env: sn.Env, Resources: merge(sn.Resources, defaultResources), Network: engine.NetworkPolicy{BlockAll: true},
	})
	if err != nil {
		return "", err
	}
	way := &toolbox{core: c, id: id, name: id, pool: c.pools.of(id, 1)}
	res, err := toolboxclient.New(way).Execute(ctx, wire.ExecuteRequest{Command: script, Timeout: int(askToolsLimit.Seconds()), Split: true})
	return res.Stdout, err
}
