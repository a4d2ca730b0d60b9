//! One span for each call: who is called, in which trace, and how it was answered.

use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tracing::{Span, field, info_span};

/// How long a name may be: longer ones are no call of ours.
const LONGEST: usize = 80;

/// The span of a call. Its trace is the client's where it has one (W3C Trace Context, `traceparent`), else a new one.
pub(super) fn span(request: &Request<Body>) -> Span {
    let path = request.uri().path();
    let call = path.rsplit_once('.').map_or(path, |(_, call)| call);
    let call = call.get(..LONGEST).unwrap_or(call);
    let client = traceparent(request.headers());
    let trace = client.map_or_else(new_trace, |(trace, _)| trace.to_owned());
    let parent = client.map(|(_, parent)| parent);
    info_span!(target: "pintle::call", "call", call, trace, parent, code = field::Empty)
}

/// Notes the answer's code. Where it comes only behind a stream, there is none in the head, and so far all is well.
pub(super) fn answered(span: &Span, answer: &Response<Body>) {
    let code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<i32>().ok());
    span.record("code", code.unwrap_or(0));
}

/// Trace id and span id of a `traceparent` of version 00.
fn traceparent(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace, parent, _flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_id = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && text.bytes().any(|byte| byte != b'0')
    };
    (version == "00" && is_id(trace, 32) && is_id(parent, 16)).then_some((trace, parent))
}

fn new_trace() -> String {
    let mut bytes = [0; 16];
    // A trace id is to be unique, not secret: where the kernel's pool is not ready yet, a zero is good enough.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_where_it_is_one() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            traceparent(&headers).map(|(trace, parent)| (trace.to_owned(), parent.to_owned()))
        };
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(of(&format!("00-{trace}-{parent}-01")), Some((trace.into(), parent.into())));
        for bad in [
            String::new(),
            format!("01-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{parent}"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}x-{parent}-01"),
        ] {
            assert_eq!(of(&bad), None, "{bad}");
        }
        assert_eq!(new_trace().len(), 32);
        assert_ne!(new_trace(), new_trace());
    }
}
