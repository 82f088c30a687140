package activity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

const box = "sandbox-1"

func open(t *testing.T, c Config) *Ledger {
	t.Helper()
	if c.Key == nil {
		c.Key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	}
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// fill records the life of a sandbox and returns its directory.
func fill(t *testing.T, dir string, calls int) (*Ledger, string) {
	t.Helper()
	l := open(t, Config{Dir: dir})
	l.Record(engine.ActivityRecord{Sandbox: box, Incarnation: 1, Kind: engine.ActivityLifecycle, Operation: "created", Organization: "org"})
	for i := range calls {
		l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall, Call: fmt.Sprint("call-", i), Operation: "exec", Detail: "true"})
	}
	return l, filepath.Join(dir, box)
}

func query(t *testing.T, l *Ledger, q engine.ActivityQuery) engine.ActivityPage {
	t.Helper()
	page, err := l.Query(t.Context(), box, q)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func verify(t *testing.T, l *Ledger, known *engine.ActivityHead) engine.ActivityProof {
	t.Helper()
	p, err := l.Verify(t.Context(), box, known)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRecordsComeBack(t *testing.T) {
	l, _ := fill(t, t.TempDir(), 5)
	page := query(t, l, engine.ActivityQuery{})
	var got []string
	for _, r := range page.Items {
		got = append(got, fmt.Sprint(r.Sequence, " ", r.Kind, " ", r.Operation, r.Call))
	}
	want := []string{"2 lifecycle created", "3 call execcall-0", "4 call execcall-1", "5 call execcall-2", "6 call execcall-3", "7 call execcall-4"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if p := verify(t, l, nil); p.Fault != nil || p.Records != 7 || p.Head.Sequence != 7 {
		t.Errorf("got %+v", p)
	}
	if got := l.Owner(box); got != "org" {
		t.Errorf("owner: got %q", got)
	}
}

func TestQuery(t *testing.T) {
	l, _ := fill(t, t.TempDir(), 30)
	sequences := func(q engine.ActivityQuery) (out []uint64) {
		for _, r := range query(t, l, q).Items {
			out = append(out, r.Sequence)
		}
		return out
	}
	for name, c := range map[string]struct {
		q    engine.ActivityQuery
		want []uint64
	}{
		"kind":    {engine.ActivityQuery{Kinds: []engine.ActivityKind{engine.ActivityLifecycle}}, []uint64{2}},
		"segment": {engine.ActivityQuery{Kinds: []engine.ActivityKind{engine.ActivitySegment}}, []uint64{1}},
		"after":   {engine.ActivityQuery{After: 10, Limit: 2}, []uint64{11, 12}},
		"newest":  {engine.ActivityQuery{Newest: true, Limit: 2}, []uint64{31, 32}},
		"future":  {engine.ActivityQuery{Since: time.Now().Add(time.Hour)}, nil},
		"past":    {engine.ActivityQuery{Until: time.Now().Add(-time.Hour)}, nil},
	} {
		if d := cmp.Diff(c.want, sequences(c.q)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, q := range []engine.ActivityQuery{
		{Limit: -1},
		{Limit: 5000},
		{Kinds: []engine.ActivityKind{"nonsense"}},
		{Wait: time.Hour},
		{Since: time.Now(), Until: time.Now().Add(-time.Hour)},
	} {
		if _, err := l.Query(t.Context(), box, q); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%+v: got %v", q, err)
		}
	}
	for _, id := range []string{"absent", "../" + box, "heads", ""} {
		if _, err := l.Query(t.Context(), id, engine.ActivityQuery{}); engine.KindOf(err) != engine.KindNotFound {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestQueryWaits(t *testing.T) {
	l, _ := fill(t, t.TempDir(), 1)
	got := make(chan engine.ActivityPage)
	go func() {
		page, _ := l.Query(context.Background(), box, engine.ActivityQuery{After: 3, Wait: 20 * time.Second})
		got <- page
	}()
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityDeny, Host: "example.com"})
	if page := <-got; len(page.Items) != 1 || page.Items[0].Host != "example.com" {
		t.Errorf("got %+v", page)
	}
}

// TestAttacks changes the files of a running ledger in every way that its
// chain is there to show.
func TestAttacks(t *testing.T) {
	lines := func(b []byte) [][]byte { return bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) }
	for name, c := range map[string]struct {
		change   func([][]byte) [][]byte
		sequence uint64
		problem  string
	}{
		"edit": {func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], []byte(`"detail":"true"`), []byte(`"detail":"fals"`), 1)
			return l
		}, 5, "changed"},
		"edit the last": {func(l [][]byte) [][]byte {
			n := len(l) - 1
			l[n] = bytes.Replace(l[n], []byte(`"detail":"true"`), []byte(`"detail":"fals"`), 1)
			return l
		}, 12, "changed"},
		"garbage": {func(l [][]byte) [][]byte { l[4] = []byte("{]\n"); return l }, 5, "changed"},
		"reorder": {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, 5, "out of order"},
		"remove":  {func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, 5, "missing"},
		"repeat":  {func(l [][]byte) [][]byte { return slices.Insert(l, 5, l[4]) }, 6, "repeated"},
		"cut":     {func(l [][]byte) [][]byte { return l[:9] }, 10, "cut"},
		"empty":   {func([][]byte) [][]byte { return nil }, 1, "cut"},
	} {
		t.Run(name, func(t *testing.T) {
			l, dir := fill(t, t.TempDir(), 10)
			if p := verify(t, l, nil); p.Fault != nil {
				t.Fatalf("before: %+v", p.Fault)
			}
			path := filepath.Join(dir, segmentName(1))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.Join(c.change(lines(b)), nil), 0o600); err != nil {
				t.Fatal(err)
			}
			p := verify(t, l, nil)
			if p.Fault == nil || p.Fault.Sequence != c.sequence || !strings.Contains(p.Fault.Problem, c.problem) {
				t.Errorf("got %+v, want %q at %d", p.Fault, c.problem, c.sequence)
			}
		})
	}
}

