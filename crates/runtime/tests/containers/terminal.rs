//! Terminals over a console socket.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::bundle::{Bundle, bundle};

/// Takes the terminal's master end from the console socket.
fn master(listener: &UnixListener) -> std::fs::File {
    let (socket, _) = listener.accept().unwrap();
    let (length, mut descriptors) = sys::socket::receive(socket.as_fd(), &mut [0; 64]).unwrap();
    assert!(length > 0);
    descriptors.remove(0).into()
}

/// Reads until `end` was seen or the terminal is closed.
fn read_until(master: &mut std::fs::File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 512];
    while !text.contains(end) {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

fn with_terminal(bundle: &mut Bundle) -> (UnixListener, String) {
    let path = bundle.path().join("console.sock");
    bundle.config["process"]["terminal"] = true.into();
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    (UnixListener::bind(&path).unwrap(), path.to_str().unwrap().to_string())
}

#[test]
fn init_and_exec_have_controlling_terminals_of_the_containers_devpts() {
    let mut bundle = bundle!();
    let (listener, socket) = with_terminal(&mut bundle);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.shell(
        "tty; stty size; echo via-tty > /dev/tty; echo via-console > /dev/console; read line; echo got $line",
    );
    bundle.save();
    bundle.oci(&["create", "--console-socket", &socket, &bundle.id]).ok();
    let mut first = master(&listener);
    let file = bundle.path().join("process.json");
    let process = json!({
        "terminal": true, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", "tty; echo exec-via-tty > /dev/tty"],
    });
    std::fs::write(&file, process.to_string()).unwrap();
    bundle.start().ok();
    let text = read_until(&mut first, "via-console");
    assert!(text.contains("/dev/pts/0") && text.contains("33 77") && text.contains("via-tty"), "{text}");
    bundle
        .oci(&["exec", "-d", "--console-socket", &socket, "--process", file.to_str().unwrap(), &bundle.id])
        .ok();
    let text = read_until(&mut master(&listener), "exec-via-tty");
    assert!(text.contains("/dev/pts/1"), "{text}");
    first.write_all(b"words\n").unwrap();
    assert!(read_until(&mut first, "got words").contains("got words"));
}

#[test]
fn a_terminal_and_a_console_socket_go_together() {
    let mut bundle = bundle!();
    let (_listener, socket) = with_terminal(&mut bundle);
    bundle.shell("true");
    assert!(bundle.create().failed().contains("there is no console socket"));
    bundle.config["process"]["terminal"] = false.into();
    bundle.save();
    assert!(bundle.oci(&["create", "--console-socket", &socket, &bundle.id]).failed().contains("is not set"));
    bundle.config["process"]["terminal"] = true.into();
    bundle.save();
    let message = bundle.oci(&["create", "--console-socket", "/absent/socket", &bundle.id]).failed();
    assert!(message.contains("console socket /absent/socket"), "{message}");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "devpts");
    bundle.save();
    let message = bundle.oci(&["create", "--console-socket", &socket, &bundle.id]).failed();
    assert!(message.contains("needs a mount of type devpts"), "{message}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_link_at_dev_pts_or_console_is_not_followed() {
    // CVE-2025-52565: the image has something else where the terminal belongs.
    let mut bundle = bundle!();
    let (_listener, socket) = with_terminal(&mut bundle);
    let outside = bundle.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
    std::fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    std::fs::write(outside.join("target"), "untouched").unwrap();
    std::os::unix::fs::symlink(outside.join("target"), bundle.rootfs().join("dev/console")).unwrap();
    bundle.shell("true");
    bundle.save();
    let message = bundle.oci(&["create", "--console-socket", &socket, &bundle.id]).failed();
    assert!(message.contains("/dev/console: is a symbolic link"), "{message}");
    assert_eq!(std::fs::read_to_string(outside.join("target")).unwrap(), "untouched");
}
