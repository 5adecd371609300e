//! `top`: asks, shows, waits, and asks again.

use std::time::Duration;

use dormouse::{MemberFilter, Reason, Relay};

use crate::{
    args::Who,
    failure::Failure,
    members::now,
    screen::Screen,
    show::fleet::{
        self, Fleet, Rates, json,
        lines::{self, Size},
    },
    terminal::{self, Canvas},
};

const PERIOD: Duration = Duration::from_secs(1);
/// How often in a row the relay may fail to answer: it needs a moment to start anew.
const RETRIES: u32 = 30;

/// On a terminal until it is ended, unless `once`; elsewhere once, unless it is said how often.
pub(crate) async fn run(
    screen: Screen,
    relay: &Relay,
    who: Who,
    every: Option<Duration>,
    once: bool,
) -> Result<(), Failure> {
    let filter = who.into();
    let repeats = !once && (every.is_some() || terminal::size().is_some());
    // What fails at once is told on the page that the command was written on.
    let mut fleet = ask(relay, &filter, None).await?;
    let is_drawn = repeats && !screen.json && terminal::size().is_some();
    let mut canvas = is_drawn.then(Canvas::open).transpose()?;
    let mut lost = 0;
    loop {
        show(screen, canvas.as_ref(), &fleet)?;
        if !repeats {
            return Ok(());
        }
        let period = every.unwrap_or(PERIOD);
        match &mut canvas {
            Some(canvas) => canvas.wait(period).await?,
            None => tokio::time::sleep(period).await,
        }
        match ask(relay, &filter, Some(&fleet)).await {
            Ok(newer) => (fleet, lost) = (newer, 0),
            Err(reason) if passes(&reason) && lost < RETRIES => {
                (fleet.now, fleet.lost) = (now(), Some(reason.to_string()));
                lost += 1;
            }
            Err(reason) => return Err(reason.into()),
        }
        if canvas.is_none() {
            screen.text("")?;
        }
    }
}

/// Whether asking again in a moment may help.
fn passes(reason: &Reason) -> bool {
    match reason {
        Reason::NotReached(_) => true,
        Reason::Refused { word, .. } => {
            matches!(word.as_str(), "STARTING" | "BUSY" | "BEHIND" | "LOG_UNREACHABLE")
        }
        _ => false,
    }
}

/// Counts come from the relay as counts; members are asked for as far as there is room to show them.
async fn ask(relay: &Relay, filter: &MemberFilter, earlier: Option<&Fleet>) -> Result<Fleet, Reason> {
    let (info, counts, taught) = tokio::try_join!(
        relay.info(),
        relay.count(filter, &fleet::BY),
        relay.count(filter, &fleet::BY_GROUP)
    )?;
    let asked_at = now();
    let mut fleet = Fleet {
        asked_at,
        now: asked_at,
        lost: None,
        rates: earlier.and_then(|earlier| Rates::between(&earlier.relay, &info)),
        relay: info,
        groups: fleet::groups(&counts, &taught),
        members: Vec::new(),
    };
    let room = lines::room(&fleet, room_now());
    for state in fleet.worst_states(room) {
        let of_state = MemberFilter { states: vec![state], ..filter.clone() };
        let at_most = fleet::LOOKED_AT.max(u32::try_from(room).unwrap_or(u32::MAX));
        fleet.members.extend(relay.first_members(&of_state, at_most).await?);
    }
    fleet.members = fleet::worst_first(fleet.members);
    fleet.members.truncate(room);
    Ok(fleet)
}

/// Asked for each picture: a window may have another size by now.
fn room_now() -> Size {
    terminal::size().unwrap_or(Size::PAPER)
}

fn show(screen: Screen, canvas: Option<&Canvas>, fleet: &Fleet) -> Result<(), Failure> {
    let size = room_now();
    let lines = lines::lines(fleet, size);
    match canvas {
        Some(canvas) => canvas.draw(&lines, size),
        None if screen.json => screen.show("", &json::of_fleet(fleet)),
        None => lines.iter().try_for_each(|line| screen.text(&line.text)),
    }
}
