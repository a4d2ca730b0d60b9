//! The arguments that containerd gives its shims, in the form of Go's flags: `-name value`, `-name=value`, with one dash or two.

use std::ffi::OsString;
use std::path::PathBuf;

pub(super) const USAGE: &str = "\
usage: containerd-shim-pintle-v2 -namespace NAME -id ID -address SOCKET [-publish-binary FILE] [-bundle FOLDER] [-debug] start|delete
       containerd-shim-pintle-v2 -v
       containerd-shim-pintle-v2 -info
It is started by containerd, for containers with the runtime io.containerd.pintle.v2.";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Leave a server behind and print its address.
    Start,
    /// Clean up after a server that is gone.
    Delete,
    /// Be the server.
    Serve,
    Version,
    Info,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) action: Action,
    /// containerd's namespace.
    pub(super) namespace: String,
    pub(super) id: String,
    /// containerd's socket for gRPC: the address of a shim is made of it, nobody connects to it.
    pub(super) address: String,
    /// Instead of the working directory.
    pub(super) bundle: Option<PathBuf>,
    /// The server's own socket, which it removes at its end.
    pub(super) socket: Option<PathBuf>,
    /// The server's: where events go, if not where the environment says.
    pub(super) events: Option<String>,
    pub(super) debug: bool,
}

impl Flags {
    /// Reads arguments without the program's name.
    ///
    /// # Errors
    /// What is wrong with them, as a sentence.
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Flags, String> {
        let mut flags = Flags {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            socket: None,
            events: None,
            debug: false,
        };
        let mut special = None;
        let mut args = args.map(|arg| arg.into_string().map_err(|arg| format!("{arg:?} is not UTF-8")));
        while let Some(arg) = args.next().transpose()? {
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.action = action(&arg)?;
                break;
            };
            let (name, mut given) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let mut value = || match given.take() {
                Some(value) => Ok(value),
                None => args.next().transpose()?.ok_or_else(|| format!("flag -{name} needs a value")),
            };
            match name {
                "namespace" => flags.namespace = value()?,
                "id" => flags.id = value()?,
                "address" => flags.address = value()?,
                "bundle" => flags.bundle = Some(value()?.into()).filter(|path| *path != PathBuf::new()),
                "socket" => flags.socket = Some(value()?.into()),
                "events" => flags.events = Some(value()?),
                // How events are published is found in the environment instead.
                "publish-binary" | "debug-socket" => drop(value()?),
                "debug" => flags.debug = given.as_deref().is_none_or(|value| value == "true"),
                "v" | "version" => special = Some(Action::Version),
                "info" => special = Some(Action::Info),
                other => return Err(format!("there is no flag -{other}")),
            }
        }
        if let Some(action) = special {
            flags.action = action;
            return Ok(flags);
        }
        flags.check().map(|()| flags)
    }

    /// Both become parts of paths.
    fn check(&self) -> Result<(), String> {
        for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(format!("flag -{name} is missing"));
            }
            if value.contains('/') || value.starts_with('.') || value.len() > 255 {
                return Err(format!("flag -{name}: {value:?} is no name"));
            }
        }
        Ok(())
    }
}

fn action(word: &str) -> Result<Action, String> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        other => Err(format!("there is no command {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        Flags::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn both_forms_of_flags_are_understood() {
        let one =
            parse(&["-namespace", "k8s.io", "-address", "/a", "-publish-binary", "/c", "-id", "x", "start"]);
        let two = parse(&["--namespace=k8s.io", "--address=/a", "-id=x", "start"]);
        assert_eq!(one, two);
        let flags = one.unwrap();
        assert_eq!((flags.action, &*flags.namespace, &*flags.id), (Action::Start, "k8s.io", "x"));
        let flags = parse(&["-namespace", "n", "-id", "x", "-bundle", "/b", "-debug", "delete"]).unwrap();
        assert_eq!((flags.action, flags.bundle, flags.debug), (Action::Delete, Some("/b".into()), true));
        assert_eq!(parse(&["-namespace", "n", "-id", "x"]).unwrap().action, Action::Serve);
        assert_eq!(parse(&["-v"]).unwrap().action, Action::Version);
        assert_eq!(parse(&["--info"]).unwrap().action, Action::Info);
    }

    #[test]
    fn what_is_missing_or_could_lead_elsewhere_is_told() {
        for (args, word) in [
            (&["start"][..], "namespace"),
            (&["-namespace", "n", "start"], "-id"),
            (&["-namespace", "..", "-id", "x", "start"], "namespace"),
            (&["-namespace", "n", "-id", "a/b", "start"], "-id"),
            (&["-namespace", "n", "-id"], "value"),
            (&["-namespace", "n", "-id", "x", "stop"], "stop"),
            (&["-nothing"], "nothing"),
        ] {
            let why = parse(args).unwrap_err();
            assert!(why.contains(word), "{args:?}: {why}");
        }
    }

    proptest! {
        #[test]
        fn no_arguments_are_a_panic(args in prop::collection::vec("-{0,2}[a-z]{0,9}=?.{0,3}", 0..8)) {
            let _ = Flags::parse(args.iter().map(OsString::from));
        }
    }
}
