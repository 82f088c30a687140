package lsp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxHeader bounds all header lines of one message together.
	maxHeader = 4 << 10
	// maxMessage bounds one message. The largest are lists of completions.
	maxMessage = 8 << 20
)

var errFrame = errors.New("it does not speak the language server protocol")

// readFrame reads one message: header lines, an empty line, and as many bytes
// as the header Content-Length says.
func readFrame(r *bufio.Reader) ([]byte, error) {
	length := -1
	for total := 0; ; {
		line, err := r.ReadSlice('\n')
		if total += len(line); total > maxHeader || errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%w: a header is longer than %d bytes", errFrame, maxHeader)
		}
		if err != nil {
			if err == io.EOF && total > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return nil, fmt.Errorf("%w: %.60q is not a header", errFrame, line)
		}
		if !bytes.EqualFold(name, []byte("Content-Length")) {
			continue
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%w: a length of %.20q", errFrame, value)
		}
		length = int(n)
	}
	if length < 0 {
		return nil, fmt.Errorf("%w: a message without a length", errFrame)
	}
	if length > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is larger than %d MiB", length, maxMessage>>20)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return body, nil
}

// frame puts a header before a message.
func frame(body []byte) []byte {
	return append(fmt.Appendf(make([]byte, 0, len(body)+32), "Content-Length: %d\r\n\r\n", len(body)), body...)
}
