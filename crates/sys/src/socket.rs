//! Unix sockets: addresses longer than `sun_path`, peers, and descriptors sent along with bytes.
