package wire

import (
	"net/netip"
	"strings"

	"github.com/atoll-sh/atoll/engine"
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
	if r.Kind == engine.ActivityDeny || r.Kind == engine.ActivityCut || r.Verdict == "deny" {
		e["status_id"], e["severity_id"], e["action_id"], e["disposition_id"] = 2, 3, 2, 2
	}
	put(e, "message", strings.TrimSpace(r.Operation+" "+r.Detail))
	put(e, "status_detail", r.Reason)
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
		e["connection_info"] = map[string]any{"protocol_name": r.Protocol, "direction_id": direction(r)}
	case ocsfDNS:
		e["query"] = map[string]any{"hostname": r.Host}
		e["src_endpoint"] = map[string]any{"uid": r.Sandbox}
	case ocsfProcess:
		e["process"] = map[string]any{"uid": r.Process, "cmd_line": r.Detail}
		e["actor"] = map[string]any{"process": map[string]any{"uid": r.Process}}
	case ocsfFile:
		e["file"] = map[string]any{"path": r.Detail}
		e["actor"] = map[string]any{"process": map[string]any{"uid": r.Process}}
	}
	return e
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
	case engine.ActivityExec:
		return ocsfProcess, 1
	case engine.ActivityExit:
		return ocsfProcess, 2
	case engine.ActivityPrivilege:
		return ocsfProcess, 5
	case engine.ActivityFile:
		return ocsfFile, 99
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
