package image

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// meter tells how far a pull is, by looking at what the content store has.
type meter struct {
	store content.Store
	what  string
	tell  func(string)

	mu   sync.Mutex
	want map[digest.Digest]wanted
}

type wanted struct {
	size int64
	ref  string // of the ingest while it is under way
}

func newMeter(store content.Store, what string, tell func(string)) *meter {
	return &meter{store: store, what: what, tell: tell, want: map[digest.Digest]wanted{}}
}

// add notes a blob of the image. The client calls it for each one it meets.
func (m *meter) add(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want[desc.Digest] = wanted{size: desc.Size, ref: remotes.MakeRefKey(ctx, desc)}
	return nil, nil
}

// run tells until the returned function is called, which waits for it.
func (m *meter) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		last := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if line := m.line(ctx); line != "" && line != last {
				m.tell(line)
				last = line
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// abort throws away what was fetched in part. Another pull that is at the same
// blob right now starts that blob anew.
func (m *meter) abort(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.want {
		_ = m.store.Abort(ctx, w.ref) // mostly not found
	}
}

// line is empty until the sizes are known.
func (m *meter) line(ctx context.Context) string {
	under := map[string]int64{}
	statuses, err := m.store.ListStatuses(ctx, "")
	if err != nil {
		return ""
	}
	for _, s := range statuses {
		under[s.Ref] = s.Offset
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var have, total int64
	for d, w := range m.want {
		total += w.size
		if offset, ok := under[w.ref]; ok {
			have += offset
		} else if _, err := m.store.Info(ctx, d); err == nil {
			have += w.size
		}
	}
	switch {
	case total == 0:
		return ""
	case have >= total:
		return m.what + ": unpacking"
	}
	return fmt.Sprintf("%s: %d%% of %.1f MB", m.what, have*100/total, float64(total)/1e6)
}
