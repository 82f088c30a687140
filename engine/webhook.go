package engine

import (
	"context"
	"encoding/json"
	"time"
)

// WebhookEvents are the events that webhooks are sent for.
func WebhookEvents() []string {
	return []string{
		"sandbox.created", "sandbox.state.updated", EventAccessRequested, EventAccessDecided,
		"snapshot.created", "snapshot.state.updated", "snapshot.removed",
		"volume.created", "volume.state.updated",
	}
}

// WebhookStatus tells of an organization's webhooks as a whole.
type WebhookStatus struct {
	OrganizationID string
	LastError      string // of the last delivery that failed; empty after one that did not
	Retries        int    // deliveries that wait for another try
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Endpoint is a URL that events are sent to.
type Endpoint struct {
	ID             string
	OrganizationID string
	URL            string
	Description    string
	Events         []string // empty: all
	Disabled       bool
	Reason         string // why the server disabled it; may be empty
	// Secret signs what is sent: whsec_ and base64. It is set on the answers
	// of CreateEndpoint and RotateSecret only.
	Secret    string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// UpdateEndpoint changes an endpoint. Nil fields stay.
type UpdateEndpoint struct {
	URL         *string
	Description *string
	Events      *[]string
	Disabled    *bool
}

// Webhooks is where an organization's events are sent. The gateway calls it.
type Webhooks interface {
	// Initialize says that the organization uses webhooks; it may be called again.
	Initialize(ctx context.Context, organizationID string) (WebhookStatus, error)
	// Status is KindNotFound before Initialize or the first endpoint.
	Status(ctx context.Context, organizationID string) (WebhookStatus, error)
	Endpoints(ctx context.Context, organizationID string) ([]Endpoint, error)
	Endpoint(ctx context.Context, organizationID, id string) (Endpoint, error)
	CreateEndpoint(ctx context.Context, e Endpoint) (Endpoint, error)
	UpdateEndpoint(ctx context.Context, organizationID, id string, u UpdateEndpoint) (Endpoint, error)
	DeleteEndpoint(ctx context.Context, organizationID, id string) error
	RotateSecret(ctx context.Context, organizationID, id string) (Endpoint, error)
}

// The states of a delivery.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryDead      = "dead" // given up; Resend tries again
)

// Message is an event on its way to endpoints.
type Message struct {
	ID             string
	OrganizationID string
	Event          string
	Payload        json.RawMessage
	CreatedAt      time.Time
	Deliveries     []Delivery
}

// Delivery is how far a message is with one endpoint.
type Delivery struct {
	EndpointID string
	State      string
	Tries      int
	NextAt     time.Time // of the next try, while pending
}

// Attempt is one try of a delivery.
type Attempt struct {
	ID         string
	MessageID  string
	EndpointID string
	At         time.Time
	Took       time.Duration
	Status     int    // of the answer; 0: there was none
	Error      string // empty: delivered
}

// Messages is what was sent or waits to be. The gateway calls it.
type Messages interface {
	// Send queues a message for the organization's endpoints. An id that is
	// known already is a conflict; an empty one is made.
	Send(ctx context.Context, organizationID, event, id string, payload json.RawMessage) (Message, error)
	// List returns the newest messages before the given id, at most limit.
	List(ctx context.Context, organizationID, before string, limit int) ([]Message, error)
	Attempts(ctx context.Context, organizationID, messageID string) ([]Attempt, error)
	// Resend tries dead deliveries of a message again.
	Resend(ctx context.Context, organizationID, messageID string) error
	// Refresh takes changes of endpoints that another server made at once.
	Refresh(ctx context.Context, organizationID string) error
}
