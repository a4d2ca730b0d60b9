//! Why a profile could not be compiled.

/// A profile that has no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An argument condition on an argument that no system call has.
    #[error(
        "seccomp profile: a rule for {syscall:?} tests argument {index}; system calls have arguments 0 to 5"
    )]
    ArgumentIndex {
        /// First name of the rule.
        syscall: String,
        /// The index as given.
        index: usize,
    },
    /// An errno the kernel would not deliver as given.
    #[error("seccomp profile: {place} returns errno {errno}; the largest errno is 4095")]
    Errno {
        /// Which part of the profile.
        place: String,
        /// The value as given.
        errno: u32,
    },
    /// A trace message wider than the kernel passes on.
    #[error("seccomp profile: {place} traces with message {message}; the largest is 65535")]
    TraceMessage {
        /// Which part of the profile.
        place: String,
        /// The value as given.
        message: u32,
    },
    /// Every call, also those that hand the listener over, would wait for the listener.
    #[error(
        "seccomp profile: SCMP_ACT_NOTIFY cannot be the default action: nobody could hand the listener over"
    )]
    NotifyByDefault,
    /// The calls that hand the listener over would wait for the listener.
    #[error(
        "seccomp profile: SCMP_ACT_NOTIFY cannot be used for {syscall:?}: handing the listener over needs it"
    )]
    NotifyHandover {
        /// Name of the call.
        syscall: String,
    },
    /// More than the kernel takes.
    #[error(
        "seccomp profile: needs {instructions} instructions; the kernel takes at most 4096. Use fewer argument conditions or architectures"
    )]
    TooLong {
        /// What the profile would need.
        instructions: usize,
    },
}
