package cli

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Tell what the server's host can and cannot do", Args: cobra.NoArgs,
		Long: "Tells what the server's host can and cannot do, and how to mend it. It ends\n" +
			"with 1 when something is missing that sandboxes need.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	report, err := a.examine(ctx)
	if err != nil {
		return err
	}
	missing := 0
	rows := [][]string{}
	for _, c := range report.Checks {
		mark := a.colour("32", "ok")
		switch {
		case !c.OK && c.Needed:
			mark = a.colour("31", "missing")
			missing++
		case !c.OK:
			mark = a.colour("33", "absent")
		}
		rows = append(rows, []string{mark, c.Name, c.Detail})
		if !c.OK && c.Fix != "" {
			rows = append(rows, []string{"", "", "→ " + c.Fix})
		}
	}
	if a.asJSON() {
		err = a.json(wire.FromReport(report))
	} else {
		err = table(a.out, rows)
	}
	if err == nil && missing > 0 {
		err = engine.Errorf(engine.KindUnsupported, "%d needed abilities are missing", missing)
	}
	return err
}

// examine asks the server, or looks itself when none answers.
func (a *app) examine(ctx context.Context) (engine.Report, error) {
	c, err := a.client()
	if err == nil {
		var report engine.Report
		if report, err = c.Inspector().Doctor(ctx); err == nil {
			return report, nil
		}
	}
	kind := engine.KindOf(err)
	if a.Doctor != nil && (kind == engine.KindUnavailable || kind == engine.KindUnauthenticated) {
		fmt.Fprintf(a.err, "no server answers (%s); looking at this host\n", engine.AsError(err).Message)
		return a.Doctor(ctx)
	}
	return engine.Report{}, err
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.asJSON() {
				return a.json(map[string]string{"version": a.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(a.out, "atoll %s %s/%s\n", a.Version, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
