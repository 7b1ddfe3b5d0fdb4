//! What the client of an experiment says and reads beside plain replies: events and messages, and
//! the number that each of them carries.

use rig::client::{Client, Failed};
use witness::websocket::{Frame, Opcode, opening_fields};

/// Largest frame of a message that is read, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Asks for a WebSocket, with these further fields. Returns the status.
pub(crate) fn upgrade(client: &mut Client, path: &str, fields: &str) -> Result<u16, Failed> {
    client.ask(path, &format!("{}{fields}", opening_fields()))?;
    Ok(client.head()?.status)
}

/// As [`upgrade`], where nothing but a WebSocket will do.
pub(crate) fn websocket(mut client: Client, path: &str) -> Result<Client, Failed> {
    match upgrade(&mut client, path, "")? {
        101 => Ok(client),
        status => Err(format!("{path} was answered with status {status}").into()),
    }
}

/// A whole reply: its status, and the number of the message in its body, if there is one.
pub(crate) fn news(client: &mut Client) -> Result<(u16, Option<u64>), Failed> {
    let head = client.head()?;
    let length = head.length.filter(|_| head.status != 304).unwrap_or(0);
    let body = client.body(length)?;
    Ok((head.status, number(&body)))
}

/// The number of the next event, a chunk of its own (RFC 9112 section 7.1).
pub(crate) fn event(client: &mut Client) -> Result<u64, Failed> {
    let end = |input: &[u8]| input.windows(4).position(|bytes| bytes == b"\n\n\r\n");
    let chunk = client.until(|input| Ok(end(input).map(|at| (at + 4, input[..at].to_vec()))))?;
    let data = chunk.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let data = data.strip_prefix(b"data: ").unwrap_or_default();
    Ok(number(data).ok_or_else(|| format!("no event: {}", chunk.escape_ascii()))?)
}

/// The next text of a WebSocket.
pub(crate) fn message(client: &mut Client) -> Result<String, Failed> {
    let frame = client.until(|input| Frame::parse(input, MESSAGE_BYTES_MAX))?;
    match frame.opcode {
        Opcode::Text if frame.is_final => Ok(String::from_utf8_lossy(&frame.payload).into_owned()),
        other => Err(format!("no text in one frame came but {other:?}").into()),
    }
}

/// The number of a message.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim_end().strip_prefix("tick ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_message_is_behind_its_word() {
        assert_eq!(number(b"tick 17\n"), Some(17));
        assert_eq!(number(b"tack 17"), None);
    }
}
