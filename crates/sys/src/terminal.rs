//! Pseudo-terminals: opening a pair inside a devpts mount by descriptor, sizes, and the controlling terminal.
