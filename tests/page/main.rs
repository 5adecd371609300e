//! The page of the admin port, in a browser, on a real relay with members.

mod browser;
mod fleet;
#[allow(dead_code, reason = "here nobody kills the relay or freezes it")]
#[path = "../processes/relay.rs"]
mod relay;
mod replay;

use std::fs;

use browser::{Browser, Seen};
use fleet::Fleet;
use relay::{Outcome, RelayProcess};

const DESK: (u32, u32) = (1_200, 1_300);
const PHONE: (u32, u32) = (390, 844);

/// What is true of the page whatever it shows.
fn assert_sound(seen: &Seen, url: &str) {
    assert_eq!(seen.console, [""; 0], "the console is silent");
    assert!(
        seen.asked.iter().all(|it| it.starts_with(url)),
        "it asks nobody but the relay: {:?}",
        seen.asked
    );
    for path in ["page.css", "page.js", "state.json?from=0"] {
        assert!(seen.asked.contains(&format!("{url}{path}")), "{path} is not in {:?}", seen.asked);
    }
}

/// The picture in the README is one that this test took: `DORMOUSE_PICTURES=folder` keeps them.
fn keep(seen: &Seen, name: &str) -> Outcome {
    if let Some(folder) = std::env::var_os("DORMOUSE_PICTURES") {
        fs::copy(&seen.picture, std::path::Path::new(&folder).join(name))?;
    }
    let picture = fs::read(&seen.picture)?;
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() > 10_000,
        "{} bytes are no picture",
        picture.len()
    );
    Ok(())
}

/// Long enough for members to stay as they are while the browser looks.
const STEADY: [(&str, &str); 1] = [("DORMOUSE_AWAKE_LEASE_MS", "60000")];

/// Waits until the relay has that many samples: of fewer no curve can be drawn.
async fn remembers(relay: &RelayProcess, samples: usize) -> Outcome {
    for _ in 0..600 {
        if relay.get("/state.json")?.matches("\"at\":").count() >= samples {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err("the relay takes no samples".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_members_that_the_relay_counts() -> Outcome {
    let Some(browser) = Browser::find() else { return Ok(()) };
    let relay = RelayProcess::start(&STEADY)?;
    let mut fleet = Fleet::of(&relay.url());
    fleet.add("checkout", 2, 5).await?;
    fleet.add("thumbnails", 1, 9).await?;
    fleet.invoke(3).await?;
    remembers(&relay, 3).await?;
    let url = relay.admin_url();
    let seen = tokio::task::block_in_place(|| browser.look(&url, DESK, false))?;
    let counted = fleet.counted().await?;
    assert_eq!(counted, [3, 14, 0]);
    for (state, number) in ["awake", "asleep", "suspect"].into_iter().zip(counted) {
        assert_eq!(seen.text(&format!("data-now=\"{state}\""))?, number.to_string(), "{state}");
    }
    assert_eq!(seen.text("id=\"serving\"")?, "serving");
    assert!(seen.is_hidden("id=\"nobody\"")? && seen.is_hidden("id=\"lost\"")?);
    for group in ["checkout", "thumbnails"] {
        assert!(seen.dom.contains(&format!("data-group=\"default/{group}\"")), "{group} is not listed");
    }
    assert!(seen.dom.contains("<path class=\"asleep\""), "the fleet is drawn");
    assert_sound(&seen, &url);
    keep(&seen, "desk.png")?;
    let seen = tokio::task::block_in_place(|| browser.look(&url, PHONE, true))?;
    assert_eq!(seen.text("data-now=\"asleep\"")?, "14");
    assert_sound(&seen, &url);
    keep(&seen, "phone.png")
}

#[test]
fn a_relay_without_members_says_how_one_comes_to_be() -> Outcome {
    let Some(browser) = Browser::find() else { return Ok(()) };
    let relay = RelayProcess::start(&STEADY)?;
    let url = relay.admin_url();
    let seen = browser.look(&url, DESK, false)?;
    assert!(!seen.is_hidden("id=\"nobody\"")? && seen.is_hidden("id=\"groups-card\"")?);
    assert!(seen.text("id=\"nobody\"")?.starts_with("No members yet: "));
    assert_sound(&seen, &url);
    keep(&seen, "empty.png")
}

#[test]
fn a_relay_that_answers_no_more_is_said_to_be_gone() -> Outcome {
    let Some(browser) = Browser::find() else { return Ok(()) };
    let relay = RelayProcess::start(&STEADY)?;
    // The page comes whole and is told the state once; then whoever answers hangs up.
    let stage = replay::Stage::of(&relay, 1)?;
    let seen = browser.look(&stage.url(), DESK, false)?;
    assert!(!seen.is_hidden("id=\"lost\"")?);
    assert!(
        seen.text("id=\"lost\"")?.starts_with("The relay has not answered for "),
        "{}",
        seen.text("id=\"lost\"")?
    );
    assert_eq!(seen.text("id=\"serving\"")?, "no answer");
    assert!(seen.dom.contains("<body class=\"lost\""));
    keep(&seen, "lost.png")
}

#[test]
fn neither_the_page_nor_the_state_tells_a_secret() -> Outcome {
    let token = "dm_5ae3c0ffee5ae3c0ffee5ae3c0ffee5ae3c0ffee5ae3c0ffee5ae3c0ffee5ae3";
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let dir = tempfile::tempdir()?;
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("sha256:{hash} shop node\n"))?;
    let tokens = tokens.to_str().ok_or("a path in UTF-8")?;
    let relay = RelayProcess::start(&[("DORMOUSE_TOKENS_FILE", tokens)])?;
    for path in ["/", "/page.js", "/state.json", "/metrics", "/readyz"] {
        let page = relay.get(path)?;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {page}");
        assert!(
            !page.contains(token) && !page.contains(&hash[..16]) && !page.contains(tokens),
            "{path}: {page}"
        );
    }
    Ok(())
}
