package process

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// User is who a command runs as.
type User struct {
	Name   string // the number when it has no name
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
	Shell  string // may be empty
}

// Credential returns what the kernel needs to become the user, nil when the
// toolbox itself may not change users.
func (u User) Credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// Users reads the account files of the sandbox. They are read again when they
// change, because images and users install packages that add accounts.
type Users struct {
	passwd, group, shells string

	mu       sync.Mutex
	seen     [2]time.Time
	accounts []User
	groups   []groupEntry
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// NewUsers reads passwd, group and shells in dir, usually /etc.
func NewUsers(dir string) *Users {
	return &Users{passwd: dir + "/passwd", group: dir + "/group", shells: dir + "/shells"}
}

// Lookup finds a user given as a name, a uid or uid:gid (either part may be a
// name). A uid without an account is fine, a name without one is not.
func (us *Users) Lookup(spec string) (User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.loadLocked()
	name, group, hasGroup := strings.Cut(spec, ":")
	u, ok := us.accountLocked(name)
	if !ok {
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil || uid == 1<<32-1 {
			return User{}, wire.BadRequest("user: there is no user %q in this sandbox; use a name from /etc/passwd or a uid", name)
		}
		u = User{Name: name, UID: uint32(uid), Home: "/"}
	}
	u.Groups = us.membershipsLocked(u)
	if hasGroup {
		gid, ok := us.groupLocked(group)
		if !ok {
			return User{}, wire.BadRequest("user: there is no group %q in this sandbox; use a name from /etc/group or a gid", group)
		}
		u.GID = gid
	}
	return u, nil
}

// GroupID finds a group given as a name or a number.
func (us *Users) GroupID(spec string) (uint32, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.loadLocked()
	if gid, ok := us.groupLocked(spec); ok {
		return gid, nil
	}
	return 0, wire.BadRequest("group: there is no group %q in this sandbox; use a name from /etc/group or a gid", spec)
}

// Names returns the names of an owner and a group, numbers for unknown ones.
func (us *Users) Names(uid, gid uint32) (owner, group string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.loadLocked()
	owner, group = strconv.FormatUint(uint64(uid), 10), strconv.FormatUint(uint64(gid), 10)
	if i := slices.IndexFunc(us.accounts, func(u User) bool { return u.UID == uid }); i >= 0 {
		owner = us.accounts[i].Name
	}
	if i := slices.IndexFunc(us.groups, func(g groupEntry) bool { return g.gid == gid }); i >= 0 {
		group = us.groups[i].name
	}
	return owner, group
}

func (us *Users) accountLocked(name string) (User, bool) {
	uid, err := strconv.ParseUint(name, 10, 32)
	for _, u := range us.accounts {
		if u.Name == name || (err == nil && uint64(u.UID) == uid) {
			return u, true
		}
	}
	if name == "root" || name == "0" { // an image without accounts
		return User{Name: "root", Home: "/root"}, true
	}
	return User{}, false
}

func (us *Users) groupLocked(spec string) (uint32, bool) {
	for _, g := range us.groups {
		if g.name == spec {
			return g.gid, true
		}
	}
	n, err := strconv.ParseUint(spec, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

func (us *Users) membershipsLocked(u User) []uint32 {
	gids := []uint32{u.GID}
	for _, g := range us.groups {
		if slices.Contains(g.members, u.Name) && !slices.Contains(gids, g.gid) {
			gids = append(gids, g.gid)
		}
	}
	return gids
}

func (us *Users) loadLocked() {
	now := [2]time.Time{changed(us.passwd), changed(us.group)}
	if now == us.seen && us.accounts != nil {
		return
	}
	us.seen = now
	us.accounts = []User{}
	us.groups = nil
	eachLine(us.passwd, 7, func(f []string) {
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return
		}
		home := f[5]
		if home == "" {
			home = "/"
		}
		us.accounts = append(us.accounts, User{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: home, Shell: f[6]})
	})
	eachLine(us.group, 4, func(f []string) {
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			us.groups = append(us.groups, groupEntry{f[0], uint32(gid), strings.Split(f[3], ",")})
		}
	})
}

func changed(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// eachLine calls fn with the colon-separated fields of every line that has n.
func eachLine(path string, n int, fn func([]string)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Split(s.Text(), ":"); len(fields) >= n {
			fn(fields)
		}
	}
}
