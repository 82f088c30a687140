package process

import (
	"bufio"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Space is what all processes of the sandbox share: the children table, the
// accounts, the default user, the work directory and the environment.
type Space struct {
	Table *Table
	Users *Users

	mu      sync.RWMutex
	user    User
	warning string // why user is not the wanted one
	workDir string // empty: the user's home
	env     map[string]string
	desktop map[string]string // of the desktop's session; nil while there is none
	trust   map[string]string // names the certificates to trust; nil: the image's own

	shellsMu   sync.Mutex
	shells     map[string]string // of /etc/shells, as it was at shellsAt
	shellsAt   unix.Timespec
	shellsSize int64
}

// NewSpace returns a Space with the given environment. A wanted user that does
// not exist is replaced by root, with a warning, because images are arbitrary.
func NewSpace(t *Table, users *Users, user, workDir string, env map[string]string) *Space {
	s := &Space{Table: t, Users: users, workDir: workDir, env: env}
	s.SetUser(user)
	return s
}

// SetUser changes the default user of later commands. Empty is root, or the
// toolbox's own user where it is not root.
func (s *Space) SetUser(spec string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warning = ""
	if spec == "" || os.Geteuid() != 0 {
		s.user = s.self()
		return
	}
	u, err := s.Users.Lookup(spec)
	if err != nil {
		s.warning = "user " + spec + " does not exist in this image; commands run as root"
		u = s.self()
	}
	s.user = u
}

func (s *Space) self() User {
	u, _ := s.Users.Lookup(itoa(os.Geteuid())) // a number is always found
	return u
}

// User returns the default user.
func (s *Space) User() User {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.user
}

// Warning tells why the default user is not the wanted one; usually empty.
func (s *Space) Warning() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.warning
}

// SetWorkDir changes what relative paths start from.
func (s *Space) SetWorkDir(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workDir = dir
}

// WorkDir returns what relative paths start from.
func (s *Space) WorkDir() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.workDir != "" {
		return s.workDir
	}
	return s.user.Home
}

// UpdateEnv changes the environment of processes started later.
func (s *Space) UpdateEnv(u wire.UpdateEnv) error {
	if err := CheckEnv("set", u.Set); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	env := make(map[string]string, len(s.env)+len(u.Set))
	for k, v := range s.env {
		if u.UnsetValuePrefix == "" || !strings.HasPrefix(v, u.UnsetValuePrefix) {
			env[k] = v
		}
	}
	for _, k := range u.Unset {
		delete(env, k)
	}
	maps.Copy(env, u.Set)
	s.env = env
	return nil
}

// SetDesktop says what brings later processes onto the desktop; nil: there is
// none. What the user has set goes before it.
func (s *Space) SetDesktop(env map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.desktop = env
}

// SetTrust says which variables lead later processes to the certificates that
// they trust; nil: none.
func (s *Space) SetTrust(env map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust = env
}

// Variable returns what the environment says, without what SetTrust set.
func (s *Space) Variable(name string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.env[name]
}

// Environ returns the environment of a process of u, with extra on top.
func (s *Space) Environ(u User, extra map[string]string) map[string]string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	env := map[string]string{
		"PATH": defaultPath, "HOME": u.Home, "USER": u.Name, "LOGNAME": u.Name, "SHELL": u.Shell, "LANG": "C.UTF-8",
	}
	if u.Shell == "" {
		env["SHELL"] = "/bin/sh"
	}
	maps.Copy(env, s.desktop)
	maps.Copy(env, s.env)
	maps.Copy(env, s.trust)
	maps.Copy(env, extra)
	return env
}

