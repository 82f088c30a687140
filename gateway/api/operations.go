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
	// for none at all, "owner" for an unrestricted one, whose user's role the
	// operation looks at, "admin" for an administrator's.
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
		{"GET", "/sandbox/{sandboxId}/signing-key", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxId}/signing-key/rotate", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxId}/last-activity", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autostop/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autopause/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autoarchive/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/autodelete/{interval}", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/network-settings", Built, "write:sandboxes"},
		{"PUT", "/sandbox/{sandboxIdOrName}/secrets", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/archive", Missing, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs-url", Built, ""},
		{"POST", "/sandbox/{sandboxIdOrName}/ssh-access", Built, "write:sandboxes"},
		{"DELETE", "/sandbox/{sandboxIdOrName}/ssh-access", Built, "delete:sandboxes"},
		{"GET", "/sandbox/ssh-access/validate", Built, ""},
		{"GET", "/sandbox/{sandboxId}/toolbox-proxy-url", Built, ""},
		{"GET", "/sandbox/{sandboxId}/organization", Built, ""},
		{"GET", "/sandbox/{sandboxId}/region-quota", Built, "read:limits"},
		{"GET", "/sandbox/{sandboxId}/secrets", Missing, "admin"},
		{"GET", "/sandbox/{sandboxId}/telemetry/logs", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/traces", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/traces/{traceId}", Missing, ""},
		{"GET", "/sandbox/{sandboxId}/telemetry/metrics", Built, ""},

		// snapshots
		{"POST", "/snapshots", Built, "write:snapshots"},
		{"GET", "/snapshots", Built, ""},
		{"GET", "/snapshots/{id}", Built, ""},
		{"DELETE", "/snapshots/{id}", Built, "delete:snapshots"},
		{"GET", "/snapshots/{id}/build-logs", Built, ""},
		{"GET", "/snapshots/{id}/build-logs-url", Built, ""},
		{"POST", "/snapshots/{id}/activate", Built, "write:snapshots"},
		{"POST", "/snapshots/{id}/deactivate", Built, "write:snapshots"},

		// volumes
		{"GET", "/volumes", Built, "read:volumes"},
		{"POST", "/volumes", Missing, "write:volumes"},
		{"GET", "/volumes/{volumeId}", Built, "read:volumes"},
		{"DELETE", "/volumes/{volumeId}", Missing, "delete:volumes"},
		{"GET", "/volumes/by-name/{name}", Built, "read:volumes"},

		// object-storage
		{"GET", "/object-storage/push-access", Missing, "write:snapshots"},

		// docker-registry
		{"POST", "/docker-registry", Built, "write:registries"},
		{"GET", "/docker-registry", Built, ""},
		{"GET", "/docker-registry/registry-push-access", Missing, ""},
		{"GET", "/docker-registry/{id}", Built, ""},
		{"PATCH", "/docker-registry/{id}", Built, "write:registries"},
		{"DELETE", "/docker-registry/{id}", Built, "delete:registries"},

		// warm-pools
		{"GET", "/warm-pools", Built, ""},
		{"POST", "/warm-pools", Built, "write:sandboxes"},
		{"PATCH", "/warm-pools/{id}", Built, "write:sandboxes"},
		{"DELETE", "/warm-pools/{id}", Built, "write:sandboxes"},

		// secret
		{"POST", "/secret", Built, "manage:secrets"},
		{"GET", "/secret", Built, ""},
		{"GET", "/secret/paginated", Built, ""},
		{"GET", "/secret/{secretId}", Built, ""},
		{"PATCH", "/secret/{secretId}", Built, "manage:secrets"},
		{"DELETE", "/secret/{secretId}", Built, "manage:secrets"},

		// organizations
		{"GET", "/organizations/invitations", Built, ""},
		{"GET", "/organizations/invitations/count", Built, ""},
		{"POST", "/organizations/invitations/{invitationId}/accept", Built, "owner"},
		{"POST", "/organizations/invitations/{invitationId}/decline", Built, "owner"},
		{"POST", "/organizations", Built, "owner"},
		{"GET", "/organizations", Built, ""},
		{"PATCH", "/organizations/{organizationId}/default-region", Built, "owner"},
		{"GET", "/organizations/{organizationId}", Built, ""},
		{"DELETE", "/organizations/{organizationId}", Built, "owner"},
		{"GET", "/organizations/{organizationId}/usage", Built, "read:limits"},
		{"GET", "/organizations/{organizationId}/available-sandbox-classes", Built, ""},
		{"PATCH", "/organizations/{organizationId}/quota", Built, "admin"},
		{"PATCH", "/organizations/{organizationId}/quota/{regionId}", Built, "admin"},
		{"POST", "/organizations/{organizationId}/leave", Built, "owner"},
		{"POST", "/organizations/{organizationId}/suspend", Built, "admin"},
		{"POST", "/organizations/{organizationId}/unsuspend", Built, "admin"},
		{"GET", "/organizations/otel-config/by-sandbox-auth-token/{authToken}", Missing, "admin"},
		{"GET", "/organizations/{organizationId}/otel-config", Missing, ""},
		{"PUT", "/organizations/{organizationId}/otel-config", Missing, "admin"},
		{"DELETE", "/organizations/{organizationId}/otel-config", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/sandbox-default-limited-network-egress", Built, "admin"},
		{"POST", "/organizations/{organizationId}/preview-warning", Built, "owner"},
		{"POST", "/organizations/{organizationId}/sso-enabled", Missing, "admin"},
		{"PUT", "/organizations/{organizationId}/experimental-config", Missing, "admin"},
		{"POST", "/organizations/{organizationId}/roles", Built, "owner"},
		{"GET", "/organizations/{organizationId}/roles", Built, ""},
		{"PUT", "/organizations/{organizationId}/roles/{roleId}", Built, "owner"},
		{"DELETE", "/organizations/{organizationId}/roles/{roleId}", Built, "owner"},
		{"GET", "/organizations/{organizationId}/users", Built, ""},
		{"POST", "/organizations/{organizationId}/users/{userId}/access", Built, "owner"},
		{"DELETE", "/organizations/{organizationId}/users/{userId}", Built, "owner"},
		{"POST", "/organizations/{organizationId}/invitations", Built, "owner"},
		{"GET", "/organizations/{organizationId}/invitations", Built, "owner"},
		{"PUT", "/organizations/{organizationId}/invitations/{invitationId}", Built, "owner"},
		{"POST", "/organizations/{organizationId}/invitations/{invitationId}/cancel", Built, "owner"},
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
		{"POST", "/api-keys", Built, "manage:api_keys"},
		{"GET", "/api-keys", Built, ""},
		{"GET", "/api-keys/current", Built, ""},
		{"GET", "/api-keys/{name}", Built, ""},
		{"DELETE", "/api-keys/{name}", Built, "manage:api_keys"},
		{"DELETE", "/api-keys/{userId}/{name}", Built, "manage:api_keys"},

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
		{"GET", "/preview/{sandboxId}/public", Built, "public"},
		{"GET", "/preview/{sandboxId}/preview-warning", Built, "public"},
		{"GET", "/preview/{sandboxId}/validate/{authToken}", Built, "public"},
		{"GET", "/preview/{sandboxId}/signing-key", Built, "admin"},
		{"GET", "/preview/{sandboxId}/access", Built, ""},
		{"GET", "/preview/{signedPreviewToken}/{port}/sandbox-id", Built, "public"},

		// webhooks
		{"POST", "/webhooks/organizations/{organizationId}/app-portal-access", Missing, "admin"},
		{"GET", "/webhooks/organizations/{organizationId}/initialization-status", Built, ""},
		{"POST", "/webhooks/organizations/{organizationId}/initialize", Built, "owner"},
		{"POST", "/webhooks/organizations/{organizationId}/refresh-endpoints", Built, "owner"},

		// audit
		{"GET", "/audit/organizations/{organizationId}", Built, "read:audit_logs"},
		{"GET", "/audit/scenarios", Built, "read:audit_logs"},

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
		{"POST", "/admin/users", Built, "admin"},
		{"GET", "/admin/users", Built, "admin"},
		{"POST", "/admin/users/{id}/regenerate-key-pair", Missing, "admin"},
		{"GET", "/admin/users/{id}", Built, "admin"},
		{"POST", "/admin/webhooks/organizations/{organizationId}/send", Built, "admin"},
		{"GET", "/admin/webhooks/organizations/{organizationId}/messages/{messageId}/attempts", Built, "admin"},
		{"GET", "/admin/webhooks/status", Built, "admin"},
		{"POST", "/admin/webhooks/organizations/{organizationId}/initialize", Built, "admin"},
		{"POST", "/admin/docker-registry/{id}/set-default", Missing, "admin"},
		{"GET", "/admin/snapshots/can-cleanup-image", Built, "admin"},
		{"PATCH", "/admin/snapshots/{id}/general", Built, "admin"},
		{"GET", "/admin/audit", Built, "admin"},
		{"POST", "/admin/organizations", Built, "admin"},
		{"POST", "/admin/organizations/{organizationId}/quota/{regionId}", Built, "admin"},
		{"PATCH", "/admin/organizations/{organizationId}/quota/{regionId}", Built, "admin"},
		{"GET", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", Built, "admin"},
		{"DELETE", "/admin/organizations/{organizationId}/quota/{regionId}/{sandboxClass}", Built, "admin"},
		{"POST", "/admin/organizations/{organizationId}/preview-warning", Built, "admin"},

		// Health
		{"GET", "/health", Built, "public"},
		{"GET", "/health/ready", Built, "public"},
	}
}

