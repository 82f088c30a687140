//go:build !unix

package clients

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: files inherit their owner from the directory.
func keepOwner(*os.File, fs.FileInfo) {}
