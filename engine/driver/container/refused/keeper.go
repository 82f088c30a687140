package refused

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// burst is how many calls of a sandbox are answered at once, and pace how
	// many in a second when there are more. One costs this process some 30 µs.
	burst = 500
	pace  = 200
	// handover is how long a runtime that says that it has passed the listener on
	// may take for it.
	handover = 5 * time.Second
)

// Keeper waits for the listener of one sandbox's filter, and answers from then
// on.
type Keeper struct {
	instance string
	socket   *net.UnixListener
	teller   *teller
	passed   chan error // nil when the listener is here
}

// Open waits at path, where the runtime connects to pass the listener on.
// What is refused is told to the socket at server.
func Open(path, server, instance string) (*Keeper, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("wait for the listener of refused calls: %w", err)
	}
	k := &Keeper{instance: instance, socket: l, passed: make(chan error, 1)}
	k.teller = newTeller(server, func() Call { return Call{Instance: instance, Time: bootNow()} })
	go k.keep() // ends with Close, or with the last process under the filter
	return k, nil
}

// Close ends the wait for the listener. A Keeper that has it goes on until no
// process is left under the filter.
func (k *Keeper) Close() { _ = k.socket.Close() }

// Passed returns nil once the listener is here. It is called once, when the
// runtime has created the container. After an error the Keeper is closed.
func (k *Keeper) Passed() error {
	t := time.NewTimer(handover)
	defer t.Stop()
	select {
	case err := <-k.passed:
		return err
	case <-t.C:
		k.Close()
		return errors.New("the runtime has not passed on the listener of refused calls")
	}
}

// keep takes the listener and answers until its end.
func (k *Keeper) keep() {
	l, err := k.take()
	_ = k.socket.Close() // removes the name, too
	k.passed <- err
	if err != nil {
		return
	}
	defer l.close()
	go k.teller.run()
	defer k.teller.end()
	s := same{tell: k.teller.tell, known: map[sameKey]*Call{}}
	defer func() { s.flush(bootNow(), true) }()
	b := bucket{left: burst, at: time.Now()}
	for {
		n, err := l.receive(s.due())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.flush(bootNow(), false)
			continue
		}
		if errors.Is(err, errInterrupted) {
			b.take() // it costs as well
			continue
		}
		if err != nil {
			return
		}
		c, probe := k.describe(l, n)
		if err := l.refuse(n.id); err != nil {
			return
		}
		s.add(c, probe)
		b.take()
	}
}

// take accepts the runtime's message: the process's state and the descriptor.
func (k *Keeper) take() (listener, error) {
	conn, err := k.socket.AcceptUnix()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(handover)); err != nil {
		return 0, err
	}
	state, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(state, control)
	if err != nil {
		return 0, err
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	var said struct {
		FDs   []string `json:"fds"`
		State struct {
			ID string `json:"id"`
		} `json:"state"`
	}
	if err == nil {
		err = json.Unmarshal(state[:n], &said)
	}
	if err == nil && (len(fds) != 1 || len(said.FDs) != 1 || said.FDs[0] != "seccompFd" || said.State.ID != k.instance) {
		err = fmt.Errorf("the runtime passes %v of %s", said.FDs, said.State.ID)
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return 0, err
	}
	return listener(fds[0]), nil
}

// describe says what a call is. Whatever was read counts only if the caller
// waited all the time.
func (k *Keeper) describe(l listener, n notice) (c Call, probe bool) {
	c = Call{Instance: k.instance, Time: bootNow(), Times: 1}
	known, ok := calls[uintptr(n.number)]
	if !ok || n.arch != audit {
		c.Name = fmt.Sprintf("call-%d", n.number)
		known = call{}
	} else {
		c.Name = known.name
	}
	who, alive := look(int(n.thread))
	c.Detail, c.Cut = known.describe(n.args, func(address uint64) (string, bool, bool) { return readText(int(n.thread), address) })
	if !alive || !l.valid(n.id) {
		c.Detail, c.Cut = known.describe(n.args, func(uint64) (string, bool, bool) { return "", false, false })
		return c, known.probe
	}
	c.Caller = who
	return c, known.probe
}

func bootNow() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

// bucket lets a burst through, and then as many as the pace allows.
type bucket struct {
	left float64
	at   time.Time
}

// take counts one, and sleeps when it was one too many.
func (b *bucket) take() {
	now := time.Now()
	b.left = min(b.left+now.Sub(b.at).Seconds()*pace, burst)
	b.at = now
	if b.left--; b.left < 0 {
		time.Sleep(time.Duration(-b.left / pace * float64(time.Second)))
	}
}
