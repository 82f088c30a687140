package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

func testPreviews(t *testing.T, s *store.Store) {
	ctx := t.Context()
	sb := insert(t, s, sandbox("one"))
	link := engine.PreviewLink{SandboxID: sb.ID, OrganizationID: sb.OrganizationID, Port: 3000, ExpiresAt: now.Add(time.Minute)}
	if err := s.InsertPreviewLink(ctx, link, "token1", 1, now); err != nil {
		t.Fatal(err)
	}
	err := s.InsertPreviewLink(ctx, link, "token2", 1, now)
	wantKind(t, err, engine.KindExhausted)
	got, err := s.PreviewLink(ctx, "token1", now)
	if d := cmp.Diff(link, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for token, at := range map[string]time.Time{"token1": now.Add(time.Minute), "token2": now, "": now} {
		_, err := s.PreviewLink(ctx, token, at)
		wantKind(t, err, engine.KindNotFound)
	}
	wantKind(t, s.DeletePreviewLink(ctx, sb.ID, 3001, "token1"), engine.KindNotFound)
	wantKind(t, s.DeletePreviewLink(ctx, "other", 3000, "token1"), engine.KindNotFound)
	for _, step := range []error{s.DeletePreviewLink(ctx, sb.ID, 3000, "token1"), s.InsertPreviewLink(ctx, link, "token3", 1, now)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for want := range uint64(3) {
		if got, err := s.PreviewGeneration(ctx, sb.ID); got != want || err != nil {
			t.Errorf("got generation %d, %v, want %d", got, err, want)
		}
		if got, err := s.RotatePreviewKey(ctx, sb.ID); got != want+1 || err != nil {
			t.Errorf("got generation %d, %v, want %d", got, err, want+1)
		}
	}
	_, err = s.PreviewLink(ctx, "token3", now)
	wantKind(t, err, engine.KindNotFound)
	testPreviewPurge(t, s, sb, link)
}

func testPreviewPurge(t *testing.T, s *store.Store, sb *store.Sandbox, link engine.PreviewLink) {
	ctx := t.Context()
	later := link
	later.ExpiresAt = now.Add(time.Hour)
	for token, l := range map[string]engine.PreviewLink{"short": link, "long": later} {
		if err := s.InsertPreviewLink(ctx, l, token, 10, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PurgePreviews(ctx, link.ExpiresAt); err != nil {
		t.Fatal(err)
	}
	_, err := s.PreviewLink(ctx, "short", now)
	wantKind(t, err, engine.KindNotFound)
	if _, err := s.PreviewLink(ctx, "long", now); err != nil {
		t.Error(err)
	}
	if err := s.DeleteSandbox(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.PurgePreviews(ctx, now); err != nil {
		t.Fatal(err)
	}
	_, err = s.PreviewLink(ctx, "long", now)
	wantKind(t, err, engine.KindNotFound)
	if got, err := s.PreviewGeneration(ctx, sb.ID); got != 0 || err != nil {
		t.Errorf("got generation %d, %v of a sandbox that is gone", got, err)
	}
}
