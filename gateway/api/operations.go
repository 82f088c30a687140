package api

// Status tells whether an operation of the contract is there.
type Status string

// The statuses.
const (
	Built   Status = "built"
	Missing Status = "missing" // answers 501
)

// Operation is one row of the table that routing, authorization and
// docs/compatibility.md are made of.
type Operation struct {
	Method, Path string // below /api
	Status       Status
	// Access is the permission that a key needs: empty for any key, "public"
	// for none at all, "admin" for an administrator's.
	Access string
}

// Public is the Access of operations that need no key.
const Public = "public"

// Key returns the method and path as one string.
func (o Operation) Key() string { return o.Method + " " + o.Path }

// Operations returns every operation of the contract.
func Operations() []Operation {
	return []Operation{
		// config
		{"GET", "/config", Built, "public"},

		// sandbox
		{"GET", "/sandbox", Built, ""},
		{"POST", "/sandbox", Built, "write:sandboxes"},
		{"GET", "/sandbox/paginated", Built, ""},
		{"GET", "/sandbox/for-runner", Missing, "admin"},
		{"GET", "/sandbox/{sandboxIdOrName}", Built, ""},
		{"DELETE", "/sandbox/{sandboxIdOrName}", Built, "delete:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/recover", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/start", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/stop", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/pause", Missing, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/resize", Built, "write:sandboxes"},
		{"PUT", "/sandbox/{sandboxIdOrName}/labels", Built, "write:sandboxes"},
		{"PUT", "/sandbox/{sandboxId}/state", Missing, "admin"},
		{"POST", "/sandbox/{sandboxIdOrName}/backup", Missing, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/snapshot", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/fork", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/forks", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/parent", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/ancestors", Built, ""},
		{"POST", "/sandbox/{sandboxIdOrName}/public/{isPublic}", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxId}/signing-key", Missing, ""},
		{"POST", "/sandbox/{sandboxId}/signing-key/rotate", Missing, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxId}/last-activity", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autostop/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autopause/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autoarchive/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autodelete/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/network-settings", Built, "write:sandboxes"},
		{"PUT", "/sandbox/{sandboxIdOrName}/secrets", Missing, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/archive", Missing, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", Missing, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url", Missing, ""},
		{"POST", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire", Missing, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs-url", Built, ""},
		{"POST", "/sandbox/{sandboxIdOrName}/ssh-access", Missing, "write:sandboxes"},
		{"DELETE", "/sandbox/{sandboxIdOrName}/ssh-access", Missing, "delete:sandboxes"},
		{"GET", "/sandbox/ssh-access/validate", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/toolbox-proxy-url", Built, ""},
		{"GET", "/sandbox/{sandboxId}/organization", Built, ""},
		{"GET", "/sandbox/{sandboxId}/region-quota", Missing, "admin"},
		{"GET", "/sandbox/{sandboxId}/secrets", Missing, "admin"},
		{"GET", "/sandbox/{sandboxId}/telemetry/logs", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/traces", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/traces/{traceId}", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/metrics", Missing, ""},

		// snapshots
		{"POST", "/snapshots", Built, "write:snapshots"},
		{"GET", "/snapshots", Built, ""},
		{"GET", "/snapshots/{id}", Built, ""},
		{"DELETE", "/snapshots/{id}", Built, "delete:snapshots"},
		{"GET", "/snapshots/{id}/build-logs", Built, ""},
		{"GET", "/snapshots/{id}/build-logs-url", Built, ""},
		{"POST", "/snapshots/{id}/activate", Missing, "write:snapshots"},
		{"POST", "/snapshots/{id}/deactivate", Missing, "write:snapshots"},

		// volumes
		{"GET", "/volumes", Built, "read:volumes"},
		{"POST", "/volumes", Missing, "write:volumes"},
		{"GET", "/volumes/{volumeId}", Built, "read:volumes"},
		{"DELETE", "/volumes/{volumeId}", Missing, "delete:volumes"},
		{"GET", "/volumes/by-name/{name}", Built, "read:volumes"},

		// object-storage
		{"GET", "/object-storage/push-access", Missing, "write:snapshots"},

		// docker-registry
		{"POST", "/docker-registry", Missing, "write:registries"},
		{"GET", "/docker-registry", Missing, ""},
		{"GET", "/docker-registry/registry-push-access", Missing, ""},
		{"GET", "/docker-registry/{id}", Missing, ""},
		{"PATCH", "/docker-registry/{id}", Missing, "write:registries"},
		{"DELETE", "/docker-registry/{id}", Missing, "delete:registries"},

		// warm-pools
		{"GET", "/warm-pools", Missing, ""},
		{"POST", "/warm-pools", Missing, "write:sandboxes"},
		{"PATCH", "/warm-pools/{id}", Missing, "write:sandboxes"},
		{"DELETE", "/warm-pools/{id}", Missing, "write:sandboxes"},

		// secret
		{"POST", "/secret", Missing, "manage:secrets"},
		{"GET", "/secret", Missing, ""},
		{"GET", "/secret/paginated", Missing, ""},
		{"GET", "/secret/{secretId}", Missing, ""},
		{"PATCH", "/secret/{secretId}", Missing, "manage:secrets"},
		{"DELETE", "/secret/{secretId}", Missing, "manage:secrets"},

		// organizations
		{"GET", "/organizations/invitations", Missing, ""},
		{"GET", "/organizations/invitations/count", Missing, ""},
		{"POST", "/organizations/invitations/{invitationId}/accept", Missing, "admin"},
		{"POST", "/organizations/invitations/{invitationId}/decline", Missing, "admin"},
		{"POST", "/organizations", Missing, "admin"},
		{"GET", "/organizations", Built, ""},
		{"PATCH", "/organizations/{organizationId}/default-region", Missing, "admin"},
		{"GET", "/organizations/{organizationId}", Built, ""},
		{"DELETE", "/organizations/{organizationId}", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/usage", Missing, "read:limits"},
		{"GET", "/organizations/{organizationId}/available-sandbox-classes", Missing, ""},
		{"PATCH", "/organizations/{organizationId}/quota", Missing, "admin"},
		{"PATCH", "/organizations/{organizationId}/quota/{regionId}", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/leave", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/suspend", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/unsuspend", Missing, "admin"},
		{"GET", "/organizations/otel-config/by-sandbox-auth-token/{authToken}", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/otel-config", Missing, ""},
		{"PUT", "/organizations/{organizationId}/otel-config", Missing, "admin"},
		{"DELETE", "/organizations/{organizationId}/otel-config", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/sandbox-default-limited-network-egress", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/preview-warning", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/sso-enabled", Missing, "admin"},
		{"PUT", "/organizations/{organizationId}/experimental-config", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/roles", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/roles", Missing, ""},
		{"PUT", "/organizations/{organizationId}/roles/{roleId}", Missing, "admin"},
		{"DELETE", "/organizations/{organizationId}/roles/{roleId}", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/users", Missing, ""},
		{"POST", "/organizations/{organizationId}/users/{userId}/access", Missing, "admin"},
		{"DELETE", "/organizations/{organizationId}/users/{userId}", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/invitations", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/invitations", Missing, ""},
		{"PUT", "/organizations/{organizationId}/invitations/{invitationId}", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/invitations/{invitationId}/cancel", Missing, "admin"},
		{"GET", "/regions", Built, ""},
		{"POST", "/regions", Missing, "write:regions"},
		{"GET", "/regions/{id}", Built, ""},
		{"DELETE", "/regions/{id}", Missing, "delete:regions"},
		{"PATCH", "/regions/{id}", Missing, "write:regions"},
		{"POST", "/regions/{id}/regenerate-proxy-api-key", Missing, "write:regions"},
		{"POST", "/regions/{id}/regenerate-ssh-gateway-api-key", Missing, "write:regions"},
		{"POST", "/regions/{id}/regenerate-snapshot-manager-credentials", Missing, "write:regions"},
		{"POST", "/organizations/{organizationId}/identity-providers", Missing, "manage:sso"},
		{"GET", "/organizations/{organizationId}/identity-providers", Missing, "manage:sso"},
		{"GET", "/organizations/{organizationId}/identity-providers/{id}", Missing, "manage:sso"},
		{"PATCH", "/organizations/{organizationId}/identity-providers/{id}", Missing, "manage:sso"},
		{"DELETE", "/organizations/{organizationId}/identity-providers/{id}", Missing, "manage:sso"},
		{"POST", "/organizations/{organizationId}/identity-providers/test-connection", Missing, "manage:sso"},

		// regions
		{"GET", "/shared-regions", Built, "public"},

		// api-keys
		{"POST", "/api-keys", Missing, "manage:api_keys"},
		{"GET", "/api-keys", Missing, ""},
		{"GET", "/api-keys/current", Built, ""},
		{"GET", "/api-keys/{name}", Missing, ""},
		{"DELETE", "/api-keys/{name}", Missing, "manage:api_keys"},
		{"DELETE", "/api-keys/{userId}/{name}", Missing, "manage:api_keys"},

		// users
		{"GET", "/users/me", Built, ""},
		{"GET", "/users/account-providers", Missing, ""},
		{"POST", "/users/linked-accounts", Missing, "admin"},
		{"DELETE", "/users/linked-accounts/{provider}/{providerUserId}", Missing, "admin"},
		{"POST", "/users/mfa/sms/enroll", Missing, "admin"},
		{"GET", "/users/me/pending-sso-links", Missing, ""},
		{"POST", "/users/me/pending-sso-links/{id}/confirm", Missing, "admin"},
		{"DELETE", "/users/me/pending-sso-links/{id}", Missing, "admin"},

		// preview
		{"GET", "/preview/{sandboxId}/public", Missing, ""},
		{"GET", "/preview/{sandboxId}/preview-warning", Missing, ""},
		{"GET", "/preview/{sandboxId}/validate/{authToken}", Missing, ""},
		{"GET", "/preview/{sandboxId}/signing-key", Missing, ""},
		{"GET", "/preview/{sandboxId}/access", Missing, ""},
		{"GET", "/preview/{signedPreviewToken}/{port}/sandbox-id", Missing, ""},

		// webhooks
		{"POST", "/webhooks/organizations/{organizationId}/app-portal-access", Missing, "admin"},
		{"GET", "/webhooks/organizations/{organizationId}/initialization-status", Missing, ""},
		{"POST", "/webhooks/organizations/{organizationId}/initialize", Missing, "admin"},
		{"POST", "/webhooks/organizations/{organizationId}/refresh-endpoints", Missing, "admin"},

		// audit
		{"GET", "/audit/organizations/{organizationId}", Missing, "read:audit_logs"},
		{"GET", "/audit/scenarios", Missing, "read:audit_logs"},

		// runners
		{"POST", "/runners", Missing, "write:runners"},
		{"GET", "/runners", Missing, "read:runners"},
		{"GET", "/runners/me", Missing, "read:runners"},
		{"GET", "/runners/me/snapshots", Missing, "read:runners"},
		{"GET", "/runners/by-sandbox/{sandboxId}", Missing, "read:runners"},
		{"GET", "/runners/by-snapshot-ref", Missing, "read:runners"},
		{"GET", "/runners/{id}", Missing, "read:runners"},
		{"DELETE", "/runners/{id}", Missing, "delete:runners"},
		{"GET", "/runners/{id}/full", Missing, "read:runners"},
		{"PATCH", "/runners/{id}/scheduling", Missing, "write:runners"},
		{"PATCH", "/runners/{id}/draining", Missing, "write:runners"},
		{"POST", "/runners/healthcheck", Missing, "write:runners"},

		// jobs
		{"GET", "/jobs", Missing, "admin"},
		{"GET", "/jobs/poll", Missing, "admin"},
		{"GET", "/jobs/{jobId}", Missing, "admin"},
		{"POST", "/jobs/{jobId}/status", Missing, "admin"},

		// admin
		{"POST", "/admin/runners", Missing, "admin"},
		{"GET", "/admin/runners", Missing, "admin"},
		{"GET", "/admin/runners/{id}", Missing, "admin"},
		{"DELETE", "/admin/runners/{id}", Missing, "admin"},
		{"PATCH", "/admin/runners/{id}/scheduling", Missing, "admin"},
		{"POST", "/admin/sandbox/{sandboxId}/recover", Missing, "admin"},
		{"POST", "/admin/users", Missing, "admin"},
		{"GET", "/admin/users", Missing, "admin"},
		{"POST", "/admin/users/{id}/regenerate-key-pair", Missing, "admin"},
		{"GET", "/admin/users/{id}", Missing, "admin"},
		{"POST", "/admin/webhooks/organizations/{organizationId}/send", Missing, "admin"},
		{"GET", "/admin/webhooks/organizations/{organizationId}/messages/{messageId}/attempts", Missing, "admin"},
		{"GET", "/admin/webhooks/status", Missing, "admin"},
		{"POST", "/admin/webhooks/organizations/{organizationId}/initialize", Missing, "admin"},
		{"POST", "/admin/docker-registry/{id}/set-default", Missing, "admin"},
		{"GET", "/admin/snapshots/can-cleanup-image", Missing, "admin"},
		{"PATCH", "/admin/snapshots/{id}/general", Missing, "admin"},
		{"GET", "/admin/audit", Missing, "admin"},
		{"POST", "/admin/organizations", Missing, "admin"},
		{"POST", "/admin/organizations/{organizationId}/quota/{regionId}", Missing, "admin"},
		{"PATCH", "/admin/organizations/{organizationId}/quota/{regionId}", Missing, "admin"},
		{"GET", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", Missing, "admin"},
		{"DELETE", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", Missing, "admin"},
		{"POST", "/admin/organizations/{organizationId}/preview-warning", Missing, "admin"},

		// Health
		{"GET", "/health", Built, "public"},
		{"GET", "/health/ready", Built, "public"},
	}
}

// Extensions returns the operations that the contract does not have.
func Extensions() []Operation {
	return []Operation{
		{"GET", "/doctor", Built, ""},
		{"GET", "/events", Built, ""},
		{"GET", "/openapi.json", Built, Public},
		{"GET", "/sandbox/{sandboxIdOrName}/stats", Built, ""},
		{"POST", "/snapshots/{id}/prepare", Built, "write:snapshots"},
		{"POST", "/admin/shutdown", Built, "admin"},
	}
}
