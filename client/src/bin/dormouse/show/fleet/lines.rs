//! A fleet for people: lines that fit a terminal.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use dormouse::{Member, MemberState};

use super::{Fleet, Group, LOOKED_AT, UPTIME};
use crate::show::{
    age,
    condition::meaning,
    durability, length, member, table,
    width::{columns, cut},
};

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Size {
    /// Of what is no terminal: nothing is cut, but a fleet of a hundred thousand is no list.
    pub(crate) const PAPER: Self = Self { columns: usize::MAX, rows: 120 };
}

/// What a line is, so that a terminal may set it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Heading,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl Line {
    fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

/// No name may push the columns behind it off the screen.
const NAME_COLUMNS: usize = 24;
/// Between the parts of the first line.
const GAP: &str = "   ";

/// The fleet in at most `size.rows` lines of at most `size.columns` columns. Who is left out is counted.
pub(crate) fn lines(fleet: &Fleet, size: Size) -> Vec<Line> {
    let mut lines = head(fleet, size.columns);
    let total = fleet.living().total();
    if total == 0 {
        lines.push(Line::new(Tone::Plain, "no members"));
    } else {
        let layout = Layout::new(fleet, size);
        if let Some(groups) = layout.groups {
            let shown: Vec<&Group> = fleet.groups.iter().take(groups).collect();
            lines.push(Line::new(Tone::Plain, ""));
            lines.extend(group_table(&shown));
            lines.extend(more(fleet.groups.len() - shown.len(), "group"));
        }
        let shown: Vec<&Member> = fleet.members.iter().take(layout.members).collect();
        let hidden = usize::try_from(total).unwrap_or(usize::MAX).saturating_sub(shown.len());
        lines.push(Line::new(Tone::Plain, ""));
        lines.extend(member_table(&shown, fleet.now));
        lines.extend(more(hidden, "member").map(|line| in_part(fleet, line)));
    }
    lines.truncate(size.rows);
    for line in &mut lines {
        line.text = cut(&line.text, size.columns);
    }
    lines
}

/// How many members [`lines`] would show.
pub(crate) fn room(fleet: &Fleet, size: Size) -> usize {
    Layout::new(fleet, size).members
}

/// A blank line and a heading.
const TABLE_BEGINS: usize = 2;
/// With fewer lines than that for both tables, only the members have one.
const TABLES_ROWS: usize = 4;

/// How many lines of each table are shown.
struct Layout {
    /// `None`: that table has no room at all.
    groups: Option<usize>,
    members: usize,
}

impl Layout {
    /// Groups get half of the room, and what the members do not need.
    fn new(fleet: &Fleet, size: Size) -> Self {
        let below = size.rows.saturating_sub(head(fleet, size.columns).len());
        let members = usize::try_from(fleet.living().total()).unwrap_or(usize::MAX);
        // The last line of a table that is cut says how much is missing.
        let fit = |wanted: usize, room: usize| if wanted <= room { wanted } else { room.saturating_sub(1) };
        let room = below.saturating_sub(2 * TABLE_BEGINS);
        if room < TABLES_ROWS {
            return Self { groups: None, members: fit(members, below.saturating_sub(TABLE_BEGINS)) };
        }
        let for_groups = fleet.groups.len().min((room / 2).max(room.saturating_sub(members)));
        let groups = fit(fleet.groups.len(), for_groups);
        Self { groups: Some(groups), members: fit(members, room - for_groups) }
    }
}

fn more(hidden: usize, what: &str) -> Option<Line> {
    let plural = if hidden == 1 { "" } else { "s" };
    (hidden > 0).then(|| Line::new(Tone::Plain, format!("and {hidden} more {what}{plural}")))
}

/// Where the worst may be among those who were not looked at, it says so.
fn in_part(fleet: &Fleet, mut line: Line) -> Line {
    if fleet.is_looked_at_in_part() {
        // Writing to a text cannot fail.
        let _ = write!(line.text, ": of each state {LOOKED_AT} were looked at, `dormouse members` lists all");
    }
    line
}

/// The sums, and whatever makes them doubtful.
fn head(fleet: &Fleet, at_most: usize) -> Vec<Line> {
    let living = fleet.living();
    let counts = format!(
        "{} awake  {} asleep  {} suspect  ({} expected alive)",
        living.awake,
        living.asleep,
        living.suspect,
        expected(living.expected_alive)
    );
    let revision = format!("revision {}, {}", fleet.relay.revision, durability(fleet.relay.durability));
    let parts = [Some(counts), doings(fleet), Some(revision)];
    let mut lines = packed(parts.into_iter().flatten(), at_most);
    if let Some(why) = &fleet.lost {
        let since = length(fleet.now.duration_since(fleet.asked_at).unwrap_or_default());
        lines.push(Line::new(Tone::Warning, format!("this is how it was {since} ago: {why}")));
    }
    let condition = |word: &String| Line::new(Tone::Warning, format!("{word}: {}", meaning(word)));
    lines.extend(fleet.relay.conditions.iter().map(condition));
    lines
}

