package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) humaConfig() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[wire.Problem]())
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Atoll control API", Version: a.Version},
			Servers: []*huma.Server{{URL: "/api"}},
			Components: &huma.Components{
				Schemas:         registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}},
			},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{contractErrors},
	}
	c.AllowAdditionalPropertiesByDefault = true
	return c
}

// output is an answer with a body.
type output[B any] struct{ Body B }

// none is an answer without one.
type none struct{}

// handle registers an operation that answers 200 with a body.
func handle[I, B any](a *API, method, path, summary string, fn func(context.Context, *I) (B, error)) {
	handleStatus(a, method, path, summary, http.StatusOK, fn)
}

func handleStatus[I, B any](a *API, method, path, summary string, status int, fn func(context.Context, *I) (B, error)) {
	huma.Register(a.huma, a.operation(method, path, summary, status),
		func(ctx context.Context, in *I) (*output[B], error) {
			body, err := fn(ctx, in)
			if err != nil {
				return nil, wire.NewProblem(a.logged(ctx, err))
			}
			return &output[B]{Body: body}, nil
		})
}

// handleCreated registers an operation that answers 201 with a body.
func handleCreated[I, B any](a *API, method, path, summary string, fn func(context.Context, *I) (B, error)) {
	handleStatus(a, method, path, summary, http.StatusCreated, fn)
}

// handleEmpty registers an operation that answers with a status alone.
func handleEmpty[I any](a *API, method, path, summary string, status int, fn func(context.Context, *I) error) {
	huma.Register(a.huma, a.operation(method, path, summary, status),
		func(ctx context.Context, in *I) (*none, error) {
			if err := fn(ctx, in); err != nil {
				return nil, wire.NewProblem(a.logged(ctx, err))
			}
			return &none{}, nil
		})
}

func (a *API) operation(method, path, summary string, status int) huma.Operation {
	op := huma.Operation{
		OperationID: operationID(method, path), Method: method, Path: path, Summary: summary,
		Tags: []string{tagOf(path)}, DefaultStatus: status, MaxBodyBytes: maxBody,
		Responses: map[string]*huma.Response{"default": a.problemResponse()},
	}
	if a.table[method+" "+path].Access != Public {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	return op
}

func (a *API) problemResponse() *huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.Problem](), true, "Problem")
	return &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
}

func operationID(method, path string) string {
	r := strings.NewReplacer("/", "-", "{", "", "}", "")
	return strings.ToLower(method) + r.Replace(path)
}

// logged writes the cause of a fault of ours to the log, once, because the
// caller is shown only the message.
func (a *API) logged(ctx context.Context, err error) error {
	if engine.KindOf(err) == engine.KindInternal {
		a.Log.ErrorContext(ctx, "request failed", "error", err)
	}
	return err
}

// humaContext lets the transformer below choose another status.
type humaContext struct {
	inner
	override int
}

// inner is embedded under another name, because Context is a method too.
type inner huma.Context

// SetStatus sends the header.
func (c *humaContext) SetStatus(status int) {
	if c.override != 0 {
		status = c.override
	}
	c.inner.SetStatus(status)
}

// contractErrors turns huma's own errors, which are all about the request, into
// the contract's body and its 400, and completes ours.
func contractErrors(ctx huma.Context, _ string, v any) (any, error) {
	var p *wire.Problem
	switch e := v.(type) {
	case *wire.Problem:
		p = e
	case *huma.ErrorModel:
		p = fromModel(e)
	default:
		return v, nil
	}
	if hc, ok := ctx.(*humaContext); ok {
		hc.override = p.StatusCode
	}
	ctx.SetHeader("Content-Type", "application/json")
	u := ctx.URL()
	p.Path = u.Path
	return p, nil
}

func fromModel(m *huma.ErrorModel) *wire.Problem {
	kind := engine.KindInvalid
	if m.Status >= http.StatusInternalServerError {
		kind = engine.KindInternal
	}
	p := wire.NewProblem(engine.Errorf(kind, "%s", modelMessage(m)))
	if m.Status == http.StatusRequestEntityTooLarge {
		p.StatusCode, p.Reason = m.Status, http.StatusText(m.Status)
	}
	return p
}

func modelMessage(m *huma.ErrorModel) string {
	var parts []string
	for _, d := range m.Errors {
		parts = append(parts, detail(d))
	}
	if len(parts) == 0 {
		return m.Detail
	}
	return strings.Join(parts, ", ")
}

// detail names the field without the "body." that clients do not know of. The
// value is shown when it is short and no secret.
func detail(d *huma.ErrorDetail) string {
	_, field, found := strings.Cut(d.Location, ".")
	if !found || field == "" {
		return d.Message
	}
	value := fmt.Sprint(d.Value)
	if d.Value == nil || field == "value" || field == "password" || len(value) > 60 || strings.HasPrefix(value, "map[") {
		return field + ": " + d.Message
	}
	return fmt.Sprintf("%s: %s, got %s", field, d.Message, value)
}
