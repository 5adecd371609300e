//! The words of which the address of a log on a broker is made.

const STREAM_NAME_MAX: usize = 64;

/// 1 to 64 of `A-Za-z0-9_-`.
pub(super) fn is_stream_name(name: &str) -> bool {
    (1..=STREAM_NAME_MAX).contains(&name.len())
        && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_' || it == b'-')
}

/// A host and, if it is said, a port; what else is in it would come to stand in a URL.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    // An address of IPv6 has colons of its own, in brackets.
    let has_port = text.rsplit_once(':').is_some_and(|(_, behind)| !behind.contains(']'));
    let (host, port) = match text.rsplit_once(':').filter(|_| has_port) {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let is_host = |it: u8| it.is_ascii_alphanumeric() || b".-_[]:".contains(&it);
    (!host.is_empty() && host.bytes().all(is_host)).then_some((host, port))
}

/// `%41` becomes `A`, as in every URL.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
