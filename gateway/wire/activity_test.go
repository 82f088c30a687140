package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// TestOCSF looks for what the classes of OCSF 1.3 require.
func TestOCSF(t *testing.T) {
	root := uint32(0)
	process := engine.ActivityRecord{
		Time: time.Unix(1, 0), Sandbox: "s", Call: "c", Process: "9-a", Parent: "8-b", PID: 9, UID: &root, Program: "/usr/bin/dash", Detail: "sh -c x",
	}
	of := func(kind engine.ActivityKind, change func(r *engine.ActivityRecord)) engine.ActivityRecord {
		r := process
		r.Kind = kind
		if change != nil {
			change(&r)
		}
		return r
	}
	for _, c := range []struct {
		record          engine.ActivityRecord
		class, activity float64
		need            []string // "a.b" is b in a
		want            map[string]string
	}{
		{of(engine.ActivityExec, nil), 1007, 1, []string{"actor.process.uid", "device.type_id", "process.pid", "process.parent_process.uid"}, map[string]string{"process.cmd_line": `"sh -c x"`, "process.file.path": `"/usr/bin/dash"`, "process.user.uid": `"0"`}},
		{of(engine.ActivityExit, func(r *engine.ActivityRecord) { r.Code = 3 }), 1007, 2, []string{"actor.process.uid", "device.type_id", "process.uid"}, map[string]string{"exit_code": "3"}},
		{of(engine.ActivityPrivilege, func(r *engine.ActivityRecord) { r.Operation = "setresuid" }), 1007, 5, []string{"actor.process.uid", "device.type_id", "process.uid"}, nil},
		{of(engine.ActivityPrivilege, func(r *engine.ActivityRecord) { r.Operation, r.Verdict = "mount", "deny" }), 1007, 99, []string{"actor.process.uid", "process.uid"}, map[string]string{"status_id": "2"}},
		{of(engine.ActivityFile, func(r *engine.ActivityRecord) { r.Operation, r.Detail = "create", "/tmp/x" }), 1001, 1, []string{"actor.process.uid", "device.type_id", "file.type_id"}, map[string]string{"file.name": `"x"`, "file.path": `"/tmp/x"`}},
		{of(engine.ActivityFile, func(r *engine.ActivityRecord) { r.Operation, r.Detail = "rename", "/a → /b" }), 1001, 5, []string{"actor.process.uid", "file.type_id"}, map[string]string{"file.path": `"/a"`, "file_result.path": `"/b"`}},
		{of(engine.ActivityConnect, func(r *engine.ActivityRecord) {
			r.Protocol, r.Local, r.Remote, r.Host = "tcp", "10.0.0.2:4000", "192.0.2.1:443", "example.com"
		}), 4001, 1, []string{"src_endpoint.ip", "connection_info.direction_id", "actor.process.uid"}, map[string]string{"dst_endpoint.ip": `"192.0.2.1"`, "dst_endpoint.port": "443", "dst_endpoint.hostname": `"example.com"`, "connection_info.protocol_num": "6"}},
		{engine.ActivityRecord{Kind: engine.ActivityDeny, Remote: "192.0.2.1:443", Rule: "default"}, 4001, 5, []string{"dst_endpoint.ip"}, map[string]string{"disposition_id": "2", "firewall_rule.name": `"default"`}},
		{of(engine.ActivityConnect, func(r *engine.ActivityRecord) {
			r.Operation, r.Addresses, r.Remote, r.Count = engine.Proxied, []string{"192.0.2.1"}, "192.0.2.9:443", 3
		}), 4001, 1, []string{"dst_endpoint.ip"}, map[string]string{"unmapped.connected_to": `["192.0.2.1"]`, "count": "3"}},
		{of(engine.ActivitySecret, func(r *engine.ActivityRecord) {
			r.Operation, r.Detail, r.Verdict, r.Host = engine.SecretWithheld, "key", "deny", "example.com"
		}), 4001, 99, []string{"connection_info.direction_id"}, map[string]string{"unmapped.secret": `"key"`, "unmapped.operation": `"withheld"`, "status_id": "2", "dst_endpoint.hostname": `"example.com"`}},
		{engine.ActivityRecord{Kind: engine.ActivityPolicy, Sandbox: "s", Operation: engine.PolicyRefused, Reason: "no"}, 3004, 3, []string{"entity.type"}, map[string]string{"entity.uid": `"s"`, "status_id": "2", "status_detail": `"no"`}},
		{engine.ActivityRecord{Kind: engine.ActivityPolicy, Sandbox: "s", Operation: engine.PolicyApplied, Detail: "deny all else"}, 3004, 3, nil, map[string]string{"entity.name": `"deny all else"`, "status_id": "1"}},
		{of(engine.ActivityDNS, func(r *engine.ActivityRecord) { r.Host = "example.com" }), 4003, 1, []string{"src_endpoint.uid", "query_time"}, map[string]string{"query.hostname": `"example.com"`}},
		{engine.ActivityRecord{Kind: engine.ActivityCall, Operation: "exec", Door: "mcp", Actor: "u"}, 6003, 99, []string{"actor.user.uid", "src_endpoint.name", "api.service.name"}, map[string]string{"api.operation": `"exec"`}},
	} {
		text, err := json.Marshal(OCSF(c.record))
		if err != nil {
			t.Fatal(err)
		}
		var e map[string]any
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		if e["class_uid"] != c.class || e["activity_id"] != c.activity || e["type_uid"] != c.class*100+c.activity || e["category_uid"] != float64(int(c.class)/1000) {
			t.Errorf("%s: %s", c.record.Kind, text)
		}
		for _, name := range append(c.need, "time", "severity_id", "metadata.version", "metadata.product.vendor_name") {
			if at(e, name) == nil {
				t.Errorf("%s: no %s in %s", c.record.Kind, name, text)
			}
		}
		for name, want := range c.want {
			if got, _ := json.Marshal(at(e, name)); string(got) != want {
				t.Errorf("%s: %s is %s, want %s", c.record.Kind, name, got, want)
			}
		}
	}
}

// at returns what is at a path of names.
func at(e map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if inner, ok := e[name].(map[string]any); ok && deeper {
		return at(inner, rest)
	}
	if deeper {
		return nil
	}
	return e[name]
}
