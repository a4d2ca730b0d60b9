//! The streaming server: started with what the configuration says, and ended with the daemon.

use std::sync::Arc;
use std::time::Duration;

use node::Node;
use stream::Server;

use super::error::ServeError;
use crate::config::Streaming;

/// How long sessions may take to end by themselves once the daemon is told to.
const GRACE: Duration = Duration::from_secs(1);

/// Starts listening.
pub(super) fn start(config: &Streaming, node: &Node) -> Result<Arc<Server>, ServeError> {
    let config = stream::Config {
        address: config.address,
        tls: tls(config)?,
        idle_timeout: config.idle_timeout_secs,
        ..stream::Config::default()
    };
    Server::start(config, Arc::new(node.clone())).map(Arc::new).map_err(ServeError::Streaming)
}

/// Ends it. What runs in containers runs on.
pub(super) async fn stop(server: &Server) {
    server.stop(GRACE).await;
}

fn tls(config: &Streaming) -> Result<Option<stream::Tls>, ServeError> {
    let missing = |missing| Err(ServeError::HalfTls { missing });
    match (&config.tls_cert, &config.tls_key, &config.tls_client_ca) {
        (None, None, None) => Ok(None),
        (None, ..) => missing("streaming.tls_cert"),
        (_, None, _) => missing("streaming.tls_key"),
        (Some(cert), Some(key), authority) => Ok(Some(stream::Tls {
            cert_file: cert.clone(),
            key_file: key.clone(),
            client_ca_file: authority.clone(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_tls_is_none() {
        let with = |cert: Option<&str>, key: Option<&str>, ca: Option<&str>| {
            let [tls_cert, tls_key, tls_client_ca] = [cert, key, ca].map(|path| path.map(Into::into));
            tls(&Streaming { tls_cert, tls_key, tls_client_ca, ..Streaming::default() })
        };
        assert!(with(None, None, None).unwrap().is_none());
        assert!(with(Some("/c"), Some("/k"), None).unwrap().is_some());
        for (half, missing) in [
            (with(Some("/c"), None, None), "tls_key is not set"),
            (with(None, Some("/k"), None), "tls_cert is not set"),
            (with(None, None, Some("/a")), "tls_cert is not set"),
        ] {
            assert!(half.unwrap_err().to_string().contains(missing));
        }
    }
}
