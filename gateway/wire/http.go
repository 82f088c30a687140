package wire

import (
	"encoding/json"
	"net/http"
)

// WriteError answers a request with the body for err.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	WriteProblem(w, r, NewProblem(err))
}

// WriteProblem answers a request with p, whose path it fills in.
func WriteProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	body := *p
	body.Path = r.URL.Path
	WriteJSON(w, body.StatusCode, body)
}

// WriteJSON answers with v. An error of writing means that the caller is
// gone, and nobody is left to be told.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
