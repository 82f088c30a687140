package vmtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary also be the first process of the machine.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		Guest()
	}
	os.Exit(m.Run())
}

// kernels are those of .ci/test-kernels.
var kernels = []struct {
	pkg  string
	cpus int // the emulator is unreliable with two under 6.12
}{
	{"linux-image-cloud-amd64", 2},
	{"linux-image-6.12-cloud-amd64", 1},
}

// modules are what the tests of the programs need.
var modules = []string{"sch_ingress", "cls_bpf", "veth", "dummy", "overlay"}

// toolbox is where sandboxes have it.
const toolbox = "/.atoll/toolbox"

// limit is for a machine that shares its cores with all other tests. A boot
// and its tests take some 30 seconds of one core.
const limit = 8 * time.Minute

// TestKernels runs the tests of the kernel programs under other kernels than
// this host's.
func TestKernels(t *testing.T) {
	skipUnlessBooting(t)
	jobs := []Job{
		// What was resolved an hour ago was before these machines booted.
		{Name: "egress", Program: compile(t, "../../egress"), Args: []string{"-test.v", "-test.skip=TestNamesAreForgotten"}},
		{Name: "enforce", Program: compile(t, "../../enforce"), Args: []string{"-test.v"}},
		{Name: "confine", Program: compile(t, "../../../engine/confine"), Args: []string{"-test.v", "-test.run=Toolbox"}, Env: []string{"ATOLL_TEST_TOOLBOX=" + toolbox}},
		{Name: "activity", Program: compile(t, "../../activity"), Args: []string{"-test.v", "-test.run=" + activityTests}},
	}
	files := map[string]string{toolbox: build(t, "../../../cmd/atoll-toolbox")}
	self := compile(t, ".")
	for _, k := range kernels {
		t.Run(k.pkg, func(t *testing.T) {
			boot(t, limit, Machine{
				Kernel: find(t, k.pkg), Init: self, CPUs: k.cpus, MemoryMiB: 1024, Modules: modules, Files: files, Jobs: jobs,
			})
		})
	}
}

func skipUnlessBooting(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the kernels to boot are those of amd64")
	}
}

// find skips where the distribution does not have the kernel.
func find(t testing.TB, pkg string) Kernel {
	t.Helper()
	kernel, err := Find(pkg)
	if errors.Is(err, ErrNoKernel) {
		t.Skipf("%v: .ci/setup test unpacks it where the distribution has it", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// activityTests are those that do with the programs of this machine. They load
// and attach everything.
const activityTests = "^(TestTracing|TestLayout|TestExit|TestLongArgumentsAreMarked|TestMappedFileIsTold" +
	"|TestOutsideIsNotSeen|TestGroupsBelowCount|TestRemovedIsNotSeen)$"

// check fails for a job that failed, and for one that left out anything: what
// these kernels have is known.
func check(t *testing.T, r Result) {
	if r.Exit != 0 || strings.Contains(r.Output, "--- SKIP") || !strings.Contains(r.Output, "--- PASS") {
		t.Errorf("exit status %d\n%s", r.Exit, r.Output)
		return
	}
	t.Log(r.Output)
}

// compile makes a static test binary of a package.
func compile(t testing.TB, dir string) string {
	t.Helper()
	return golang(t, dir, "test", "-c")
}

// build makes a static program.
func build(t testing.TB, dir string) string {
	t.Helper()
	return golang(t, dir, "build")
}

func golang(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	c := exec.CommandContext(t.Context(), "go", append(args, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, text)
	}
	return out
}
