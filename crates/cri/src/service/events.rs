//! GetContainerEvents: the node's events as CRI says them, for as long as the client reads.

use std::pin::Pin;
use std::task::{Context, Poll};

use node::{Events, Node};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Status};

use super::stream::Answers;
use crate::runtime_v1::ContainerEventResponse;
use crate::translate::status;

pub(super) fn subscribe(node: &Node) -> Answers<ContainerEventResponse> {
    Box::pin(Feed(node.events()))
}

/// Translates what is read, when it is read: a slow client holds up nothing but itself.
struct Feed(Events);

impl Stream for Feed {
    type Item = Result<ContainerEventResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.0.poll_next(context);
        next.map(|next| {
            next.map(|event| match event {
                Ok(event) => Ok(status::event(&event)),
                Err(lagged) => Err(Status::new(Code::ResourceExhausted, lagged.to_string())),
            })
        })
    }
}
