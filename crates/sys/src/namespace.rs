//! Namespaces: unshare, setns by descriptor, and threads that live in another network namespace.
