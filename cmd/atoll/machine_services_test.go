package main

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestMachineSecrets(t *testing.T) {
	m := sharedMachine(t)
	var secret struct{ ID, Placeholder string }
	m.must("POST", "/api/secret", map[string]any{"name": "token", "value": "hunter2-of-the-machine-test", "hosts": []string{"api.example.com"}}, &secret)
	t.Cleanup(func() { _, _, _ = m.call("DELETE", "/api/secret/token", nil) })
	sb := m.create(map[string]any{"env": map[string]string{"TOKEN": "plain"}})
	sees := func(want string) {
		t.Helper()
		if _, out := m.sh(sb.ID, `echo "${TOKEN-none}"`); strings.TrimSpace(out) != want {
			t.Errorf("a new process sees %q, want %q", out, want)
		}
	}
	attach := func(list ...map[string]string) {
		t.Helper()
		m.must("PUT", "/api/sandbox/"+sb.ID+"/secrets", map[string]any{"secrets": append([]map[string]string{}, list...)}, nil)
	}
	sees("plain")
	attach(map[string]string{"TOKEN": "token"})
	sees(secret.Placeholder)
	m.must("POST", "/api/sandbox/"+sb.ID+"/stop", nil, nil)
	m.must("POST", "/api/sandbox/"+sb.ID+"/start", nil, nil)
	sees(secret.Placeholder)
	var fork apiSandbox
	m.must("POST", "/api/sandbox/"+sb.ID+"/fork", map[string]any{}, &fork)
	if _, out := m.sh(fork.ID, `echo "$TOKEN"`); strings.TrimSpace(out) != secret.Placeholder {
		t.Errorf("the fork sees %q", out)
	}
	attach()
	sees("plain")
	attach(map[string]string{"TOKEN": "token"})
	if status, b, err := m.call("DELETE", "/api/secret/token", nil); status != 204 {
		t.Errorf("delete: %d %s %v", status, b, err)
	}
	sees("plain")
	if strings.Contains(m.log(), "hunter2-of-the-machine-test") {
		t.Error("the value is in the server's log")
	}
}

func TestMachineHistoryAndPools(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(nil)
	now := time.Now().UTC()
	query := url.Values{"from": {now.Add(-time.Minute).Format(time.RFC3339Nano)}, "to": {now.Format(time.RFC3339Nano)}}
	var got struct {
		Series []struct {
			MetricName string
			DataPoints []struct{ Value float64 }
		}
	}
	m.must("GET", "/api/sandbox/"+sb.ID+"/telemetry/metrics?"+query.Encode(), nil, &got)
	if len(got.Series) != 7 {
		t.Fatalf("got %+v", got)
	}
	for _, s := range got.Series {
		if len(s.DataPoints) == 0 || s.DataPoints[0].Value < 0 || strings.HasSuffix(s.MetricName, "limit") && s.DataPoints[0].Value == 0 {
			t.Errorf("got %+v", s)
		}
	}

	// A pool of a saved disk: what was in it is in the one that is claimed.
	m.sh(sb.ID, "echo kept > /home/daytona/file")
	m.must("POST", "/api/sandbox/"+sb.ID+"/snapshot", map[string]any{"name": "pooled"}, nil)
	t.Cleanup(func() { _, _, _ = m.call("DELETE", "/api/snapshots/pooled", nil) })
	var pool struct {
		ID          string
		CurrentSize int
		ErrorReason *string
	}
	m.must("POST", "/api/warm-pools", map[string]any{"snapshot": "pooled", "pool": 1}, &pool)
	t.Cleanup(func() { _, _, _ = m.call("DELETE", "/api/warm-pools/"+pool.ID, nil) })
	eventually(t, "the warm pool", time.Minute, 1, func() int {
		var list []struct{ CurrentSize int }
		m.must("GET", "/api/warm-pools", nil, &list)
		return list[0].CurrentSize
	})
	claimed := m.create(map[string]any{"snapshot": "pooled", "env": map[string]string{"A": "b"}})
	if !claimed.Warm {
		t.Errorf("got %+v, want one from the pool", claimed)
	}
	if _, out := m.sh(claimed.ID, `echo "$(cat /home/daytona/file) $A"`); strings.TrimSpace(out) != "kept b" {
		t.Errorf("got %q", out)
	}
}
