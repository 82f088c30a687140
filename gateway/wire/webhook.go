package wire

import (
	"encoding/json"

	"github.com/atoll-sh/atoll/engine"
)

// Endpoint is a URL that events are sent to.
type Endpoint struct {
	ID             string   `json:"id"`
	OrganizationID string   `json:"organizationId"`
	URL            string   `json:"url"`
	Description    string   `json:"description"`
	Events         []string `json:"events" doc:"empty: all"`
	Disabled       bool     `json:"disabled"`
	Reason         string   `json:"reason,omitempty" doc:"why the server disabled it"`
	Secret         string   `json:"secret,omitempty" doc:"signs what is sent; shown once, when it is made"`
	CreatedAt      string   `json:"createdAt"`
	UpdatedAt      string   `json:"updatedAt"`
}

// FromEndpoint makes the wire's shape of an endpoint.
func FromEndpoint(e engine.Endpoint) Endpoint {
	events := e.Events
	if events == nil {
		events = []string{}
	}
	return Endpoint{
		ID: e.ID, OrganizationID: e.OrganizationID, URL: e.URL, Description: e.Description, Events: events, Disabled: e.Disabled,
		Reason: e.Reason, Secret: e.Secret, CreatedAt: Time(e.CreatedAt), UpdatedAt: Time(e.UpdatedAt),
	}
}

// CreateEndpoint is the body that makes an endpoint.
type CreateEndpoint struct {
	URL         string   `json:"url"`
	Description string   `json:"description,omitempty"`
	Events      []string `json:"events,omitempty" doc:"empty: all"`
}

// UpdateEndpoint is the body that changes an endpoint. Absent fields stay.
type UpdateEndpoint struct {
	URL         *string   `json:"url,omitempty"`
	Description *string   `json:"description,omitempty"`
	Events      *[]string `json:"events,omitempty"`
	Disabled    *bool     `json:"disabled,omitempty"`
}

// Message is an event on its way to endpoints.
type Message struct {
	ID         string          `json:"id"`
	EventType  string          `json:"eventType"`
	Payload    json.RawMessage `json:"payload"`
	CreatedAt  string          `json:"createdAt"`
	Deliveries []Delivery      `json:"deliveries"`
}

// Delivery is how far a message is with one endpoint.
type Delivery struct {
	EndpointID string  `json:"endpointId"`
	State      string  `json:"state" doc:"pending, delivered or dead"`
	Tries      int     `json:"tries"`
	NextAt     *string `json:"nextAt" doc:"of the next try"`
}

// FromMessage makes the wire's shape of a message.
func FromMessage(m engine.Message) Message {
	d := Message{ID: m.ID, EventType: m.Event, Payload: m.Payload, CreatedAt: Time(m.CreatedAt), Deliveries: []Delivery{}}
	for _, one := range m.Deliveries {
		next := optionalTime(one.NextAt)
		if one.State != engine.DeliveryPending {
			next = nil
		}
		d.Deliveries = append(d.Deliveries, Delivery{EndpointID: one.EndpointID, State: one.State, Tries: one.Tries, NextAt: next})
	}
	return d
}
