// Package tig stands in for the test-helper module that nerdctl's own go.mod
// replaces with a local folder. A replace does not travel to a module's users,
// so nerdctl cannot be imported without one; only this interface is needed.
package tig

// T is the part of testing.TB that nerdctl's library packages mention.
type T interface {
	Helper()
	FailNow()
	Fail()
	Log(args ...any)
	Name() string
	TempDir() string
}
