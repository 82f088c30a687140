package vmtest

import (
	"context"
	"flag"
	"path/filepath"
	"testing"
	"time"
)

// all has the whole server run under every kernel, not only under the newest.
var all = flag.Bool("all", false, "run the server under every kernel")

const (
	// programs is where the machine has those of the server's tests.
	programs = "/programs"
	// serverLimit is for a machine that shares its cores with all other tests.
	// Alone, a boot and the test take three minutes.
	serverLimit = 12 * time.Minute
	// serverOptions have the modules that are not about BPF do nothing.
	serverOptions = "lsm=landlock,lockdown,yama,integrity,bpf"
)

// TestServer runs a whole server with real containers under kernels that
// enforce rules about programs and files, with control groups of version 2. What
// it does there are tests of cmd/atoll, which skip it where the kernel cannot.
func TestServer(t *testing.T) {
	skipUnlessBooting(t)
	booted := kernels[len(kernels)-1:]
	if *all {
		booted = kernels
	}
	self := compile(t, ".")
	jobs := []Job{{
		Name: "server", Program: compile(t, "../../../cmd/atoll"), Args: []string{"-test.v", "-test.run=^TestMachineConfine$"},
		Env: []string{"ATOLL_TEST_PROGRAMS=" + programs},
	}}
	disk := Disk{
		MiB:      8192,
		Programs: []string{"runc", "nft", "ip", "mkfs.xfs", "mkfs.ext4", "resize2fs", "e2fsck"},
		Files: map[string]string{
			programs + "/atoll":  golang(t, "../../../cmd/atoll", "build", "-tags=atollfaults"),
			programs + "/hidden": build(t, "../../../cmd/atoll/testdata/hidden"),
		},
	}
	for _, k := range booted {
		t.Run(k.pkg, func(t *testing.T) {
			kernel := find(t, k.pkg)
			disk.Kernels = []Kernel{kernel}
			image := filepath.Join(t.TempDir(), "disk")
			if err := disk.Write(t.Context(), image); err != nil {
				t.Fatal(err)
			}
			boot(t, serverLimit, Machine{
				Kernel: kernel, Init: self, CPUs: k.cpus, MemoryMiB: 2048, Modules: []string{"loop"}, Disk: image, Options: serverOptions, Jobs: jobs,
			})
		})
	}
}

// boot runs the machine; each of its jobs is a test.
func boot(t *testing.T, limit time.Duration, m Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	results, err := m.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) { check(t, r) })
	}
}

// BenchmarkRules has each kernel measure what its rules cost. Times of an
// emulator mean nothing, their ratios something.
func BenchmarkRules(b *testing.B) {
	skipUnlessBooting(b)
	self := compile(b, ".")
	job := Job{
		Name: "rules", Program: compile(b, "../../enforce"),
		Args: []string{"-test.run=^$", "-test.bench=Rules", "-test.benchtime=1s", "-test.count=3"},
	}
	for _, k := range kernels {
		b.Run(k.pkg, func(b *testing.B) {
			results, err := Machine{Kernel: find(b, k.pkg), Init: self, CPUs: k.cpus, MemoryMiB: 1024, Jobs: []Job{job}}.Run(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.Log(results[0].Output)
		})
	}
}
