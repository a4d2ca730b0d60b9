//! The messages: what each call takes and gives. Written by hand, tags never reused.

/// The only detail our statuses carry: the stable name of the error and the stage in which it happened.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorDetail {
    #[prost(string, tag = "1")]
    pub code: String,
    #[prost(string, tag = "2")]
    pub stage: String,
}

/// Who answers, and what it parents.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoResponse {
    /// The shim's own version, for people.
    #[prost(string, tag = "1")]
    pub version: String,
    /// See [`crate::protocol::PROTOCOL_VERSION`].
    #[prost(uint32, tag = "2")]
    pub protocol_version: u32,
    #[prost(string, tag = "3")]
    pub pod_id: String,
    /// The shim; `/proc/<pid>/ns/{net,ipc,uts}` are the pod's namespaces.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    #[prost(message, repeated, tag = "5")]
    pub containers: Vec<ContainerInfo>,
    /// First process of the pod's shared pid namespace; 0 when containers have their own or the host's.
    #[prost(uint32, tag = "6")]
    pub pid_namespace_init: u32,
    /// The descriptor of the pod's user namespace: `/proc/<pid>/fd/<this>` leads to it; 0 when its users are the host's.
    #[prost(uint32, tag = "7")]
    pub user_namespace: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerInfo {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its first process; 0 while it is being created.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// Set when the state is `Exited`.
    #[prost(message, optional, tag = "4")]
    pub exit: Option<Exit>,
    /// Nanoseconds since 1970; 0 while it was not started.
    #[prost(int64, tag = "5")]
    pub started_at_ns: i64,
    /// Log records that could not be written: a full disk, or over the log's limit.
    #[prost(uint64, tag = "6")]
    pub dropped_log_records: u64,
    /// The further processes that are known: those that run, and the latest that have exited.
    #[prost(message, repeated, tag = "7")]
    pub execs: Vec<ExecInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecInfo {
    #[prost(string, tag = "1")]
    pub exec_id: String,
    /// 0 while it is being started.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    #[prost(message, optional, tag = "3")]
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    Creating = 0,
    Created = 1,
    Running = 2,
    Exited = 3,
    Deleting = 4,
}

/// How a process ended. Also what an exit record file holds.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal ended it.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// The signal that ended it; 0 when it exited by itself.
    #[prost(uint32, tag = "2")]
    #[serde(default)]
    pub signal: u32,
    /// The kernel killed a process of its cgroup because the memory limit was reached.
    #[prost(bool, tag = "3")]
    #[serde(default)]
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub exited_at_ns: i64,
    /// Nanoseconds since 1970; 0 when it never started.
    #[prost(int64, tag = "5")]
    #[serde(default)]
    pub started_at_ns: i64,
    #[prost(uint32, tag = "6")]
    pub pid: u32,
    /// Why nobody saw how it ended; then the code is none of its own.
    #[prost(string, tag = "7")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lost: String,
}

/// Makes a container up to its first instruction. Carries descriptors of detached mounts: of its root when `has_rootfs`, then `volumes`
/// for the mounts of type `descriptor`, in the order of their sources, which count from 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Absolute path of the OCI bundle: the folder with `config.json`.
    #[prost(string, tag = "2")]
    pub bundle: String,
    #[prost(bool, tag = "3")]
    pub terminal: bool,
    /// Keep its standard input open for somebody to attach; otherwise it is /dev/null.
    #[prost(bool, tag = "4")]
    pub stdin: bool,
    /// Close its standard input when the first who attached leaves.
    #[prost(bool, tag = "5")]
    pub stdin_once: bool,
    /// Absolute path of its log file; empty discards its output.
    #[prost(string, tag = "6")]
    pub log_path: String,
    /// Bytes after which the log file takes no more until it is reopened; 0 is no limit.
    #[prost(uint64, tag = "7")]
    pub log_max_bytes: u64,
    #[prost(bool, tag = "8")]
    pub has_rootfs: bool,
    #[prost(uint32, tag = "9")]
    pub volumes: u32,
    /// Make its processes of a checkpoint; then they are there, and frozen until start.
    #[prost(message, optional, tag = "10")]
    pub restore: Option<Restore>,
    /// Its cgroup is made by systemd, and named `slice:prefix:name`.
    #[prost(bool, tag = "11")]
    pub systemd_cgroup: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateResponse {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StartRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StartResponse {
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "1")]
    pub started_at_ns: i64,
}

