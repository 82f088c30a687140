package image

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/atoll-sh/atoll/engine"
)

func TestSaveAndLoad(t *testing.T) {
	s := startContainerd(t).open("")
	reg := startRegistry(t, authn.Basic{})
	ref := reg.push("app", imageOf(t, v1.Config{User: "u"}, gzipLayer(t, tarOf(t, files{"a": "1"})), zstdLayer(t, tarOf(t, files{"b": "2"}))))
	want := ensure(t, s, engine.EnsureImage{Ref: ref})
	var archive bytes.Buffer
	if err := s.Save(t.Context(), ref, &archive); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	again := bytes.NewReader(archive.Bytes())
	for range 2 { // the second time it is here already
		again.Reset(archive.Bytes())
		got, err := s.Load(t.Context(), again)
		if err != nil {
			t.Fatal(err)
		}
		want.SizeBytes = got[0].SizeBytes // of new directories
		if diff := cmp.Diff([]engine.Image{want.Image}, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	u, err := s.Image(t.Context(), ref)
	if err != nil || len(u.Lowers) != 2 || read(t, u.Lowers[1], "a") != "1" {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestSaveOfAnAbsentImage(t *testing.T) {
	s := startContainerd(t).open("")
	wantKind(t, s.Save(t.Context(), "absent", &bytes.Buffer{}), engine.KindNotFound)
}

func TestLoadOfRubbish(t *testing.T) {
	s := startContainerd(t).open("")
	for _, in := range []string{"", "rubbish", strings.Repeat("x", 5000)} {
		_, err := s.Load(t.Context(), strings.NewReader(in))
		wantKind(t, err, engine.KindInvalid)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("list: got %v, %v, want none", all, err)
	}
}
