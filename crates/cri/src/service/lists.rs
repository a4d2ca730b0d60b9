//! ListContainers and ListPodSandbox, which a kubelet asks for every second and more: their answers are put together from items that were
//! encoded when they were first listed. A record is replaced whole on each change, so an item is as good as new while its record is.

use std::sync::{Arc, Mutex, PoisonError};

use node::{ContainerRecord, Node, PodRecord};
use prost::Message;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::MAX_MESSAGE_BYTES;
use crate::runtime_v1::{ListContainersRequest, ListPodSandboxRequest};
use crate::translate::filter::{ContainerFilter, PodFilter};
use crate::translate::status;

/// `ListContainersResponse` and `ListPodSandboxResponse` as they are on the wire: the items of each are its field 1.
#[derive(Clone, PartialEq, Message)]
struct Listed {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    items: Vec<Bytes>,
}

/// The two calls.
#[derive(Clone)]
pub(super) struct Lists {
    node: Node,
    pods: Arc<Kept<PodRecord>>,
    containers: Arc<Kept<ContainerRecord>>,
}

impl Lists {
    pub(super) fn new(node: Node) -> Lists {
        Lists { node, pods: Arc::default(), containers: Arc::default() }
    }

    /// Answers a call of `runtime.v1.RuntimeService` that is one of the two; gives any other back.
    pub(super) fn call(
        &self,
        request: http::Request<Body>,
    ) -> Result<BoxFuture<http::Response<Body>, std::convert::Infallible>, http::Request<Body>> {
        let lists = self.clone();
        match request.uri().path() {
            "/runtime.v1.RuntimeService/ListContainers" => {
                let answer =
                    move |asked: Request<ListContainersRequest>| lists.containers(asked.into_inner());
                Ok(Box::pin(async move { Ok(unary(answer, request).await) }))
            }
            "/runtime.v1.RuntimeService/ListPodSandbox" => {
                let answer = move |asked: Request<ListPodSandboxRequest>| lists.pods(asked.into_inner());
                Ok(Box::pin(async move { Ok(unary(answer, request).await) }))
            }
            _ => Err(request),
        }
    }

    fn containers(&self, request: ListContainersRequest) -> Result<Listed, Status> {
        let filter = ContainerFilter::parse(request.filter)?;
        let snapshot = self.node.snapshot();
        Ok(Listed { items: self.containers.items(snapshot.containers.values(), |one| filter.admits(one)) })
    }

    fn pods(&self, request: ListPodSandboxRequest) -> Result<Listed, Status> {
        let filter = PodFilter::parse(request.filter)?;
        let snapshot = self.node.snapshot();
        Ok(Listed { items: self.pods.items(snapshot.pods.values(), |one| filter.admits(one)) })
    }
}

/// One request and one answer of gRPC.
async fn unary<Asked: Message + Default + 'static>(
    answer: impl Fn(Request<Asked>) -> Result<Listed, Status>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let service = tower::service_fn(|asked| std::future::ready(answer(asked).map(Response::new)));
    Grpc::new(ProstCodec::<Listed, Asked>::default())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .unary(service, request)
        .await
}

/// What a list has an item for each of.
trait Record {
    /// Whether it stands before `other` in a snapshot.
    fn is_before(&self, other: &Self) -> bool;
    fn encoded(&self) -> Vec<u8>;
}

impl Record for PodRecord {
    fn is_before(&self, other: &Self) -> bool {
        self.id < other.id
    }

    fn encoded(&self) -> Vec<u8> {
        status::pod_item(self).encode_to_vec()
    }
}

impl Record for ContainerRecord {
    fn is_before(&self, other: &Self) -> bool {
        self.id < other.id
    }

    fn encoded(&self) -> Vec<u8> {
        status::container_item(self).encode_to_vec()
    }
}

/// The items of earlier lists, in the order of their ids.
#[derive(Debug)]
struct Kept<T>(Mutex<Arc<Vec<Item<T>>>>);

/// A record, and how it is listed.
type Item<T> = (Arc<T>, Bytes);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<T: Record> Kept<T> {
    /// The items of those of `records` that are wanted. The records come in the order of their ids, as in a snapshot.
    fn items<'a>(
        &self,
        records: impl Iterator<Item = &'a Arc<T>>,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Vec<Bytes>
    where
        T: 'a,
    {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lock().clone();
        let mut old = before.iter().peekable();
        let mut now = Vec::with_capacity(before.len());
        let mut items = Vec::new();
        for record in records {
            while old.next_if(|(known, _)| known.is_before(record)).is_some() {}
            let known = old.next_if(|(known, _)| Arc::ptr_eq(known, record)).map(|(_, item)| item.clone());
            let is_wanted = is_wanted(record);
            let item = known.or_else(|| is_wanted.then(|| record.encoded().into()));
            let Some(item) = item else { continue };
            if is_wanted {
                items.push(item.clone());
            }
            now.push((record.clone(), item));
        }
        *lock() = Arc::new(now);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    thread_local! {
        static ENCODED: Cell<usize> = const { Cell::new(0) };
    }

    struct Numbered {
        id: u8,
        version: u8,
    }

    impl Record for Numbered {
        fn is_before(&self, other: &Self) -> bool {
            self.id < other.id
        }

        fn encoded(&self) -> Vec<u8> {
            ENCODED.set(ENCODED.get() + 1);
            vec![self.id, self.version]
        }
    }

    proptest! {
        /// Whatever comes, changes and goes between lists: each says what is there, and encodes nothing twice.
        #[test]
        fn lists_say_what_is_there(steps in proptest::collection::vec((0u8..12, 0u8..4, 1u8..4), 1..120)) {
            let kept = Kept::default();
            let mut there: BTreeMap<u8, Arc<Numbered>> = BTreeMap::new();
            let mut changes = 0;
            ENCODED.set(0);
            for (version, (id, what, every)) in steps.into_iter().enumerate() {
                if what == 0 {
                    there.remove(&id);
                } else {
                    changes += 1;
                    there.insert(id, Arc::new(Numbered { id, version: version as u8 }));
                }
                let is_wanted = |one: &Numbered| one.id.is_multiple_of(every);
                let items = kept.items(there.values(), is_wanted);
                let expected = there.values().filter(|one| is_wanted(one)).map(|one| vec![one.id, one.version]);
                prop_assert_eq!(items, expected.map(Bytes::from).collect::<Vec<_>>());
            }
            prop_assert!(ENCODED.get() <= changes);
        }
    }
}
