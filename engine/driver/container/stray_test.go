package container

import "testing"

func TestShimOf(t *testing.T) {
	d := &Driver{cfg: Config{Namespace: "atoll", Address: "/run/atoll/x/containerd.sock"}}
	for line, want := range map[string]string{
		"/x/containerd-shim-runc-v2\x00-namespace\x00atoll\x00-id\x00a-1\x00-address\x00/run/atoll/x/containerd.sock\x00": "a-1",
		"/x/containerd-shim-runc-v2\x00-namespace\x00other\x00-id\x00a-1\x00-address\x00/run/atoll/x/containerd.sock\x00": "",
		"/x/containerd-shim-runc-v2\x00-namespace\x00atoll\x00-id\x00a-1\x00-address\x00/run/atoll/y/containerd.sock\x00": "",
		"/x/containerd-shim-runc-v2\x00-namespace\x00atoll\x00-id\x00web\x00-address\x00/run/atoll/x/containerd.sock\x00": "",
		"/x/containerd-shim-runc-v2\x00-id":                              "",
		"bash\x00-c\x00containerd-shim-runc-v2 -namespace atoll -id a-1": "",
		"": "",
	} {
		if got := d.shimOf([]byte(line)); got != want {
			t.Errorf("shimOf(%q) = %q, want %q", line, got, want)
		}
	}
}
