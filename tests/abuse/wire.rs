//! HTTP by hand: whatever bytes, in whatever order, over connections that nobody looks after.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Longer than any answer here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// From an address of this machine that is not the usual one, so that it can be told from everybody else.
pub(crate) async fn connect_from(last: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field as HPACK has it when nothing is known: both texts as they are.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let mut left = text.len();
        if left < 127 {
            field.push(u8::try_from(left).expect("below 127"));
        } else {
            field.push(127);
            left -= 127;
            while left >= 128 {
                field.push(u8::try_from(left % 128).expect("seven bits") | 128);
                left /= 128;
            }
            field.push(u8::try_from(left).expect("seven bits"));
        }
        field.extend(text.as_bytes());
    }
    field
}

/// The header of a gRPC call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "relay"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

/// What begins a connection of HTTP/2, with these settings.
pub(crate) fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [name.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat())
        .collect();
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &settings)].concat()
}

/// A connection on which HTTP/2 is agreed on.
pub(crate) async fn open(last: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect_from(last, to).await?;
    stream.write_all(&opening(&[])).await?;
    // What the relay begins with: its settings, and then a larger window, before which that much may not be sent.
    let larger = [0, 0, 4, WINDOW_UPDATE];
    let mut begin = [0; 1_024];
    let mut had = 0;
    while !begin[..had].windows(larger.len()).any(|it| it == larger) {
        match stream.read(&mut begin[had..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => had += more,
        }
    }
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
    Ok(stream)
}

/// Everything up to the end of the connection, and whether it has ended. A reset is an end as well.
pub(crate) async fn rest(stream: &mut TcpStream, patience: Duration) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut part = vec![0; 64 << 10];
    let read = async {
        while let Ok(had @ 1..) = stream.read(&mut part).await {
            all.extend(&part[..had]);
        }
    };
    let ended = timeout(patience, read).await.is_ok();
    (all, ended)
}

/// Whether the relay closes it within that time.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> bool {
    rest(stream, PATIENCE).await.1
}

/// The reason and the words of the frame that ended a connection.
pub(crate) fn goodbye(bytes: &[u8]) -> Option<(u32, String)> {
    let mut left = bytes;
    let mut found = None;
    while let Some((head, behind)) = left.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, behind) = behind.split_at_checked(length)?;
        if head[3] == GOAWAY {
            let reason = u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"));
            found = Some((reason, String::from_utf8_lossy(&payload[8..]).into_owned()));
        }
        left = behind;
    }
    found
}

/// A call in JSON over HTTP/1.1 whose body says this length and is as long as it is.
pub(crate) fn json(path: &str, more: &str, length: usize, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n{body}"
    )
}
