//! Pod networks: CNI configuration lists, plugin calls, and the built-in plugin.
