package lineage

//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -cflags "-O2 -g -Wall -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type process -type origin bpf lineage.bpf.c
//go:generate go tool gofumpt -w bpf_arm64_bpfel.go bpf_x86_bpfel.go
