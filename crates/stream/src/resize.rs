//! Sizes of a terminal as clients send them: `{"Width":80,"Height":24}`, one after the other.

use serde_json::{Deserializer, Value};

use crate::channel::Inbound;
use crate::{Control, TerminalSize};

/// One size is some 40 bytes.
const MAX_SIZE: usize = 4 * 1024;

/// Gives the terminal the sizes that come, in their order; of those that come at once the last.
pub(crate) async fn follow(mut from: Inbound, control: &dyn Control) {
    let mut buffer = vec![0; MAX_SIZE];
    let mut filled = 0;
    let mut current = None;
    while let Ok(count @ 1..) = from.read(&mut buffer[filled..]).await {
        filled += count;
        let (size, used) = last_size(&buffer[..filled]);
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if let Some(size) = size
            && current != Some(size)
        {
            control.resize(size);
            current = Some(size);
        }
        if filled == buffer.len() {
            tracing::debug!("a client's terminal sizes make no sense, and are followed no more");
            return;
        }
    }
}

/// The last whole size in a buffer, and how much of the buffer is done with.
fn last_size(buffer: &[u8]) -> (Option<TerminalSize>, usize) {
    let mut values = Deserializer::from_slice(buffer).into_iter::<Value>();
    let mut last = None;
    let mut used = 0;
    loop {
        match values.next() {
            Some(Ok(value)) => {
                last = size(&value).or(last);
                used = values.byte_offset();
            }
            // What is begun may be ended by what comes next.
            Some(Err(error)) if error.is_eof() => return (last, used),
            // What is wrong is passed over with all that is there.
            Some(Err(_)) => return (last, buffer.len()),
            None => return (last, buffer.len()),
        }
    }
}

fn size(value: &Value) -> Option<TerminalSize> {
    let number = |name| u16::try_from(value.get(name)?.as_u64()?).ok().filter(|number| *number > 0);
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(buffer: &str) -> (Option<(u16, u16)>, usize) {
        let (size, used) = last_size(buffer.as_bytes());
        (size.map(|size| (size.width, size.height)), used)
    }

    #[test]
    fn the_last_whole_size_counts() {
        let one = "{\"Width\":80,\"Height\":24}\n";
        assert_eq!(found(one), (Some((80, 24)), one.len()));
        assert_eq!(found(&format!("{one}{{\"Width\":1,\"Height\":2}}")), (Some((1, 2)), one.len() + 22));
        assert_eq!(found(&format!("{one}{{\"Width\":1,")), (Some((80, 24)), one.len() - 1));
        assert_eq!(found("{\"Wid"), (None, 0));
        assert_eq!(found(""), (None, 0));
    }

    #[test]
    fn what_is_no_size_is_passed_over() {
        for wrong in [
            "{\"Width\":0,\"Height\":24}",
            "{\"Width\":80}",
            "{\"Width\":70000,\"Height\":1}",
            "[1]",
            "{\"Width\":-1,\"Height\":1}",
            "hello",
        ] {
            assert_eq!(found(wrong), (None, wrong.len()), "{wrong}");
        }
    }
}
