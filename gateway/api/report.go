package api

import (
	"cmp"
	_ "embed"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

//go:embed report.html
var reportText string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
	"what":  what,
	"why":   func(r engine.ActivityRecord) string { return strings.TrimSpace(r.Rule + " " + r.Reason) },
}).Parse(reportText))

// what says in one line what a record is about.
func what(r engine.ActivityRecord) string {
	switch r.Kind {
	case engine.ActivityCall, engine.ActivityLifecycle:
		return strings.TrimSpace(r.Operation + " " + r.Detail)
	case engine.ActivityGap:
		return "nobody looked"
	case engine.ActivityLoss:
		return "records were lost"
	}
	return strings.TrimSpace(cmp.Or(r.Host, r.Detail) + " " + r.Remote)
}

func writeReport(w io.Writer, name string, page engine.ActivityPage, proof *engine.ActivityProof) error {
	counts := map[engine.ActivityKind]int{}
	for _, r := range page.Items {
		counts[r.Kind]++
	}
	return reportPage.Execute(w, map[string]any{"Name": name, "Items": page.Items, "More": page.More, "Counts": counts, "Proof": proof})
}
