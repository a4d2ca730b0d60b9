//! Names, programs, and what a pod may have.

use super::*;

fn config(name: &str, kind: HandlerKind) -> HandlerConfig {
    HandlerConfig {
        name: name.into(),
        kind,
        pod_annotations: Vec::new(),
        container_annotations: Vec::new(),
        base_spec: None,
        privileged: PrivilegedPolicy::Allow,
        networks: None,
    }
}

fn oci(program: &str) -> HandlerKind {
    let deadline = Duration::from_secs(1);
    HandlerKind::Oci(OciHandler {
        program: program.into(),
        arguments: Vec::new(),
        pause: Pause::Auto,
        root: None,
        deadline,
    })
}

#[test]
fn the_empty_name_is_the_default_and_an_unknown_one_is_told_the_others() {
    let none = Handlers::new(String::new(), Vec::new());
    assert_eq!(none.resolve("").unwrap(), "");
    assert_eq!(none.resolve("runc").unwrap_err(), "the empty default only");
    let all = vec![config("runc", oci("sh")), config("plain", HandlerKind::Builtin)];
    let some = Handlers::new(String::new(), all.clone());
    assert_eq!(some.resolve("runc").unwrap(), "runc");
    assert_eq!(some.resolve("kata").unwrap_err(), "runc, plain, and the empty default");
    let named = Handlers::new("runc".into(), all);
    assert_eq!(named.resolve("").unwrap(), "runc");
    assert_eq!(named.resolve("x").unwrap_err(), "runc, plain, and the empty default, which is runc");
    let names: Vec<_> = named.names().into_iter().map(|(name, handler)| (name, handler.is_some())).collect();
    assert_eq!(names, [(String::new(), true), ("runc".into(), true), ("plain".into(), true)]);
}

#[test]
fn a_program_is_looked_for_and_has_to_be_executable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime");
    std::fs::write(&file, "").unwrap();
    let told = |program: &Path| {
        let handlers = Handlers::new(String::new(), vec![config("r", oci(&program.to_string_lossy()))]);
        let id = model::id::PodId::from_random([7; 32]);
        handlers.find("r").unwrap().for_shim(&id, Path::new("/pod"), false).map_err(|error| error.to_string())
    };
    assert!(told(&file).unwrap_err().contains("its mode does not allow that"));
    assert!(told(folder.path()).unwrap_err().contains("it is no file"));
    assert!(told(Path::new("/nowhere/runc")).unwrap_err().contains("No such file"));
    let missing = told(Path::new("no-such-runtime-here")).unwrap_err();
    assert!(
        missing.contains("no-such-runtime-here is not in /") && missing.contains("[runtimes.r]"),
        "{missing}"
    );
    let Some(Foreign::Oci(found)) = told(Path::new("sh")).unwrap() else { panic!("not foreign") };
    assert!(found.path.is_absolute() && found.path.ends_with("sh"));
    assert_eq!(found.root, Path::new("/pod/runtime"));
}

#[test]
fn a_handler_may_run_no_privileged_pods() {
    let strict =
        HandlerConfig { privileged: PrivilegedPolicy::Refuse, ..config("strict", HandlerKind::Builtin) };
    let handlers = Handlers::new(String::new(), vec![strict]);
    let handler = handlers.find("strict").unwrap();
    let mut pod = PodRequest::default();
    handler.check(&pod).unwrap();
    pod.privileged = true;
    assert!(handler.check(&pod).unwrap_err().to_string().contains("[runtimes.strict]"));
}
