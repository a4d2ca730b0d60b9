//! Metrics, traces and log lines of a real daemon: what Prometheus, a collector and a reader of the log get to see of a pod's life.

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use support::{Daemon, Setup, in_own_network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const METRICS: &str = "127.0.0.1:9464";
const COLLECTOR: &str = "127.0.0.1:4317";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// `ExportTraceServiceRequest` of OTLP and what is in it, as far as it is looked at here.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
}

/// A collector that keeps what it gets.
async fn collector() -> Arc<Mutex<Vec<Span>>> {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(COLLECTOR).await.unwrap();
    let kept = spans.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = kept.clone();
            let answer = service_fn(move |request: hyper::Request<Incoming>| {
                let kept = kept.clone();
                async move {
                    assert_eq!(
                        request.uri().path(),
                        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                    );
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    // gRPC: a byte for the compression and four for the length.
                    let export = Export::decode(&body[5..]).unwrap();
                    let all = export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                    kept.lock().unwrap().extend(all.flat_map(|scope| scope.spans));
                    let answer = hyper::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0");
                    Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(connection);
        }
    });
    spans
}

async fn get(path: &str) -> String {
    let mut stream = TcpStream::connect(METRICS).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_pod_can_be_seen_in_metrics_traces_and_lines() {
    needs_a_node!();
    in_own_network(async {
        let spans = collector().await;
        let config = format!(
            "format = \"json\"\n[metrics]\naddress = {METRICS:?}\n[tracing]\ncollector = {COLLECTOR:?}\n"
        );
        let daemon = Daemon::start_as(Setup { config, ..Setup::default() }).await;
        let sandbox = daemon.pod("seen");
        let request = v1::RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
        let mut request = tonic::Request::new(request);
        let traceparent = format!("00-{TRACE}-{PARENT}-01");
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
        let pod = daemon.runtime().run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let container = daemon.run(&pod, &sandbox, "main", "sleep 1000").await;
        daemon.status("no-such-container").await.unwrap_err();

        let page = get("/metrics").await;
        let lines = [
            "pintle_call_duration_seconds_count{call=\"RuntimeService/RunPodSandbox\",code=\"Ok\"} 1",
            "pintle_call_duration_seconds_count{call=\"RuntimeService/ContainerStatus\",code=\"NotFound\"} 1",
            "pintle_stage_duration_seconds_count{stage=\"network\"} 1",
            "pintle_stage_duration_seconds_count{stage=\"init\"} 1",
            "pintle_pods{state=\"ready\"} 1",
            "pintle_containers{state=\"running\"} 1",
            "pintle_images 1",
            "process_open_fds ",
            "process_cpu_seconds_total ",
        ];
        for line in lines {
            assert!(page.contains(line), "no {line} in\n{page}");
        }
        assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("# EOF\n"), "{page}");
        assert!(get("/etc/passwd").await.starts_with("HTTP/1.1 404 "));

        // The log's line of that call names the trace, the call, and the stage where there is one.
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("pod running")).unwrap();
        assert!(line.contains(TRACE) && line.contains("RuntimeService/RunPodSandbox"), "{line}");

        let begun = Instant::now();
        let ours = loop {
            let ours: Vec<Span> =
                spans.lock().unwrap().iter().filter(|span| hex(&span.trace) == TRACE).cloned().collect();
            if ours.iter().any(|span| span.name == "RuntimeService/RunPodSandbox") {
                break ours;
            }
            assert!(begun.elapsed() < Duration::from_secs(8), "no span came: {:?}", spans.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let call = ours.iter().find(|span| span.name == "RuntimeService/RunPodSandbox").unwrap();
        assert_eq!(hex(&call.parent), PARENT);
        let network = ours.iter().find(|span| span.name == "network").unwrap();
        assert_eq!(network.parent, call.id);
        assert!(call.start <= network.start && network.end <= call.end && network.start < network.end);
        // The shim's own part, as the shim measured it.
        let stage = ours.iter().find(|span| span.name == "shim").unwrap();
        let served = ours.iter().find(|span| span.name == "Shim/Info").unwrap();
        assert_eq!(served.parent, stage.id);
        assert!(stage.start <= served.start && served.start < served.end && served.end <= stage.end);

        daemon.remove_container(&container).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        daemon.empty().await;
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
