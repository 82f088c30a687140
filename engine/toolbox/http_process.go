package toolbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) execute(w http.ResponseWriter, r *http.Request) error {
	var q wire.ExecuteRequest
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	timeout, err := seconds(q.Timeout)
	if err != nil {
		return err
	}
	command, envs := liftExports(q.Command, q.Envs)
	c := process.Command{Script: command, Cwd: q.Cwd, Env: withCall(r, envs), User: q.User}
	res, err := t.runner.Run(r.Context(), c, process.Input{Stdin: q.Stdin, Timeout: timeout, Split: q.Split})
	if err := finished(res, q.Timeout, err); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

// callHeader is how the server says which call of its ledger a request is.
const callHeader = "X-Atoll-Call"

// withCall tells a process by which call it was begun. What the caller set
// itself stays.
func withCall(r *http.Request, env map[string]string) map[string]string {
	call := process.CallOf(r.Context())
	if call == "" || env["ATOLL_CALL"] != "" {
		return env
	}
	with := maps.Clone(env)
	if with == nil {
		with = map[string]string{}
	}
	with["ATOLL_CALL"] = call
	return with
}

// seconds checks a timeout.
func seconds(n int) (time.Duration, error) {
	if n < 0 || int64(n) > math.MaxInt64/int64(time.Second) {
		return 0, wire.BadRequest("timeout: %d is not possible; give seconds, or 0 for no limit", n)
	}
	return time.Duration(n) * time.Second, nil
}

// finished turns the ways a run can end badly into errors.
func finished(res wire.ExecuteResponse, timeout int, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return wire.Errorf(499, wire.CodeBadRequest, "the caller went away; the command was killed")
	case err != nil:
		return err
	case !res.TimedOut:
		return nil
	}
	e := wire.Errorf(http.StatusRequestTimeout, wire.CodeExecTimeout,
		"the command was killed after its timeout of %d s; what it printed until then is in result", timeout)
	e.Partial = &wire.Partial{
		ExitCode: res.ExitCode, Result: res.Result, Stdout: res.Stdout, Stderr: res.Stderr,
		DurationMs: res.DurationMs, TimedOut: true, Truncated: res.Truncated,
	}
	return e
}

func (t *Toolbox) codeRun(w http.ResponseWriter, r *http.Request) error {
	var q wire.CodeRunRequest
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	timeout, err := seconds(q.Timeout)
	if err != nil {
		return err
	}
	if q.Code == "" {
		return wire.BadRequest("code: it is empty; give a program")
	}
	q.Envs = withCall(r, q.Envs)
	res, charts, err := t.code.Run(r.Context(), q, process.Input{Timeout: timeout})
	if err := finished(res, q.Timeout, err); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.CodeRunResponse{
		ExitCode: res.ExitCode, Result: res.Result, Artifacts: wire.Artifacts{Charts: charts},
	})
}

func (t *Toolbox) version(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"version": t.config.Version})
}

func (t *Toolbox) homeDir(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, wire.Dir{Dir: t.runner.User().Home})
}

func (t *Toolbox) workDir(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, wire.Dir{Dir: t.runner.WorkDir()})
}

func (t *Toolbox) updateEnv(w http.ResponseWriter, r *http.Request) error {
	var q wire.UpdateEnv
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if err := t.runner.UpdateEnv(q); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"message": fmt.Sprintf("%d variables set, %d unset", len(q.Set), len(q.Unset))})
}

// initialize is sent by some control planes with a telemetry token, for which
// there is no use here.
func (t *Toolbox) initialize(w http.ResponseWriter, r *http.Request) error {
	var q struct{}
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"message": "initialized"})
}
