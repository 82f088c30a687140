package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// sdkVersion is the published TypeScript SDK that is measured.
const sdkVersion = "@daytona/sdk@0.216.0"

// sdkProgram makes one sandbox for each line that it reads.
//
//go:embed sdk.cjs
var sdkProgram string

// sdkCreate is what the program prints.
type sdkCreate struct {
	ID    string
	Ms    float64
	State string
}

// sdk measures create() of the TypeScript SDK, with the client's whole way: its
// request, our answer and its objects. The pool is full, the connection open.
func (b *bench) sdk(ctx context.Context) error {
	node, err := published.InstallNode(ctx)
	if err != nil {
		return err
	}
	dir, err := published.InstallNPM(ctx, sdkVersion)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, node, "-e", sdkProgram, dir)
	cmd.Env = append(os.Environ(), "DAYTONA_API_URL="+b.srv.url+"/api", "DAYTONA_API_KEY="+apiKey)
	cmd.Stderr = os.Stderr
	cmd.Dir = b.srv.home // the SDK reads .env files
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	took, err := b.sdkCreates(ctx, in.Write, bufio.NewScanner(out))
	err = errors.Join(err, in.Close(), cmd.Wait())
	if err != nil {
		return err
	}
	b.add(row{
		Name: "sdk_ts_create_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms",
		Detail: fmt.Sprintf("%s, pool full, n=%d, min %.1f, p99 %.1f", sdkVersion, len(took), ms(quantile(took, 0)), ms(quantile(took, .99))),
	})
	return nil
}

// sdkCreates asks for one create after the other. The first two open the
// connection and warm the client up; they do not count.
func (b *bench) sdkCreates(ctx context.Context, ask func([]byte) (int, error), answers *bufio.Scanner) ([]time.Duration, error) {
	var took []time.Duration
	for i := range b.n + 2 {
		if err := b.calm(ctx); err != nil {
			return nil, err
		}
		if _, err := ask([]byte("\n")); err != nil {
			return nil, err
		}
		if !answers.Scan() {
			return nil, errors.Join(answers.Err(), errors.New("the program of the SDK ended"))
		}
		var c sdkCreate
		if err := json.Unmarshal(answers.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("%w in %s", err, answers.Bytes())
		}
		if c.State != "started" {
			return nil, fmt.Errorf("create() returned a sandbox that is %s", c.State)
		}
		if err := b.srv.remove(ctx, c.ID); err != nil {
			return nil, err
		}
		if i >= 2 {
			took = append(took, time.Duration(c.Ms*float64(time.Millisecond)))
		}
	}
	return took, nil
}
