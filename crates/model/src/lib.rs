//! What the words mean: ids, digests, image references, requests, lifecycles, exits and verdicts. Pure: no IO, no clock, no kernel.
