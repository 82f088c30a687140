package wire

import (
	"cmp"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity/tree"
)

// ActivityPage is records of a ledger, oldest first.
type ActivityPage struct {
	Items []engine.ActivityRecord `json:"items"`
	Next  uint64                  `json:"next"` // goes into after
	More  bool                    `json:"more"`
}

// FromActivity makes the wire form.
func FromActivity(p engine.ActivityPage) ActivityPage { return ActivityPage(p) }

// The classes of OCSF 1.3 that records become.
const (
	ocsfProcess  = 1007
	ocsfFile     = 1001
	ocsfEntity   = 3004
	ocsfNetwork  = 4001
	ocsfDNS      = 4003
	ocsfAPI      = 6003
	ocsfLife     = 6002
	ocsfFallback = 0
)

// OCSF makes of a record an event of the Open Cybersecurity Schema Framework.
func OCSF(r engine.ActivityRecord) map[string]any {
	class, activity := ocsfClass(r)
	e := map[string]any{
		"class_uid": class, "category_uid": class / 1000, "activity_id": activity, "type_uid": class*100 + activity,
		"time": r.Time.UnixMilli(), "severity_id": 1, "status_id": 1,
		"metadata": map[string]any{
			"version": "1.3.0", "sequence": r.Sequence, "uid": r.Sandbox, "correlation_uid": r.Call, "event_code": string(r.Kind),
			"product": map[string]any{"name": "Atoll", "vendor_name": "Atoll"},
		},
		"device": map[string]any{"uid": r.Sandbox, "type_id": 6, "type": "Virtual"}, // required of most classes
	}
	if r.Kind == engine.ActivityDeny || r.Kind == engine.ActivityCut || r.Verdict == "deny" || r.Kind == engine.ActivityPolicy && r.Operation == engine.PolicyRefused {
		e["status_id"], e["severity_id"], e["action_id"], e["disposition_id"] = 2, 3, 2, 2
	}
	put(e, "message", tree.Line(r))
	put(e, "status_detail", r.Reason)
	if r.Count > 1 {
		e["count"] = r.Count
	}
	if r.Process != "" && class != ocsfAPI {
		e["actor"] = map[string]any{"process": ocsfProcessOf(r)}
	}
	if r.Rule != "" {
		e["firewall_rule"] = map[string]any{"name": r.Rule}
	}
	switch class {
	case ocsfAPI:
		e["api"] = map[string]any{"operation": r.Operation, "service": map[string]any{"name": r.Door}}
		e["actor"] = map[string]any{"user": map[string]any{"uid": r.Actor, "credential_uid": r.Key}}
		e["src_endpoint"] = map[string]any{"name": r.Door}
	case ocsfNetwork:
		e["src_endpoint"], e["dst_endpoint"] = endpoint(r.Local, ""), endpoint(r.Remote, r.Host)
		e["traffic"] = map[string]any{"bytes_out": r.Sent, "bytes_in": r.Received}
		e["connection_info"] = map[string]any{"protocol_name": r.Protocol, "protocol_num": protocolNumber(r.Protocol), "direction_id": direction(r)}
		if len(r.Addresses) > 0 {
			e["unmapped"] = map[string]any{"connected_to": r.Addresses}
		}
		if r.Kind == engine.ActivitySecret {
			e["unmapped"] = map[string]any{"secret": r.Detail, "operation": r.Operation}
		}
	case ocsfEntity:
		e["entity"] = map[string]any{"type": "Policy", "name": r.Detail, "uid": r.Sandbox}
	case ocsfDNS:
		e["query"] = map[string]any{"hostname": r.Host}
		e["query_time"] = r.Time.UnixMilli()
		e["src_endpoint"] = map[string]any{"uid": r.Sandbox}
	case ocsfProcess:
		// Who began it is the actor; the parent is all that is known of that one.
		e["actor"] = map[string]any{"process": map[string]any{"uid": r.Parent}}
		e["process"] = ocsfProcessOf(r)
		if r.Kind == engine.ActivityExit {
			e["exit_code"] = r.Code
		}
		if r.Kind == engine.ActivityPrivilege {
			e["actor"] = map[string]any{"process": ocsfProcessOf(r)}
		}
	case ocsfFile:
		from, to, moved := strings.Cut(r.Detail, " → ")
		e["file"] = ocsfFileOf(from)
		if moved {
			e["file_result"] = ocsfFileOf(to)
		}
	}
	return e
}

