package gateway_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/engine/webhook"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
	"github.com/atoll-sh/atoll/mcp"
)

// scope says what an operation works on, and with that what a stranger gets
// whose key is good, but of another organization.
type scope string

const (
	open   scope = "open"   // no key is needed
	own    scope = "own"    // the caller's own: a stranger gets theirs, never that of others
	object scope = "object" // named in the path: to a stranger it does not exist
	server scope = "server" // the administrator's: a stranger is denied
)

// row is what the matrix must know of an operation beside the table.
type row struct {
	scope scope
	body  string // {name} in it stands for the name of the house
	// as names the caller for whom the operation is meant to succeed, when
	// that is neither the owner nor, for the server's, the administrator.
	as     string
	member bool // members who are not owners may do it, though it asks for "owner"
	stream bool // the answer does not end
	absent bool // there is nothing of the kind yet, for anybody
}

// matrix has a row for every operation that is built. An operation without one
// fails the test: who adds it has to say whose it is.
func matrix() map[string]row {
	return map[string]row{
		"GET /config":               {scope: open},
		"GET /health":               {scope: open},
		"GET /health/ready":         {scope: open},
		"GET /shared-regions":       {scope: open},
		"GET /openapi.json":         {scope: open},
		"GET /toolbox-openapi.json": {scope: open},
		"GET /docs":                 {scope: open},

		"GET /sandbox":           {scope: own},
		"POST /sandbox":          {scope: own, body: `{}`},
		"GET /sandbox/paginated": {scope: own},

		"GET /sandbox/{sandboxIdOrName}":                         {scope: object},
		"DELETE /sandbox/{sandboxIdOrName}":                      {scope: object},
		"POST /sandbox/{sandboxIdOrName}/recover":                {scope: object},
		"POST /sandbox/{sandboxIdOrName}/start":                  {scope: object},
		"POST /sandbox/{sandboxIdOrName}/stop":                   {scope: object},
		"POST /sandbox/{sandboxIdOrName}/resize":                 {scope: object, body: `{"cpu":2}`},
		"PUT /sandbox/{sandboxIdOrName}/labels":                  {scope: object, body: `{"labels":{}}`},
		"POST /sandbox/{sandboxIdOrName}/snapshot":               {scope: object, body: `{"name":"cut"}`},
		"POST /sandbox/{sandboxIdOrName}/fork":                   {scope: object, body: `{}`},
		"GET /sandbox/{sandboxIdOrName}/forks":                   {scope: object},
		"GET /sandbox/{sandboxIdOrName}/parent":                  {scope: object, absent: true},
		"GET /sandbox/{sandboxIdOrName}/ancestors":               {scope: object},
		"POST /sandbox/{sandboxIdOrName}/public/{isPublic}":      {scope: object},
		"POST /sandbox/{sandboxId}/last-activity":                {scope: object},
		"POST /sandbox/{sandboxIdOrName}/autostop/{interval}":    {scope: object},
		"POST /sandbox/{sandboxIdOrName}/autopause/{interval}":   {scope: object},
		"POST /sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}":       {scope: object},
		"POST /sandbox/{sandboxIdOrName}/autoarchive/{interval}": {scope: object},
		"POST /sandbox/{sandboxIdOrName}/autodelete/{interval}":  {scope: object},
		"POST /sandbox/{sandboxIdOrName}/network-settings":       {scope: object, body: `{"networkBlockAll":true}`},
		"GET /sandbox/{sandboxIdOrName}/build-logs":              {scope: object},
		"GET /sandbox/{sandboxIdOrName}/build-logs-url":          {scope: object},
		"GET /sandbox/{sandboxId}/toolbox-proxy-url":             {scope: object},
		"GET /sandbox/{sandboxId}/organization":                  {scope: object},
		"GET /sandbox/{sandboxId}/region-quota":                  {scope: object},
		"GET /sandbox/{sandboxIdOrName}/stats":                   {scope: object},
		"GET /sandbox/{sandboxIdOrName}/activity":                {scope: object},
		"GET /sandbox/{sandboxIdOrName}/activity/report":         {scope: object},
		"GET /sandbox/{sandboxIdOrName}/activity/verify":         {scope: object},
		"POST /sandbox/{sandboxIdOrName}/learn":                  {scope: object},
		"GET /sandbox/{sandboxIdOrName}/learn":                   {scope: object, absent: true},
		"DELETE /sandbox/{sandboxIdOrName}/learn":                {scope: object, absent: true},
		"GET /access-requests":                                   {scope: own},
		"POST /access-requests/{requestId}/approve":              {scope: object},
		"POST /access-requests/{requestId}/deny":                 {scope: object},

		"POST /sandbox/{sandboxIdOrName}/ssh-access":                                     {scope: object},
		"DELETE /sandbox/{sandboxIdOrName}/ssh-access":                                   {scope: object},
		"GET /sandbox/ssh-access/validate":                                               {scope: own},
		"GET /sandbox/{sandboxId}/signing-key":                                           {scope: object},
		"POST /sandbox/{sandboxId}/signing-key/rotate":                                   {scope: object},
		"GET /sandbox/{sandboxIdOrName}/ports/{port}/preview-url":                        {scope: object},
		"GET /sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url":                 {scope: object},
		"POST /sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire": {scope: object, absent: true},
		"GET /preview/{sandboxId}/public":                                                {scope: open},
		"GET /preview/{sandboxId}/preview-warning":                                       {scope: open},
		"GET /preview/{sandboxId}/validate/{authToken}":                                  {scope: open},
		"GET /preview/{sandboxId}/signing-key":                                           {scope: server},
		"GET /preview/{sandboxId}/access":                                                {scope: object},
		"GET /preview/{signedPreviewToken}/{port}/sandbox-id":                            {scope: open, absent: true},

		"POST /snapshots":                    {scope: own, body: `{"name":"new","imageName":"alpine:3.20"}`},
		"GET /snapshots":                     {scope: own},
		"GET /snapshots/{id}":                {scope: object},
		"DELETE /snapshots/{id}":             {scope: object},
		"POST /snapshots/{id}/prepare":       {scope: object},
		"GET /snapshots/{id}/build-logs":     {scope: object},
		"GET /snapshots/{id}/build-logs-url": {scope: object},

		"GET /volumes":                {scope: own},
		"GET /volumes/{volumeId}":     {scope: object, absent: true},
		"GET /volumes/by-name/{name}": {scope: object, absent: true},

		"GET /regions":      {scope: own},
		"GET /regions/{id}": {scope: own},

		"POST /api-keys":                   {scope: own, body: `{"name":"another","permissions":[]}`},
		"GET /api-keys":                    {scope: own},
		"GET /api-keys/current":            {scope: own},
		"GET /api-keys/{name}":             {scope: object},
		"DELETE /api-keys/{name}":          {scope: object},
		"DELETE /api-keys/{userId}/{name}": {scope: object},

		"GET /users/me": {scope: own},

		"GET /organizations":                                     {scope: own},
		"POST /organizations":                                    {scope: own, body: `{"name":"more","defaultRegionId":"local"}`, member: true},
		"GET /organizations/invitations":                         {scope: own},
		"GET /organizations/invitations/count":                   {scope: own},
		"POST /organizations/invitations/{invitationId}/accept":  {scope: object, as: "guest", member: true},
		"POST /organizations/invitations/{invitationId}/decline": {scope: object, as: "guest", member: true},

		"GET /organizations/{organizationId}":                                    {scope: object},
		"DELETE /organizations/{organizationId}":                                 {scope: object},
		"PATCH /organizations/{organizationId}/default-region":                   {scope: object, body: `{"defaultRegionId":"local"}`},
		"GET /organizations/{organizationId}/usage":                              {scope: object},
		"GET /organizations/{organizationId}/available-sandbox-classes":          {scope: object},
		"POST /organizations/{organizationId}/leave":                             {scope: object, as: "member", member: true},
		"POST /organizations/{organizationId}/preview-warning":                   {scope: object, body: `{"previewWarningEnabled":true}`},
		"GET /organizations/{organizationId}/roles":                              {scope: object},
		"POST /organizations/{organizationId}/roles":                             {scope: object, body: `{"name":"n","description":"","permissions":[]}`},
		"PUT /organizations/{organizationId}/roles/{roleId}":                     {scope: object, body: `{"name":"n","description":"","permissions":[]}`},
		"DELETE /organizations/{organizationId}/roles/{roleId}":                  {scope: object},
		"GET /organizations/{organizationId}/users":                              {scope: object},
		"POST /organizations/{organizationId}/users/{userId}/access":             {scope: object, body: `{"role":"member","assignedRoleIds":[]}`},
		"DELETE /organizations/{organizationId}/users/{userId}":                  {scope: object},
		"POST /organizations/{organizationId}/invitations":                       {scope: object, body: `{"email":"new@example.com","role":"member","assignedRoleIds":[]}`},
		"GET /organizations/{organizationId}/invitations":                        {scope: object},
		"PUT /organizations/{organizationId}/invitations/{invitationId}":         {scope: object, body: `{"role":"owner","assignedRoleIds":[]}`},
		"POST /organizations/{organizationId}/invitations/{invitationId}/cancel": {scope: object},

		"PATCH /organizations/{organizationId}/quota":                                 {scope: server, body: `{}`},
		"PATCH /organizations/{organizationId}/quota/{regionId}":                      {scope: server, body: `{}`},
		"POST /organizations/{organizationId}/suspend":                                {scope: server, body: `{"reason":"r"}`},
		"POST /organizations/{organizationId}/unsuspend":                              {scope: server},
		"POST /organizations/{organizationId}/sandbox-default-limited-network-egress": {scope: server, body: `{"sandboxDefaultLimitedNetworkEgress":true}`},

		"GET /audit/organizations/{organizationId}": {scope: object},
		"GET /audit/scenarios":                      {scope: own},

		"POST /admin/users":         {scope: server, body: `{"name":"n"}`},
		"GET /admin/users":          {scope: server},
		"GET /admin/users/{id}":     {scope: server},
		"GET /admin/audit":          {scope: server},
		"POST /admin/organizations": {scope: server, body: `{"userId":"` + engine.DefaultUser + `","name":"n","defaultRegionId":"local"}`},
		"POST /admin/organizations/{organizationId}/quota/{regionId}":                  {scope: server, body: `{"sandboxClass":"linux-vm"}`},
		"PATCH /admin/organizations/{organizationId}/quota/{regionId}":                 {scope: server, body: `{"sandboxClass":"container"}`},
		"GET /admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}":    {scope: server},
		"DELETE /admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}": {scope: server},
		"POST /admin/organizations/{organizationId}/preview-warning":                   {scope: server, body: `{"previewWarningEnabled":true}`},

		"POST /secret":                               {scope: own, body: `{"name":"new","value":"v"}`},
		"GET /secret":                                {scope: own},
		"GET /secret/paginated":                      {scope: own},
		"GET /secret/{secretId}":                     {scope: object},
		"PATCH /secret/{secretId}":                   {scope: object, body: `{"description":"d"}`},
		"DELETE /secret/{secretId}":                  {scope: object},
		"PUT /sandbox/{sandboxIdOrName}/secrets":     {scope: object, body: `{"secrets":[]}`},
		"GET /sandbox/{sandboxId}/telemetry/metrics": {scope: object},

		"POST /docker-registry":        {scope: own, body: `{"name":"new","url":"r.example.com","username":"u","password":"p"}`},
		"GET /docker-registry":         {scope: own},
		"GET /docker-registry/{id}":    {scope: object},
		"PATCH /docker-registry/{id}":  {scope: object, body: `{"name":"n","url":"r.example.com","username":"u"}`},
		"DELETE /docker-registry/{id}": {scope: object},

		"POST /warm-pools":        {scope: own, body: `{"snapshot":"atoll-small","pool":1}`},
		"GET /warm-pools":         {scope: own},
		"PATCH /warm-pools/{id}":  {scope: object, body: `{"pool":2}`},
		"DELETE /warm-pools/{id}": {scope: object},

		"POST /snapshots/{id}/activate":          {scope: object},
		"POST /snapshots/{id}/deactivate":        {scope: object},
		"GET /admin/snapshots/can-cleanup-image": {scope: server},
		"PATCH /admin/snapshots/{id}/general":    {scope: server, body: `{"general":false}`},

		"GET /webhooks/organizations/{organizationId}/initialization-status":                 {scope: object},
		"POST /webhooks/organizations/{organizationId}/initialize":                           {scope: object},
		"POST /webhooks/organizations/{organizationId}/refresh-endpoints":                    {scope: object},
		"GET /webhooks/organizations/{organizationId}/endpoints":                             {scope: object},
		"POST /webhooks/organizations/{organizationId}/endpoints":                            {scope: object, body: `{"url":"https://hooks.invalid"}`},
		"GET /webhooks/organizations/{organizationId}/endpoints/{endpointId}":                {scope: object},
		"PATCH /webhooks/organizations/{organizationId}/endpoints/{endpointId}":              {scope: object, body: `{"disabled":true}`},
		"DELETE /webhooks/organizations/{organizationId}/endpoints/{endpointId}":             {scope: object},
		"POST /webhooks/organizations/{organizationId}/endpoints/{endpointId}/rotate-secret": {scope: object},
		"GET /webhooks/organizations/{organizationId}/messages":                              {scope: object},
		"GET /webhooks/organizations/{organizationId}/messages/{messageId}/attempts":         {scope: object},
		"POST /webhooks/organizations/{organizationId}/messages/{messageId}/resend":          {scope: object},
		"POST /admin/webhooks/organizations/{organizationId}/send":                           {scope: server, body: `{"eventType":"snapshot.removed","payload":{}}`},
		"POST /admin/webhooks/organizations/{organizationId}/initialize":                     {scope: server},
		"GET /admin/webhooks/organizations/{organizationId}/messages/{messageId}/attempts":   {scope: server},
		"GET /admin/webhooks/status":                                                         {scope: server},

		"GET /policies":                                 {scope: own},
		"GET /policies/{name}":                          {scope: object},
		"PUT /policies/{name}":                          {scope: own, body: `{"document":"name: {name}"}`},
		"DELETE /policies/{name}":                       {scope: object},
		"POST /policies/{name}/test":                    {scope: object, body: `{"table":"cases: [{lookup: a.example, expect: deny}]"}`},
		"GET /sandbox/{sandboxIdOrName}/policy":         {scope: object},
		"PUT /sandbox/{sandboxIdOrName}/policy":         {scope: object, body: `{"policy":"offline"}`},
		"GET /sandbox/{sandboxIdOrName}/policy/explain": {scope: object},

		"GET /doctor":          {scope: server},
		"GET /events":          {scope: own, stream: true},
		"POST /admin/shutdown": {scope: server},
	}
}

