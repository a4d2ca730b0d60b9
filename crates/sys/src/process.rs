//! Processes: clone3, pidfds, fork of a single-threaded process, exec, credentials and prctl.
