package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// record is one address of an answer.
type record struct {
	addr netip.Addr
	ttl  uint32
}

// found is what an answer says about the name that was asked.
type found struct {
	code      dnsmessage.RCode
	truncated bool
	records   []record
}

// bare answers q with the code alone.
func (r found) bare(q []byte) []byte {
	a := reply(q, r.code, 0)
	if r.truncated {
		a[2] |= 0x02
	}
	return a
}

func parseQuestion(q []byte) (dnsmessage.Header, dnsmessage.Question, error) {
	var p dnsmessage.Parser
	h, err := p.Start(q)
	if err != nil {
		return h, dnsmessage.Question{}, err
	}
	question, err := p.Question()
	return h, question, err
}

// oddity says why a message is no question that the relay passes on.
func oddity(b []byte) string {
	if len(b) <= headerSize {
		return "too short"
	}
	switch opcode := b[2] >> 3 & 15; {
	case b[2]&0x80 != 0:
		return "an answer"
	case opcode != 0:
		return fmt.Sprintf("operation %d", opcode)
	}
	if n := binary.BigEndian.Uint16(b[4:]); n != 1 {
		return fmt.Sprintf("%d questions", n)
	}
	return "a broken name"
}

const headerSize = 12

// withheld says what of a question that is allowed goes no further than here:
// the resolvers get its name, in small letters, and its type. Empty when there is
// nothing else in it. Its identifier is always another.
func withheld(q []byte, question dnsmessage.Question) string {
	var parts []string
	if question.Type != dnsmessage.TypeA && question.Type != dnsmessage.TypeAAAA {
		parts = append(parts, "not asked, being of type "+strings.TrimPrefix(question.Type.String(), "Type"))
	}
	if name := question.Name.String(); name != strings.ToLower(name) {
		parts = append(parts, "case")
	}
	if extra := behind(q); extra != "" {
		parts = append(parts, extra)
	}
	if len(parts) == 0 {
		return ""
	}
	return "withheld: " + strings.Join(parts, ", ")
}

// behind names what stands behind a message's question.
func behind(q []byte) string {
	at := headerSize
	for at < len(q) && q[at] != 0 {
		at += 1 + int(q[at])
	}
	at += 5 // the last label, type and class
	if len(q) < at {
		return ""
	}
	const option = 11 // the head of an OPT record
	switch {
	case binary.BigEndian.Uint32(q[6:]) != 0 || binary.BigEndian.Uint16(q[10:]) > 1:
		return "records"
	case q[11] == 0 && len(q) == at:
		return ""
	case q[11] == 0:
		return fmt.Sprintf("%d bytes behind it", len(q)-at)
	case len(q) < at+option || q[at] != 0 || binary.BigEndian.Uint16(q[at+1:]) != uint16(dnsmessage.TypeOPT):
		return "records"
	}
	size := int(binary.BigEndian.Uint16(q[at+9:]))
	switch more := len(q) - at - option - size; {
	case more > 0:
		return fmt.Sprintf("%d bytes behind it", more)
	case size > 0:
		return fmt.Sprintf("%d bytes of EDNS options", size)
	}
	return ""
}

// buildQuestion makes a question from scratch, so that no byte of the sandbox
// but the name leaves.
func buildQuestion(id uint16, name string, t dnsmessage.Type) []byte {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: t, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// addresses follows the aliases from the name that was asked to addresses of
// the type that was asked. Records of other names are not looked at.
func addresses(q dnsmessage.Question, a []byte) (found, error) {
	var p dnsmessage.Parser
	h, err := p.Start(a)
	if err != nil || !h.Response {
		return found{}, errors.New("not an answer")
	}
	out := found{code: h.RCode, truncated: h.Truncated}
	if err := p.SkipAllQuestions(); err != nil {
		return found{}, err
	}
	all, err := p.AllAnswers()
	if err != nil {
		return found{}, err
	}
	aliases := map[string]bool{lower(q.Name): true}
	for range len(all) { // records may come in any order
		grown := false
		for _, r := range all {
			if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok && aliases[lower(r.Header.Name)] && !aliases[lower(c.CNAME)] {
				aliases[lower(c.CNAME)] = true
				grown = true
			}
		}
		if !grown {
			break
		}
	}
	for _, r := range all {
		if !aliases[lower(r.Header.Name)] || r.Header.Class != dnsmessage.ClassINET || len(out.records) == maxAddresses {
			continue
		}
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			if q.Type == dnsmessage.TypeA {
				out.records = append(out.records, record{netip.AddrFrom4(b.A), r.Header.TTL})
			}
		case *dnsmessage.AAAAResource:
			if q.Type == dnsmessage.TypeAAAA {
				out.records = append(out.records, record{netip.AddrFrom16(b.AAAA), r.Header.TTL})
			}
		}
	}
	return out, nil
}

func lower(n dnsmessage.Name) string {
	b := append([]byte(nil), n.Data[:n.Length]...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// buildAnswer tells the sandbox the addresses and nothing else that the
// resolver said.
func buildAnswer(q []byte, question dnsmessage.Question, records []record) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(q), Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	for _, r := range records {
		res := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: r.ttl}}
		if r.addr.Is4() {
			res.Body = &dnsmessage.AResource{A: r.addr.As4()}
		} else {
			res.Body = &dnsmessage.AAAAResource{AAAA: r.addr.As16()}
		}
		m.Answers = append(m.Answers, res)
	}
	b, err := m.Pack()
	if err != nil {
		return reply(q, dnsmessage.RCodeServerFailure, 0)
	}
	return b
}

// reply answers q with a code and no records. An extended error, when not 0,
// goes to those who asked with EDNS.
func reply(q []byte, code dnsmessage.RCode, extended uint16) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(q)
	if err != nil {
		return nil
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code,
	}}
	if question, err := p.Question(); err == nil {
		m.Questions = []dnsmessage.Question{question}
	}
	if extended != 0 && hasEDNS(&p) {
		var opt dnsmessage.ResourceHeader
		if opt.SetEDNS0(ednsSize, 0, false) == nil {
			m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{
				{Code: 15, Data: binary.BigEndian.AppendUint16(nil, extended)},
			}}}}
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func hasEDNS(p *dnsmessage.Parser) bool {
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return false
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return false
		}
		if h.Type == dnsmessage.TypeOPT {
			return true
		}
		if p.SkipAdditional() != nil {
			return false
		}
	}
}