// List turns an environment into KEY=value strings.
func List(env map[string]string) []string {
	l := make([]string, 0, len(env))
	for k, v := range env {
		l = append(l, k+"="+v)
	}
	return l
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckEnv refuses names and values that no process could get.
func CheckEnv(field string, env map[string]string) error {
	for k, v := range env {
		if !envName.MatchString(k) {
			return wire.BadRequest("%s: %.80q is not a name for an environment variable; use letters, digits and _ and do not start with a digit", field, k)
		}
		if strings.IndexByte(v, 0) >= 0 {
			return wire.BadRequest("%s: the value of %s holds a NUL byte; remove it", field, k)
		}
		if len(k)+len(v) > maxString-2 {
			return wire.BadRequest("%s: the value of %s is longer than 128 KiB, which Linux does not allow; put it into a file", field, k)
		}
	}
	return nil
}

// Resolve makes path absolute from the work directory.
func (s *Space) Resolve(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = s.User().Home + path[1:]
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.WorkDir(), path)
	}
	return filepath.Clean(path)
}

// dir resolves the directory a command runs in. Without one given, a missing
// work directory is replaced by the home and that by the root, so that commands
// and terminals work in any image.
func (s *Space) dir(cwd string) (string, error) {
	if cwd != "" {
		d := s.Resolve(cwd)
		return d, checkDir(d)
	}
	return s.StartDir(), nil
}

// StartDir is the directory of commands that name none.
func (s *Space) StartDir() string {
	for _, d := range []string{s.WorkDir(), s.User().Home} {
		if checkDir(d) == nil {
			return d
		}
	}
	return "/"
}

func checkDir(d string) error {
	mode, err := modeOf(d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the directory does not exist")
	case err != nil:
		return err
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return errors.New("it is not a directory")
	}
	return nil
}

// modeOf returns the type and permissions of what path leads to. Each command
// asks several times, so it is the bare system call.
func modeOf(path string) (mode uint32, err error) {
	var st unix.Stat_t
	for {
		if err = unix.Stat(path, &st); !errors.Is(err, unix.EINTR) {
			return st.Mode, err
		}
	}
}

// LookPath finds an executable as the shell would, in the PATH of env.
func LookPath(name, dir string, env map[string]string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	for _, d := range filepath.SplitList(env["PATH"]) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if p := filepath.Join(d, name); executable(p) == nil {
			return p, nil
		}
	}
	return "", syscall.ENOENT
}

func executable(path string) error {
	mode, err := modeOf(path)
	switch {
	case err != nil:
		return err
	case mode&unix.S_IFMT == unix.S_IFDIR:
		return syscall.EISDIR
	case mode&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// Shell returns the shell that runs command lines: zsh, else bash, when
// /etc/shells lists it; else $SHELL, else sh. It is empty when there is none.
func (s *Space) Shell(env map[string]string) string {
	listed := s.listedShells()
	for _, p := range []string{listed["zsh"], listed["bash"], env["SHELL"], "/bin/sh", "/bin/bash", "/bin/ash", "/busybox/sh"} {
		if p != "" && filepath.IsAbs(p) && executable(p) == nil && !nologin(p) {
			return p
		}
	}
	return ""
}

// listedShells returns the usable shells of /etc/shells by name. The file is
// read again when it has changed.
func (s *Space) listedShells() map[string]string {
	var st unix.Stat_t
	if unix.Stat(s.Users.shells, &st) != nil {
		return nil
	}
	s.shellsMu.Lock()
	defer s.shellsMu.Unlock()
	if s.shells != nil && s.shellsAt == st.Mtim && s.shellsSize == st.Size {
		return s.shells
	}
	f, err := os.Open(s.Users.shells)
	if err != nil {
		return nil
	}
	defer f.Close()
	listed := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		p := strings.TrimSpace(sc.Text())
		if b := filepath.Base(p); listed[b] == "" && strings.HasPrefix(p, "/") && executable(p) == nil {
			listed[b] = p
		}
	}
	s.shells, s.shellsAt, s.shellsSize = listed, st.Mtim, st.Size
	return listed
}

func nologin(p string) bool {
	b := filepath.Base(p)
	return b == "nologin" || b == "false" || b == "true"
}
