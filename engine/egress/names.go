package egress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Bounds of what names may be asked. Under a wildcard, whoever owns the domain
// could be told secrets in the names, so there is little room for that.
const (
	maxWildName   = 128 // bytes of a name that a wildcard matches
	wildBudget    = 200 // different names that wildcards match, in each window
	budgetWindow  = 10 * time.Minute
	maxAddresses  = 16 // of one answer
	minLearnTTL   = 5 * time.Minute
	maxLearnTTL   = 24 * time.Hour
	learnGrace    = 30 * time.Second
	ednsSize      = 1232
	typeSVCB      = 64
	typeHTTPS     = 65
	edeFiltered   = 17 // extended DNS errors, RFC 8914
	edeProhibited = 18
)

// nameBudget bounds the different names that wildcards match.
type nameBudget struct {
	since time.Time
	seen  map[string]bool
}

func (b *nameBudget) take(name string, now time.Time) bool {
	if b.seen == nil || now.Sub(b.since) > budgetWindow {
		b.since, b.seen = now, map[string]bool{}
	}
	if !b.seen[name] && len(b.seen) >= wildBudget {
		return false
	}
	b.seen[name] = true
	return true
}

// Question implements network.Filter.
func (f *Filter) Question(index int, q []byte) (ask, answer []byte) {
	f.mu.Lock()
	st := f.slots[index]
	if st == nil || st.policy == nil {
		f.mu.Unlock()
		return nil, reply(q, dnsmessage.RCodeRefused, edeProhibited)
	}
	policy, byName, named := st.policy, st.byName, st.seal != nil || st.upstream != nil || st.learns
	f.mu.Unlock()
	header, question, err := parseQuestion(q)
	if !byName && policy.Egress.Default == policies.Allow {
		if err == nil {
			f.tell(index, nameRecord(plainName(question), policies.Decision{Allow: true, Rule: "default"}))
		}
		if named && err == nil && (question.Type == typeHTTPS || question.Type == typeSVCB) {
			return nil, reply(q, dnsmessage.RCodeSuccess, 0) // its keys would hide the name that the proxy goes by
		}
		return q, nil
	}
	if err != nil {
		f.refusedMessage(index, "malformed: "+err.Error())
		return nil, reply(q, dnsmessage.RCodeFormatError, 0)
	}
	if question.Class != dnsmessage.ClassINET {
		f.tellOnce(index, nameRecord(plainName(question), policies.Decision{Reason: "malformed: a question of class " + strings.TrimPrefix(question.Class.String(), "Class")}))
		return nil, reply(q, dnsmessage.RCodeFormatError, 0)
	}
	name, err := policies.CanonicalName(question.Name.String())
	decision := policies.Decision{Reason: "it is no proper name"}
	if err == nil {
		decision = policies.Decide(policy, policies.LookupRequest{Name: name})
	}
	if decision.Allow && !f.within(index, name) {
		decision.Allow, decision.Reason = false, "more names than a wildcard may stand for"
	}
	asked := nameRecord(plainName(question), decision)
	if decision.Allow {
		asked.Detail = withheld(q, question)
	}
	f.tell(index, asked)
	if !decision.Allow {
		f.log.Debug("name refused", "slot", index, "name", question.Name.String())
		return nil, reply(q, dnsmessage.RCodeNameError, edeProhibited)
	}
	if question.Type != dnsmessage.TypeA && question.Type != dnsmessage.TypeAAAA {
		return nil, reply(q, dnsmessage.RCodeSuccess, 0) // nothing that a tunnel, or an encrypted hello, could use
	}
	return buildQuestion(header.ID, name, question.Type), nil
}

// NoQuestion implements network.Filter.
func (f *Filter) NoQuestion(index int, message []byte) {
	f.refusedMessage(index, "malformed: "+oddity(message))
}

// refusedMessage tells of a message to the name relay that nobody can judge.
func (f *Filter) refusedMessage(index int, reason string) {
	f.tellOnce(index, engine.ActivityRecord{Kind: engine.ActivityDNS, Verdict: "deny", Reason: reason})
}