// Extensions returns the operations that the contract does not have.
func Extensions() []Operation {
	return []Operation{
		{"GET", "/doctor", Built, "admin"},
		{"GET", "/events", Built, ""},
		{"GET", "/docs", Built, Public},
		{"GET", "/openapi.json", Built, Public},
		{"GET", "/toolbox-openapi.json", Built, Public},
		{"GET", "/sandbox/{sandboxIdOrName}/stats", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/activity", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/activity/report", Built, ""},
		{"GET", "/sandbox/{sandboxIdOrName}/activity/verify", Built, ""},
		{"GET", "/policies", Built, ""},
		{"GET", "/policies/{name}", Built, ""},
		{"PUT", "/policies/{name}", Built, "owner"},
		{"DELETE", "/policies/{name}", Built, "owner"},
		{"POST", "/policies/{name}/test", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/policy", Built, ""},
		{"PUT", "/sandbox/{sandboxIdOrName}/policy", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/policy/explain", Built, ""},
		{"GET", "/access-requests", Built, ""},
		{"POST", "/access-requests/{requestId}/approve", Built, "write:sandboxes"},
		{"POST", "/access-requests/{requestId}/deny", Built, "write:sandboxes"},
		{"POST", "/sandbox/{sandboxIdOrName}/learn", Built, "write:sandboxes"},
		{"GET", "/sandbox/{sandboxIdOrName}/learn", Built, ""},
		{"DELETE", "/sandbox/{sandboxIdOrName}/learn", Built, "write:sandboxes"},
		{"POST", "/snapshots/{id}/prepare", Built, "write:snapshots"},
		{"POST", "/admin/shutdown", Built, "admin"},
		{"GET", "/webhooks/organizations/{organizationId}/endpoints", Built, "owner"},
		{"POST", "/webhooks/organizations/{organizationId}/endpoints", Built, "owner"},
		{"GET", "/webhooks/organizations/{organizationId}/endpoints/{endpointId}", Built, "owner"},
		{"PATCH", "/webhooks/organizations/{organizationId}/endpoints/{endpointId}", Built, "owner"},
		{"DELETE", "/webhooks/organizations/{organizationId}/endpoints/{endpointId}", Built, "owner"},
		{"POST", "/webhooks/organizations/{organizationId}/endpoints/{endpointId}/rotate-secret", Built, "owner"},
		{"GET", "/webhooks/organizations/{organizationId}/messages", Built, "owner"},
		{"GET", "/webhooks/organizations/{organizationId}/messages/{messageId}/attempts", Built, "owner"},
		{"POST", "/webhooks/organizations/{organizationId}/messages/{messageId}/resend", Built, "owner"},
	}
}
