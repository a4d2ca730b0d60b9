//! seccomp(2): installs a filter program, with a user-notification listener where one is asked for.
