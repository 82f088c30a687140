package api

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerAudit() {
	handle(a, "GET", "/audit/organizations/{organizationId}", "What was done in an organization, newest first", a.audit)
	handle(a, "GET", "/audit/scenarios", "What can be in the audit log", a.scenarios)
	handle(a, "GET", "/admin/audit", "What was done on this server, newest first", a.adminAudit)
	for _, path := range []string{"/audit/organizations/{organizationId}", "/admin/audit"} {
		op := a.huma.OpenAPI().Paths[path].Get
		for field := range auditFields() {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: field, In: "query", Style: "deepObject", Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true},
				Description: "conditions as " + field + "[op]=value, with op one of eq, not, in, notIn, and for numbers and times gt, gte, lt, lte",
			})
		}
		slices.SortFunc(op.Parameters, func(x, y *huma.Param) int { return strings.Compare(x.Name, y.Name) })
	}
}

// kind is what the values of a field are.
type kind int

const (
	kindText kind = iota
	kindNumber
	kindTime
)

func auditFields() map[string]kind {
	return map[string]kind{
		"id": kindText, "actorId": kindText, "actorEmail": kindText, "actorApiKeyPrefix": kindText, "actorApiKeySuffix": kindText,
		"action": kindText, "targetType": kindText, "targetId": kindText, "statusCode": kindNumber, "createdAt": kindTime,
	}
}

// AuditQuery is the page and the conditions of a request.
type AuditQuery struct {
	Page  int    `query:"page" minimum:"1" maximum:"1000000" default:"1"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"100"`
	From  string `query:"from" format:"date-time" doc:"createdAt[gte] is the newer form"`
	To    string `query:"to" format:"date-time" doc:"createdAt[lte] is the newer form"`
	Next  string `query:"nextToken" maxLength:"64" doc:"of the page before; goes before page"`

	raw url.Values
}

// Resolve keeps the query, whose conditions huma does not read.
func (q *AuditQuery) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	q.raw = u.Query()
	return nil
}

// maxConditions bounds the values of one request's filters.
const maxConditions = 100

func (q *AuditQuery) query(organization string) (engine.AuditQuery, error) {
	out := engine.AuditQuery{OrganizationID: organization, Page: q.Page, Limit: q.Limit, Next: q.Next}
	raw := url.Values{}
	for key, values := range q.raw {
		raw[key] = values
	}
	for key, value := range map[string]string{"createdAt[gte]": q.From, "createdAt[lte]": q.To} {
		if value != "" {
			raw[key] = []string{value}
		}
	}
	for key, values := range raw {
		f, ok, err := condition(key, values)
		if err != nil {
			return out, err
		}
		if ok {
			out.Filters = append(out.Filters, f)
		}
	}
	return out, nil
}

// condition reads field[op]=value, and field=value for equality. Keys of no
// filter are not ok.
func condition(key string, values []string) (engine.AuditFilter, bool, error) {
	field, op, bracket := strings.Cut(strings.TrimSuffix(key, "[]"), "[")
	k, known := auditFields()[field]
	if !known {
		return engine.AuditFilter{}, false, nil
	}
	f := engine.AuditFilter{Field: field, Op: "eq"}
	if bracket {
		f.Op = strings.TrimSuffix(op, "]")
	}
	if !operator(f.Op, k) {
		return f, false, engine.Errorf(engine.KindInvalid, "%s cannot be filtered by %q", field, f.Op).
			WithHint("use eq, not, in or notIn, and gt, gte, lt or lte for statusCode and createdAt")
	}
	if list := f.Op == "in" || f.Op == "notIn"; list {
		values = strings.Split(strings.Join(values, ","), ",")
	} else if len(values) != 1 {
		return f, false, engine.Errorf(engine.KindInvalid, "%s is there %d times", key, len(values)).WithHint("use %s[in] for several values", field)
	}
	if len(values) > maxConditions {
		return f, false, engine.Errorf(engine.KindInvalid, "%s has %d values", key, len(values)).WithHint("use at most %d", maxConditions)
	}
	for _, text := range values {
		v, err := filterValue(text, k)
		if err != nil {
			return f, false, engine.Errorf(engine.KindInvalid, "%s: %q is not a %s", key, text, [...]string{"text", "number", "time"}[k])
		}
		f.Values = append(f.Values, v)
	}
	return f, true, nil
}

func operator(op string, k kind) bool {
	switch op {
	case "eq", "not", "in", "notIn":
		return k != kindTime || op == "eq"
	case "gt", "gte", "lt", "lte":
		return k != kindText
	}
	return false
}

func filterValue(text string, k kind) (any, error) {
	switch k {
	case kindNumber:
		return strconv.Atoi(text)
	case kindTime:
		return time.Parse(time.RFC3339, text)
	}
	return text, nil
}

type auditInput struct {
	OrganizationPath
	AuditQuery
}

func (a *API) audit(ctx context.Context, in *auditInput) (wire.AuditPage, error) {
	return a.auditPage(ctx, &in.AuditQuery, in.Organization)
}

func (a *API) adminAudit(ctx context.Context, in *AuditQuery) (wire.AuditPage, error) {
	return a.auditPage(ctx, in, "")
}

func (a *API) auditPage(ctx context.Context, in *AuditQuery, organization string) (wire.AuditPage, error) {
	q, err := in.query(organization)
	if err != nil {
		return wire.AuditPage{}, err
	}
	page, err := a.Accounts.Audit.Audit(ctx, caller(ctx), q)
	return wire.FromAuditPage(page, q), err
}

type scenarios struct {
	Targets []scenario `json:"targets"`
}

type scenario struct {
	TargetType string   `json:"targetType"`
	Actions    []string `json:"actions"`
}

// scenarios lists what the operations that are built can leave in the log.
func (a *API) scenarios(context.Context, *struct{}) (scenarios, error) {
	found := map[string][]string{}
	for _, o := range a.table {
		action, target := Audited(o)
		if action != "" && o.Status == Built && !slices.Contains(found[target], action) {
			found[target] = append(found[target], action)
		}
	}
	var out scenarios
	for target, actions := range found {
		slices.Sort(actions)
		out.Targets = append(out.Targets, scenario{target, actions})
	}
	slices.SortFunc(out.Targets, func(x, y scenario) int { return strings.Compare(x.TargetType, y.TargetType) })
	return out, nil
}
