//! Signals as descriptors, and the signal state that a container process must start with.
