//go:build !amd64

package activity

// legacyFiles has nothing to do where there are no such calls.
func legacyFiles() {}
