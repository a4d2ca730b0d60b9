//! Compiles an OCI seccomp profile to a classic BPF program. Pure: the kernel is given the program by `sys`.