func TestRollBack(t *testing.T) {
	home := t.TempDir()
	l, _ := fill(t, home, 3)
	early := verify(t, l, nil).Head
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(home)); err != nil {
		t.Fatal(err)
	}
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall, Operation: "exec", Detail: "evil"})
	late := verify(t, l, &early)
	if late.Fault != nil {
		t.Fatalf("an honest ledger: %+v", late.Fault)
	}
	restore := func(part string) {
		t.Helper()
		for _, err := range []error{os.RemoveAll(filepath.Join(home, part)), os.CopyFS(filepath.Join(home, part), os.DirFS(filepath.Join(kept, part)))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	restore(box) // the records alone
	if p := verify(t, l, nil); p.Fault == nil || !strings.Contains(p.Fault.Problem, "cut") {
		t.Errorf("records put back: got %+v", p.Fault)
	}
	restore(headsDir) // and the heads: the server knows better
	if p := verify(t, l, nil); p.Fault == nil || !strings.Contains(p.Fault.Problem, "put back") {
		t.Errorf("all put back under a running server: got %+v", p.Fault)
	}
	l.Close()
	restore(box)
	restore(headsDir)
	l = open(t, Config{Dir: home}) // only who kept a head can tell
	if p := verify(t, l, &late.Head); p.Fault == nil || !strings.Contains(p.Fault.Problem, "known from before") {
		t.Errorf("all put back under a new server: got %+v", p.Fault)
	}
	if p := verify(t, l, &early); p.Fault != nil {
		t.Errorf("a head that is in it: got %+v", p.Fault)
	}
}

// TestForeignKey signs a shortened ledger with another key.
func TestForeignKey(t *testing.T) {
	home := t.TempDir()
	l, _ := fill(t, home, 3)
	l.Close()
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	path := filepath.Join(home, headsDir, box)
	h, err := readHead(path, l.public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := writeHead(path, h, other); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Dir: home})
	page := query(t, l, engine.ActivityQuery{})
	if len(page.Items) != 1 || page.Items[0].Kind != engine.ActivityGap || !strings.Contains(page.Items[0].Reason, "not signed") {
		t.Errorf("got %+v", page.Items)
	}
}

// TestDeath copies the files of a ledger that was never closed, as the page
// cache keeps them when the server is killed.
func TestDeath(t *testing.T) {
	for name, c := range map[string]struct {
		harm   func(t *testing.T, path string)
		reason string
		fault  string
	}{
		"plain": {func(*testing.T, string) {}, "was down", ""},
		"torn": {func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString(`{"prev":"abc","se`); err != nil {
				t.Fatal(err)
			}
		}, "17 bytes", ""},
		"cut below the head": {func(t *testing.T, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		}, "do not reach", "changed"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			l, _ := fill(t, home, 3)
			verify(t, l, nil) // signs
			l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall, Operation: "exec", Detail: "not signed"})
			query(t, l, engine.ActivityQuery{}) // written
			after := filepath.Join(t.TempDir(), "after")
			if err := os.CopyFS(after, os.DirFS(home)); err != nil {
				t.Fatal(err)
			}
			c.harm(t, filepath.Join(after, box, segmentName(1)))
			l = open(t, Config{Dir: after})
			items := query(t, l, engine.ActivityQuery{Newest: true, Limit: 1}).Items
			if len(items) != 1 || items[0].Kind != engine.ActivityGap || !strings.Contains(items[0].Reason, c.reason) || items[0].From == nil || items[0].To == nil {
				t.Errorf("got %+v", items)
			}
			p := verify(t, l, nil)
			if (p.Fault == nil) != (c.fault == "") || p.Fault != nil && !strings.Contains(p.Fault.Problem, c.fault) {
				t.Errorf("got %+v", p.Fault)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	home := t.TempDir()
	l := open(t, Config{Dir: home, SegmentBytes: 2000})
	for i := range 100 {
		l.Record(engine.ActivityRecord{Sandbox: box, Incarnation: uint64(1 + i/50), Kind: engine.ActivityCall, Call: fmt.Sprint(i)})
		if i%10 == 0 {
			query(t, l, engine.ActivityQuery{})
		}
	}
	whole := verify(t, l, nil)
	names, _ := segments(filepath.Join(home, box))
	if whole.Fault != nil || len(names) < 5 {
		t.Fatalf("got %+v in %v", whole.Fault, names)
	}
	var calls int
	for after := uint64(0); ; {
		page := query(t, l, engine.ActivityQuery{After: after, Limit: 7})
		calls += len(page.Items)
		if after = page.Next; !page.More {
			break
		}
	}
	if calls != 100 {
		t.Errorf("got %d calls over the pages", calls)
	}
	l.Close()
	l = open(t, Config{Dir: home, SegmentBytes: 2000, KeepBytes: 8000})
	l.purge()
	p := verify(t, l, &whole.Head)
	left, _ := segments(filepath.Join(home, box))
	if p.Fault != nil || p.First == 1 || len(left) >= len(names) {
		t.Errorf("after dropping: %+v, first %d, %v", p.Fault, p.First, left)
	}
	if err := os.Remove(filepath.Join(home, box, left[0])); err != nil { // more than was dropped
		t.Fatal(err)
	}
	if p := verify(t, l, nil); p.Fault == nil || p.Fault.Sequence != p.First {
		t.Errorf("a file removed: %+v", p.Fault)
	}
}

