//! The protocols that clients can choose from, and the choosing.

/// What was agreed on over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// SPDY/3.1 right on the connection.
    Spdy(Protocol),
    WebSocket(Protocol),
    /// SPDY/3.1 inside WebSocket messages.
    Tunnel(Protocol),
}

/// One version of what is spoken inside a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// Its name in the headers; empty where a WebSocket client names none.
    pub(crate) name: &'static str,
    /// WebSocket messages are text: the channel's digit, then base64.
    pub(crate) base64: bool,
    /// The end is told as a JSON object, always; without it as a sentence, and only when it was a bad one.
    pub(crate) json_status: bool,
    /// There is a stream for the terminal's size.
    pub(crate) resize: bool,
    /// A WebSocket client can end one channel.
    pub(crate) half_close: bool,
}

const fn protocol(name: &'static str) -> Protocol {
    Protocol { name, base64: false, json_status: false, resize: true, half_close: false }
}

/// Exec and attach over SPDY.
pub(crate) const REMOTE_SPDY: &[Protocol] = &[
    Protocol { json_status: true, ..protocol("v4.channel.k8s.io") },
    protocol("v3.channel.k8s.io"),
    Protocol { resize: false, ..protocol("v2.channel.k8s.io") },
    Protocol { resize: false, ..protocol("channel.k8s.io") },
];

/// Exec and attach over WebSocket.
pub(crate) const REMOTE_WEBSOCKET: &[Protocol] = &[
    Protocol { json_status: true, half_close: true, ..protocol("v5.channel.k8s.io") },
    Protocol { json_status: true, ..protocol("v4.channel.k8s.io") },
    Protocol { json_status: true, base64: true, ..protocol("v4.base64.channel.k8s.io") },
    Protocol { base64: true, ..protocol("base64.channel.k8s.io") },
    protocol("channel.k8s.io"),
    protocol(""),
];

/// Port-forward over SPDY.
pub(crate) const FORWARD_SPDY: &[Protocol] = &[protocol("portforward.k8s.io")];

/// Port-forward over WebSocket.
pub(crate) const FORWARD_WEBSOCKET: &[Protocol] = &[
    TUNNEL,
    protocol("v4.channel.k8s.io"),
    Protocol { base64: true, ..protocol("v4.base64.channel.k8s.io") },
    protocol(""),
];

/// Port-forward over SPDY in WebSocket.
pub(crate) const TUNNEL: Protocol = protocol("SPDY/3.1+portforward.k8s.io");

/// The first of the client's that is among ours.
pub(crate) fn choose(wanted: &[&str], ours: &[Protocol]) -> Option<Protocol> {
    wanted.iter().find_map(|name| ours.iter().find(|protocol| protocol.name == *name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_order_decides() {
        let wanted = ["v9", "v3.channel.k8s.io", "v4.channel.k8s.io"];
        assert_eq!(choose(&wanted, REMOTE_SPDY).unwrap().name, "v3.channel.k8s.io");
        assert_eq!(choose(&["v5.channel.k8s.io"], REMOTE_SPDY), None);
        assert_eq!(choose(&[], REMOTE_WEBSOCKET), None);
        assert_eq!(choose(&[""], REMOTE_WEBSOCKET).unwrap().name, "");
    }
}
