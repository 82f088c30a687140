package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/atoll-sh/atoll/engine"
)

const (
	headerTimeout = "Atoll-Timeout" // nanoseconds left to the caller
	headerCall    = "Atoll-Call"    // id of the call, for canceling it

	// longestCall bounds calls whose caller set no deadline.
	longestCall = time.Hour
)

// The arguments of methods that take more than one value.
type (
	sandboxArgs struct {
		Sandbox string `json:"sandbox"`
	}
	stopArgs struct {
		Sandbox string             `json:"sandbox"`
		Options engine.StopOptions `json:"options"`
	}
	resizeArgs struct {
		Sandbox   string           `json:"sandbox"`
		Resources engine.Resources `json:"resources"`
	}
	networkArgs struct {
		Sandbox string               `json:"sandbox"`
		Policy  engine.NetworkPolicy `json:"policy"`
	}
	rulesArgs struct {
		Sandbox string                `json:"sandbox"`
		Rules   *engine.ExecFileRules `json:"rules"`
	}
	secretsArgs struct {
		Sandbox string `json:"sandbox"`
		On      bool   `json:"on"`
	}
	diskArgs struct {
		Sandbox string `json:"sandbox,omitempty"`
		Disk    string `json:"disk"`
	}
	none struct{}
)

// reply is the answer to a call: one of the two is set.
type reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

// wireError is an engine.Error. The cause travels as text, for the log.
type wireError struct {
	Kind    engine.Kind `json:"kind"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
	Code    string      `json:"code,omitempty"`
	Cause   string      `json:"cause,omitempty"`
}

func toWire(err error) *wireError {
	e := engine.AsError(err)
	w := &wireError{Kind: e.Kind, Message: e.Message, Hint: e.Hint, Code: e.Code}
	if e.Err != nil {
		w.Cause = e.Err.Error()
	}
	return w
}

func (w *wireError) err() error {
	e := &engine.Error{Kind: w.Kind, Message: w.Message, Hint: w.Hint, Code: w.Code}
	if w.Cause != "" {
		e.Err = errors.New(w.Cause)
	}
	return e
}

// Client returns a runner whose methods are calls to the runner of that id,
// in this process or another. It does not check that the runner exists; calls
// then fail with KindUnavailable.
func (c *Cluster) Client(runnerID string) engine.Runner {
	return client{conn: c.conn, id: runnerID, prefix: "runner." + token(runnerID)}
}

type client struct {
	conn   *nats.Conn
	id     string
	prefix string
}

// call sends args and waits for the answer. When ctx ends first, the runner
// is told to give up, and the call returns at once.
func call[R any](ctx context.Context, c client, method string, args any) (R, error) {
	var result R
	body, err := json.Marshal(args)
	if err != nil {
		return result, engine.AsError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, longestCall)
	defer cancel()
	deadline, _ := ctx.Deadline()
	id := nats.NewInbox()
	msg := &nats.Msg{Subject: c.prefix + ".rpc." + method, Data: body, Header: nats.Header{
		headerTimeout: {strconv.FormatInt(int64(time.Until(deadline)), 10)},
		headerCall:    {id},
	}}
	answer, err := c.conn.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return result, c.failed(ctx, id, err)
	}
	return decode[R](answer.Data)
}

func (c client) failed(ctx context.Context, callID string, err error) error {
	switch {
	case ctx.Err() != nil:
		_ = c.conn.Publish(c.prefix+".cancel", []byte(callID))
		return engine.AsError(ctx.Err())
	case errors.Is(err, nats.ErrNoResponders):
		return engine.Errorf(engine.KindUnavailable, "runner %s is not connected", c.id).
			WithHint("check that its server runs").Wrap(err)
	case errors.Is(err, nats.ErrMaxPayload):
		return engine.Errorf(engine.KindInvalid, "the request is too large").Wrap(err)
	}
	return engine.Errorf(engine.KindUnavailable, "runner %s does not answer", c.id).
		WithHint("try again in a moment").Wrap(err)
}

func decode[R any](data []byte) (R, error) {
	var result R
	var r reply
	if err := json.Unmarshal(data, &r); err != nil {
		return result, engine.AsError(err)
	}
	if r.Error != nil {
		return result, r.Error.err()
	}
	if err := json.Unmarshal(r.Result, &result); err != nil {
		return result, engine.AsError(err)
	}
	return result, nil
}

func (c client) Launch(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return call[engine.Launched](ctx, c, "Launch", l)
}

func (c client) Start(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return call[engine.Launched](ctx, c, "Start", l)
}

func (c client) Stop(ctx context.Context, sandbox string, opt engine.StopOptions) (engine.Instance, error) {
	return call[engine.Instance](ctx, c, "Stop", stopArgs{sandbox, opt})
}

func (c client) Remove(ctx context.Context, sandbox string) error {
	_, err := call[none](ctx, c, "Remove", sandboxArgs{sandbox})
	return err
}

func (c client) Resize(ctx context.Context, sandbox string, r engine.Resources) (engine.Instance, error) {
	return call[engine.Instance](ctx, c, "Resize", resizeArgs{sandbox, r})
}

func (c client) SetNetwork(ctx context.Context, sandbox string, p engine.NetworkPolicy) error {
	_, err := call[none](ctx, c, "SetNetwork", networkArgs{sandbox, p})
	return err
}

func (c client) SetRules(ctx context.Context, sandbox string, rules *engine.ExecFileRules) error {
	_, err := call[none](ctx, c, "SetRules", rulesArgs{sandbox, rules})
	return err
}

func (c client) SetSecrets(ctx context.Context, sandbox string, on bool) error {
	_, err := call[none](ctx, c, "SetSecrets", secretsArgs{sandbox, on})
	return err
}

func (c client) SaveDisk(ctx context.Context, sandbox, disk string) (engine.SavedDisk, error) {
	return call[engine.SavedDisk](ctx, c, "SaveDisk", diskArgs{sandbox, disk})
}

func (c client) DropDisk(ctx context.Context, disk string) error {
	_, err := call[none](ctx, c, "DropDisk", diskArgs{Disk: disk})
	return err
}

func (c client) Instances(ctx context.Context) ([]engine.Instance, error) {
	return call[[]engine.Instance](ctx, c, "Instances", none{})
}

func (c client) Stats(ctx context.Context, sandbox string) (engine.Stats, error) {
	return call[engine.Stats](ctx, c, "Stats", sandboxArgs{sandbox})
}

func (c client) Info(ctx context.Context) (engine.RunnerInfo, error) {
	return call[engine.RunnerInfo](ctx, c, "Info", none{})
}

func (c client) EnsureImage(ctx context.Context, req engine.EnsureImage) (engine.Image, error) {
	return call[engine.Image](ctx, c, "EnsureImage", req)
}

func (c client) DropImage(ctx context.Context, img engine.Image) error {
	_, err := call[none](ctx, c, "DropImage", img)
	return err
}

func (c client) SetPools(ctx context.Context, targets []engine.PoolTarget) error {
	_, err := call[none](ctx, c, "SetPools", targets)
	return err
}

func (c client) Pools(ctx context.Context) ([]engine.PoolStatus, error) {
	return call[[]engine.PoolStatus](ctx, c, "Pools", none{})
}

func (c client) Samples(ctx context.Context, q engine.SampleQuery) ([]engine.Sample, error) {
	return call[[]engine.Sample](ctx, c, "Samples", q)
}
