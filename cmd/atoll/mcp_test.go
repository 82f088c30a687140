package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLocalDirs(t *testing.T) {
	home, work, other := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		in     string // where the command starts
		opt    mcpOptions
		want   []string
		refuse bool
	}{
		{"not asked for", work, mcpOptions{toolsets: []string{"core"}, localDir: []string{other}}, nil, false},
		{"the working directory", work, mcpOptions{toolsets: []string{"core", "local"}}, []string{work}, false},
		{"with all", work, mcpOptions{toolsets: []string{"all"}}, []string{work}, false},
		{"named", work, mcpOptions{toolsets: []string{"local"}, localDir: []string{link}}, []string{other}, false},
		{"home is not meant", home, mcpOptions{toolsets: []string{"local"}}, nil, true},
		{"home is not meant by all", home, mcpOptions{toolsets: []string{"all"}}, nil, false},
		{"home can be named", work, mcpOptions{toolsets: []string{"local"}, localDir: []string{home}}, []string{home}, false},
		{"the root is not meant", "/", mcpOptions{toolsets: []string{"local"}}, nil, true},
		{"nothing there", work, mcpOptions{toolsets: []string{"local"}, localDir: []string{filepath.Join(work, "none")}}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(c.in)
			got, err := c.opt.dirs()
			if !slices.Equal(got, c.want) || (err != nil) != c.refuse {
				t.Errorf("got %v, %v; want %v, refused: %v", got, err, c.want, c.refuse)
			}
		})
	}
}
