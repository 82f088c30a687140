package container

import "sync"

// worker runs book-keeping after an answer was given, one job after another.
type worker struct {
	mu     sync.Mutex
	closed bool
	queue  chan func()
	done   chan struct{}
}

func newWorker() *worker {
	w := &worker{queue: make(chan func(), 1024), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for job := range w.queue {
			job()
		}
	}()
	return w
}

// do runs job later, or at once when the worker is closed.
func (w *worker) do(job func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		job()
		return
	}
	w.queue <- job
}

// flush returns when all jobs accepted before are done.
func (w *worker) flush() {
	done := make(chan struct{})
	w.do(func() { close(done) })
	<-done
}

// close does what was accepted and ends the worker.
func (w *worker) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.done
}
