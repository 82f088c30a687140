package early

import (
	"errors"
	"strconv"
	"strings"
)

// Request hands a container to a spare shim: all that containerd gave to the
// program that it ran.
type Request struct {
	Dir       string // the container's bundle
	Args, Env []string
	Input     []byte // standard input
}

// MaxRequest is more than any request has, in bytes.
const MaxRequest = 1 << 20

// encode writes the length of the texts, the texts, and the input, with a zero
// byte after each but the last. No text can hold one.
func (r Request) encode() []byte {
	texts := append([]string{r.Dir, strconv.Itoa(len(r.Args))}, r.Args...)
	head := strings.Join(append(texts, r.Env...), "\x00")
	return append([]byte(strconv.Itoa(len(head))+"\x00"+head), r.Input...)
}

// Decode reads a request.
func Decode(b []byte) (Request, error) {
	size, rest, _ := strings.Cut(string(b), "\x00")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > len(rest) {
		return Request{}, errors.New("the request is damaged")
	}
	texts := strings.Split(rest[:n], "\x00")
	if len(texts) < 2 {
		return Request{}, errors.New("the request lacks its directory")
	}
	count, err := strconv.Atoi(texts[1])
	if err != nil || count < 0 || count > len(texts)-2 {
		return Request{}, errors.New("the request lacks arguments")
	}
	return Request{Dir: texts[0], Args: texts[2 : 2+count], Env: texts[2+count:], Input: []byte(rest[n:])}, nil
}

// Answers begin with one of these; after accepted comes what containerd reads,
// after refused the reason.
const (
	Accepted = '+'
	Refused  = '-'
)