// ocsfProcessOf is the process of a record.
func ocsfProcessOf(r engine.ActivityRecord) map[string]any {
	p := map[string]any{"uid": r.Process}
	if r.PID > 0 {
		p["pid"] = r.PID
	}
	if r.UID != nil {
		p["user"] = map[string]any{"uid": strconv.FormatUint(uint64(*r.UID), 10)}
	}
	if r.Kind == engine.ActivityExec {
		put(p, "cmd_line", r.Detail)
	}
	if r.Program != "" {
		p["name"], p["file"] = path.Base(r.Program), ocsfFileOf(r.Program)
	}
	if r.Parent != "" {
		p["parent_process"] = map[string]any{"uid": r.Parent}
	}
	return p
}

// ocsfFileOf is a file, or a directory: the ledger does not tell which.
func ocsfFileOf(name string) map[string]any {
	return map[string]any{"path": name, "name": path.Base(name), "type_id": 0}
}

// protocolNumber is that of IP; -1: not known.
func protocolNumber(name string) int {
	switch name {
	case "icmp":
		return 1
	case "tcp":
		return 6
	case "udp":
		return 17
	}
	return -1
}

// ocsfFileActivities are the activities of the class for what is done to files.
var ocsfFileActivities = map[string]int{
	"create": 1, "mkdir": 1, "link": 1, "symlink": 1, "write": 3, "truncate": 3, "delete": 4, "rmdir": 4, "rename": 5,
}

func put(e map[string]any, key, value string) {
	if value != "" {
		e[key] = value
	}
}

// ocsfClass returns the class and the activity; 99 is another than the
// class's own.
func ocsfClass(r engine.ActivityRecord) (class, activity int) {
	switch r.Kind {
	case engine.ActivityCall:
		return ocsfAPI, 99
	case engine.ActivityDNS:
		return ocsfDNS, 1
	case engine.ActivityConnect:
		return ocsfNetwork, 1
	case engine.ActivityClose:
		return ocsfNetwork, 2
	case engine.ActivityCut:
		return ocsfNetwork, 3
	case engine.ActivityDeny:
		return ocsfNetwork, 5
	case engine.ActivitySecret: // an HTTP request, or the connection for one
		return ocsfNetwork, 99
	case engine.ActivityPolicy: // an entity that is managed was updated
		return ocsfEntity, 3
	case engine.ActivityExec:
		return ocsfProcess, 1
	case engine.ActivityExit:
		return ocsfProcess, 2
	case engine.ActivityPrivilege:
		if strings.HasPrefix(r.Operation, "set") && strings.HasSuffix(r.Operation, "uid") {
			return ocsfProcess, 5
		}
		return ocsfProcess, 99
	case engine.ActivityFile:
		return ocsfFile, cmp.Or(ocsfFileActivities[r.Operation], 99)
	case engine.ActivityLifecycle:
		return ocsfLife, 99
	}
	return ocsfFallback, 99
}

func direction(r engine.ActivityRecord) int {
	if r.Inbound {
		return 1
	}
	return 2
}

func endpoint(address, name string) map[string]any {
	e := map[string]any{}
	if a, err := netip.ParseAddrPort(address); err == nil {
		e["ip"], e["port"] = a.Addr().String(), a.Port()
	}
	put(e, "hostname", name)
	return e
}
