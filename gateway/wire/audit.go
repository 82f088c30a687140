package wire

import "github.com/atoll-sh/atoll/engine"

// AuditLog is one entry of the audit log.
type AuditLog struct {
	ID                string            `json:"id"`
	ActorID           string            `json:"actorId"`
	ActorEmail        string            `json:"actorEmail"`
	ActorAPIKeyPrefix string            `json:"actorApiKeyPrefix,omitempty"`
	ActorAPIKeySuffix string            `json:"actorApiKeySuffix,omitempty"`
	OrganizationID    string            `json:"organizationId,omitempty"`
	Action            string            `json:"action"`
	TargetType        string            `json:"targetType,omitempty"`
	TargetID          string            `json:"targetId,omitempty" doc:"id or name, as the caller gave it"`
	StatusCode        int               `json:"statusCode,omitempty"`
	ErrorMessage      string            `json:"errorMessage,omitempty"`
	IPAddress         string            `json:"ipAddress,omitempty"`
	UserAgent         string            `json:"userAgent,omitempty"`
	Source            string            `json:"source,omitempty"`
	Metadata          map[string]string `json:"metadata,omitempty"`
	CreatedAt         string            `json:"createdAt"`
}

// AuditPage is one page of the audit log.
type AuditPage struct {
	Items      []AuditLog `json:"items"`
	Total      int        `json:"total"`
	Page       int        `json:"page"`
	TotalPages int        `json:"totalPages"`
	NextToken  string     `json:"nextToken,omitempty" doc:"absent on the last page"`
}

// FromAuditPage makes the body for the answer to q.
func FromAuditPage(p engine.AuditPage, q engine.AuditQuery) AuditPage {
	limit := max(q.Limit, 1)
	out := AuditPage{
		Items: []AuditLog{}, Total: p.Total, Page: max(q.Page, 1), TotalPages: (p.Total + limit - 1) / limit, NextToken: p.Next,
	}
	for _, e := range p.Items {
		out.Items = append(out.Items, AuditLog{
			ID: e.ID, ActorID: e.ActorID, ActorEmail: e.ActorEmail, ActorAPIKeyPrefix: e.KeyPrefix, ActorAPIKeySuffix: e.KeySuffix,
			OrganizationID: e.OrganizationID, Action: e.Action, TargetType: e.TargetType, TargetID: e.TargetID, StatusCode: e.Status,
			ErrorMessage: e.Error, IPAddress: e.IP, UserAgent: e.UserAgent, Source: e.Source, Metadata: e.Metadata, CreatedAt: Moment(e.At),
		})
	}
	return out
}

// AuditPage is the reverse of FromAuditPage.
func (d AuditPage) AuditPage() engine.AuditPage {
	p := engine.AuditPage{Total: d.Total, Next: d.NextToken}
	for _, e := range d.Items {
		p.Items = append(p.Items, engine.AuditEntry{
			ID: e.ID, OrganizationID: e.OrganizationID, At: ParseTime(e.CreatedAt), ActorID: e.ActorID, ActorEmail: e.ActorEmail,
			KeyPrefix: e.ActorAPIKeyPrefix, KeySuffix: e.ActorAPIKeySuffix, Action: e.Action, TargetType: e.TargetType, TargetID: e.TargetID,
			Status: e.StatusCode, Error: e.ErrorMessage, IP: e.IPAddress, UserAgent: e.UserAgent, Source: e.Source, Metadata: e.Metadata,
		})
	}
	return p
}
