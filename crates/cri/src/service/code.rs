//! The gRPC code of every error of the node: one exhaustive match for each enum, so that a new error does not compile until somebody
//! decides. `Unknown` is none of them: clients cannot tell it from a broken connection.

use std::fmt::Display;
use std::io;
use std::ops::Deref;

use node::shim_client::{ShimError, SpawnError};
use node::*;
use spec::{Refusal, SpecError};
use tonic::{Code, Status};

/// An error that has a code.
pub(super) trait Coded: Display {
    fn code(&self) -> Code;

    /// What the client is told: the code, and the error's own words.
    fn status(&self) -> Status {
        Status::new(self.code(), self.to_string())
    }
}

/// For `map_err`, of an error that several callers share.
pub(super) fn status<E: Coded>(error: impl Deref<Target = E>) -> Status {
    error.status()
}

impl Coded for LookupError {
    fn code(&self) -> Code {
        match self {
            LookupError::Absent { .. } => Code::NotFound,
            LookupError::Ambiguous { .. } => Code::InvalidArgument,
        }
    }
}

impl Coded for RunPodError {
    fn code(&self) -> Code {
        match self {
            RunPodError::UnknownHandler { .. } | RunPodError::Invalid { .. } => Code::InvalidArgument,
            RunPodError::NameTaken { .. } | RunPodError::NameInUse { .. } => Code::AlreadyExists,
            RunPodError::Stopped { .. }
            | RunPodError::NoUserNamespaces { .. }
            | RunPodError::OtherCgroupDriver { .. }
            | RunPodError::Handler { .. }
            | RunPodError::Refused { .. } => Code::FailedPrecondition,
            RunPodError::LogDirectory { source, .. } => of_io(source, Code::FailedPrecondition),
            RunPodError::Network { source, .. } => of_attach(source),
            RunPodError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for UpdatePodError {
    fn code(&self) -> Code {
        match self {
            UpdatePodError::Lookup(error) => error.code(),
            UpdatePodError::Spec { source, .. } => of_spec(source),
            UpdatePodError::Refused { .. } => Code::FailedPrecondition,
            UpdatePodError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for CheckpointError {
    fn code(&self) -> Code {
        match self {
            CheckpointError::Lookup(error) => error.code(),
            CheckpointError::PodNotReady { .. }
            | CheckpointError::NotRunning { .. }
            | CheckpointError::Busy { .. }
            | CheckpointError::Handler { .. }
            | CheckpointError::NoCriu { .. } => Code::FailedPrecondition,
            CheckpointError::Invalid { .. } => Code::InvalidArgument,
            CheckpointError::Location { source, .. }
            | CheckpointError::Write { source, .. }
            | CheckpointError::SharedMemory { source, .. } => of_checkpoint_io(source),
            CheckpointError::Rootfs { source: image::RootfsError::Io { source, .. }, .. } => {
                of_checkpoint_io(source)
            }
            CheckpointError::Rootfs { source, .. } => of_rootfs(source),
            CheckpointError::Pause { source, .. }
            | CheckpointError::Resume { source, .. }
            | CheckpointError::Processes { source, .. } => of_shim(source),
            CheckpointError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for RestorePodError {
    fn code(&self) -> Code {
        match self {
            RestorePodError::NoCriu { .. }
            | RestorePodError::Handler { .. }
            | RestorePodError::Unusable { .. }
            | RestorePodError::Incompatible { .. } => Code::FailedPrecondition,
            RestorePodError::Invalid { .. } => Code::InvalidArgument,
            RestorePodError::TimedOut { .. } => Code::DeadlineExceeded,
            RestorePodError::Pod(error) => error.code(),
            RestorePodError::Container(error) => error.code(),
            RestorePodError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for StopPodError {
    fn code(&self) -> Code {
        match self {
            StopPodError::Lookup(error) => error.code(),
            StopPodError::Stuck { .. } => Code::DeadlineExceeded,
            StopPodError::Network { .. } => Code::Unavailable,
            StopPodError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for RemovePodError {
    fn code(&self) -> Code {
        match self {
            RemovePodError::Stop(error) => error.code(),
            RemovePodError::Container { why, .. } => why.code(),
            RemovePodError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for CreateContainerError {
    fn code(&self) -> Code {
        match self {
            CreateContainerError::Lookup(error) => error.code(),
            CreateContainerError::PodNotReady { .. }
            | CreateContainerError::Ended { .. }
            | CreateContainerError::Foreign { .. }
            | CreateContainerError::Refused { .. }
            | CreateContainerError::Handler { .. }
            | CreateContainerError::NoRecursiveReadOnly { .. }
            | CreateContainerError::HandlerGone { .. }
            | CreateContainerError::Adjusted { .. } => Code::FailedPrecondition,
            CreateContainerError::Device { source, .. } => match source {
                cdi::DeviceError::Name { .. } | cdi::DeviceError::Annotation { .. } => Code::InvalidArgument,
                cdi::DeviceError::Unknown { .. } => Code::NotFound,
                cdi::DeviceError::Ambiguous { .. } | cdi::DeviceError::Edit { .. } => {
                    Code::FailedPrecondition
                }
            },
            CreateContainerError::NameTaken { .. } => Code::AlreadyExists,
            // Whoever calls lacks no right.
            CreateContainerError::Untrusted { source, .. } => match source.code() {
                Code::PermissionDenied => Code::FailedPrecondition,
                code => code,
            },
            CreateContainerError::NoImage { .. } | CreateContainerError::NoVolumeImage { .. } => {
                Code::NotFound
            }
            CreateContainerError::Spec { source, .. } => of_spec(source),
            CreateContainerError::User { .. } | CreateContainerError::Invalid { .. } => Code::InvalidArgument,
            CreateContainerError::Rootfs { source, .. } | CreateContainerError::Volume { source, .. } => {
                of_rootfs(source)
            }
            CreateContainerError::Runtime { source, .. } => of_shim(source),
            CreateContainerError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for StartContainerError {
    fn code(&self) -> Code {
        match self {
            StartContainerError::Lookup(error) => error.code(),
            StartContainerError::NotCreated { .. }
            | StartContainerError::TargetEnded { .. }
            | StartContainerError::NotExecuted { .. }
            | StartContainerError::Refused { .. } => Code::FailedPrecondition,
            StartContainerError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for StopContainerError {
    fn code(&self) -> Code {
        match self {
            StopContainerError::Lookup(error) => error.code(),
            StopContainerError::Stuck { .. } => Code::DeadlineExceeded,
            StopContainerError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for RemoveContainerError {
    fn code(&self) -> Code {
        match self {
            RemoveContainerError::Lookup(error) => error.code(),
            RemoveContainerError::Stop(error) => error.code(),
            RemoveContainerError::Rootfs { source, .. } => of_rootfs(source),
            RemoveContainerError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for ExecError {
    fn code(&self) -> Code {
        match self {
            ExecError::Lookup(error) => error.code(),
            ExecError::NotRunning { .. } | ExecError::NotExecuted { .. } => Code::FailedPrecondition,
            ExecError::NoCommand { .. } => Code::InvalidArgument,
            ExecError::TimedOut { .. } => Code::DeadlineExceeded,
            ExecError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for AttachError {
    fn code(&self) -> Code {
        match self {
            AttachError::Lookup(error) => error.code(),
            AttachError::NotRunning { .. } | AttachError::Refused { .. } => Code::FailedPrecondition,
            AttachError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for ConnectError {
    fn code(&self) -> Code {
        match self {
            ConnectError::Lookup(error) => error.code(),
            ConnectError::NotReady { .. } | ConnectError::Refused { .. } => Code::FailedPrecondition,
            ConnectError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for UpdateError {
    fn code(&self) -> Code {
        match self {
            UpdateError::Lookup(error) => error.code(),
            UpdateError::Refused { .. } | UpdateError::Plugins { .. } | UpdateError::Adjusted { .. } => {
                Code::FailedPrecondition
            }
            UpdateError::Spec { source, .. } => of_spec(source),
            UpdateError::Runtime { source } => of_shim(source),
            UpdateError::Cgroup { source, .. } => of_limits(source),
            UpdateError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for ReopenLogError {
    fn code(&self) -> Code {
        match self {
            ReopenLogError::Lookup(error) => error.code(),
            ReopenLogError::NotRunning { .. } => Code::FailedPrecondition,
            ReopenLogError::Failed { fault, .. } => fault.code(),
        }
    }
}

impl Coded for StatsError {
    fn code(&self) -> Code {
        match self {
            StatsError::Lookup(error) => error.code(),
        }
    }
}

impl Coded for Fault {
    fn code(&self) -> Code {
        match self {
            Fault::Store(error) => of_store(error),
            Fault::Record(error) => of_store(error),
            Fault::File { source, .. } => of_io(source, Code::Internal),
            Fault::Shim(error) => of_shim(error),
            Fault::Spawn { source: SpawnError::NotReady { cause, .. }, .. } => of_shim(cause),
            Fault::Spawn { source: SpawnError::Process { cause, .. }, .. } => of_io(cause, Code::Internal),
            Fault::Network(_) => Code::Unavailable,
            Fault::Rootfs(error) => of_rootfs(error),
            Fault::Cgroup(error) | Fault::Limits(PodLimitsFault::Group(error)) => of_cgroup(error),
            Fault::Limits(PodLimitsFault::Value(error)) => of_limits(error),
            Fault::Other(_) | Fault::Vanished => Code::Internal,
        }
    }
}

impl Coded for image::PullError {
    fn code(&self) -> Code {
        of_pull(&self.cause)
    }

    /// The kubelet tells an unreachable registry and an image that is not trusted by how the message begins (cri-api, `pkg/errors`), and
    /// looks at the message alone only where the code is `Unknown` (kubernetes#117612): with any other it begins with "rpc error: ...", and the
    /// pod's reason would be `ErrImagePull` like for everything else.
    fn status(&self) -> Status {
        let reason = match *self.cause {
            _ if self.is_registry_unavailable() => "RegistryUnavailable",
            image::PullCause::Untrusted(_) => "SignatureValidationFailed",
            _ => return Status::new(self.code(), self.to_string()),
        };
        Status::new(Code::Unknown, format!("{reason}: {self}"))
    }
}

impl Coded for image::Ambiguous {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl Coded for image::ImageError {
    fn code(&self) -> Code {
        match self {
            image::ImageError::Ambiguous(error) => error.code(),
            image::ImageError::Failed(cause) => of_pull(cause),
        }
    }
}

impl Coded for network::PodCidrError {
    fn code(&self) -> Code {
        match self {
            network::PodCidrError::Malformed(_) => Code::InvalidArgument,
            network::PodCidrError::Io(source) => of_io(source, Code::Internal),
        }
    }
}

pub(super) fn of_pull(cause: &image::PullCause) -> Code {
    use image::PullCause::*;
    match cause {
        BadReference(_) => Code::InvalidArgument,
        Route(image::RouteError::BadReference(_)) => Code::InvalidArgument,
        Route(_) => Code::FailedPrecondition,
        Registry(error) => of_registry(error),
        Interrupted => Code::Unavailable,
        GivenUp => Code::Cancelled,
        NoSpace { .. } => Code::ResourceExhausted,
        UnsupportedMediaType { .. } | Schema1 { .. } | NoMatchingPlatform { .. } | TooLarge { .. } => {
            Code::FailedPrecondition
        }
        Malformed { .. } | BadDigest { .. } | Layer { .. } => Code::DataLoss,
        Untrusted(_) => Code::PermissionDenied,
        Io { source, .. } => of_io(source, Code::Internal),
        Store(error) => of_store(error),
        // The enum is open: of what is new in it, nobody has said yet whose fault it is.
        _ => Code::Internal,
    }
}

fn of_registry(error: &image::RegistryError) -> Code {
    use image::RegistryError::*;
    match error {
        NotFound { .. } => Code::NotFound,
        Unauthorized { .. } => Code::Unauthenticated,
        Forbidden { .. } => Code::PermissionDenied,
        Unreachable { .. } | Status { .. } | Stalled { .. } => Code::Unavailable,
        TooManyRequests { .. } => Code::ResourceExhausted,
        BadRedirect { .. } | TooLarge { .. } | NoCredentials { .. } | NoEndpoint { .. } => {
            Code::FailedPrecondition
        }
        DigestMismatch { .. } | Malformed { .. } => Code::DataLoss,
        // As above.
        _ => Code::Internal,
    }
}

fn of_spec(error: &SpecError) -> Code {
    match error.refusal() {
        Refusal::Invalid => Code::InvalidArgument,
        Refusal::HostLacks => Code::FailedPrecondition,
    }
}

fn of_shim(error: &ShimError) -> Code {
    match error {
        // What the shim could not classify is a refusal of the OCI runtime, with its reason in the message.
        ShimError::Refused(call) => match Code::from_i32(call.code.grpc()) {
            Code::Unknown | Code::Ok => Code::FailedPrecondition,
            code => code,
        },
        ShimError::Unreachable { .. } | ShimError::Disconnected { .. } => Code::Unavailable,
        ShimError::TimedOut { .. } => Code::DeadlineExceeded,
        ShimError::Garbled { .. } => Code::Internal,
    }
}

fn of_store(error: &store::StoreError) -> Code {
    match error {
        store::StoreError::Full { .. } => Code::ResourceExhausted,
        store::StoreError::Sqlite { .. } => Code::Internal,
    }
}

/// Disks and tables that are full are told apart, since they are for somebody to empty.
fn of_io(error: &io::Error, otherwise: Code) -> Code {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Code::ResourceExhausted,
        (_, Some(ENOMEM | ENFILE | EMFILE)) => Code::ResourceExhausted,
        _ => otherwise,
    }
}

/// What is written for a checkpoint refuses to go on when the time is over.
fn of_checkpoint_io(error: &io::Error) -> Code {
    if error.kind() == io::ErrorKind::TimedOut {
        return Code::DeadlineExceeded;
    }
    of_io(error, Code::FailedPrecondition)
}

fn of_rootfs(error: &image::RootfsError) -> Code {
    use image::RootfsError;
    match error {
        RootfsError::NoImage { .. } => Code::NotFound,
        RootfsError::Absent { .. }
        | RootfsError::Exists { .. }
        | RootfsError::NoQuota { .. }
        | RootfsError::NoLabel { .. }
        | RootfsError::NoChanges { .. } => Code::FailedPrecondition,
        RootfsError::BadOwner { .. } | RootfsError::NoPath { .. } => Code::InvalidArgument,
        RootfsError::NoLayer { .. } | RootfsError::Changes { .. } => Code::DataLoss,
        RootfsError::Mount { source, .. } | RootfsError::Io { source, .. } => of_io(source, Code::Internal),
        RootfsError::Store(error) => of_store(error),
    }
}

fn of_cgroup(error: &cgroup::CgroupError) -> Code {
    use cgroup::CgroupError;
    match error {
        CgroupError::BadPath { .. } => Code::InvalidArgument,
        CgroupError::NotFound { .. } | CgroupError::NoController { .. } => Code::FailedPrecondition,
        CgroupError::Io { source, .. } => of_io(source, Code::Internal),
        CgroupError::Timeout { .. } => Code::DeadlineExceeded,
        CgroupError::Systemd { source, .. } => of_systemd(source),
    }
}

fn of_systemd(error: &cgroup::systemd::SystemdError) -> Code {
    use cgroup::systemd::SystemdError;
    match error {
        SystemdError::Absent | SystemdError::NotLetIn { .. } => Code::FailedPrecondition,
        SystemdError::Unreachable { .. } | SystemdError::Io { .. } => Code::Unavailable,
        SystemdError::Silent { .. } => Code::DeadlineExceeded,
        SystemdError::Message(_) | SystemdError::Refused { .. } | SystemdError::Job { .. } => Code::Internal,
    }
}

fn of_limits(error: &cgroup::ApplyError) -> Code {
    use cgroup::ApplyError;
    const EINVAL: i32 = 22;
    /// A processor or memory node that this machine does not have.
    const ERANGE: i32 = 34;
    match error {
        ApplyError::Write { source, .. } if matches!(source.raw_os_error(), Some(EINVAL | ERANGE)) => {
            Code::InvalidArgument
        }
        ApplyError::Write { source, .. } | ApplyError::Read { source, .. } => of_io(source, Code::Internal),
        ApplyError::Invalid { .. } => Code::InvalidArgument,
        ApplyError::NoController { .. }
        | ApplyError::NoFile { .. }
        | ApplyError::BelowUsage { .. }
        | ApplyError::UnifiedOnV1 { .. } => Code::FailedPrecondition,
        ApplyError::Systemd { source, .. } => of_systemd(source),
        ApplyError::NotRestored { .. } => Code::Internal,
    }
}

fn of_attach(error: &network::AttachError) -> Code {
    use network::AttachError;
    match error {
        AttachError::BadField { .. } => Code::InvalidArgument,
        AttachError::NotReady(_)
        | AttachError::Plugin { .. }
        | AttachError::NoAddress { .. }
        | AttachError::Result { .. }
        | AttachError::Stale { .. } => Code::Unavailable,
        AttachError::Netns { source, .. } => of_io(source, Code::Internal),
        AttachError::Record { .. } => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull_error(cause: image::RegistryError) -> image::PullError {
        image::PullError { reference: "r.example/a".into(), cause: Box::new(cause.into()), attempts: vec![] }
    }

    #[test]
    fn an_unreachable_registry_is_told_as_the_kubelet_reads_it() {
        let unreachable =
            pull_error(image::RegistryError::Unreachable { host: "r.example".into(), why: "refused".into() });
        assert_eq!((unreachable.code(), unreachable.status().code()), (Code::Unavailable, Code::Unknown));
        assert!(unreachable.status().message().starts_with("RegistryUnavailable"));
        let absent = pull_error(image::RegistryError::NotFound { what: "a".into(), host: "r".into() });
        assert_eq!(absent.status().code(), Code::NotFound);
        assert!(!absent.status().message().contains("RegistryUnavailable"));
    }

    #[test]
    fn an_image_that_is_not_trusted_is_told_as_the_kubelet_reads_it() {
        let why = image::Distrust::NotPinned {
            setting: "image.require_digest",
            scope: "*".into(),
            name: "r.example/a:1".into(),
        };
        let cause = Box::new(image::PullCause::Untrusted(std::sync::Arc::new(why)));
        let error = image::PullError { reference: "r.example/a:1".into(), cause, attempts: vec![] };
        assert_eq!((error.code(), error.status().code()), (Code::PermissionDenied, Code::Unknown));
        assert!(error.status().message().starts_with("SignatureValidationFailed: "), "{error}");
    }

    #[test]
    fn full_disks_are_exhausted_resources() {
        let fault = Fault::File { path: "/x".into(), source: io::Error::from_raw_os_error(28) };
        assert_eq!(fault.code(), Code::ResourceExhausted);
        assert_eq!(of_io(&io::Error::from_raw_os_error(24), Code::Internal), Code::ResourceExhausted);
        assert_eq!(of_io(&io::Error::from_raw_os_error(13), Code::Internal), Code::Internal);
    }

    #[test]
    fn absent_is_not_found_and_ambiguous_is_invalid() {
        let absent = LookupError::Absent { what: "pod", given: "a".into() };
        let several = LookupError::Ambiguous { what: "pod", given: "a".into(), matches: 2 };
        assert_eq!((absent.code(), several.code()), (Code::NotFound, Code::InvalidArgument));
        assert_eq!(CreateContainerError::Lookup(absent).code(), Code::NotFound);
    }

    #[test]
    fn a_device_that_nobody_describes_is_not_found() {
        let refused = |source| CreateContainerError::Device { name: "c".into(), source }.code();
        let device = || "v/c=d".to_owned();
        assert_eq!(refused(cdi::DeviceError::Name { given: device() }), Code::InvalidArgument);
        let unknown = cdi::DeviceError::Unknown { device: device(), unreadable: Vec::new() };
        assert_eq!(refused(unknown), Code::NotFound);
        assert_eq!(of_spec(&SpecError::NoCommand), Code::InvalidArgument);
    }
}
