package session

import (
	"io/fs"
	"syscall"
)

func blocks(i fs.FileInfo) int64 { return i.Sys().(*syscall.Stat_t).Blocks * 512 }