// plainName is the name of a question as it came, without the last dot.
func plainName(q dnsmessage.Question) string { return strings.TrimSuffix(q.Name.String(), ".") }

// within tells whether a name that only wildcards match fits the budget.
func (f *Filter) within(index int, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.slots[index]
	if st == nil || st.policy == nil {
		return false
	}
	for _, r := range st.policy.Egress.Rules {
		if r.Verdict == policies.Allow && slices.Contains(r.Hosts, policies.Host(name)) {
			return true
		}
	}
	if st.policy.Egress.Default == policies.Allow {
		return true
	}
	return len(name) <= maxWildName && st.budget.take(name, time.Now())
}

// Answer implements network.Filter.
func (f *Filter) Answer(_ context.Context, index int, q, a []byte) []byte {
	f.mu.Lock()
	st := f.slots[index]
	if st == nil || st.policy == nil {
		f.mu.Unlock()
		return reply(q, dnsmessage.RCodeRefused, edeProhibited)
	}
	policy, byName, learns := st.policy, st.byName, st.learns
	f.mu.Unlock()
	if !byName && policy.Egress.Default == policies.Allow {
		if learns {
			f.noteAnswer(index, q, a)
		}
		return a
	}
	_, question, err := parseQuestion(q)
	if err != nil {
		return reply(q, dnsmessage.RCodeFormatError, 0)
	}
	found, err := addresses(question, a)
	if err != nil {
		return reply(q, dnsmessage.RCodeServerFailure, 0)
	}
	if found.code != dnsmessage.RCodeSuccess || found.truncated {
		return found.bare(q)
	}
	name, _ := policies.CanonicalName(question.Name.String())
	kept := slices.DeleteFunc(found.records, func(r record) bool { return f.refuses(policy, r.addr) })
	if refused := len(found.records) - len(kept); refused > 0 && len(kept) > 0 {
		f.tellOnce(index, engine.ActivityRecord{
			Kind: engine.ActivityDNS, Host: name, Verdict: "deny", Rule: "blocked", Reason: fmt.Sprintf("%d of %d addresses that it resolves to are such that no sandbox may reach", refused, len(found.records)),
		})
	}
	if len(kept) == 0 && len(found.records) > 0 {
		f.log.Warn("a name resolves to addresses that no sandbox may reach", "slot", index, "name", name)
		f.tell(index, nameRecord(name, policies.Decision{Rule: "blocked", Reason: errOutOfBounds.Error()}))
		return reply(q, dnsmessage.RCodeNameError, edeFiltered)
	}
	if err := f.learn(index, name, kept); err != nil {
		f.log.Error("opening the addresses of a name", "slot", index, "name", name, "err", err)
		return reply(q, dnsmessage.RCodeServerFailure, 0)
	}
	return buildAnswer(q, question, kept)
}

// refuses tells whether an address that a name resolved to is out of bounds:
// for every sandbox, or by a rule about its network.
func (f *Filter) refuses(p *policies.Policy, a netip.Addr) bool {
	if _, blocked := policies.BlockedAddress(a); blocked || f.host.Denied(a) {
		return true
	}
	for _, r := range p.Egress.Rules {
		if r.Verdict != policies.Allow && len(r.Ports) == 0 && slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
			return true
		}
	}
	return false
}

// learn opens the addresses of a name before the sandbox is told of them. The
// policy is the one that stands when they are opened.
func (f *Filter) learn(index int, name string, records []record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.slots[index]
	if st == nil || st.policy == nil || !policies.Decide(st.policy, policies.LookupRequest{Name: name}).Allow {
		return nil // it changed meanwhile; the addresses stay closed
	}
	open, rule := portsOf(st.policy, name)
	if len(open) == 0 {
		return nil
	}
	for _, r := range records {
		ttl := min(max(time.Duration(r.ttl)*time.Second, minLearnTTL), maxLearnTTL) + learnGrace
		if err := f.kernel.Learn(st.number, r.addr, kernel.Name{Rule: rule, Ranges: ranges(open), TTL: ttl}); err != nil {
			return err
		}
		st.names[r.addr] = name
	}
	return nil
}
