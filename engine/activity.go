package engine

import (
	"context"
	"time"
)

// ActivityKind is what a record of the ledger is about.
type ActivityKind string

// The kinds of records.
const (
	ActivityCall      ActivityKind = "call" // somebody asked for something
	ActivityDNS       ActivityKind = "dns"
	ActivityConnect   ActivityKind = "connect"
	ActivityDeny      ActivityKind = "deny"
	ActivityClose     ActivityKind = "close"
	ActivityCut       ActivityKind = "cut"    // a connection that the policy allows no longer
	ActivitySecret    ActivityKind = "secret" // what became of a secret, or of what stands for it
	ActivityPolicy    ActivityKind = "policy" // the network policy became another, or one was refused
	ActivityExec      ActivityKind = "exec"
	ActivityExit      ActivityKind = "exit"
	ActivityFile      ActivityKind = "file"
	ActivityPrivilege ActivityKind = "privilege"
	ActivityLifecycle ActivityKind = "lifecycle"
	ActivityLoss      ActivityKind = "loss"    // records that nobody could keep
	ActivityGap       ActivityKind = "gap"     // a time in which nobody looked
	ActivitySegment   ActivityKind = "segment" // the begin of a file of the ledger
)

// ActivityKinds lists them.
func ActivityKinds() []ActivityKind {
	return []ActivityKind{
		ActivityCall, ActivityDNS, ActivityConnect, ActivityDeny, ActivityClose, ActivityCut, ActivitySecret, ActivityPolicy,
		ActivityExec, ActivityExit, ActivityFile, ActivityPrivilege, ActivityLifecycle, ActivityLoss, ActivityGap, ActivitySegment,
	}
}

// Proxied is the operation of a connect that tells where the proxy took a web
// connection: Remote is what the sandbox had asked for, Addresses what was
// connected to instead. It stands beside the connect of the flow itself.
const Proxied = "proxied"

// What a secret's record is about. The secret's name, or what stood for it where
// nobody knows the name, is the detail.
const (
	SecretSent       = "sent"       // the value was put into a request to its host
	SecretWithheld   = "withheld"   // the placeholder went where the value may not go, and stayed
	SecretRedacted   = "redacted"   // the value was taken out of an answer
	SecretUnreadable = "unreadable" // the secrets could not be read, so nothing was sent
	SecretUntrusted  = "untrusted"  // the client broke off TLS with the authority that its sandbox has for secrets
)

// What a policy's record is about. The policy is the detail.
const (
	PolicyApplied = "applied"
	PolicyRefused = "refused"
)

// ActivityRecord is one thing that a sandbox did or that was done to it. What
// a kind does not have is empty. Text that came from a sandbox is as hostile
// as the sandbox.
type ActivityRecord struct {
	Sequence     uint64       `json:"seq"` // from 1, without holes, for the sandbox's whole life
	Time         time.Time    `json:"time"`
	Sandbox      string       `json:"sandbox"`
	Incarnation  uint64       `json:"incarnation"`
	Kind         ActivityKind `json:"kind"`
	Call         string       `json:"call,omitempty"`    // id of the call that caused it
	Process      string       `json:"process,omitempty"` // key of the process, unique on the host
	Organization string       `json:"organization,omitempty"`

	Door      string `json:"door,omitempty"`      // of a call: api, mcp, ssh or preview
	Actor     string `json:"actor,omitempty"`     // of a call: id of the user
	Key       string `json:"key,omitempty"`       // of a call: how the key looks, without what makes it one
	Operation string `json:"operation,omitempty"` // of a call: as exec, file.write; of a lifecycle: as created
	Detail    string `json:"detail,omitempty"`    // the command, the path, the parent, the new state

	Host      string   `json:"host,omitempty"` // name that was asked for or connected to
	Addresses []string `json:"addresses,omitempty"`
	Verdict   string   `json:"verdict,omitempty"` // allow or deny
	Protocol  string   `json:"protocol,omitempty"`
	Inbound   bool     `json:"inbound,omitempty"`
	Local     string   `json:"local,omitempty"` // address:port
	Remote    string   `json:"remote,omitempty"`
	Sent      uint64   `json:"sent,omitempty"` // bytes
	Received  uint64   `json:"received,omitempty"`
	Rule      string   `json:"rule,omitempty"`   // of the policy that decided
	Reason    string   `json:"reason,omitempty"` // why

	Parent   string  `json:"parent,omitempty"`     // of a process: key of the one that began it
	PID      int     `json:"pid,omitempty"`        // of a process: as the sandbox counts
	UID      *uint32 `json:"uid,omitempty"`        // of a process: its user, as the sandbox counts; absent: unknown
	Program  string  `json:"program,omitempty"`    // the file that the process runs; of a script its interpreter
	Cut      bool    `json:"cut,omitempty"`        // a text is longer than what is here
	Signal   string  `json:"signal,omitempty"`     // of an exit, as SIGKILL
	Duration int64   `json:"durationMs,omitempty"` // of an exit: how long the process lived, in milliseconds

	Count uint64 `json:"count,omitempty"` // of records that are alike: for how many this one stands; absent: one

	Code int        `json:"code,omitempty"` // of an exit; of a call of the kernel that failed: the error's number
	Lost uint64     `json:"lost,omitempty"` // of a loss: how many records
	From *time.Time `json:"from,omitempty"` // of a gap
	To   *time.Time `json:"to,omitempty"`
}

