package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerActivity() {
	a.route("GET", "/sandbox/{sandboxIdOrName}/activity", a.Guard.Stream(http.HandlerFunc(a.activity)))
	a.route("GET", "/sandbox/{sandboxIdOrName}/activity/report", http.HandlerFunc(a.activityReport))
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/activity/verify", "Whether a sandbox's ledger is what was written", a.verifyActivity)
}

type verifyInput struct {
	SandboxPath
	Sequence uint64 `query:"sequence" doc:"of a record whose hash is known from before"`
	Hash     string `query:"hash" maxLength:"64" doc:"that record's hash"`
}

func (a *API) verifyActivity(ctx context.Context, in *verifyInput) (engine.ActivityProof, error) {
	service, err := a.ledger()
	if err != nil {
		return engine.ActivityProof{}, err
	}
	if (in.Sequence == 0) != (in.Hash == "") {
		return engine.ActivityProof{}, engine.Errorf(engine.KindInvalid, "sequence and hash go together")
	}
	var known *engine.ActivityHead
	if in.Hash != "" {
		known = &engine.ActivityHead{Sequence: in.Sequence, Hash: in.Hash}
	}
	return service.Verify(ctx, ref(ctx, in.Sandbox), known)
}

func (a *API) ledger() (engine.Activity, error) {
	if a.Services.Activity == nil {
		return nil, wire.NotBuilt("activity on this server")
	}
	return a.Services.Activity, nil
}

// activity answers with a page of records, or with follow streams them as
// server-sent events. With format=ocsf they are OCSF events.
func (a *API) activity(w http.ResponseWriter, r *http.Request) {
	service, err := a.ledger()
	var q engine.ActivityQuery
	values := r.URL.Query()
	if err == nil {
		q, err = activityQuery(values)
	}
	form := values.Get("format")
	if err == nil && form != "" && form != "json" && form != "ocsf" {
		err = engine.Errorf(engine.KindInvalid, "format is %.40q", form).WithHint("use json or ocsf")
	}
	follow := false
	if text := values.Get("follow"); err == nil && text != "" {
		if follow, err = strconv.ParseBool(text); err != nil {
			err = engine.Errorf(engine.KindInvalid, "follow is true or false")
		}
	}
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	sandbox := ref(r.Context(), sandboxParam(r))
	if follow {
		a.follow(w, r, service, sandbox, q, form)
		return
	}
	page, err := service.Records(r.Context(), sandbox, q)
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	if form == "ocsf" {
		events := make([]map[string]any, len(page.Items))
		for i, item := range page.Items {
			events[i] = wire.OCSF(item)
		}
		wire.WriteJSON(w, http.StatusOK, events)
		return
	}
	wire.WriteJSON(w, http.StatusOK, wire.FromActivity(page))
}

func sandboxParam(r *http.Request) string {
	name := chi.URLParam(r, "sandboxIdOrName")
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}

// maxCall bounds the id of a call.
const maxCall = 64

// activityQuery reads what records are wanted. Times are RFC 3339.
func activityQuery(v url.Values) (q engine.ActivityQuery, err error) {
	kinds := list(v["kind"])
	if len(kinds) > maxFilter {
		return q, engine.Errorf(engine.KindInvalid, "kind holds at most %d entries", maxFilter)
	}
	for _, k := range kinds {
		q.Kinds = append(q.Kinds, engine.ActivityKind(k))
	}
	if q.Call = v.Get("call"); len(q.Call) > maxCall {
		return q, engine.Errorf(engine.KindInvalid, "call is no id of a call")
	}
	for name, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if text := v.Get(name); text != "" {
			if *to, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return q, engine.Errorf(engine.KindInvalid, "%s is no time as 2026-01-02T03:04:05Z", name)
			}
		}
	}
	if text := v.Get("after"); text != "" {
		if q.After, err = strconv.ParseUint(text, 10, 64); err != nil {
			return q, engine.Errorf(engine.KindInvalid, "after is no sequence of a record")
		}
	}
	if text := v.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 {
			return q, engine.Errorf(engine.KindInvalid, "limit is %.20q", text).WithHint("use 1 to 1000")
		}
	}
	if text := v.Get("newest"); text != "" {
		if q.Newest, err = strconv.ParseBool(text); err != nil {
			return q, engine.Errorf(engine.KindInvalid, "newest is true or false")
		}
	}
	return q, nil
}

// follow streams records until the caller leaves, its key is no longer good or
// the server ends. The id of an event is the record's sequence, from which a
// browser goes on by itself.
func (a *API) follow(w http.ResponseWriter, r *http.Request, service engine.Activity, sandbox engine.SandboxRef, q engine.ActivityQuery, form string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-a.Closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	if last, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		q.After = max(q.After, last)
	}
	page, err := service.Records(ctx, sandbox, q) // not waiting: whether it may be read
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	fmt.Fprint(w, ": connected\n\n")
	q.Wait, q.Newest = cmp.Or(a.KeepAlive, keepAlive), false
	for {
		for _, item := range page.Items {
			writeActivity(w, item, form)
		}
		if len(page.Items) == 0 {
			fmt.Fprint(w, ": alive\n\n")
		}
		if out.Flush() != nil || ctx.Err() != nil {
			return
		}
		q.After = max(q.After, page.Next)
		if page, err = service.Records(ctx, sandbox, q); err != nil {
			return
		}
	}
}

func writeActivity(w http.ResponseWriter, item engine.ActivityRecord, form string) {
	var v any = item
	if form == "ocsf" {
		v = wire.OCSF(item)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return // a plain value always encodes
	}
	fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", item.Sequence, item.Kind, data)
}

// activityReport is one page for people that loads nothing and runs nothing.
func (a *API) activityReport(w http.ResponseWriter, r *http.Request) {
	service, err := a.ledger()
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	ctx, sandbox := r.Context(), ref(r.Context(), sandboxParam(r))
	page, err := service.Records(ctx, sandbox, engine.ActivityQuery{Newest: true, Limit: 1000})
	if err != nil {
		wire.WriteError(w, r, err)
		return
	}
	var proof *engine.ActivityProof
	if p, err := service.Verify(ctx, sandbox, nil); err == nil {
		proof = &p
	}
	var b bytes.Buffer
	if err := writeReport(&b, strings.TrimSpace(sandbox.IDOrName), page, proof); err != nil {
		wire.WriteError(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes())
}
