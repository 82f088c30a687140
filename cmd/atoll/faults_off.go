//go:build !atollfaults

package main

// faultPoint is set in builds for crash tests only.
var faultPoint func(string)
