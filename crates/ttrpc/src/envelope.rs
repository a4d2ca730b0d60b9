//! The messages that ttrpc itself has: a call, an answer, and a status. Written by hand.

/// ttrpc's envelope of a call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits, in nanoseconds; 0 is forever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// ttrpc's envelope of an answer: a status that is not OK, or a payload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    /// Not ttrpc's: what Pintle's shim tells beside the answer. Others skip a field that they do not know.
    #[prost(message, optional, tag = "1000")]
    pub served: Option<Served>,
}

/// When a call was taken and when it was answered, in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Served {
    #[prost(sfixed64, tag = "1")]
    pub began_ns: i64,
    #[prost(sfixed64, tag = "2")]
    pub ended_ns: i64,
}

/// A line of a request's metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}
