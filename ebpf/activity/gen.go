package activity

//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -cflags "-O2 -g -Wall -Wno-unused-function -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type event -type state -type process bpf activity.bpf.c
