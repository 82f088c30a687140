package wire

// GitClone copies a repository into a new or empty directory. Username and
// password serve this call only; they are kept nowhere.
type GitClone struct {
	URL             string `json:"url"`
	Path            string `json:"path"`
	Branch          string `json:"branch,omitempty"`
	CommitID        string `json:"commit_id,omitempty"` // checked out detached
	Depth           int    `json:"depth,omitempty"`     // 0: all history
	InsecureSkipTLS bool   `json:"insecure_skip_tls,omitempty"`
	Username        string `json:"username,omitempty"`
	Password        string `json:"password,omitempty"`
}

// GitInit makes an empty repository.
type GitInit struct {
	Path          string `json:"path"`
	Bare          bool   `json:"bare,omitempty"`
	InitialBranch string `json:"initial_branch,omitempty"`
}

// GitAdd stages files; "." is all of them.
type GitAdd struct {
	Path  string   `json:"path"`
	Files []string `json:"files"`
}

// GitCommit records what is staged.
type GitCommit struct {
	Path       string `json:"path"`
	Message    string `json:"message"`
	Author     string `json:"author"`
	Email      string `json:"email"`
	AllowEmpty bool   `json:"allow_empty,omitempty"`
}

// GitCommitted names the new commit.
type GitCommitted struct {
	Hash string `json:"hash"`
}

// GitBranch names a branch to create or delete.
type GitBranch struct {
	Path string `json:"path"`
	Name string `json:"name"`
}

// GitBranches lists local branches. Current is empty when HEAD is detached.
type GitBranches struct {
	Branches []string `json:"branches"`
	Current  string   `json:"current"`
}

// GitCheckout switches to a branch or, detached, to any other revision.
type GitCheckout struct {
	Path   string `json:"path"`
	Branch string `json:"branch"`
}

// GitSync pulls or pushes. SetUpstream counts for a push only.
type GitSync struct {
	Path        string `json:"path"`
	Remote      string `json:"remote,omitempty"` // empty: origin
	Branch      string `json:"branch,omitempty"` // empty: the current one, and for a pull its upstream
	SetUpstream bool   `json:"set_upstream,omitempty"`
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
}

// GitReset moves HEAD, or only takes files out of the index.
type GitReset struct {
	Path   string   `json:"path"`
	Mode   string   `json:"mode,omitempty"`   // soft, mixed (the default), hard, merge, keep
	Target string   `json:"target,omitempty"` // empty: HEAD
	Files  []string `json:"files,omitempty"`  // with mixed only
}

// GitRestore brings files back. With neither Staged nor Worktree it restores
// the working tree.
type GitRestore struct {
	Path     string   `json:"path"`
	Files    []string `json:"files"`
	Source   string   `json:"source,omitempty"` // empty: the index, or HEAD for the index
	Staged   bool     `json:"staged,omitempty"`
	Worktree bool     `json:"worktree,omitempty"`
}

// GitAddRemote names a remote.
type GitAddRemote struct {
	Path      string `json:"path"`
	Name      string `json:"name"`
	URL       string `json:"url"`
	Fetch     bool   `json:"fetch,omitempty"`
	Overwrite bool   `json:"overwrite,omitempty"`
}

// GitRemotes lists remotes.
type GitRemotes struct {
	Remotes []GitRemote `json:"remotes"`
}

// GitRemote is one remote with the URL it is fetched from.
type GitRemote struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// GitSetConfig sets one value. Scope is global (the default), local or system;
// local needs Path.
type GitSetConfig struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Path  string `json:"path,omitempty"`
	Scope string `json:"scope,omitempty"`
}

// GitConfigValue is null for a key that is not set.
type GitConfigValue struct {
	Value *string `json:"value"`
}

// GitUser sets user.name and user.email.
type GitUser struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	Path  string `json:"path,omitempty"`
	Scope string `json:"scope,omitempty"`
}

// GitCredentials are kept, readable, in the user's home for later calls.
type GitCredentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Host     string `json:"host,omitempty"`     // empty: github.com
	Protocol string `json:"protocol,omitempty"` // empty: https
}

// GitCommitInfo is one commit of a history.
type GitCommitInfo struct {
	Hash      string `json:"hash"`
	Author    string `json:"author"`
	Email     string `json:"email"`
	Message   string `json:"message"`
	Timestamp string `json:"timestamp"` // of the author, RFC 3339
}

// GitStatus is the state of a working tree. Ahead and Behind compare with
// Upstream, which is empty when there is none.
type GitStatus struct {
	CurrentBranch   string          `json:"currentBranch"` // HEAD when detached
	Ahead           int             `json:"ahead"`
	Behind          int             `json:"behind"`
	BranchPublished bool            `json:"branchPublished"`
	Detached        bool            `json:"detached"`
	Upstream        string          `json:"upstream"`
	FileStatus      []GitFileStatus `json:"fileStatus"`
}

// GitFileStatus is one file that differs.
type GitFileStatus struct {
	Name     string    `json:"name"`
	Staging  GitChange `json:"staging"`
	Worktree GitChange `json:"worktree"`
	Extra    string    `json:"extra"` // the old name of a renamed or copied file
}

// GitChange says how a file differs.
type GitChange string

// The ways a file can differ.
const (
	GitUnmodified GitChange = "Unmodified"
	GitUntracked  GitChange = "Untracked"
	GitModified   GitChange = "Modified"
	GitAdded      GitChange = "Added"
	GitDeleted    GitChange = "Deleted"
	GitRenamed    GitChange = "Renamed"
	GitCopied     GitChange = "Copied"
	GitUnmerged   GitChange = "Updated but unmerged"
)
