//! Blobs from registries that serve ranges, do not, lie about them, break off, or change what they have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use distribution::{Bounds, Client, Download, Endpoint, Proxies, RegistryError, Scheme, Session, Timeouts};
use model::digest::Digest;
use registry::{Blob, Fault, Listening, Registry};

const MIB: usize = 1 << 20;

struct Place {
    registry: Arc<Registry>,
    _listening: Listening,
    session: Arc<Session>,
    digest: Digest,
    bytes: Bytes,
}

impl Place {
    async fn new(size: usize) -> Place {
        Place::with(size, Timeouts::default()).await
    }

    async fn with(size: usize, timeouts: Timeouts) -> Place {
        let registry = Registry::new();
        let listening = registry.listen().await.unwrap();
        let mut bytes = Vec::with_capacity(size + 8);
        let mut state = 1u64;
        while bytes.len() < size {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(size);
        let bytes = Bytes::from(bytes);
        let digest = registry::make::sha256(&bytes);
        registry.add_blob(&digest, Blob::Memory(bytes.clone()));
        let timeouts = Timeouts { backoff: Duration::from_millis(2), ..timeouts };
        let client = Client::new(Proxies::default(), timeouts).bounded(Bounds { per_host: 4, total: 4 });
        let host = listening.host();
        let endpoint = Endpoint::of_registry(&host, &host, "a", Scheme::Http);
        let session = Arc::new(Session::new(Arc::new(client), vec![endpoint], None));
        let digest = Digest::parse(&digest).unwrap();
        Place { registry, _listening: listening, session, digest, bytes }
    }

    fn download(&self) -> Download {
        self.session.download("the blob", &self.digest, self.bytes.len() as u64)
    }

    async fn all(&self) -> Result<Vec<u8>, RegistryError> {
        let mut download = self.download();
        let mut all = Vec::new();
        while let Some(bytes) = download.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    async fn assert_whole(&self) {
        assert!(self.all().await.unwrap() == self.bytes);
    }

    /// The ranges that were asked for so far; none: the whole.
    fn ranges(&self) -> Vec<Option<String>> {
        self.registry.log().into_iter().map(|asked| asked.range).collect()
    }

    fn attempts(&self) -> String {
        self.session.attempts().iter().map(|attempt| format!("{}\n", attempt.outcome)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_is_one_request_without_a_range() {
    let place = Place::new(3 * MIB).await;
    place.assert_whole().await;
    assert_eq!(place.ranges(), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_network_is_slow_parts_come_side_by_side() {
    let place = Place::new(48 * MIB).await;
    place.registry.set_hook(|_| Some(Fault::Trickle { bytes: 256 << 10, pause: Duration::from_millis(3) }));
    place.assert_whole().await;
    let ranges = place.ranges();
    assert_eq!(ranges[0].as_deref(), Some("bytes=0-8388607"));
    let short = ranges.iter().flatten().filter(|range| {
        let (from, last) = range["bytes=".len()..].split_once('-').unwrap();
        last.parse::<usize>().unwrap() + 1 - from.parse::<usize>().unwrap() == 4 * MIB
    });
    assert!(short.count() >= 8, "{ranges:?}");
    assert_eq!(place.attempts(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_slowly_gets_few_requests_and_holds_little() {
    let place = Place::new(48 * MIB).await;
    let mut download = place.download();
    let mut taken = 0;
    while let Some(bytes) = download.next().await.unwrap() {
        assert!(bytes == place.bytes[taken..taken + bytes.len()]);
        taken += bytes.len();
        tokio::time::sleep(Duration::from_micros(bytes.len() as u64 / 60)).await;
    }
    assert_eq!(taken, place.bytes.len());
    assert!(place.ranges().len() <= 4, "{:?}", place.ranges());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_is_continued_at_the_byte_where_it_was() {
    let place = Place::new(20 * MIB).await;
    // Each connection brings 1.5 MB and breaks: worth a try each time.
    place.registry.set_hook(|_| Some(Fault::Truncate(1_500_000)));
    place.assert_whole().await;
    let ranges: Vec<String> = place.ranges().into_iter().flatten().collect();
    assert!(ranges.iter().any(|range| range == "bytes=1500000-8388607"), "{ranges:?}");
    let mut distinct = ranges.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), ranges.len(), "nothing is asked for twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_is_one_stream() {
    let place = Place::new(20 * MIB).await;
    place.registry.set_hook(|_| Some(Fault::IgnoreRange));
    place.assert_whole().await;
    assert_eq!(place.ranges().len(), 1);
    // And also one that is cut: what is known comes again and is dropped.
    let place = Place::new(20 * MIB).await;
    place.registry.set_hook(|asked| match asked.before {
        0 => Some(Fault::Truncate(6 * MIB)),
        _ => Some(Fault::IgnoreRange),
    });
    place.assert_whole().await;
    let place = Place::new(3 * MIB).await;
    place.registry.set_hook(|asked| match asked.before {
        0 => Some(Fault::Truncate(2 * MIB)),
        _ => Some(Fault::IgnoreRange),
    });
    place.assert_whole().await;
    assert_eq!(place.ranges(), [None, Some("bytes=2097152-".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_ranges_are_noticed_and_survived() {
    let lies = [
        Fault::header("Content-Range", "bytes 0-8388606/99"),
        Fault::header("Content-Range", "bytes 1-8388608/20971520"),
        Fault::header("Content-Range", "bytes 0-8388607/20971521"),
        Fault::header("Content-Range", "nonsense"),
        Fault::status(416),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        for first in [0, 1] {
            let place = Place::new(20 * MIB).await;
            let lie = lie.clone();
            place
                .registry
                .set_hook(move |asked| (asked.range.is_some() && asked.before >= first).then(|| lie.clone()));
            place.assert_whole().await;
            assert_eq!(place.ranges().last().unwrap().as_deref(), None, "lie {number} from {first}");
            assert!(!place.attempts().is_empty(), "lie {number} from {first}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_changes_is_noticed() {
    let place = Place::new(20 * MIB).await;
    place.registry.set_hook(|asked| {
        asked.range.is_some().then(|| Fault::header("ETag", &format!("\"version {}\"", asked.before.min(1))))
    });
    place.assert_whole().await;
    let attempts = place.attempts();
    assert!(attempts.contains("it changed meanwhile: its ETag was \"version 0\""), "{attempts}");
    assert_eq!(place.ranges().last().unwrap().as_deref(), None);
    // A weak tag says nothing about bytes.
    let place = Place::new(20 * MIB).await;
    place.registry.set_hook(|asked| Some(Fault::header("ETag", &format!("W/\"{}\"", asked.before))));
    place.assert_whole().await;
    assert_eq!(place.attempts(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_not_the_manifests_is_told_before_anything_is_taken() {
    let place = Place::new(3 * MIB).await;
    let mut download = place.session.download("the blob", &place.digest, 5 * MIB as u64);
    let error = download.next().await.unwrap_err().to_string();
    assert!(error.contains("3145728 bytes") && error.contains("5242880"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_than_are_allowed() {
    let place = Arc::new(Place::new(3 * MIB).await);
    place.registry.set_hook(|_| Some(Fault::Stall(100)));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let place = Arc::clone(&place);
        all.spawn(async move { place.all().await.map(drop) });
    }
    for _ in 0..100 {
        if place.registry.log().len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(place.registry.log().len(), 4, "the others wait");
    // Who goes away makes room.
    place.registry.set_hook(|_| None);
    all.abort_all();
    while all.join_next().await.is_some() {}
    place.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_measured_by_progress_and_never_in_all() {
    let stall = Duration::from_millis(300);
    let timeouts = || Timeouts { stall, stall_bytes: 10_000, tries: 2, ..Timeouts::default() };
    let place = Place::with(MIB, timeouts()).await;
    // Five times as long as the window, and always enough in it.
    place.registry.set_hook(|_| Some(Fault::Trickle { bytes: 16 << 10, pause: Duration::from_millis(25) }));
    let began = std::time::Instant::now();
    place.assert_whole().await;
    assert!(began.elapsed() > stall * 4);
    // Always something, and never enough.
    place.registry.set_hook(|_| Some(Fault::Trickle { bytes: 64, pause: Duration::from_millis(25) }));
    let error = place.all().await.unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    // Whoever takes slowly is not the registry's fault.
    place.registry.set_hook(|_| None);
    let mut download = place.download();
    while download.next().await.unwrap().is_some() {
        tokio::time::sleep(stall / 10).await;
    }
}

/// Storage to which the registry sends on, with addresses that are good for three requests.
#[tokio::test(flavor = "multi_thread")]
async fn further_ranges_are_asked_where_the_first_was_sent_on_to() {
    let place = Place::new(100 * MIB).await;
    let storage = Registry::new();
    let listening = storage.listen().await.unwrap();
    storage.add_blob(place.digest.as_str(), Blob::Memory(place.bytes.clone()));
    let (host, path) = (listening.host(), format!("/v2/a/blobs/{}", place.digest));
    let given = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let giving = Arc::clone(&given);
    place.registry.set_hook(move |_| {
        let number = giving.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(Fault::redirect(&format!("http://{host}{path}?signature={number}")))
    });
    storage.set_hook(|asked| (asked.before >= 2).then(|| Fault::status(403)));
    place.assert_whole().await;
    let (registry, storage) = (place.registry.log().len(), storage.log());
    assert!(
        storage.len() > registry,
        "{registry} requests to the registry, {} to its storage",
        storage.len()
    );
    assert_eq!(registry, given.load(std::sync::atomic::Ordering::Relaxed));
    assert!(registry >= 2, "an address that ran out was replaced: {storage:?}");
    assert_eq!(place.attempts(), "", "and that is no failure");
}