/// Sends a signal to the container's first process, or with `all` to every process in it. What has ended is no error.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KillRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(uint32, tag = "2")]
    pub signal: u32,
    #[prost(bool, tag = "3")]
    pub all: bool,
}

/// Answered once the container has exited, its log is written and its exit record lies on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitResponse {
    #[prost(message, optional, tag = "1")]
    pub exit: Option<Exit>,
}

/// Removes what is left of a container that is not running: runtime state, cgroup, exit record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteResponse {
    /// Absent when the container never came to life.
    #[prost(message, optional, tag = "1")]
    pub exit: Option<Exit>,
}

/// Runs a further process in a container.
///
/// Its descriptors ride along in the order stdin, stdout, stderr, each if its flag says so; what is absent is /dev/null. With
/// `terminal` there is exactly one: a unix socket over which the master of the new terminal is sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Unique in the container.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// An OCI `process` object.
    #[prost(bytes = "vec", tag = "3")]
    pub process_json: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub has_stdin: bool,
    #[prost(bool, tag = "6")]
    pub has_stdout: bool,
    #[prost(bool, tag = "7")]
    pub has_stderr: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecResponse {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// Answered once the process has exited. The exits of the latest 64 of a container are kept.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitExecRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KillExecRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(uint32, tag = "3")]
    pub signal: u32,
}

/// Joins the streams of a container's main process, from before its start to its end.
///
/// The ends of pipes ride along in the order stdin (its reading end), stdout, stderr (their writing ends), each if its flag says so. Every
/// byte that the container writes from now on is copied to them beside the log. Nobody waits for a reader: what a full pipe does not take is
/// left out, and a line in its place says how much. The far end of what the container does not have, or has no more, is closed.
/// Closing the pipes is how one leaves. The container's own input ends when the first leaves who wrote to it if it was made with
/// `stdin_once`, and stays open otherwise, as that of a terminal always does.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttachRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(bool, tag = "2")]
    pub has_stdin: bool,
    #[prost(bool, tag = "3")]
    pub has_stdout: bool,
    #[prost(bool, tag = "4")]
    pub has_stderr: bool,
}

/// Gives a container's terminal another size, in characters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResizeRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub height: u32,
}

/// From what, and by what, processes are restored. All paths are absolute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restore {
    /// The program CRIU.
    #[prost(string, tag = "1")]
    pub criu: String,
    /// The folder with its images, in which nothing is changed.
    #[prost(string, tag = "2")]
    pub images: String,
    /// The folder for its log.
    #[prost(string, tag = "3")]
    pub work: String,
}

/// Freezes running containers, all or none, for checkpoints that belong together.
///
/// They stay frozen until `Resume`, and not longer than `limit_ms` or than the connection on which this was called: whoever asked for it
/// may be killed. Only one such pause is there at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PauseRequest {
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
    #[prost(uint64, tag = "2")]
    pub limit_ms: u64,
}

/// Lets the containers of the pause run again. What was being saved of them is broken off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResumeRequest {}

/// Saves the processes of a container of the pause. All paths are absolute, the folders exist.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckpointRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    /// The program CRIU.
    #[prost(string, tag = "2")]
    pub criu: String,
    /// The folder for its images.
    #[prost(string, tag = "3")]
    pub images: String,
    /// The folder for its log.
    #[prost(string, tag = "4")]
    pub work: String,
}

/// Does what a foreign runtime wants before the first container of the pod, once the pod's network stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginPodRequest {
    /// The OCI spec of the container that stands for the pod, or only its annotations.
    #[prost(bytes = "vec", tag = "1")]
    pub spec_json: Vec<u8>,
}

/// Has the pod's foreign runtime change a container's limits. Those of this program's own runtime are in the cgroup, which is anybody's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    /// An OCI `linux.resources` object.
    #[prost(bytes = "vec", tag = "2")]
    pub resources_json: Vec<u8>,
}

/// Opens the log's path anew, as after a rotation. On an error the old file goes on being written and no file was made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReopenLogRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Kills and removes everything of this pod, then ends the shim.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShutdownRequest {}

/// The answer of calls that have nothing to say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}
