//! The OCI runtime: create, start, exec, kill, delete, ps, state and update by the runtime-spec.
