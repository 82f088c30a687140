package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

const (
	// servers is how many servers one host can hold; each has an index below it.
	servers = 16
	// perServer is the size of each server's address range and of its range of
	// user ids. Offset 0 is the network, 1 the gateway, the last stays unused.
	perServer = 4096
	firstSlot = 2
	lastSlot  = perServer - 2
	// uidBlock is how many user ids a sandbox has. Ids below 16 blocks belong
	// to the host's own users and to their subordinate ids.
	uidBlock  = 65536
	firstUIDs = 16
)

// plan is where the slots of one server lie. It is stored in the index's lock
// file, so a server that restarts finds its old one.
type plan struct {
	ID      string       `json:"id"`
	Index   int          `json:"index"`
	Prefix4 netip.Prefix `json:"prefix4"`
	Prefix6 netip.Prefix `json:"prefix6"` // zero where the host has no IPv6
}

var validID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// deviceName returns the start of the names of all devices of server id. It is
// 11 characters for every id, so no server's prefix is the start of another's.
func devicePrefix(id string) string {
	short := id
	if len(id) != 8 {
		sum := sha256.Sum256([]byte(id))
		short = hex.EncodeToString(sum[:4])
	}
	return "at" + short + "n"
}

func netnsPrefix(id string) string { return "atoll-" + id + "-" }

// slot computes slot i. It does not tell whether the slot exists.
func (p plan) slot(i int) Slot {
	s := Slot{
		Index:    i,
		NetNS:    filepath.Join(netnsDir, netnsPrefix(p.ID)+strconv.Itoa(i)),
		Device:   devicePrefix(p.ID) + strconv.Itoa(i),
		Addr4:    offset(p.Prefix4, i),
		Gateway4: offset(p.Prefix4, 1),
		UIDBase:  uint32(firstUIDs+p.Index*perServer+i) * uidBlock,
	}
	if p.Prefix6.IsValid() {
		s.Addr6, s.Gateway6 = offset(p.Prefix6, i), offset(p.Prefix6, 1)
	}
	return s
}

// last is the highest slot whose user ids fit below 2^32, the last block of
// which is left out because its last id means "no user".
func (p plan) last() int {
	return min(lastSlot, (1<<32)/uidBlock-2-firstUIDs-p.Index*perServer)
}

func offset(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-2] += byte(n >> 8)
	b[len(b)-1] += byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// claim is a held index. The lock ends with the process, or with release.
type claim struct {
	file *os.File
	plan plan
}

// claimIndex locks an index for server id: want when it is not negative, else
// the one this id had before, else a free one. A server that left nothing on
// this host when it ended may find that another one has taken its index; it
// moves to a free one then.
func claimIndex(dir, id string, want int) (*claim, error) {
	former := want >= 0
	if !former {
		want, former = formerIndex(dir, id)
	}
	if former {
		c, err := tryIndex(dir, id, want)
		// Who has it may be about to write its name down, or to give it up.
		for try := 0; try < 100 && engine.KindOf(err) == engine.KindConflict && !taken(dir, id, want); try++ {
			time.Sleep(10 * time.Millisecond)
			c, err = tryIndex(dir, id, want)
		}
		if engine.KindOf(err) != engine.KindConflict || !taken(dir, id, want) {
			return c, err
		}
		if left, _ := listNetNS(id); len(left) > 0 {
			return nil, err
		}
	}
	for i := range servers {
		c, err := tryIndex(dir, id, i)
		if engine.KindOf(err) == engine.KindConflict {
			continue
		}
		return c, err
	}
	return nil, engine.Errorf(engine.KindExhausted, "all %d network ranges of this host are in use", servers).
		WithHint("stop one of the other servers, or remove what it left with `atoll down`")
}

func lockPath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("net-%d.lock", i)) }

func formerIndex(dir, id string) (int, bool) {
	for i := range servers {
		b, err := os.ReadFile(lockPath(dir, i))
		var p plan
		if err == nil && json.Unmarshal(b, &p) == nil && p.ID == id {
			return i, true
		}
	}
	return 0, false
}

// taken tells whether an index is written down as another server's than id's.
func taken(dir, id string, i int) bool {
	b, err := os.ReadFile(lockPath(dir, i))
	var p plan
	return err == nil && json.Unmarshal(b, &p) == nil && p.ID != "" && p.ID != id
}

func tryIndex(dir, id string, i int) (*claim, error) {
	f, err := openLocked(lockPath(dir, i))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, engine.Errorf(engine.KindConflict, "network range %d belongs to a running server", i).
			WithHint("start this server with another home, or stop the other one")
	}
	if err != nil {
		return nil, fmt.Errorf("claim network range %d: %w", i, err)
	}
	c := &claim{file: f, plan: plan{ID: id, Index: i}}
	b, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	var old plan
	if json.Unmarshal(b, &old) != nil || old.ID == "" {
		return c, nil
	}
	if old.ID == id {
		c.plan.Prefix4, c.plan.Prefix6 = old.Prefix4, old.Prefix6
		return c, nil
	}
	if left, _ := listNetNS(old.ID); len(left) > 0 {
		f.Close()
		return nil, engine.Errorf(engine.KindConflict, "network range %d is held by the sandboxes of server %s", i, old.ID).
			WithHint("start that server again, or remove what it left with `atoll down`")
	}
	return c, nil
}

// openLocked opens and locks path. It tries again when the file was removed
// between the two, because such a lock would guard nothing.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}

func (c *claim) save() error {
	b, err := json.Marshal(c.plan)
	if err != nil {
		return err
	}
	if err := c.file.Truncate(0); err != nil {
		return err
	}
	_, err = c.file.WriteAt(b, 0)
	return err
}

func (c *claim) release() { c.file.Close() }

// forget removes the lock file while it is held.
func (c *claim) forget() {
	os.Remove(c.file.Name())
	c.file.Close()
}

// choosePrefix4 picks the first range of the index that overlaps nothing in
// used. Different servers may end in different networks; their indexes keep
// them apart all the same.
func choosePrefix4(index int, used []netip.Prefix) (netip.Prefix, error) {
	for _, c := range candidates4() {
		b := c.As4()
		b[2] = byte(index * perServer >> 8)
		p := netip.PrefixFrom(netip.AddrFrom4(b), 20)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, engine.Errorf(engine.KindExhausted, "no private IPv4 range is free on this host").
		WithHint("10.200-254, 172.20-31 and 100.64-127 all overlap with routes of this host; remove one")
}

// candidates4 lists the /16 networks to choose from.
func candidates4() []netip.Addr {
	var out []netip.Addr
	add := func(a byte, from, to int) {
		for b := from; b <= to; b++ {
			out = append(out, netip.AddrFrom4([4]byte{a, byte(b), 0, 0}))
		}
	}
	add(10, 200, 254)
	add(172, 20, 31)
	add(100, 64, 127)
	return out
}

// choosePrefix6 derives a unique local /64 from the server's id.
func choosePrefix6(id string, used []netip.Prefix) (netip.Prefix, error) {
	for salt := range 16 {
		sum := sha256.Sum256(fmt.Appendf(nil, "atoll %s %d", id, salt))
		b := [16]byte{0: 0xfd}
		copy(b[1:8], sum[:])
		p := netip.PrefixFrom(netip.AddrFrom16(b), 64)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, engine.Errorf(engine.KindExhausted, "no unique local IPv6 range is free on this host")
}
