package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPolicyVariables(t *testing.T) {
	c := Config{PolicyHosts: "PYTHON_INDEX_HOSTS=Index.example.com,*.files.example.com  MIRROR=m.example.com"}
	got, err := c.PolicyVariables()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"PYTHON_INDEX_HOSTS": {"index.example.com", "*.files.example.com"}, "MIRROR": {"m.example.com"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"a.example.com", "x=a.example.com", "X=", "X=a b", "X=192.0.2.1", "X=*"} {
		if got, err := (Config{PolicyHosts: bad}).PolicyVariables(); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}
