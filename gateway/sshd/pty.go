package sshd

import "golang.org/x/crypto/ssh"

// ptyRequest is what a client tells of its terminal.
type ptyRequest struct {
	term       string
	cols, rows int
}

// parsePTY reads the body of a request for a terminal. Modes are left at what
// the sandbox's terminals have.
func parsePTY(payload []byte) (ptyRequest, bool) {
	var q struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if ssh.Unmarshal(payload, &q) != nil || len(q.Term) > 100 {
		return ptyRequest{}, false
	}
	p := ptyRequest{term: q.Term}
	if p.term == "" {
		p.term = "xterm-256color"
	}
	p.cols, p.rows = size(q.Cols, q.Rows)
	return p, true
}

// maxSize is the most columns and rows that the toolbox takes.
const maxSize = 1000

// size fits a terminal's size. None is 80 by 24.
func size(cols, rows uint32) (int, int) {
	if cols == 0 || rows == 0 {
		return 80, 24
	}
	return int(min(cols, maxSize)), int(min(rows, maxSize))
}