// ActivityQuery selects records of one sandbox.
type ActivityQuery struct {
	Kinds        []ActivityKind // empty: all but segment
	Call         string         // empty: whatever caused them
	Since, Until time.Time      // zero: no bound
	After        uint64         // only those with a higher sequence
	Limit        int            // 0: 100; at most 1000
	Newest       bool           // the last ones that match instead of the first
	Wait         time.Duration  // how long to wait when there are none yet; at most 30 s
}

// ActivityPage is records, oldest first.
type ActivityPage struct {
	Items []ActivityRecord
	// Next goes into After to go on. It is the last record that was looked at,
	// whether it matched or not.
	Next uint64
	More bool // the limit was reached before the end
}

// ActivityHead is a place in the ledger that somebody keeps elsewhere, to
// notice later when the ledger was put back to an earlier state.
type ActivityHead struct {
	Sequence uint64 `json:"sequence"`
	Hash     string `json:"hash"`
}

// ActivityFault says where the ledger is not what was written.
type ActivityFault struct {
	Sequence uint64 `json:"sequence"` // the first record that is concerned
	Segment  string `json:"segment"`  // file
	Line     int    `json:"line"`     // in the file, from 1; 0: none in particular
	Problem  string `json:"problem"`
}

// ActivityProof is what verifying a ledger found. It is sound without Fault.
type ActivityProof struct {
	Sandbox   string         `json:"sandbox"`
	Fault     *ActivityFault `json:"fault,omitempty"`
	Records   uint64         `json:"records"` // that were looked at
	First     uint64         `json:"first"`   // sequence of the oldest that is kept
	Head      ActivityHead   `json:"head"`
	SignedAt  time.Time      `json:"signedAt"`
	PublicKey string         `json:"publicKey"` // Ed25519, base64
	Gaps      int            `json:"gaps"`
	Lost      uint64         `json:"lost"`
}

// Activity is what sandboxes did. The gateway and MCP call it; it is kept for
// a while after a sandbox was deleted, when only the id names it.
type Activity interface {
	Records(ctx context.Context, ref SandboxRef, q ActivityQuery) (ActivityPage, error)
	// Verify looks at the whole ledger; known may be nil.
	Verify(ctx context.Context, ref SandboxRef, known *ActivityHead) (ActivityProof, error)
}

// Caller is who is behind a call of a toolbox.
type Caller struct {
	Door      string // api, mcp, ssh or preview
	Principal Principal
}

type callerKey struct{}

// WithCaller says who is behind the calls of a context.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who is behind a call; the zero value is the server itself.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// CallHeader carries the id of a call to the toolbox.
const CallHeader = "X-Atoll-Call"
