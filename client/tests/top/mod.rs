//! `top`: one snapshot, and what is drawn on a terminal.

pub(crate) mod terminal;

use std::time::Duration;

use rustix::process::Signal;
use terminal::Terminal;

use crate::{World, signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_top_shows_the_sums_the_groups_and_the_members() {
    let world = World::start().await;
    let awake = world.builder("ads").tag("version", "17").build().expect("valid");
    let awake = awake.wake(Duration::from_secs(60)).await;
    let asleep = world.node("mail").wake(Duration::from_secs(60)).await;
    let _ = asleep.sleep().await;
    let ids: Vec<String> = world.json(&["members"]).await.iter().map(|it| it["nodeId"].to_string()).collect();

    // The lease of whoever is awake is short, and a busy machine slow.
    let stay = async || awake.beat().await.expect("reached");
    stay().await;
    let top = world.says(&["top", "--once"]).await;
    assert!(top.starts_with("1 awake  1 asleep  0 suspect  ("), "{top}");
    assert!(top.lines().next().is_some_and(|sums| sums.ends_with(", fsync")), "{top}");
    assert!(top.contains("\nGROUP  AWAKE  ASLEEP  SUSPECT  EXPECTED  "), "{top}");
    assert!(top.lines().any(|row| row.starts_with("ads ") && row.ends_with("17: 1")), "{top}");
    // What is no terminal gets one snapshot, and whoever is awake stands before whoever sleeps.
    stay().await;
    // Rates need a second look; one snapshot has what was counted so far.
    assert!(top.contains("   relay: 2 joins  0 pushes  0 false deaths since it started "), "{top}");
    let rows: Vec<String> = world.says(&["top"]).await.lines().map(str::to_owned).collect();
    let members = rows.iter().skip_while(|row| !row.starts_with("NODE ")).skip(1);
    let states: Vec<_> = members.map(|row| row.split_whitespace().nth(3).map(str::to_owned)).collect();
    assert_eq!(states, [Some("AWAKE".to_owned()), Some("ASLEEP".to_owned())], "{rows:?}");

    stay().await;
    let [top] = &world.json(&["top", "--once"]).await[..] else { panic!("one object") };
    assert_eq!((&top["totals"]["awake"], &top["totals"]["asleep"]), (&1.into(), &1.into()));
    let mut shown: Vec<String> =
        top["members"].as_array().expect("members").iter().map(|it| it["nodeId"].to_string()).collect();
    shown.sort_unstable();
    assert_eq!((shown, &top["moreMembers"]), (ids, &0.into()));
    let [mail] = &world.json(&["top", "--group", "mail"]).await[..] else { panic!("one object") };
    assert_eq!((&mail["totals"]["awake"], &mail["totals"]["asleep"]), (&0.into(), &1.into()));
    assert_eq!(mail["groups"].as_array().map(Vec::len), Some(1));
    assert!(world.says(&["top", "--tags", "zone=b"]).await.ends_with("\nno members\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_redraws_in_place_and_gives_the_terminal_back() {
    const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
    const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
    const HOME: &str = "\x1b[H";
    let world = World::start().await;
    // Whoever sleeps stays so for longer than this takes; an awake lease is short.
    let join = async |group: &str| world.node(group).wake(Duration::from_secs(60)).await.sleep().await;
    let _ = join("ads").await;
    for (ending, group) in [(Signal::INT, "mail"), (Signal::TERM, "news")] {
        let (mut terminal, side) = Terminal::open(100, 30);
        let mut top = world.command(&["top"]);
        let mut child = top.env("TERM", "xterm").env("NO_COLOR", "1").stdout(side).spawn().expect("it runs");
        // It holds the program's side of the terminal, which would never end.
        drop(top);
        terminal.until(|text| text.contains("\n\x1b[Kads ")).await;
        assert!(terminal.text.starts_with(&format!("{ENTER}{HOME}\x1b[K0 awake ")), "{:?}", terminal.text);
        let _ = join(group).await;
        terminal.until(|text| text.contains(&format!("\n\x1b[K{group} "))).await;

        terminal.resize(40, 8);
        let before = terminal.text.matches(HOME).count();
        // The first of three may have been begun before, the second is whole when the third begins.
        terminal.until(|text| text.matches(HOME).count() == before + 3).await;
        let picture = terminal.text.rsplit(HOME).nth(1).expect("the second");
        // The terminal itself puts another `\r` before each `\n`.
        let row = |row: &str| row.trim_end_matches('\r').replace("\x1b[K", "").replace("\x1b[J", "");
        let rows: Vec<String> = picture.split('\n').map(row).collect();
        assert!(rows.len() <= 8 && rows.iter().all(|row| row.chars().count() <= 40), "{rows:?}");

        signal(&child, Signal::TSTP).expect("it runs");
        terminal.until(|text| text.ends_with(LEAVE)).await;
        // It may not have stopped yet, and to go on means nothing to what runs.
        let go_on = || signal(&child, Signal::CONT).expect("it runs");
        terminal
            .until_asked(go_on, |text| text.rsplit(ENTER).next().is_some_and(|it| it.starts_with(HOME)))
            .await;

        signal(&child, ending).expect("it runs");
        terminal.read_to_end().await;
        assert!(terminal.text.ends_with(LEAVE), "{:?}", terminal.text);
        assert_eq!((terminal.text.matches(ENTER).count(), terminal.text.matches(LEAVE).count()), (2, 2));
        assert_eq!(child.wait().await.expect("its end is known").code(), Some(0));
    }
}
