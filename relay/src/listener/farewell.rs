//! What is said to whoever is turned away before anything of a call was read: in the language that the first bytes speak.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// For his first bytes, and for him to read what is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// What HTTP/2 calls too many of something.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Says why, and closes. Who says nothing is told nothing.
pub(super) async fn say(mut stream: TcpStream, why: &str) {
    let mut first = [0; 3];
    if !matches!(timeout(PATIENCE, stream.read_exact(&mut first)).await, Ok(Ok(_))) {
        return;
    }
    let words = if first == *b"PRI" { go_away(why) } else { too_many(why).into_bytes() };
    let said = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        // To close on bytes that were not read would take back what was said.
        let mut rest = [0; 1_024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // How it ends makes no difference: he is gone, or was told.
    let _ = timeout(PATIENCE, said).await;
}

/// The settings that begin every connection, and the frame that ends it; no call was or will be looked at.
fn go_away(why: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    let length = u32::try_from(8 + why.len()).unwrap_or(8).to_be_bytes();
    let mut frames = SETTINGS.to_vec();
    frames.extend([length[1], length[2], length[3], GOAWAY, 0, 0, 0, 0, 0]);
    frames.extend(0_u32.to_be_bytes());
    frames.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frames.extend(why.as_bytes());
    frames
}

fn too_many(why: &str) -> String {
    let body = format!(r#"{{"code":"resource_exhausted","message":"BUSY: {why}"}}"#);
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_has_the_length_that_it_says() {
        let frames = go_away("connections_max = 3");
        assert_eq!(frames.len(), 9 + 9 + 8 + 19);
        assert_eq!(frames[9..13], [0, 0, 27, 7]);
        assert!(frames.ends_with(b"connections_max = 3"));
    }

    #[test]
    fn the_answer_has_the_length_that_it_says() {
        let answer = too_many("connections_max = 3");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{answer}");
        assert_eq!(body, r#"{"code":"resource_exhausted","message":"BUSY: connections_max = 3"}"#);
    }
}