// world is a server on a real core with an administrator and a stranger.
type world struct {
	*testing.T
	*coretest.Rig
	url      string
	stranger string            // key of the owner of another organization
	bad      map[string]string // keys that are none
	strange  engine.Principal
	hooks    *webhook.Service
	n        int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, func(*core.Config) {})
}

// newWorldWith is newWorld with another configuration of the core.
func newWorldWith(t *testing.T, change func(*core.Config)) *world {
	t.Helper()
	issuer := ""
	box := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	t.Cleanup(box.Close)
	keys, err := secret.OpenFile(filepath.Join(t.TempDir(), "k"), true)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Rig: coretest.New(t, func(c *core.Config) {
		c.Box = keys
		c.Tools = mcp.Names()
		c.Ledger = openLedger(t)
		c.Dialer = dialer(box.Listener.Addr().String())
		c.Doctor = func(context.Context) (engine.Report, error) { return engine.Report{}, nil }
		change(c)
		if c.Identities != nil {
			issuer = issuerURL
		}
	})}
	if w.hooks, err = webhook.Open(t.Context(), webhook.Config{Store: w.Store, Box: keys}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.hooks.Close)
	agents, err := mcp.New(
		mcp.Backend{Sandboxes: w.Sandboxes(), Snapshots: w.Snapshots(), Toolboxes: w.Toolboxes(), Inspector: w.Inspector(), Activity: w.Activity(), Denials: w.Access(), Keys: w.Accounts().Keys, Usage: w.Accounts().Organizations, Audit: w.Accounts().Audit},
		mcp.Options{Limit: auth.Count, Principal: func(r *http.Request) (engine.Principal, bool) { return auth.From(r.Context()) }})
	if err != nil {
		t.Fatal(err)
	}
	many := engine.RateLimit{Name: auth.LimitFailed, Limit: 1 << 30, Window: time.Minute}
	s, err := gateway.Open(t.Context(), gateway.Config{
		Listen: "127.0.0.1:0", Sandboxes: w.Sandboxes(), Snapshots: w.Snapshots(), Toolboxes: w.Toolboxes(), Events: w.Events(),
		Keys: w.Keys(), Inspector: w.Inspector(), Accounts: w.Accounts(), Previews: w.Previews(), SSH: w.SSH(), SSHGateway: &api.SSHGateway{Port: 2222, HostKey: "ssh-ed25519 AAAA"}, MCP: agents.Handler(), Version: "test", Issuer: issuer,
		Shutdown: func() {}, Limits: []engine.RateLimit{many},
		Services: engine.Services{
			Secrets: w.Secrets(), Registries: w.Registries(), Catalog: w.Catalog(), WarmPools: w.WarmPools(), History: w.History(),
			Webhooks: w.hooks, Messages: w.hooks.Messages(), Activity: w.Activity(), Policies: w.Policies(), Access: w.Access(), Learner: w.Learner(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := agents.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	w.url = s.URL()
	u, p := w.User(t, "stranger")
	w.stranger, w.strange = u.Secret, p
	w.bad = map[string]string{"no key": "", "an unknown key": "atl_nobody", "a revoked key": w.revoked(), "an expired key": w.expired()}
	return w
}

func openLedger(t *testing.T) *activity.Ledger {
	t.Helper()
	l, err := activity.Open(activity.Config{Dir: t.TempDir(), Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

type dialer string

func (d dialer) Dial(ctx context.Context, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", string(d))
}

// revoked is the key of an administrator that was in use a moment ago.
func (w *world) revoked() string {
	w.Helper()
	secret := w.Key(w.T, w.Admin(w.T), "gone", nil)
	w.Principal(w.T, secret)
	if err := w.Accounts().Keys.Revoke(w.Context(), w.Admin(w.T), "", "gone"); err != nil {
		w.Fatal(err)
	}
	return secret
}

func (w *world) expired() string {
	w.Helper()
	const secret = "atl_an_expired_key_of_a_test"
	err := w.Store.InsertKey(w.Context(), store.Key{Admin: true, APIKey: engine.APIKey{
		ID: "old", OrganizationID: engine.DefaultOrganization, UserID: engine.DefaultUser, Name: "old", Unrestricted: true,
		ExpiresAt: time.Now().Add(-time.Second),
	}}, secret)
	if err != nil {
		w.Fatal(err)
	}
	return secret
}

// house is an organization with one of everything in it.
type house struct {
	organization, sandbox, snapshot, role, invitation string // ids
	name                                              string // of the organization, the sandbox, the snapshot and a key
	secret, registry, pool, endpoint, message, access string // ids
	owner, member, guest                              string // keys
	memberID, ownerID                                 string
	principal                                         engine.Principal
}

func (w *world) house() house {
	w.Helper()
	w.n++
	a, ctx := w.Accounts(), w.Context()
	h := house{name: fmt.Sprintf("house-%d", w.n)}
	u, p := w.User(w.T, h.name)
	guest, gp := w.User(w.T, fmt.Sprintf("guest-%d", w.n))
	member, mp := w.User(w.T, fmt.Sprintf("member-%d", w.n))
	h.organization, h.owner, h.ownerID, h.principal, h.guest, h.memberID = u.Organization.ID, u.Secret, u.User.ID, p, guest.Secret, member.User.ID
	w.Key(w.T, p, h.name, nil)
	access := engine.Access{Role: engine.RoleMember, RoleIDs: []string{engine.DeveloperRole}}
	invite := func(email string) string {
		i, err := a.Invitations.Invite(ctx, p, h.organization, email, access, time.Time{})
		if err != nil {
			w.Fatal(err)
		}
		return i.ID
	}
	if _, err := a.Invitations.Answer(ctx, mp, invite(member.User.Email), true); err != nil {
		w.Fatal(err)
	}
	_, secret, err := a.Keys.Create(ctx, mp, engine.CreateKey{OrganizationID: h.organization, Name: h.name})
	if err != nil {
		w.Fatal(err)
	}
	h.member, h.invitation = secret, invite(gp.UserEmail)
	r, err := a.Roles.CreateRole(ctx, p, engine.Role{OrganizationID: h.organization, Name: h.name})
	if err != nil {
		w.Fatal(err)
	}
	sb, err := w.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: h.organization, Name: h.name})
	if err != nil {
		w.Fatal(err)
	}
	sn, err := w.Snapshots().Create(ctx, engine.CreateSnapshot{OrganizationID: h.organization, Name: h.name, Image: "alpine:3.20"})
	if err != nil {
		w.Fatal(err)
	}
	h.role, h.sandbox, h.snapshot = r.ID, sb.ID, sn.ID
	w.furnish(&h)
	quota := engine.RegionQuota{OrganizationID: h.organization, Region: "local", Class: engine.ClassContainer}
	if err := a.RegionQuotas.PutRegionQuota(ctx, w.Admin(w.T), quota, true); err != nil {
		w.Fatal(err)
	}
	return h
}

// furnish puts one of every service into a house.
func (w *world) furnish(h *house) {
	w.Helper()
	ctx := w.Context()
	sec, err := w.Secrets().Create(ctx, engine.CreateSecret{OrganizationID: h.organization, Name: h.name, Value: "v"})
	if err != nil {
		w.Fatal(err)
	}
	reg, err := w.Registries().Create(ctx, engine.PutRegistry{
		OrganizationID: h.organization, Name: h.name, URL: "r.example.com", Username: "u", Password: "p",
	})
	if err != nil {
		w.Fatal(err)
	}
	pool, err := w.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: h.organization, Snapshot: h.name, Size: 1})
	if err != nil {
		w.Fatal(err)
	}
	_, err = w.Policies().Put(ctx, h.principal, engine.PutPolicy{Name: h.name, Document: "name: " + h.name})
	if err != nil {
		w.Fatal(err)
	}
	e, err := w.hooks.CreateEndpoint(ctx, engine.Endpoint{OrganizationID: h.organization, URL: "https://hooks.invalid", Disabled: true})
	if err != nil {
		w.Fatal(err)
	}
	m, err := w.hooks.Messages().Send(ctx, h.organization, "snapshot.removed", "", json.RawMessage(`{}`))
	if err != nil {
		w.Fatal(err)
	}
	w.Observe(engine.ActivityRecord{Kind: engine.ActivityDNS, Sandbox: h.sandbox, Host: h.name + ".example.com", Verdict: "deny", Rule: "egress/default"})
	asked, err := w.Access().Requests(ctx, engine.AccessQuery{OrganizationID: h.organization})
	if err != nil || len(asked) != 1 {
		w.Fatalf("requests for access: %+v, %v", asked, err)
	}
	h.secret, h.registry, h.pool, h.endpoint, h.message, h.access = sec.ID, reg.ID, pool.ID, e.ID, m.ID, asked[0].ID
}

// demolish makes room on the runner for the next house.
func (w *world) demolish(h house) {
	w.Helper()
	pools, err := w.WarmPools().List(w.Context(), "")
	if err != nil {
		w.Fatal(err)
	}
	for _, p := range pools {
		if err := w.WarmPools().Delete(w.Context(), p.OrganizationID, p.ID); err != nil {
			w.Fatal(err)
		}
	}
	page, err := w.Sandboxes().List(w.Context(), engine.SandboxQuery{OrganizationID: h.organization})
	if err != nil {
		w.Fatal(err)
	}
	for _, sb := range page.Items {
		if _, err := w.Sandboxes().Delete(w.Context(), engine.SandboxRef{OrganizationID: h.organization, IDOrName: sb.ID}); err != nil {
			w.Fatal(err)
		}
	}
}

// paths returns the operation's path with every way to name the objects of the
// house; the first is by ids.
func (h house) paths(o api.Operation) []string {
	ids, names := o.Path, o.Path
	if strings.HasSuffix(ids, "/telemetry/metrics") {
		ids += "?from=2026-01-02T03:04:05Z&to=2026-01-02T03:04:06Z"
		names = ids
	}
	if strings.HasSuffix(ids, "/learn") {
		ids += "?seconds=60"
		names = ids
	}
	for _, name := range param.FindAllString(o.Path, -1) {
		id, other := h.values(o, strings.Trim(name, "{}"))
		ids, names = strings.ReplaceAll(ids, name, id), strings.ReplaceAll(names, name, other)
	}
	if ids == names {
		return []string{ids}
	}
	return []string{ids, names}
}

// values are the id and the name that stand for a parameter.
func (h house) values(o api.Operation, key string) (id, name string) {
	switch key {
	case "sandboxIdOrName", "sandboxId":
		return h.sandbox, h.name
	case "organizationId":
		return h.organization, h.organization
	case "roleId":
		return h.role, h.role
	case "invitationId":
		return h.invitation, h.invitation
	case "userId":
		return h.memberID, h.memberID
	case "name":
		return h.name, h.name
	case "regionId":
		return "local", "local"
	case "sandboxClass":
		return "container", "container"
	case "isPublic":
		return "true", "true"
	case "port":
		return "3000", "3000"
	case "interval", "ttlMinutes":
		return "0", "0"
	case "secretId":
		return h.secret, h.name
	case "requestId":
		return h.access, h.access
	case "endpointId":
		return h.endpoint, h.endpoint
	case "messageId":
		return h.message, h.message
	case "id":
		switch {
		case strings.HasPrefix(o.Path, "/docker-registry"):
			return h.registry, h.registry
		case strings.HasPrefix(o.Path, "/warm-pools"):
			return h.pool, h.pool
		case strings.HasPrefix(o.Path, "/admin/snapshots"):
			return h.snapshot, h.snapshot
		case strings.HasPrefix(o.Path, "/snapshots"):
			return h.snapshot, h.name
		case strings.HasPrefix(o.Path, "/regions"):
			return "local", "local"
		}
		return h.ownerID, h.ownerID
	}
	return "x", "x"
}

// key returns the secret of a caller in the house.
func (h house) key(as string) string {
	return map[string]string{"": h.owner, "guest": h.guest, "member": h.member}[as]
}

func TestAuthorizationMatrix(t *testing.T) {
	w := newWorld(t)
	rows := matrix()
	for _, o := range append(api.Operations(), api.Extensions()...) {
		r, ok := rows[o.Key()]
		delete(rows, o.Key())
		switch {
		case o.Status == api.Missing && ok:
			t.Errorf("%s: a row, but not built", o.Key())
		case o.Status == api.Missing:
			r = row{scope: own}
		case !ok:
			t.Errorf("%s: no row in the matrix; add one that says whose it is", o.Key())
			continue
		}
		t.Run(strings.ReplaceAll(o.Key(), "/", "·"), func(t *testing.T) {
			inner := *w
			inner.T = t
			inner.n = w.n
			inner.check(o, r)
			w.n = inner.n
		})
	}
	for key := range rows {
		t.Errorf("%s: a row without an operation", key)
	}
}

func (w *world) check(o api.Operation, r row) {
	h := w.house()
	defer w.demolish(h)
	r.body = strings.ReplaceAll(r.body, "{name}", h.name)
	w.checkAccess(o, r, h)
	w.checkKeys(o, r, h)
	w.checkLimited(o, r, h)
	if o.Status == api.Missing {
		return
	}
	w.checkStranger(o, r, h)
	w.checkAllowed(o, r, h)
}

// checkAccess makes sure that the table asks for something that a key can have,
// and that what changes something asks for something.
func (w *world) checkAccess(o api.Operation, r row, _ house) {
	words := append(engine.Permissions(), "", api.Public, engine.PermissionOwner, engine.PermissionAdmin)
	if !slices.Contains(words, o.Access) {
		w.Errorf("access %q is no permission", o.Access)
	}
	if o.Status == api.Built && (r.scope == open) != (o.Access == api.Public) {
		w.Errorf("scope %s, but access %q", r.scope, o.Access)
	}
	if o.Status == api.Built && (r.scope == server) != (o.Access == engine.PermissionAdmin) {
		w.Errorf("scope %s, but access %q", r.scope, o.Access)
	}
	if o.Method != http.MethodGet && o.Access == "" {
		w.Errorf("a key without any permission may change something")
	}
}

// checkKeys tries every kind of key that is not enough.
func (w *world) checkKeys(o api.Operation, r row, h house) {
	path := h.paths(o)[0]
	for name, key := range w.bad {
		want := http.StatusUnauthorized
		if o.Access == api.Public {
			want = 0
		}
		w.expect(name, o, r, path, key, want)
	}
	if o.Access == api.Public {
		return
	}
	reader := w.Key(w.T, h.principal, "reader", []string{})
	want := http.StatusForbidden
	if o.Access == "" {
		want = 0
	}
	if o.Method == http.MethodGet || want != 0 { // what a reader may change is found above
		w.expect("a read-only key", o, r, path, reader, want)
	}
	if o.Access == "" {
		return
	}
	rest := slices.DeleteFunc(engine.Permissions(), func(p string) bool { return p == o.Access })
	w.expect("a key without the permission", o, r, path, w.Key(w.T, h.principal, "rest", rest), http.StatusForbidden)
	if o.Access == engine.PermissionOwner && !r.member && o.Status == api.Built {
		w.expect("a member's key", o, r, path, h.member, http.StatusForbidden)
	}
	if o.Access == engine.PermissionAdmin {
		w.expect("an owner's key", o, r, path, h.owner, http.StatusForbidden)
	}
}

// expect sends the operation. A want of 0 is anything but a refusal.
func (w *world) expect(who string, o api.Operation, r row, path, key string, want int) (int, wire.Problem, string) {
	w.Helper()
	status, body := w.send(o.Method, path, key, r)
	var p wire.Problem
	_ = json.Unmarshal([]byte(body), &p)
	refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests
	if want == 0 && (refused || status >= 500 && status != http.StatusNotImplemented) || want != 0 && status != want {
		w.Errorf("%s on %s: got %d %s, want %d", who, path, status, body, want)
	}
	return status, p, body
}

func (w *world) send(method, path, key string, r row) (int, string) {
	w.Helper()
	if !r.stream {
		res, body := request(w.T, method, w.url+"/api"+path, key, r.body)
		return res.StatusCode, string(body)
	}
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.url+"/api"+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode, ""
}

var digits = regexp.MustCompile(`house-\d+`)

// checkStranger comes with the unrestricted key of another organization's
// owner, and for what the database keeps apart with the administrator's.
func (w *world) checkStranger(o api.Operation, r row, h house) {
	switch r.scope {
	case open:
		return
	case server:
		w.expect("a stranger", o, r, h.paths(o)[0], w.stranger, http.StatusForbidden)
		return
	case own:
		_, _, body := w.expect("a stranger", o, r, h.paths(o)[0], w.stranger, 0)
		for _, secret := range []string{h.name, h.organization, h.sandbox, h.snapshot, h.secret, h.registry, h.pool, h.access} {
			if strings.Contains(body, secret) && !strings.Contains(h.paths(o)[0], secret) {
				w.Errorf("a stranger is told of %s: %s", secret, body)
			}
		}
		return
	}
	strangers := []string{w.stranger}
	if strings.Contains(o.Path, "{sandbox") || strings.HasPrefix(o.Path, "/snapshots") {
		strangers = append(strangers, coretest.AdminSecret)
	}
	for _, key := range strangers {
		for _, path := range h.paths(o) {
			_, got, _ := w.expect("a stranger", o, r, path, key, http.StatusNotFound)
			_, want, _ := w.expect("a stranger", o, r, nowhere(h).paths(o)[0], key, http.StatusNotFound)
			if faceless(got, h) != faceless(want, nowhere(h)) {
				w.Errorf("a stranger can tell what exists from what does not: %+v and %+v", got, want)
			}
		}
	}
	if strings.Contains(o.Path, "{organizationId}/") && strings.Count(o.Path, "{") > 1 {
		path := strings.ReplaceAll(h.paths(o)[0], h.organization, w.strange.OrganizationID)
		w.expect("a stranger by way of their own organization", o, r, path, w.stranger, http.StatusNotFound)
	}
}

// nowhere is a house that does not exist, with names as long.
func nowhere(h house) house {
	h.organization, h.sandbox, h.snapshot, h.role, h.invitation, h.memberID = absentID, absentID, absentID, absentID, absentID, absentID
	h.secret, h.registry, h.pool, h.endpoint, h.message, h.access = absentID, absentID, absentID, absentID, absentID, absentID
	h.name = "nothing"
	return h
}

var absentID = uuid.NewString()

// faceless is a refusal without what the caller had named.
func faceless(p wire.Problem, h house) string {
	text := fmt.Sprint(p.StatusCode, p.Reason, p.Message, p.Code, p.Kind, p.Hint)
	for _, name := range []string{h.organization, h.sandbox, h.snapshot, h.role, h.invitation, h.memberID, h.name, h.secret, h.registry, h.pool, h.endpoint, h.message, h.access} {
		text = strings.ReplaceAll(text, name, "X")
	}
	return digits.ReplaceAllString(text, "X")
}

// checkAllowed makes sure that the refusals above were not for another reason.
func (w *world) checkAllowed(o api.Operation, r row, h house) {
	key := h.key(r.as)
	if r.scope == server {
		key = coretest.AdminSecret
	} else if slices.Contains(engine.Permissions(), o.Access) {
		key = w.Key(w.T, h.principal, "just enough", []string{o.Access})
	}
	status, _, body := w.expect("a caller who may", o, r, h.paths(o)[0], key, 0)
	if status == http.StatusNotFound && !r.absent {
		w.Errorf("a caller who may: got 404 %s", body)
	}
}
