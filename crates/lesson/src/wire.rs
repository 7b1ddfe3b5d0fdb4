//! What the client of an experiment says and reads beside plain replies: events and messages, and
//! the number that each of them carries.

use rig::client::{Client, Failed};

/// The key of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The head of a masked text frame of up to 125 bytes (RFC 6455 section 5.2), whose mask of zeros
/// leaves the text as it is: there is no proxy here from which a mask would protect.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];

/// Asks for a WebSocket, with these further fields. Returns the status.
pub(crate) fn upgrade(client: &mut Client, path: &str, fields: &str) -> Result<u16, Failed> {
    let fields = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n{fields}"
    );
    client.ask(path, &fields)?;
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
    client.until(|input| {
        let (&[first, length], rest) = match input.split_first_chunk() {
            Some(parts) => parts,
            None => return Ok(None),
        };
        if first != TEXT || length > 125 {
            return Err(format!("no short text came but a frame of type {:x}", first & 0xf));
        }
        let text = rest.get(..usize::from(length));
        let text = text.map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(text.map(|text| (2 + usize::from(length), text)))
    })
}

/// A text of up to 125 bytes as a client sends it.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    [&[TEXT, MASKED | text.len() as u8][..], &MASK, text.as_bytes()].concat()
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
        assert_eq!(frame("hi"), b"\x81\x82\0\0\0\0hi");
    }
}
