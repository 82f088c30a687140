// Command hidden runs a program from memory, so that it has no path. It ends as
// the program does, or with 126 when the kernel refuses to start it. Without a
// program it does nothing.
package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 1 {
		return
	}
	if err := run(os.Args[1], os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(126)
	}
}

func run(program string, args []string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("hidden", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, b); err != nil {
		return err
	}
	return unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), args, os.Environ())
}
