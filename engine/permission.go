package engine

import (
	"slices"

	"github.com/atoll-sh/atoll/policies"
)

// What operations need beside the permissions of the contract.
const (
	// PermissionAdmin is what operations on the server itself need.
	PermissionAdmin = "admin"
	// PermissionOwner is what operations on an organization need: an
	// unrestricted key. The operation then asks for its user's role there.
	PermissionOwner = "owner"
)

// Permissions that code of ours names.
const (
	WriteSandboxes  = "write:sandboxes"
	DeleteSandboxes = "delete:sandboxes"
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
	ManageKeys      = "manage:api_keys"
	ReadAudit       = "read:audit_logs"
	ReadLimits      = "read:limits"
)

// Permissions returns what a key can be allowed, in the order of the contract.
func Permissions() []string {
	return []string{
		"write:registries", "delete:registries", WriteSnapshots, DeleteSnapshots, WriteSandboxes, DeleteSandboxes,
		"read:volumes", "write:volumes", "delete:volumes", "write:regions", "delete:regions",
		"read:runners", "write:runners", "delete:runners", ReadAudit, ManageKeys, "manage:secrets", ReadLimits,
		"manage:sso", "read:billing", "manage:billing",
	}
}

// Authorize is the one answer to whether p may do what needs the permission to
// an object of the organization. An empty permission needs a key only, an empty
// organization stands for no object. What belongs to others does not exist:
// that is KindNotFound, and a lack of permission, which is found first and
// tells nothing of the object, KindDenied.
func Authorize(p Principal, permission, organizationID string) error {
	if err := permit(p, permission); err != nil {
		return err
	}
	if organizationID != "" && organizationID != p.OrganizationID {
		return Errorf(KindNotFound, "not found")
	}
	return nil
}

// permit asks first what the caller holds, then whether it is limited.
func permit(p Principal, permission string) error {
	if err := holds(p, permission); err != nil {
		return err
	}
	if permission != "" && !p.Scope.Grants(permission) {
		return Errorf(KindDenied, "this API key is limited and does not reach what needs %s", permission).
			WithHint("use a key without these limits")
	}
	return nil
}

func holds(p Principal, permission string) error {
	switch {
	case permission == "", p.Admin:
		return nil
	case permission == PermissionOwner && p.Policy != "":
		return Unbound(p, "administrate organizations")
	case permission == PermissionOwner && p.Unrestricted:
		return nil
	case permission == PermissionOwner:
		return Errorf(KindDenied, "this API key is restricted and cannot administrate organizations").
			WithHint("use a key that was made without a list of permissions")
	case permission != PermissionAdmin && slices.Contains(p.Permissions, permission):
		return nil
	}
	return Errorf(KindDenied, "this API key lacks the permission %s", permission).WithHint("use a key that has it")
}

// AuthorizeTool is the one answer to whether p may call a tool or operation, as
// far as a policy that its key is bound to says. Permissions are asked apart.
func AuthorizeTool(p Principal, t policies.ToolRequest) error {
	if p.Tools == nil {
		return nil
	}
	d := policies.Decide(&policies.Policy{Tools: *p.Tools}, t)
	if d.Allow {
		return nil
	}
	return Errorf(KindDenied, "%s is denied by %s of policy %s, which this API key is bound to: %s", t.Tool, d.Rule, p.Policy, d.Reason).
		WithHint("use a tool that the policy allows, or ask for another key")
}

// Unbound refuses what no key does that is bound to a policy, because it would
// change what the policy says or who is under it.
func Unbound(p Principal, what string) error {
	if p.Policy == "" {
		return nil
	}
	return Errorf(KindDenied, "this API key is bound to policy %s and cannot %s", p.Policy, what).WithHint("ask for a key that is not bound")
}

// Reaches keeps a key that is bound to a policy to the sandboxes under it, so
// that no argument leads to one that may do more.
func Reaches(p Principal, sb Sandbox) error {
	if p.Policy == "" || sb.Policy == p.Policy {
		return nil
	}
	return Errorf(KindDenied, "this API key is bound to policy %s, which sandbox %s is not under", p.Policy, sb.Name).
		WithHint("use a sandbox that was made with this key, or another key")
}
