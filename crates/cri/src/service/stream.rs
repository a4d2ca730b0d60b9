//! Answers that are streams: a list in pieces, and a channel.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::{self, Stream};

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The most bytes of entries in one message, far below a message's limit. One entry alone may be longer.
const PIECE_BYTES: usize = 1 << 20;

/// A list in messages of a bearable size, each made by `message`. Each entry is in one of them, and none is empty.
pub(super) fn pieces<T: prost::Message, M: Send + 'static>(
    list: Vec<T>,
    message: impl Fn(Vec<T>) -> M,
) -> Answers<M> {
    let (mut messages, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in list {
        let length = entry.encoded_len();
        if !piece.is_empty() && bytes + length > PIECE_BYTES {
            messages.push(Ok(message(std::mem::take(&mut piece))));
            bytes = 0;
        }
        bytes += length;
        piece.push(entry);
    }
    if !piece.is_empty() {
        messages.push(Ok(message(piece)));
    }
    Box::pin(tokio_stream::iter(messages))
}

/// What is sent into a channel, until its sender is dropped.
pub(super) struct Channel<T>(pub(super) mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for Channel<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_v1::PodIp;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn every_entry_is_sent_once_and_no_message_is_large() {
        let entry = |bytes: usize| PodIp { ip: "x".repeat(bytes) };
        for sizes in [vec![], vec![1], vec![PIECE_BYTES * 2, 1], vec![PIECE_BYTES / 3; 10], vec![10; 5000]] {
            let list: Vec<PodIp> = sizes.into_iter().map(entry).collect();
            let mut stream = pieces(list.clone(), |piece| piece);
            let mut seen = Vec::new();
            while let Some(piece) = stream.next().await {
                let piece = piece.unwrap();
                let bytes: usize = piece.iter().map(prost::Message::encoded_len).sum();
                assert!(piece.len() == 1 || (!piece.is_empty() && bytes <= PIECE_BYTES));
                seen.extend(piece);
            }
            assert_eq!(seen, list);
        }
    }
}