func TestDeletedSandboxGoes(t *testing.T) {
	home, now := t.TempDir(), time.Now()
	l := open(t, Config{Dir: home, Now: func() time.Time { return now }})
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityLifecycle, Operation: "created", Organization: "org"})
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityLifecycle, Operation: stateDeleted})
	verify(t, l, nil)
	l.Close()
	now = now.Add(29 * 24 * time.Hour)
	l = open(t, Config{Dir: home, Now: func() time.Time { return now }})
	l.purge()
	if got := l.Owner(box); got != "org" {
		t.Errorf("before its time: owner %q", got)
	}
	now = now.Add(2 * 24 * time.Hour)
	l.purge()
	if _, err := l.Query(t.Context(), box, engine.ActivityQuery{}); engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("got %v", err)
	}
}

// TestOverflow blocks the writer and records more than fits.
func TestOverflow(t *testing.T) {
	l, _ := fill(t, t.TempDir(), 1)
	query(t, l, engine.ActivityQuery{})
	c, _ := l.chain(box, false)
	c.mu.Lock()
	for range queueLength + batchLength + 100 {
		l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall})
	}
	c.mu.Unlock()
	l.sync()
	var lost uint64
	for after := uint64(0); ; {
		page := query(t, l, engine.ActivityQuery{After: after, Limit: 1000})
		for _, r := range page.Items {
			lost += r.Lost
		}
		if after = page.Next; !page.More {
			break
		}
	}
	if p := verify(t, l, nil); p.Fault != nil || lost < 100 || p.Lost != lost {
		t.Errorf("got %d lost, %+v", lost, p)
	}
}

// fake is a source that tells of one process.
type fake struct{}

func (fake) Run(_ context.Context, record func(engine.ActivityRecord)) error {
	record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityExec, Process: "1234-5678", Call: "call-0", Detail: "/bin/true"})
	return nil
}

func TestSource(t *testing.T) {
	l, _ := fill(t, t.TempDir(), 1)
	var s Source = fake{}
	if err := s.Run(t.Context(), l.Record); err != nil {
		t.Fatal(err)
	}
	page := query(t, l, engine.ActivityQuery{Kinds: []engine.ActivityKind{engine.ActivityExec, engine.ActivityCall}})
	if len(page.Items) != 2 || page.Items[0].Call != page.Items[1].Call {
		t.Errorf("got %+v", page.Items)
	}
}

// TestFullDisk takes the directory away while the ledger runs.
func TestFullDisk(t *testing.T) {
	home := t.TempDir()
	l := open(t, Config{Dir: home})
	if err := os.WriteFile(filepath.Join(home, box), nil, 0o600); err != nil { // in the directory's place
		t.Fatal(err)
	}
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall})
	_ = l.settle(t.Context())
	if err := os.Remove(filepath.Join(home, box)); err != nil {
		t.Fatal(err)
	}
	l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall})
	if p := verify(t, l, nil); p.Fault != nil || p.Lost == 0 {
		t.Errorf("got %+v", p)
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(Config{Dir: b.TempDir(), Key: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		l.Record(engine.ActivityRecord{Sandbox: box, Kind: engine.ActivityCall, Operation: "exec", Detail: "true"})
	}
}

func FuzzScanTail(f *testing.F) {
	f.Add([]byte("{\"prev\":\"\",\"seq\":1}\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), segmentName(1))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := scanTail(path, head{First: 1}); err == nil && got.sound && got.size+got.torn != int64(len(b)) {
			t.Errorf("%d and %d of %d bytes", got.size, got.torn, len(b))
		}
	})
}
