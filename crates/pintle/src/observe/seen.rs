//! One span as it is observed: what it is, whose part it is, when it began.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Record};

use super::STAGE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Stage,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// `RuntimeService/RunPodSandbox`, or the stage.
    pub(super) name: String,
    /// The pod that a stage is for.
    pub(super) pod: String,
    /// Of the whole request, wherever it began (W3C Trace Context, section 3.2.2.3).
    pub(super) trace: u128,
    pub(super) id: u64,
    /// The span in which it happens; of a call, the client's.
    pub(super) parent: Option<u64>,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    answer: Mutex<Option<(i32, Instant)>>,
    /// After how many seconds the watchdog spoke of it last.
    told: AtomicU64,
}

impl Seen {
    pub(super) fn begin(attributes: &Attributes<'_>, within: Option<&Seen>) -> Seen {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let kind = if attributes.metadata().target() == STAGE { Kind::Stage } else { Kind::Call };
        let trace = u128::from_str_radix(&fields.trace, 16).ok();
        Seen {
            kind,
            name: fields.name,
            pod: fields.pod,
            trace: within.map(|within| within.trace).or(trace).unwrap_or_default(),
            id: next_id(),
            parent: within.map(|within| within.id).or(u64::from_str_radix(&fields.parent, 16).ok()),
            began: Instant::now(),
            began_at: SystemTime::now(),
            answer: Mutex::new(None),
            told: AtomicU64::new(0),
        }
    }

    /// The code of the answer, where `values` bring it.
    pub(super) fn answered(&self, values: &Record<'_>) -> Option<i32> {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let code = fields.code?;
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, Instant::now()));
        Some(code)
    }

    /// The code of the answer and when it was given.
    pub(super) fn answer(&self) -> Option<(i32, Instant)> {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to speak of it: at `first` seconds, and whenever it took twice as long as the last time.
    pub(super) fn is_to_be_told(&self, first: u64) -> bool {
        let seconds = self.began.elapsed().as_secs();
        let due = match self.told.load(Ordering::Relaxed) {
            0 => first,
            told => told * 2,
        };
        if seconds >= due {
            self.told.store(seconds.max(1), Ordering::Relaxed);
        }
        seconds >= due
    }
}

/// A call as a shim served it.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) call: String,
    /// Nanoseconds since 1970.
    pub(super) began: u64,
    pub(super) ended: u64,
}

impl Served {
    pub(super) fn of(event: &Event<'_>) -> Served {
        let mut served = Served::default();
        event.record(&mut served);
        served
    }
}

impl Visit for Served {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "call" {
            value.clone_into(&mut self.call);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let value = u64::try_from(value).unwrap_or(0);
        match field.name() {
            "began" => self.began = value,
            "ended" => self.ended = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Unique in this process and never 0; not secret.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static FIRST: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let first = *FIRST.get_or_init(|| {
        let mut bytes = [0; 8];
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
        u64::from_ne_bytes(bytes)
    });
    first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).max(1)
}

#[derive(Default)]
struct Fields {
    name: String,
    pod: String,
    trace: String,
    parent: String,
    code: Option<i32>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let place = match field.name() {
            "call" | "stage" => &mut self.name,
            "pod" => &mut self.pod,
            "trace" => &mut self.trace,
            "parent" => &mut self.parent,
            _ => return,
        };
        value.clone_into(place);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "code" {
            self.code = i32::try_from(value).ok();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
