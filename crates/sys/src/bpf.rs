//! bpf(2): loads, attaches and queries the device program of a cgroup v2.
