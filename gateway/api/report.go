package api

import (
	_ "embed"
	"html/template"
	"io"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity/tree"
)

//go:embed report.html
var reportText string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
	"line":  tree.Line,
	"ended": tree.Outcome,
}).Parse(reportText))

func writeReport(w io.Writer, name string, page engine.ActivityPage, proof *engine.ActivityProof) error {
	counts := map[engine.ActivityKind]int{}
	for _, r := range page.Items {
		counts[r.Kind]++
	}
	return reportPage.Execute(w, map[string]any{"Name": name, "Items": page.Items, "Entries": tree.Of(page.Items), "More": page.More, "Counts": counts, "Proof": proof})
}