/// As many parts in a line as fit.
fn packed(parts: impl Iterator<Item = String>, at_most: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(last) if columns(&last.text) + GAP.len() + columns(&part) <= at_most => {
                last.text.push_str(GAP);
                last.text.push_str(&part);
            }
            _ => lines.push(Line::new(Tone::Plain, part)),
        }
    }
    lines
}

/// What the relay has to do, for all namespaces: rates, or at first what it has done since it started.
fn doings(fleet: &Fleet) -> Option<String> {
    let counters = &fleet.relay.counters;
    let since = age(Duration::from_millis(*counters.get(UPTIME)?));
    let doing = |name: &str| match &fleet.rates {
        Some(rates) => format!("{} {name}/s", rate(rates.0.get(name).copied().unwrap_or_default())),
        None => format!("{} {name}", counters.get(name).copied().unwrap_or_default()),
    };
    let deaths = match counters.get("false_deaths").copied().unwrap_or_default() {
        1 => "1 false death".to_owned(),
        deaths => format!("{deaths} false deaths"),
    };
    let (joins, pushes) = (doing("joins"), doing("pushes"));
    Some(format!("relay: {joins}  {pushes}  {deaths} since it started {since} ago"))
}

fn rate(it: f64) -> String {
    if it > 0.0 && it < 10.0 { format!("{it:.1}") } else { format!("{it:.0}") }
}

/// Among few, a tenth is worth a word.
fn expected(it: f64) -> String {
    let tenths = if it < 100.0 { format!("{it:.1}") } else { format!("{it:.0}") };
    tenths.strip_suffix(".0").map_or_else(|| tenths.clone(), str::to_owned)
}

fn group_table(groups: &[&Group]) -> Vec<Line> {
    let heading =
        ["GROUP", "AWAKE", "ASLEEP", "SUSPECT", "EXPECTED", "WAKE GAP P50/P99", "LEASE", "VERSIONS"];
    let cells = |group: &&Group| {
        let taught = group.taught.as_ref();
        let gaps = taught.and_then(|it| it.wake_gap_p50.zip(it.wake_gap_p99));
        let versions = group.versions.iter().map(|(name, members)| {
            let name = if name.is_empty() { "(none)" } else { name.as_str() };
            format!("{name}: {members}")
        });
        vec![
            cut(&group.name, NAME_COLUMNS),
            group.living.awake.to_string(),
            group.living.asleep.to_string(),
            group.living.suspect.to_string(),
            expected(group.living.expected_alive),
            gaps.map_or_else(dash, |(p50, p99)| format!("{} / {}", length(p50), length(p99))),
            taught.and_then(|it| it.asleep_lease).map_or_else(dash, length),
            versions.collect::<Vec<_>>().join("  "),
        ]
    };
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(cells));
    toned(table(&rows, &[1, 2, 3, 4, 5, 6]), |_| Tone::Plain)
}

fn member_table(members: &[&Member], now: SystemTime) -> Vec<Line> {
    let heading = ["NODE", "GROUP", "REGION", "STATE", "AGE", "P_ALIVE", "BEHIND", "PUSHES"];
    let cells = |it: &&Member| {
        let seen = it.last_seen.map(|at| now.duration_since(at).unwrap_or_default());
        vec![
            it.node_id.clone(),
            cut(&it.group, NAME_COLUMNS),
            it.tags.get("region").map_or_else(dash, |region| cut(region, NAME_COLUMNS)),
            member::state(it.state).to_owned(),
            seen.map_or_else(dash, age),
            format!("{:.2}", it.p_alive),
            it.behind.to_string(),
            it.pushes.to_string(),
        ]
    };
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(members.iter().map(cells));
    toned(table(&rows, &[4, 5, 6, 7]), |row| match members[row].state {
        MemberState::Suspect => Tone::Warning,
        _ => Tone::Plain,
    })
}

/// A heading, and rows of the tone that `of_row` says by their number.
fn toned(table: Vec<String>, of_row: impl Fn(usize) -> Tone) -> Vec<Line> {
    let line = |(number, text): (usize, String)| {
        let tone = number.checked_sub(1).map_or(Tone::Heading, &of_row);
        Line::new(tone, text)
    };
    table.into_iter().enumerate().map(line).collect()
}

fn dash() -> String {
    "-".to_owned()
}
