package interpreter

import (
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// execution hands on what one program says, until it ends.
type execution struct {
	worker *worker
	turn   *turn
	send   func(wire.InterpreterChunk) error

	ended   *wire.InterpreterChunk // the control chunk; output may follow it
	markers int
	cause   error // why the program was interrupted; its output is dropped
}

// follow returns nil once the control chunk is sent.
func (x *execution) follow(ctx context.Context, timeout time.Duration) error {
	expire := after(timeout)
	done := ctx.Done()
	var limit <-chan time.Time // of what is waited for at the end
	for {
		select {
		case e := <-x.turn.events:
			if x.take(e) {
				return x.finish()
			}
			if x.ended != nil {
				limit = time.After(settle)
			}
		case <-expire:
			expire, done = nil, nil
			limit = x.interrupt(ErrTimeout)
		case <-done:
			expire, done = nil, nil
			limit = x.interrupt(ErrGone)
		case <-limit:
			if x.ended == nil { // it does not obey
				x.worker.child.Kill()
			}
			return x.finish()
		case <-x.worker.done:
			if x.cause == nil && x.ended == nil {
				return errDied
			}
			return x.finish()
		}
	}
}

func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func (x *execution) interrupt(cause error) <-chan time.Time {
	x.cause = cause
	x.worker.interrupt()
	return time.After(obey)
}

// take handles an event and reports whether it was the last one.
func (x *execution) take(e event) bool {
	switch {
	case e.marker:
		x.markers++
	case e.chunk.Type == wire.ChunkControl:
		x.ended = &e.chunk
	case x.cause == nil:
		if err := x.send(e.chunk); err != nil {
			x.cause = ErrGone
			x.worker.interrupt()
		}
	}
	return x.ended != nil && x.markers == 2
}

// finish tells how the program ended.
func (x *execution) finish() error {
	if x.cause != nil {
		return x.cause
	}
	return x.send(*x.ended)
}
