// Package enginetest helps tests of the engine: a runner and a bus in memory
// whose failures are scripted, databases, and ways to die at a chosen step.
package enginetest

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the private cluster
)

// Postgres is a database server for one test.
type Postgres struct{ base *url.URL }

// StartPostgres uses the server at ATOLL_TEST_POSTGRES, else it starts a
// private one from the distribution's package, which listens on a unix socket
// only and ends with the test.
func StartPostgres(t *testing.T) *Postgres {
	t.Helper()
	if given := os.Getenv("ATOLL_TEST_POSTGRES"); given != "" {
		u, err := url.Parse(given)
		if err != nil {
			t.Fatalf("ATOLL_TEST_POSTGRES: %v", err)
		}
		return &Postgres{base: u}
	}
	dir := postgresDir(t)
	attr := postgresUser(t, dir)
	bin := postgresBin(t)
	initCluster(t, bin, dir, attr)
	runCluster(t, bin, dir, attr)
	return &Postgres{base: &url.URL{
		Scheme: "postgres", User: url.User("postgres"), Path: "/postgres",
		RawQuery: url.Values{"host": {dir}}.Encode(),
	}}
}

// Database makes an empty database, dropped at the end of the test.
func (p *Postgres) Database(t *testing.T) string {
	t.Helper()
	name := "t" + strings.ReplaceAll(uuid.NewString(), "-", "")
	p.exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { p.exec(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	u := *p.base
	u.Path = "/" + name
	return u.String()
}

func (p *Postgres) exec(t *testing.T, stmt string) {
	t.Helper()
	db, err := sql.Open("pgx", p.base.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(stmt); err != nil { //nolint:noctx // runs in cleanups, after the test's context
		t.Fatalf("%s: %v", stmt, err)
	}
}

// postgresDir is not below t.TempDir, which only its owner may enter, and its
// path is short enough for a unix socket.
func postgresDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "atoll-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// postgresUser gives dir to the user postgres, because the server refuses to
// run as root.
func postgresUser(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT, Setpgid: true}
	if os.Getuid() != 0 {
		return attr
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("%v; install the package postgresql", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr
}

func postgresBin(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatal("postgres is not there; install the package postgresql, or set ATOLL_TEST_POSTGRES")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

func initCluster(t *testing.T, bin, dir string, attr *syscall.SysProcAttr) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-N")
	cmd.SysProcAttr, cmd.Dir = attr, dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
}

func runCluster(t *testing.T, bin, dir string, attr *syscall.SysProcAttr) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), //nolint:noctx // ended below
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+dir,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB")
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = attr, dir, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		<-exited
	})
	if err := awaitPostgres(dir, exited); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
}

func awaitPostgres(dir string, exited chan error) error {
	db, err := sql.Open("pgx", "postgres://postgres@/postgres?host="+url.QueryEscape(dir))
	if err != nil {
		return err
	}
	defer db.Close()
	for range 600 {
		if db.Ping() == nil { //nolint:noctx // bounded by the loop
			return nil
		}
		select {
		case err := <-exited:
			exited <- err // for the cleanup
			return fmt.Errorf("postgres ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("postgres does not answer")
}
