//! What fuzzers and property tests feed: each takes any bytes, and has to come to an end without a panic.

use tokio::io::{AsyncWriteExt, duplex, sink, split};

use crate::converse::Silence;
use crate::spdy;
use crate::websocket::{self, Framing};

const SILENCE: Silence =
    Silence { idle: std::time::Duration::from_secs(1), ping: std::time::Duration::from_secs(1) };

/// A SPDY client's whole connection: every stream is taken, read to its end and echoed.
pub fn spdy(bytes: &[u8]) {
    run(bytes, async |stream| {
        let session = async |mut incoming: tokio::sync::mpsc::Receiver<spdy::Incoming>| {
            while let Some(stream) = incoming.recv().await {
                if let Some((mut inbound, outbound)) = stream.accept() {
                    let mut buffer = [0; 100];
                    if let Ok(count @ 1..) = inbound.read(&mut buffer).await {
                        let _gone = outbound.write(buffer[..count].to_vec().into()).await;
                    }
                    outbound.end().await;
                }
            }
        };
        spdy::serve(stream, SILENCE, session).await;
    });
}

/// A WebSocket client's whole connection, in each framing.
pub fn websocket(bytes: &[u8]) {
    for framing in [Framing::Binary { half_close: true }, Framing::Base64, Framing::Raw] {
        run(bytes, async |stream| {
            let session = async |mut channels: websocket::Channels| {
                let Some(mut inbound) = channels.inbound(0) else { return };
                let outbound = channels.outbound(1);
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = inbound.read(&mut buffer).await {
                    let _gone = outbound.write(buffer[..count].to_vec().into()).await;
                }
            };
            websocket::serve(stream, framing, 5, SILENCE, session).await;
        });
    }
}

/// Serves a client that sends these bytes and goes.
fn run(bytes: &[u8], serve: impl AsyncFnOnce(tokio::io::DuplexStream)) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
    else {
        return;
    };
    runtime.block_on(async {
        let (near, far) = duplex(4096);
        let (mut from_server, mut to_server) = split(far);
        let client = async {
            let talk = async {
                let _gone = to_server.write_all(bytes).await;
                let _gone = to_server.shutdown().await;
            };
            let mut nowhere = sink();
            let _ends = tokio::join!(talk, tokio::io::copy(&mut from_server, &mut nowhere));
        };
        tokio::join!(serve(near), client);
    });
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A frame with a good head and any payload, mostly of a type that exists.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let control = (0u16..12, any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, flags, payload)| {
            let mut frame = vec![0x80, 3];
            frame.extend(kind.to_be_bytes());
            frame.extend((u32::from(flags) << 24 | payload.len() as u32).to_be_bytes());
            frame.extend(payload);
            frame
        });
        let data = (0u32..8, any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(|(stream, fin, payload)| {
            let mut frame = stream.to_be_bytes().to_vec();
            frame.extend((u32::from(fin) << 24 | payload.len() as u32).to_be_bytes());
            frame.extend(payload);
            frame
        });
        prop_oneof![control, data]
    }

    /// Opens stream `id` as a client does that does not compress: deflate's stored blocks, after the head of its stream.
    fn open(id: u32, pairs: &[(String, String)]) -> Vec<u8> {
        let mut block = (pairs.len() as u32).to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((text.len() as u32).to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut payload = [id.to_be_bytes(), [0; 4]].concat();
        payload.extend([0, 0]);
        if id == 1 {
            payload.extend([0x78, 0x01]);
        }
        payload.push(0);
        payload.extend((block.len() as u16).to_le_bytes());
        payload.extend((!(block.len() as u16)).to_le_bytes());
        payload.extend(block);
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_bytes_end(bytes in vec(any::<u8>(), 0..2000)) {
            super::spdy(&bytes);
            super::websocket(&bytes);
        }

        #[test]
        fn any_frames_end(frames in vec(frame(), 0..20), streams in 0u32..4, cut in 0usize..2000) {
            let mut bytes: Vec<u8> = (0..streams).flat_map(|at| open(2 * at + 1, &[])).collect();
            bytes.extend(frames.concat());
            bytes.truncate(cut);
            super::spdy(&bytes);
        }

        #[test]
        fn any_websocket_frames_end(
            frames in vec((any::<u8>(), 0u8..128, vec(any::<u8>(), 0..140)), 0..20),
            cut in 0usize..2000,
        ) {
            let mut bytes = Vec::new();
            for (first, length, payload) in frames {
                bytes.extend([first & 0x8f, 0x80 | length, 1, 2, 3, 4]);
                bytes.extend(payload);
            }
            bytes.truncate(cut);
            super::websocket(&bytes);
        }

        /// What another encoder made is read as it was meant.
        #[test]
        fn headers_of_another_encoder(
            blocks in vec(proptest::collection::btree_map("[a-z:-]{1,20}", ".{0,60}", 0..6), 1..6),
        ) {
            let mut decoder = crate::spdy::Decoder::new();
            for (at, block) in (0u32..).zip(blocks) {
                let pairs: Vec<_> = block.into_iter().collect();
                let frame = open(2 * at + 1, &pairs);
                let crate::spdy::Control::SynStream { stream, headers, .. } = decoder.control(1, 0, &frame[8..]).unwrap()
                else { panic!("another frame") };
                assert_eq!(stream, 2 * at + 1);
                let expected: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
                assert_eq!(headers.0, expected);
            }
        }
    }
}
