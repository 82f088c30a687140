package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

// TestDefaultImage builds the image for real, or takes it from the cache of
// this host, and uses what is in it.
func TestDefaultImage(t *testing.T) {
	t.Parallel()
	s := startContainerd(t).open(DefaultCache)
	var lines []string
	got, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: DefaultRef}, func(l string) { lines = append(lines, l) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB, progress: %s", got.SizeBytes/1e6, strings.Join(lines, " | "))
	if got.Ref != DefaultRef || got.User != "daytona" || got.WorkDir != "/home/daytona" || got.Digest == "" {
		t.Errorf("got %+v", got)
	}
	if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "100%") {
		t.Errorf("progress: got %q, want lines up to 100%%", lines)
	}
	if got.SizeBytes > 900e6 {
		t.Errorf("size: got %d MB, want at most 900", got.SizeBytes/1e6)
	}
	u, err := s.Image(t.Context(), DefaultRef)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Lowers) != 1 {
		t.Fatalf("lowers: got %q, want one", u.Lowers)
	}
	tryDefaultImage(t, overlay(t, u.Lowers))

	again, err := s.Ensure(t.Context(), engine.EnsureImage{Ref: DefaultRef}, nil)
	if err != nil || again.Digest != got.Digest {
		t.Errorf("second time: got %q, %v, want the same digest", again.Digest, err)
	}
}

func tryDefaultImage(t *testing.T, root string) {
	for _, c := range []struct{ name, user, command, want string }{
		{"user", "1000", "whoami; pwd; ls -d /home/atoll/. /home/daytona/.", "atoll\n/home/daytona\n/home/atoll/.\n/home/daytona/."},
		{"alias", "0", "id -u atoll daytona 2>/dev/null || { id -u atoll; id -u daytona; }", "1000\n1000"},
		{"homes", "0", "getent passwd atoll daytona | cut -d: -f3,6", "1000:/home/atoll\n1000:/home/daytona"},
		{"python", "1000", "python -c 'print(6*7)'", "42"},
		{"venv", "1000", "python3 -m venv v && v/bin/python -c 'import sys; print(sys.prefix)'", "/home/daytona/v"},
		{"pip", "1000", "pip config list; pip install --no-index --dry-run pip >/dev/null && echo may install", "may install"},
		{"node", "1000", "node -e 'console.log(6*7)'", "42"},
		{"npm", "1000", "npm config get prefix", "/home/daytona/.local"},
		{"npm global", "1000", `mkdir p && cd p && echo '{"name":"hi-there","version":"1.0.0","bin":"hi.js"}' >package.json && printf '#!/usr/bin/env node\nconsole.log("hi")\n' >hi.js && chmod +x hi.js && npm pack >/dev/null 2>&1 && npm install -g --offline ./hi-there-1.0.0.tgz >/dev/null && hi-there`, "hi"},
		{"git", "1000", "git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --format=%s", "x"},
		{"gcc", "1000", `printf '#include <stdio.h>\nint main(){puts("built");}' >a.c && gcc a.c -o a && ./a`, "built"},
		{"tools", "1000", "for c in make g++ curl wget jq unzip xz ssh rsync ip ping less nano ps rg; do command -v $c >/dev/null || echo lacks $c; done", ""},
		{"language servers", "1000", "pylsp --version; typescript-language-server --version; readlink -f /usr/local/lib/node_modules/typescript/lib/tsserver.js", "pylsp v1.7.1\n4.3.4\n/usr/share/nodejs/typescript/lib/tsserver.js"},
		{"sudo", "0", "readlink /usr/local/bin/sudo; /usr/sbin/visudo -cq && echo fine", "/.atoll/toolbox\nfine"},
		{"apt", "0", "dpkg --audit; apt-get -q check >/dev/null && ls /var/lib/apt/lists | grep -v -e lock -e partial || echo no lists", "no lists"},
		{"time zone", "1000", "TZ=Asia/Tokyo date -d @0 +%H", "09"},
		{"locale", "1000", "printf 'ü' | wc -m", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := inRoot(t.Context(), root, c.user, c.command)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// overlay mounts the layers with a writable one on top.
func overlay(t *testing.T, lowers []string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	o := "lowerdir=" + strings.Join(lowers, ":") + ",upperdir=" + filepath.Join(dir, "upper") + ",workdir=" + filepath.Join(dir, "work")
	if err := syscall.Mount("overlay", root, "overlay", 0, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestDefaultSnapshots(t *testing.T) {
	var got []string
	for _, s := range DefaultSnapshots() {
		if !s.General || s.User != "daytona" {
			t.Errorf("got %+v", s)
		}
		got = append(got, s.Name+" of "+s.Image)
	}
	if want := []string{"atoll-small of atoll:default", "atoll-medium of atoll:default", "atoll-large of atoll:default", "atoll-desktop of atoll:desktop"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRecipeKeyFollowsContent(t *testing.T) {
	a, b := defaultRecipe(distribution{Suite: "bookworm"}), defaultRecipe(distribution{Suite: "bookworm"})
	if a.key() != b.key() {
		t.Errorf("same recipes: got %q and %q", a.key(), b.key())
	}
	b.Packages = append(b.Packages, "vim")
	if a.key() == b.key() {
		t.Error("other packages: got the same key")
	}
}

func TestHostDistribution(t *testing.T) {
	const debianKey = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
	for _, c := range []struct {
		name  string
		files map[string]string
		want  distribution
	}{
		{
			name: "Debian 12 with other people's sources",
			files: map[string]string{
				"etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n",
				"etc/apt/sources.list.d/debian.sources": `Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
`,
				"etc/apt/sources.list.d/node.list": "deb https://node.example/node_20.x nodistro main\ndeb https://x.example/repo bookworm stable\n",
			},
			want: distribution{"debian", "bookworm", []string{
				"deb " + debianKey + "http://mirror.example/debian bookworm main",
				"deb " + debianKey + "http://mirror.example/debian bookworm-updates main",
				"deb http://mirror.example/debian-security bookworm-security main",
			}},
		},
		{
			name: "Ubuntu, one-line",
			files: map[string]string{
				"etc/os-release":       "ID=ubuntu\nVERSION_CODENAME=jammy\nUBUNTU_CODENAME=jammy\n",
				"etc/apt/sources.list": "# deb http://no.example jammy main\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/ubuntu jammy main restricted # why\ndeb http://m.example/ubuntu jammy-updates universe\ndeb http://m.example/ubuntu jammy main universe\ndeb-src http://m.example/ubuntu jammy main\n",
			},
			want: distribution{"ubuntu", "jammy", []string{
				"deb [signed-by=/k.gpg] http://m.example/ubuntu jammy main",
				"deb http://m.example/ubuntu jammy main universe",
			}},
		},
		{
			name: "embedded key",
			files: map[string]string{
				"etc/os-release":                   "ID=debian\nVERSION_CODENAME=trixie\n",
				"etc/apt/sources.list.d/a.sources": "Types: deb\nURIs: https://m.example/debian\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n",
			},
			want: distribution{"debian", "trixie", []string{"deb https://m.example/debian trixie main"}},
		},
		{
			name: "a mirror that only this host can reach",
			files: map[string]string{
				"etc/os-release":       "ID=debian\nVERSION_CODENAME=bookworm\n",
				"etc/apt/sources.list": "deb http://127.0.0.1:3142/debian bookworm main\ndeb file:/srv/debian bookworm main\n",
			},
			want: distribution{"debian", "bookworm", nil},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if diff := cmp.Diff(c.want, hostDistribution(root)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
