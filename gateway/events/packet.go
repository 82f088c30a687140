package events

import (
	"encoding/json"
	"strings"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// Packets are text. The first character is Engine.IO's type (1 close, 2 ping,
// 3 pong, 4 message, 6 noop), the second of a message is Socket.IO's (0
// connect, 1 disconnect, 2 event, 3 ack, 4 connect error). A namespace other
// than / comes before the JSON, with a comma.

// login is the JSON of a client's connect packet.
type login struct {
	Token string `json:"token"`
}

// parseConnect reads the first packet of a client.
func parseConnect(packet string) (namespace string, body login, err error) {
	rest, ok := strings.CutPrefix(packet, "40")
	if !ok {
		return "", login{}, end(websocket.StatusPolicyViolation, "a connect packet must come first")
	}
	namespace = "/"
	if strings.HasPrefix(rest, "/") {
		namespace, rest, _ = strings.Cut(rest, ",")
		namespace, _, _ = strings.Cut(namespace, "?")
	}
	if rest != "" && json.Unmarshal([]byte(rest), &body) != nil {
		return "", login{}, end(websocket.StatusPolicyViolation, "the connect packet is not understood")
	}
	body.Token = strings.TrimPrefix(body.Token, "Bearer ")
	return namespace, body, nil
}

// hear takes a packet of a connected client: answers to pings, and events that
// nobody here listens to.
func hear(packet string) error {
	switch {
	case packet == "1", packet == "41", strings.HasPrefix(packet, "41,"):
		return end(websocket.StatusNormalClosure, "")
	case packet == "3", packet == "6", strings.HasPrefix(packet, "42"), strings.HasPrefix(packet, "43"):
		return nil
	}
	return end(websocket.StatusPolicyViolation, "the packet is not understood")
}

// Payloads of the events that are more than the thing itself.
type (
	sandboxState struct {
		Sandbox wire.Sandbox `json:"sandbox"`
		Old     string       `json:"oldState"`
		New     string       `json:"newState"`
	}
	sandboxDesired struct {
		Sandbox wire.Sandbox `json:"sandbox"`
		Old     string       `json:"oldDesiredState"`
		New     string       `json:"newDesiredState"`
	}
	sandboxAccess struct {
		Sandbox wire.Sandbox          `json:"sandbox"`
		Access  *engine.AccessRequest `json:"access"`
	}
	snapshotState struct {
		Snapshot wire.Snapshot `json:"snapshot"`
		Old      string        `json:"oldState"`
		New      string        `json:"newState"`
	}
)

// translate returns the contract's name and payload of a change. The name is
// empty for changes that neither the contract nor we have a word for.
func translate(e engine.Event, toolboxURL, region string) (string, any) {
	switch {
	case e.Sandbox != nil:
		return sandboxEvent(e, wire.FromSandbox(*e.Sandbox, toolboxURL))
	case e.Snapshot != nil:
		s := wire.FromSnapshot(*e.Snapshot)
		if region != "" {
			s.RegionIDs = []string{region}
		}
		return snapshotEvent(e, s)
	}
	return "", nil
}

func sandboxEvent(e engine.Event, s wire.Sandbox) (string, any) {
	switch e.Type {
	case "sandbox.created":
		return e.Type, s
	case "sandbox.state.updated":
		return e.Type, sandboxState{s, e.Old, e.New}
	case "sandbox.desired-state.updated":
		return e.Type, sandboxDesired{s, e.Old, e.New}
	case engine.EventAccessRequested, engine.EventAccessDecided:
		return e.Type, sandboxAccess{s, e.Access}
	}
	return "", nil
}

func snapshotEvent(e engine.Event, s wire.Snapshot) (string, any) {
	switch e.Type {
	case "snapshot.created", "snapshot.removed":
		return e.Type, s
	case "snapshot.state.updated":
		return e.Type, snapshotState{s, e.Old, e.New}
	}
	return "", nil
}
