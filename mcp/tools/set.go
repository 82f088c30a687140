package tools

// The toolsets. A tool is in exactly one.
const (
	SetCore     = "core"
	SetLocal    = "local"    // copies files of the user's computer; over stdio only
	SetCode     = "code"     // interpreters that keep their state
	SetGit      = "git"      // repositories
	SetAdmin    = "admin"    // usage, keys, audit, snapshots
	SetDesktop  = "desktop"  // screen, mouse, keyboard
	SetActivity = "activity" // what sandboxes did
	SetEgress   = "egress"   // what sandboxes may reach
	SetDaytona  = "daytona"  // the names and arguments of Daytona's MCP server
	SetAll      = "all"      // all of these but daytona, which says the same once more
)

// Sets lists the names a client may ask for.
func Sets() []string {
	return []string{SetAll, SetCore, SetLocal, SetCode, SetGit, SetAdmin, SetDesktop, SetActivity, SetEgress, SetDaytona}
}

// In tells whether the tool is in one of the sets.
func (t Tool) In(sets []string) bool {
	for _, set := range sets {
		if set == t.Set || set == SetAll && t.Set != SetDaytona {
			return true
		}
	}
	return false
}
