//! Turns a container request into an OCI runtime spec. Pure: what it must know of the host and the image is passed in.
