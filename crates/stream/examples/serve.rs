//! Serves streams of this very host, for trying clients: each line on standard input, such as `exec iot sh -c 'exit 3'`, `attach io` or
//! `forward 80 443`, is answered with a URL. The letters are `i`, `o`, `e` for the streams and `t` for a terminal.

#[path = "../tests/support/backend.rs"]
mod backend;

use std::sync::Arc;

use stream::{Attach, Config, Exec, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    let server = Server::start(Config::default(), Arc::new(backend::Host::default()))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let has = |letter| words.get(1).is_some_and(|letters| letters.contains(letter));
        let (terminal, stdin, stdout, stderr) = (has('t'), has('i'), has('o'), has('e'));
        let rest = words.get(2).copied().unwrap_or("true").to_owned();
        let url = match words[0] {
            "exec" => {
                let command = vec!["/bin/sh".into(), "-c".into(), rest];
                server.exec_url(Exec { container: "c".into(), command, terminal, stdin, stdout, stderr })?
            }
            "attach" => server.attach_url(Attach { container: rest, terminal, stdin, stdout, stderr })?,
            _ => {
                let ports = line.split(' ').skip(1).map(str::parse).collect::<Result<_, _>>()?;
                server.port_forward_url("pod".into(), ports)?
            }
        };
        println!("{url}");
    }
    Ok(())
}
