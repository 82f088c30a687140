package trace

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// at is a moment so long after the begin of a test.
func at(d time.Duration) instant { return instant{boot: time.Hour + d, wall: noon.Add(d)} }

func dialled(process, call, local, remote string, d time.Duration) engine.ActivityRecord {
	return engine.ActivityRecord{Time: noon.Add(d), Kind: engine.ActivityConnect, Process: process, Call: call, Protocol: "tcp", Local: local, Remote: remote}
}

func (j *joiner) flow(kind engine.ActivityKind, local, remote string, d time.Duration) {
	j.flows = append(j.flows, flow{engine.ActivityRecord{Time: noon.Add(d), Kind: kind, Protocol: "tcp", Local: local, Remote: remote}, at(d + joinWait).boot})
}

// told settles until everything is told, and returns kind, process and call.
func (j *joiner) told(d time.Duration) (told [][3]string) {
	emit := func(r engine.ActivityRecord) { told = append(told, [3]string{string(r.Kind), r.Process, r.Call}) }
	j.settle(at(d), emit)
	j.settle(at(d+2*time.Minute), emit)
	return told
}

func TestJoin(t *testing.T) {
	const local, remote = "10.0.0.2:4000", "192.0.2.1:443"
	for _, c := range []struct {
		name string
		do   func(j *joiner)
		want [][3]string
	}{
		{"both addresses", func(j *joiner) {
			j.flow(engine.ActivityConnect, local, remote, 0)
			j.process(dialled("p", "A", local, remote, 0), at(0))
			j.process(dialled("q", "B", "10.0.0.2:4001", remote, 0), at(0))
		}, [][3]string{{"connect", "p", "A"}, {"connect", "q", "B"}}},
		{"the process is told later", func(j *joiner) {
			j.flow(engine.ActivityConnect, local, remote, 0)
			j.settle(at(0), func(r engine.ActivityRecord) { t.Errorf("told at once: %+v", r) })
			j.process(dialled("p", "A", local, remote, 0), at(100*time.Millisecond))
		}, [][3]string{{"connect", "p", "A"}}},
		{"refused, so without a local address", func(j *joiner) {
			j.flow(engine.ActivityDeny, local, remote, 0)
			j.process(dialled("p", "A", "", remote, 0), at(0))
		}, [][3]string{{"deny", "p", "A"}}},
		{"two of one call", func(j *joiner) {
			j.flow(engine.ActivityDeny, local, remote, 0)
			j.process(dialled("p", "A", "", remote, 0), at(0))
			j.process(dialled("q", "A", "", remote, 0), at(0))
		}, [][3]string{{"deny", "", "A"}}},
		{"two of different calls", func(j *joiner) {
			j.flow(engine.ActivityDeny, local, remote, 0)
			j.process(dialled("p", "A", "", remote, 0), at(0))
			j.process(dialled("q", "B", "", remote, 0), at(0))
		}, [][3]string{{"deny", "", ""}}},
		{"begun, and failed", func(j *joiner) {
			failed := dialled("p", "A", local, remote, 0)
			failed.Code = 111
			j.process(dialled("p", "A", local, remote, 0), at(0))
			j.process(failed, at(0))
			j.process(failed, at(0)) // another one, of which the begin is not known
		}, [][3]string{{"connect", "p", "A"}, {"connect", "p", "A"}}},
		{"elsewhere", func(j *joiner) {
			j.flow(engine.ActivityDeny, local, "192.0.2.2:443", 0)
			j.process(dialled("p", "A", "", remote, 0), at(0))
		}, [][3]string{{"deny", "", ""}, {"connect", "p", "A"}}},
		{"long before", func(j *joiner) {
			j.process(dialled("p", "A", "", remote, -3*time.Second), at(-3*time.Second))
			j.flow(engine.ActivityDeny, local, remote, 0)
		}, [][3]string{{"connect", "p", "A"}, {"deny", "", ""}}},
		{"the close of a known one", func(j *joiner) {
			j.process(dialled("p", "A", local, remote, 0), at(0))
			j.flow(engine.ActivityConnect, local, remote, 0)
			j.settle(at(0), func(engine.ActivityRecord) {})
			j.flow(engine.ActivityDeny, local, ":443", time.Minute)
			j.flow(engine.ActivityClose, local, remote, time.Minute)
		}, [][3]string{{"deny", "p", "A"}, {"close", "p", "A"}}},
		{"a name", func(j *joiner) {
			j.process(engine.ActivityRecord{Time: noon, Kind: engine.ActivityConnect, Process: "p", Call: "A", Protocol: "udp", Remote: "10.0.0.1:53"}, at(0))
			j.flows = append(j.flows, flow{engine.ActivityRecord{Time: noon.Add(time.Millisecond), Kind: engine.ActivityDNS, Host: "example.com"}, at(joinWait).boot})
		}, [][3]string{{"dns", "p", "A"}}},
		{"a name long after", func(j *joiner) {
			j.process(engine.ActivityRecord{Time: noon, Kind: engine.ActivityConnect, Process: "p", Call: "A", Protocol: "udp", Remote: "10.0.0.1:53"}, at(0))
			j.flows = append(j.flows, flow{engine.ActivityRecord{Time: noon.Add(time.Second), Kind: engine.ActivityDNS, Host: "example.com"}, at(joinWait).boot})
		}, [][3]string{{"dns", "", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j joiner
			c.do(&j)
			got := j.told(0)
			sortByKind(got)
			sortByKind(c.want)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if !j.empty() {
				t.Error("something waits still")
			}
		})
	}
}

func sortByKind(rows [][3]string) {
	slices.SortFunc(rows, func(a, b [3]string) int { return slices.Compare(a[:], b[:]) })
}
