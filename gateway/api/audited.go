package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Audited returns what an operation is called in the audit log: the action and
// the type of its target, in the words of the contract. Operations that only
// read are not logged; the action is empty then.
func Audited(o Operation) (action, targetType string) {
	if o.Method == http.MethodGet || o.Method == http.MethodHead {
		return "", ""
	}
	targetType = auditTargets()[tagOf(o.Path)]
	if targetType == "" {
		targetType = "other"
	}
	if named, ok := auditNames()[o.Key()]; ok {
		action, targetType = named[0], named[1]
		return action, targetType
	}
	switch o.Method {
	case http.MethodDelete:
		return "delete", targetType
	case http.MethodPut, http.MethodPatch:
		return "update", targetType
	}
	return "create", targetType
}

// auditTargets maps the first part of a path.
func auditTargets() map[string]string {
	return map[string]string{
		"api-keys": "api_key", "sandbox": "sandbox", "snapshots": "snapshot", "volumes": "volume", "secret": "secret",
		"organizations": "organization", "docker-registry": "docker_registry", "warm-pools": "warm_pool", "regions": "region",
		"runners": "runner", "users": "user", "policies": "policy",
	}
}

// auditNames holds what the method does not tell.
func auditNames() map[string][2]string {
	names := map[string][2]string{
		"POST /organizations/invitations/{invitationId}/accept":                        {"accept", "organization_invitation"},
		"POST /organizations/invitations/{invitationId}/decline":                       {"decline", "organization_invitation"},
		"POST /organizations/{organizationId}/invitations":                             {"create", "organization_invitation"},
		"PUT /organizations/{organizationId}/invitations/{invitationId}":               {"update", "organization_invitation"},
		"POST /organizations/{organizationId}/invitations/{invitationId}/cancel":       {"delete", "organization_invitation"},
		"POST /organizations/{organizationId}/leave":                                   {"leave_organization", "organization"},
		"POST /organizations/{organizationId}/suspend":                                 {"suspend", "organization"},
		"POST /organizations/{organizationId}/unsuspend":                               {"unsuspend", "organization"},
		"PATCH /organizations/{organizationId}/quota":                                  {"update_quota", "organization"},
		"PATCH /organizations/{organizationId}/quota/{regionId}":                       {"update_region_quota", "organization"},
		"POST /admin/organizations/{organizationId}/quota/{regionId}":                  {"create_region_quota", "organization"},
		"PATCH /admin/organizations/{organizationId}/quota/{regionId}":                 {"update_region_quota", "organization"},
		"DELETE /admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}": {"delete_region_quota", "organization"},
		"POST /organizations/{organizationId}/sandbox-default-limited-network-egress":  {"update_sandbox_default_limited_network_egress", "organization"},
		"POST /organizations/{organizationId}/preview-warning":                         {"update_preview_warning", "organization"},
		"POST /admin/organizations/{organizationId}/preview-warning":                   {"update_preview_warning", "organization"},
		"POST /organizations/{organizationId}/sso-enabled":                             {"update_sso_enabled", "organization"},
		"PUT /organizations/{organizationId}/otel-config":                              {"update_otel_config", "organization"},
		"DELETE /organizations/{organizationId}/otel-config":                           {"delete_otel_config", "organization"},
		"POST /organizations/{organizationId}/roles":                                   {"create", "organization_role"},
		"PUT /organizations/{organizationId}/roles/{roleId}":                           {"update", "organization_role"},
		"DELETE /organizations/{organizationId}/roles/{roleId}":                        {"delete", "organization_role"},
		"POST /organizations/{organizationId}/users/{userId}/access":                   {"update_access", "organization_user"},
		"DELETE /organizations/{organizationId}/users/{userId}":                        {"delete", "organization_user"},
		"POST /organizations/{organizationId}/identity-providers":                      {"create", "identity_provider"},
		"PATCH /organizations/{organizationId}/identity-providers/{id}":                {"update", "identity_provider"},
		"DELETE /organizations/{organizationId}/identity-providers/{id}":               {"delete", "identity_provider"},
		"POST /admin/users":                                                              {"create", "user"},
		"POST /admin/organizations":                                                      {"create", "organization"},
		"POST /admin/runners":                                                            {"create", "runner"},
		"DELETE /admin/runners/{id}":                                                     {"delete", "runner"},
		"PATCH /admin/runners/{id}/scheduling":                                           {"update_scheduling", "runner"},
		"PATCH /runners/{id}/scheduling":                                                 {"update_scheduling", "runner"},
		"PATCH /runners/{id}/draining":                                                   {"update_draining", "runner"},
		"POST /admin/sandbox/{sandboxId}/recover":                                        {"recover", "sandbox"},
		"POST /admin/users/{id}/regenerate-key-pair":                                     {"regenerate_key_pair", "user"},
		"PATCH /admin/snapshots/{id}/general":                                            {"set_general_status", "snapshot"},
		"POST /admin/docker-registry/{id}/set-default":                                   {"set_default", "docker_registry"},
		"POST /admin/shutdown":                                                           {"update", "other"},
		"POST /regions/{id}/regenerate-proxy-api-key":                                    {"regenerate_proxy_api_key", "region"},
		"POST /regions/{id}/regenerate-ssh-gateway-api-key":                              {"regenerate_ssh_gateway_api_key", "region"},
		"POST /regions/{id}/regenerate-snapshot-manager-credentials":                     {"regenerate_snapshot_manager_credentials", "region"},
		"POST /snapshots/{id}/activate":                                                  {"activate", "snapshot"},
		"POST /snapshots/{id}/deactivate":                                                {"deactivate", "snapshot"},
		"POST /users/linked-accounts":                                                    {"link_account", "user"},
		"DELETE /users/linked-accounts/{provider}/{providerUserId}":                      {"unlink_account", "user"},
		"POST /admin/webhooks/organizations/{organizationId}/send":                       {"send_webhook_message", "organization"},
		"POST /admin/webhooks/organizations/{organizationId}/initialize":                 {"initialize_webhooks", "organization"},
		"POST /webhooks/organizations/{organizationId}/initialize":                       {"initialize_webhooks", "organization"},
		"POST /sandbox/{sandboxId}/signing-key/rotate":                                   {"rotate_signing_key", "sandbox"},
		"POST /sandbox/{sandboxId}/last-activity":                                        {"update", "sandbox"},
		"PUT /sandbox/{sandboxId}/state":                                                 {"update", "sandbox"},
		"POST /sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire": {"update", "sandbox"},
		"DELETE /sandbox/{sandboxIdOrName}/ssh-access":                                   {"revoke_ssh_access", "sandbox"},
		"PUT /sandbox/{sandboxIdOrName}/labels":                                          {"replace_labels", "sandbox"},
		"PUT /sandbox/{sandboxIdOrName}/policy":                                          {"update_policy", "sandbox"},
		"POST /policies/{name}/test":                                                     {"test", "policy"},
		"POST /access-requests/{requestId}/approve":                                      {"approve_access", "other"},
		"POST /access-requests/{requestId}/deny":                                         {"deny_access", "other"},
		"DELETE /sandbox/{sandboxIdOrName}/learn":                                        {"finish_learning", "sandbox"},
		"PUT /sandbox/{sandboxIdOrName}/secrets":                                         {"update_secrets", "sandbox"},
	}
	for path, action := range map[string]string{
		"recover": "recover", "start": "start", "stop": "stop", "pause": "pause", "resize": "resize", "backup": "create_backup",
		"snapshot": "snapshot", "fork": "fork", "public/{isPublic}": "update_public_status", "archive": "archive",
		"autostop/{interval}": "set_auto_stop_interval", "autopause/{interval}": "set_auto_pause_interval", "ttl/{ttlMinutes}": "set_ttl",
		"autoarchive/{interval}": "set_auto_archive_interval", "autodelete/{interval}": "set_auto_delete_interval",
		"network-settings": "update_network_settings", "learn": "learn", "ssh-access": "create_ssh_access",
	} {
		names["POST /sandbox/{sandboxIdOrName}/"+path] = [2]string{action, "sandbox"}
	}
	return names
}

