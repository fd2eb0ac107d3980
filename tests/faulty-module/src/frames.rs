//! Frames that the module writes to the parent itself, as the worker's code would.

use std::sync::Mutex;

/// The first message that was signed, and its signature.
static FIRST: Mutex<Option<(Vec<u8>, Vec<u8>)>> = Mutex::new(None);

/// Sends bytes on every socket of the process; whatever is no socket refuses them.
pub(crate) fn send(bytes: &[u8]) {
    for descriptor in 3..32 {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: the bytes are there.
            let sent = unsafe { libc::send(descriptor, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
            let Ok(sent @ 1..) = usize::try_from(sent) else { break };
            rest = &rest[sent..];
        }
    }
}

fn send_frame(body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a length of 32 bits").to_be_bytes();
    send(&[&length, body].concat());
}

/// Sends each line of a file as a frame.
pub(crate) fn send_file() {
    let path = std::env::var("FAULTY_FRAMES").expect("FAULTY_FRAMES");
    let text = std::fs::read_to_string(path).expect("FAULTY_FRAMES can be read");
    text.lines().for_each(|line| send_frame(line.as_bytes()));
}

/// Remembers the first signed message.
pub(crate) fn remember(message: &[u8], signature: &[u8]) {
    FIRST.lock().unwrap().get_or_insert_with(|| (message.to_vec(), signature.to_vec()));
}

/// Sends the first signed message as the answer to another request, and never returns.
pub(crate) fn repeat() {
    let first = FIRST.lock().unwrap().clone();
    if let Some((message, signature)) = first {
        let (message, signature) = (base64(&message), base64(&signature));
        send_frame(format!(r#"{{"Signed":{{"message":"{message}","signature":"{signature}"}}}}"#).as_bytes());
        crate::hang();
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        let digit = |at: usize| match at <= group.len() {
            true => char::from(DIGITS[number >> (18 - 6 * at) & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
