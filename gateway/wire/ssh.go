package wire

// SSHAccess is a token that opens a sandbox by SSH, with the command that uses
// it.
type SSHAccess struct {
	ID         string `json:"id"`
	SandboxID  string `json:"sandboxId"`
	Token      string `json:"token"`
	ExpiresAt  string `json:"expiresAt"`
	CreatedAt  string `json:"createdAt"`
	UpdatedAt  string `json:"updatedAt"`
	SSHCommand string `json:"sshCommand"`
}

// SSHValidation tells whether a token is good, and for which sandbox.
type SSHValidation struct {
	Valid     bool   `json:"valid"`
	SandboxID string `json:"sandboxId"`
}

// SSHConfiguration is the part of a server's configuration that tells of its
// SSH gateway. It is empty where there is none.
type SSHConfiguration struct {
	Command      string   `json:"sshGatewayCommand,omitempty"`
	PublicKey    string   `json:"sshGatewayPublicKey,omitempty"`
	Host         string   `json:"sshGatewayHost,omitempty"`
	Port         int      `json:"sshGatewayPort,omitempty"`
	HostKeys     []string `json:"sshGatewayHostKeys,omitempty"` // as known_hosts has them, without the host
	Fingerprints []string `json:"sshGatewayHostKeyFingerprints,omitempty"`
}
