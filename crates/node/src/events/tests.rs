//! Who is told what, and in which order.

use std::collections::BTreeMap;

use model::exit::Exit;
use model::pod::Pod;
use model::request::{ContainerRequest, PodRequest, Resources};

use super::*;
use crate::record::{ContainerFacts, ContainerState, PodCgroup, PodLimits, PodState};
use crate::snapshot::Published;

fn pod(number: u8) -> Arc<PodRecord> {
    Arc::new(PodRecord {
        id: PodId::from_random([number; 32]),
        request: Arc::new(PodRequest::default()),
        created_at: Timestamp(1),
        state: PodState {
            pod: Pod::Ready,
            addresses: Vec::new(),
            shim_pid: 0,
            cgroup: PodCgroup { path: "/p".into(), ours: true },
            network_owed: false,
            limits: PodLimits::default(),
            selinux_level: None,
            handler: String::new(),
        },
    })
}

fn container(pod: &PodRecord, number: u8, life: Container) -> Arc<ContainerRecord> {
    Arc::new(ContainerRecord {
        id: ContainerId::from_random([number; 32]),
        pod: pod.id.clone(),
        request: Arc::new(ContainerRequest::default()),
        created_at: Timestamp(1),
        facts: Arc::new(ContainerFacts {
            image_id: String::new(),
            image_ref: String::new(),
            log_path: None,
            cgroup: String::new(),
            stop_signal: 15,
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            volume_images: Default::default(),
        }),
        state: ContainerState { container: life, resources: Resources::default() },
    })
}

fn running() -> Container {
    Container::Running { pid: 1, started_at: Timestamp(5) }
}

fn exited(started_at: i64) -> Container {
    Container::Exited { exit: Exit::Code(0), started_at: Timestamp(started_at), finished_at: Timestamp(9) }
}

/// What is in the queue now.
fn drain(events: &mut Events) -> Vec<Result<Arc<Event>, Lagged>> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    std::iter::from_fn(|| match events.poll_next(&mut context) {
        Poll::Ready(next) => next,
        Poll::Pending => None,
    })
    .collect()
}

fn kinds(events: &mut Events) -> Vec<EventKind> {
    drain(events).into_iter().map(|event| event.unwrap().kind).collect()
}

#[test]
fn a_step_is_told_with_what_the_pod_was_then() {
    let published = Published::default();
    use EventKind::{Created, Deleted, Started};
    let mut events = published.subscribe();
    let pod = pod(1);
    published.put_pod(&pod, &[Created, Started]);
    published.put_container(&pod, &container(&pod, 2, Container::Created { pid: 1 }), &[Created]);
    published.put_container(&pod, &container(&pod, 2, running()), &[Started]);
    published.put_container(&pod, &container(&pod, 2, exited(5)), &[]);
    published.remove_container(&pod, &ContainerId::from_random([2; 32]));
    published.remove_pod(&pod);
    let told: Vec<_> = drain(&mut events).into_iter().map(Result::unwrap).collect();
    let seen: Vec<_> = told.iter().map(|event| (event.kind, event.containers.len())).collect();
    assert_eq!(seen, [(Created, 0), (Started, 0), (Created, 1), (Started, 1), (Deleted, 0), (Deleted, 0)]);
    assert_eq!(told[3].containers[0].state.container, running(), "not what came later");
    assert_eq!(
        (told[5].subject.as_str(), &told[5].pod.id),
        (pod.id.as_str(), &pod.id),
        "a removed pod is still described"
    );
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn the_steps_of_a_life_are_complete() {
    use EventKind::{Started, Stopped};
    let created = Container::Created { pid: 1 };
    assert_eq!(steps(&created, &running()), [Started]);
    assert_eq!(steps(&running(), &exited(5)), [Stopped]);
    assert_eq!(steps(&created, &exited(5)), [Started, Stopped], "it ended before its start was heard of");
    assert_eq!(steps(&created, &exited(0)), [Stopped], "it was never started");
    assert_eq!(steps(&running(), &running()), []);
}

#[test]
fn one_that_never_reads_is_ended_and_nobody_else_notices() {
    let published = Published::default();
    let mut lazy = published.subscribe();
    let mut eager = published.subscribe();
    let gone = published.subscribe();
    drop(gone);
    let pod = pod(1);
    let mut read = 0;
    for _ in 0..QUEUE + 10 {
        published.put_pod(&pod, &[EventKind::Started]);
        read += kinds(&mut eager).len();
    }
    assert_eq!(read, QUEUE + 10, "the other one missed nothing");
    let mut late = drain(&mut lazy);
    assert_eq!(late.pop().unwrap().unwrap_err(), Lagged, "the last it gets is why");
    assert!(late.len() == QUEUE && late.iter().all(Result::is_ok));
    assert!(drain(&mut lazy).is_empty());
    let mut again = published.subscribe();
    published.put_pod(&pod, &[EventKind::Stopped]);
    assert_eq!(kinds(&mut again), [EventKind::Stopped], "what others got is not kept for it");
}

#[test]
fn what_happens_while_nobody_listens_is_kept_for_the_first() {
    let published = Published::default();
    let pod = pod(1);
    for _ in 0..QUEUE {
        published.put_pod(&pod, &[EventKind::Created]);
    }
    published.put_pod(&pod, &[EventKind::Stopped]);
    let (mut first, mut second) = (published.subscribe(), published.subscribe());
    let kept = kinds(&mut first);
    assert_eq!((kept.len(), kept.last()), (QUEUE, Some(&EventKind::Stopped)), "the latest");
    assert!(kinds(&mut second).is_empty());
    published.close();
    published.put_pod(&pod, &[EventKind::Created]);
    assert!(kinds(&mut first).is_empty() && kinds(&mut published.subscribe()).is_empty());
}

#[test]
fn events_of_many_writers_are_in_one_order_for_all() {
    const PODS: u8 = 8;
    const STEPS: usize = 300;
    let published = Published::default();
    let mut readers = [published.subscribe(), published.subscribe(), published.subscribe()];
    std::thread::scope(|scope| {
        for number in 0..PODS {
            let published = &published;
            scope.spawn(move || {
                let pod = pod(number);
                for step in 0..STEPS {
                    let kind = if step % 2 == 0 { EventKind::Started } else { EventKind::Stopped };
                    let state = PodState { shim_pid: step as i32, ..pod.state.clone() };
                    published.put_pod(&Arc::new(PodRecord { state, ..PodRecord::clone(&pod) }), &[kind]);
                }
            });
        }
    });
    let told = readers.each_mut().map(|reader| {
        let events = drain(reader).into_iter().map(Result::unwrap);
        events.map(|event| (event.subject.as_str().to_owned(), event.pod.state.shim_pid)).collect::<Vec<_>>()
    });
    assert!(told[0] == told[1] && told[1] == told[2], "everybody is told in the same order");
    let mut next: BTreeMap<&str, i32> = BTreeMap::new();
    for (pod, step) in &told[0] {
        let expected = next.entry(pod).or_default();
        assert_eq!(step, expected, "the order is that of the records");
        *expected += 1;
    }
    assert!(next.len() == usize::from(PODS) && next.values().all(|steps| *steps == STEPS as i32));
}
