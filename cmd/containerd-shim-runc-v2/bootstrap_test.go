package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOutlast has a shim's socket be left by another shim in all ways.
func TestOutlast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	outlast("unix://" + path) // there was none

	listen := func() *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		return l
	}

	// It stops to listen, and removes its socket a moment later.
	l := listen()
	go func() {
		time.Sleep(20 * time.Millisecond)
		l.Close()
		time.Sleep(5 * time.Millisecond)
		os.Remove(path)
	}()
	outlast("unix://" + path)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	// It was killed.
	listen().Close()
	outlast("unix://" + path)
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}

	// It goes on.
	l = listen()
	defer l.Close()
	outlast("unix://" + path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
