package acceptance

import (
	"encoding/json"
	"net/http"
	"time"
)

// buildDesktop has the snapshot atoll-desktop built, which takes a minute or two
// the first time on a machine.
func (s *server) buildDesktop() {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+s.addr+"/api/snapshots/atoll-desktop/prepare", nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	res.Body.Close()
	began := time.Now()
	s.wait("/api/snapshots/atoll-desktop", 15*time.Minute, func(b []byte) bool {
		var sn struct{ State, ErrorReason, Progress string }
		_ = json.Unmarshal(b, &sn)
		if sn.State == "error" && sn.Progress == "" {
			s.Fatalf("atoll-desktop: %s", sn.ErrorReason)
		}
		return sn.State == "active" && sn.Progress == ""
	})
	s.Logf("atoll-desktop was ready after %s", time.Since(began).Round(time.Second))
}
