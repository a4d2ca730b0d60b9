//! The protocol edge: CRI `runtime.v1` by gRPC, its messages, and their translation to what the node understands.
