package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// described is what the document says of an operation whose handler is not
// huma's: those that stream, and the documents themselves.
type described struct {
	summary, mediaType string
	query              []*huma.Param
}

func undescribed() map[string]described {
	follow := []*huma.Param{{
		Name: "follow", In: "query", Description: "stay until it is over", Schema: &huma.Schema{Type: huma.TypeBoolean},
	}}
	return map[string]described{
		"GET /sandbox/{sandboxIdOrName}/build-logs": {"The log of a sandbox's build, as text", "text/plain", follow},
		"GET /snapshots/{id}/build-logs":            {"How the making of a snapshot goes, as text", "text/plain", follow},
		"GET /events":                               {"Changes of sandboxes and snapshots, as server-sent events", "text/event-stream", nil},
		"GET /openapi.json":                         {"This document", "application/json", nil},
		"GET /toolbox-openapi.json":                 {"The document of the toolbox in every sandbox", "application/json", nil},
		"GET /docs":                                 {"Both documents, for people", "text/html", nil},
	}
}

var pathParam = regexp.MustCompile(`\{([^}]+)\}`)

// describeRest puts into the document what is built and not there yet, and the tags.
func (a *API) describeRest() {
	doc, known := a.huma.OpenAPI(), undescribed()
	for key, o := range a.table {
		if o.Status != Built || operationOf(doc, o) != nil {
			continue
		}
		op := a.operation(o.Method, o.Path, cmp.Or(known[key].summary, key), http.StatusOK)
		for _, m := range pathParam.FindAllStringSubmatch(o.Path, -1) {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
			})
		}
		op.Parameters = append(op.Parameters, known[key].query...)
		op.Responses["200"] = &huma.Response{
			Description: "OK", Content: map[string]*huma.MediaType{cmp.Or(known[key].mediaType, "*/*"): {}},
		}
		doc.AddOperation(&op)
	}
	doc.Tags = tags(doc)
}

func operationOf(doc *huma.OpenAPI, o Operation) *huma.Operation {
	item := doc.Paths[o.Path]
	if item == nil {
		return nil
	}
	return map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put,
		http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
	}[o.Method]
}

// tags lists the tags in use, sorted.
func tags(doc *huma.OpenAPI) []*huma.Tag {
	seen := map[string]bool{}
	for path := range doc.Paths {
		seen[tagOf(path)] = true
	}
	var all []*huma.Tag
	for name := range seen {
		all = append(all, &huma.Tag{Name: name})
	}
	slices.SortFunc(all, func(a, b *huma.Tag) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// serveDocument answers with a document, made once.
func serveDocument(doc *huma.OpenAPI) http.Handler {
	text, err := json.Marshal(doc)
	if err != nil {
		panic("gateway/api: " + err.Error()) // of plain values, found by any test
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})
}
