package engine

// Services is what a server offers beside sandboxes themselves. One that is
// nil is not offered.
type Services struct {
	Secrets    Secrets
	Registries Registries
	Catalog    Catalog
	WarmPools  WarmPools
	History    History
	Webhooks   Webhooks
	Messages   Messages
	Activity   Activity
	Policies   Policies
	Access     AccessRequests
	Learner    Learner
}
