//! Control groups, version 1 and 2: creating, limiting, measuring, freezing, killing and removing them.