// audited records what the operation did once it has answered. What did not
// come to a decision for want of a key is not recorded: nobody did it.
func (a *API) audited(o Operation, next http.Handler) http.Handler {
	action, target := Audited(o)
	if action == "" || a.Accounts.Audit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tap := &tap{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(tap, r)
		from := auth.OriginOf(r.Context())
		e := engine.AuditEntry{
			Action: action, TargetType: target, TargetID: targetID(r, o), Status: tap.code,
			IP: from.IP, UserAgent: from.UserAgent, Source: from.Source,
		}.Actor(caller(r.Context()))
		if action == "create" {
			e.TargetID = "" // the path names where it was made
		}
		tap.describe(&e)
		a.Accounts.Audit.Record(e)
	})
}

// targetID is the last name in the path that stands for an object; what comes
// after it, as an interval, is no object.
func targetID(r *http.Request, o Operation) string {
	params := chi.RouteContext(r.Context()).URLParams
	id := ""
	for i, key := range params.Keys {
		switch key {
		case "*", "interval", "ttlMinutes", "isPublic", "port", "token", "regionId", "sandboxClass":
			continue
		}
		if i < len(params.Values) && strings.Contains(o.Path, "{"+key+"}") {
			id = params.Values[i]
		}
	}
	return id
}

// tapped bounds how much of an answer is looked at.
const tapped = 16 << 10

// tap keeps the begin of an answer, which tells the id of what was made or
// what went wrong.
type tap struct {
	http.ResponseWriter
	code int
	body bytes.Buffer
}

// WriteHeader notes the final status.
func (t *tap) WriteHeader(code int) {
	if code >= http.StatusOK {
		t.code = code
	}
	t.ResponseWriter.WriteHeader(code)
}

// Write notes the begin of the body.
func (t *tap) Write(b []byte) (int, error) {
	if left := tapped - t.body.Len(); left > 0 {
		t.body.Write(b[:min(left, len(b))])
	}
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (t *tap) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *tap) describe(e *engine.AuditEntry) {
	if t.code >= http.StatusBadRequest {
		e.Error = wire.ParseProblem(t.code, t.body.Bytes()).Message
		return
	}
	var made struct{ ID, Name string }
	if e.TargetID == "" && json.Unmarshal(t.body.Bytes(), &made) == nil {
		e.TargetID = made.ID
		if made.ID == "" {
			e.TargetID = made.Name
		}
	}
}
