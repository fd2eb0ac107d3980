//! Frames that the module writes to the parent, in the worker's format.

use std::sync::Mutex;

/// The first signed message, in its frame.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Sends bytes on the first socket of the process: the worker may have a copy of it. Other descriptors refuse them.
pub(crate) fn send(bytes: &[u8]) {
    for descriptor in 3..32 {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: the bytes are there.
            let sent = unsafe { libc::send(descriptor, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
            let Ok(sent @ 1..) = usize::try_from(sent) else { break };
            rest = &rest[sent..];
        }
        if rest.is_empty() {
            return;
        }
    }
}

fn send_frame(body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a length of 32 bits").to_be_bytes();
    send(&[b"M", &length[..], body].concat());
}

/// Sends each line of a file as a frame.
pub(crate) fn send_file() {
    let path = std::env::var("FAULTY_FRAMES").expect("FAULTY_FRAMES");
    let text = std::fs::read_to_string(path).expect("FAULTY_FRAMES can be read");
    text.lines().for_each(|line| send_frame(line.as_bytes()));
}

/// The file with the first frame of all processes.
fn shared_file() -> String {
    std::env::var("FAULTY_LOG").expect("FAULTY_LOG") + ".first"
}

/// Remembers the first signed message, as the frame that carries it.
pub(crate) fn remember(message: &[u8], signature: &[u8]) {
    let (message, signature) = (base64(message), base64(signature));
    let frame = format!(r#"{{"Signed":{{"message":"{message}","signature":"{signature}"}}}}"#);
    let mut first = FIRST.lock().unwrap();
    if first.is_none() && !std::fs::exists(shared_file()).unwrap() {
        std::fs::write(shared_file(), &frame).unwrap();
    }
    first.get_or_insert(frame);
}

/// Sends the first signed message, of this process or `of_all`, as the reply to another request. Never returns.
pub(crate) fn repeat(of_all: bool) {
    let own = FIRST.lock().unwrap().clone();
    if let Some(frame) = own.or_else(|| std::fs::read_to_string(shared_file()).ok().filter(|_| of_all)) {
        send_frame(frame.as_bytes());
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
