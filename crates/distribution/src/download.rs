//! A blob as it arrives: in order, whether one connection brings it or several bring parts of it side by side.
//!
//! A large blob is asked for in ranges, one after the other. Only while whoever takes the bytes waits for the network are further ranges
//! fetched ahead, held in memory until it is their turn: a few, of all blobs together. Where a registry does not serve ranges, or serves
//! something else, it is one stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use model::digest::Digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

use crate::detours::Detours;
use crate::error::RegistryError;
use crate::part::{Blob, Extent, Part, Stop};
use crate::session::Session;

/// A blob up to this size is asked for at once, and one that is larger begins with as much.
const FIRST: u64 = 8 << 20;
/// A part while there is only one at a time: requests are few.
const LONG: u64 = 32 << 20;
/// A part that is fetched beside others, and so held in memory.
const SHORT: u64 = 4 << 20;
/// Parts of one blob that are fetched side by side.
const LANES_MAX: usize = 4;
/// Short parts that may be held in memory, of all blobs together: 16 MiB.
pub(crate) const AHEAD_MAX: usize = 4;
/// What is less than this is gathered, so that a trickle does not fill a channel with crumbs.
const CRUMB: usize = 32 << 10;
/// How many pieces a part that is taken as it comes may be ahead.
const NEAR: usize = 4;

/// A blob that is being fetched. Its digest is for whoever takes the bytes to check. Dropping it ends the transfer.
pub struct Download {
    session: Arc<Session>,
    blob: Arc<Blob>,
    /// The parts under way, in order.
    lanes: VecDeque<Lane>,
    tasks: JoinSet<()>,
    received: u64,
    /// Where the next part begins.
    planned: u64,
    pace: Pace,
    /// How parts are asked for from now on.
    extent: Extent,
}

struct Lane {
    events: mpsc::Receiver<Event>,
    /// For a part that is held in memory.
    _ahead: Option<OwnedSemaphorePermit>,
}

enum Event {
    Bytes(Bytes),
    /// The part turned out to be the whole blob.
    IsWhole,
    End,
    Stop(Stop),
}

/// Whether the network or whoever takes the bytes is the slower one.
struct Pace {
    lanes: usize,
    since: Instant,
    waited: Duration,
}

impl Session {
    /// Begins to fetch a blob of `size` bytes, which errors call `what`. It must be called within a tokio runtime.
    pub fn download(self: &Arc<Self>, what: impl Into<String>, digest: &Digest, size: u64) -> Download {
        let blob = Blob {
            what: what.into(),
            of: format!("blobs/{digest}"),
            size,
            tags: Mutex::default(),
            detours: Detours::default(),
        };
        Download {
            session: Arc::clone(self),
            blob: Arc::new(blob),
            lanes: VecDeque::new(),
            tasks: JoinSet::new(),
            received: 0,
            planned: 0,
            pace: Pace { lanes: 1, since: Instant::now(), waited: Duration::ZERO },
            extent: if size > FIRST { Extent::Exactly } else { Extent::Rest },
        }
    }
}

impl Download {
    /// The next bytes, in order; none when all have come.
    ///
    /// # Errors
    /// [`RegistryError`] after as many tries as are worthwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            self.plan();
            let Some(lane) = self.lanes.front_mut() else { return Ok(None) };
            let before = Instant::now();
            let event = lane.events.recv().await;
            self.pace.waited += before.elapsed();
            match event {
                Some(Event::Bytes(bytes)) => {
                    self.received += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Event::End) => {
                    self.lanes.pop_front();
                    self.pace.adapt();
                }
                Some(Event::IsWhole) => {
                    self.lanes.truncate(1);
                    (self.planned, self.extent) = (self.blob.size, Extent::Rest);
                }
                Some(Event::Stop(Stop::NoRanges)) => {
                    self.lanes.clear();
                    self.tasks.abort_all();
                    (self.planned, self.extent) = (self.received, Extent::Whole);
                }
                Some(Event::Stop(Stop::Failed(why))) => return Err(why),
                None => return Err(RegistryError::malformed(&self.blob.what, "its transfer broke off")),
            }
        }
    }

    /// Starts the parts that should be under way.
    fn plan(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.planned < self.blob.size && self.lanes.len() < self.pace.lanes {
            let ahead = match self.lanes.len() {
                0 => None,
                _ => match Arc::clone(&self.session.client.connections.ahead).try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => return,
                },
            };
            let length = match (self.extent, self.planned, self.pace.lanes) {
                (Extent::Rest | Extent::Whole, ..) => u64::MAX,
                (Extent::Exactly, 0, _) => FIRST,
                (Extent::Exactly, _, 1) => LONG,
                (Extent::Exactly, ..) => SHORT,
            };
            let (from, end) = (self.planned, self.planned.saturating_add(length).min(self.blob.size));
            // What is held must not wait for room in the channel, or its connection would stand still.
            let room = if ahead.is_some() { SHORT as usize / CRUMB + 2 } else { NEAR };
            let (sender, events) = mpsc::channel(room);
            let (session, blob, extent) = (Arc::clone(&self.session), Arc::clone(&self.blob), self.extent);
            self.tasks.spawn(async move {
                let mut part = Part::new(&session, &blob, extent, from, end);
                let last = match transfer(&mut part, &sender).await {
                    Ok(()) => Event::End,
                    Err(stop) => Event::Stop(stop),
                };
                // Nobody is there any more when the download was dropped.
                let _ = sender.send(last).await;
            });
            self.lanes.push_back(Lane { events, _ahead: ahead });
            self.planned = end;
        }
    }
}

/// Hands a part on. It ends early if nobody takes it any more.
async fn transfer(part: &mut Part<'_>, to: &mpsc::Sender<Event>) -> Result<(), Stop> {
    let asked = part.extent;
    let mut is_told = asked != Extent::Exactly;
    let mut crumbs = BytesMut::new();
    loop {
        let came = part.next().await;
        if !is_told && part.extent != asked {
            is_told = true;
            if to.send(Event::IsWhole).await.is_err() {
                return Ok(());
            }
        }
        let bytes = match came {
            Ok(Some(bytes)) if crumbs.is_empty() && bytes.len() >= CRUMB => bytes,
            Ok(Some(bytes)) => {
                crumbs.extend_from_slice(&bytes);
                if crumbs.len() < CRUMB {
                    continue;
                }
                crumbs.split().freeze()
            }
            Ok(None) | Err(_) if !crumbs.is_empty() => {
                let rest = to.send(Event::Bytes(crumbs.split().freeze())).await;
                return if rest.is_err() { Ok(()) } else { came.map(drop) };
            }
            Ok(None) => return Ok(()),
            Err(stop) => return Err(stop),
        };
        if to.send(Event::Bytes(bytes)).await.is_err() {
            return Ok(());
        }
    }
}

impl Pace {
    /// After each part: more side by side if most of the time went by in waiting for the network, fewer if hardly any did.
    fn adapt(&mut self) {
        let share = self.waited.as_secs_f64() / self.since.elapsed().as_secs_f64().max(1e-9);
        if share > 0.5 {
            self.lanes = (self.lanes + 1).min(LANES_MAX);
        } else if share < 0.2 {
            self.lanes = (self.lanes - 1).max(1);
        }
        (self.since, self.waited) = (Instant::now(), Duration::ZERO);
    }
}
