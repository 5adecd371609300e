//! What people and programs are shown. Everything here is pure.

pub(crate) mod condition;
pub(crate) mod fleet;
pub(crate) mod json;
pub(crate) mod member;
pub(crate) mod rows;
mod width;

use std::time::Duration;

use dormouse::Durability;

/// Lines of a table: columns as wide as their widest cell, the numbers of `right` flush right, no trailing blanks.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| width::columns(it)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let blanks = " ".repeat(width - width::columns(cell));
            if right.contains(&column) { blanks + cell } else { cell.clone() + &blanks }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A length of time in its largest unit, a tenth of a second below ten of them.
pub(crate) fn length(it: Duration) -> String {
    match it.as_secs() {
        0..10 => format!("{:.1}s", it.as_secs_f64()),
        _ => age(it),
    }
}

/// A length of time in its largest unit.
pub(crate) fn age(it: Duration) -> String {
    let seconds = it.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(crate) fn durability(it: Durability) -> &'static str {
    match it {
        Durability::Fsync => "fsync",
        Durability::Majority => "majority",
        Durability::PageCache => "page_cache",
        _ => "unknown durability",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = table(&[row(["NODE", "SINCE", "TAGS"]), row(["ads-2k9f", "2s", ""])], &[1]);
        assert_eq!(lines, ["NODE      SINCE  TAGS", "ads-2k9f     2s"]);
        let lines = table(&[row(["東", "1", "x"]), row(["abc", "2", "y"])], &[]);
        assert_eq!(lines, ["東   1  x", "abc  2  y"]);
    }

    #[test]
    fn times_have_one_unit() {
        let shown = |ms| (age(Duration::from_millis(ms)), length(Duration::from_millis(ms)));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(shown(2_140), pair("2s", "2.1s"));
        assert_eq!(shown(119_999), pair("119s", "119s"));
        assert_eq!(shown(600_000), pair("10m", "10m"));
        assert_eq!(shown(7_200_000), pair("2h", "2h"));
        assert_eq!(shown(200_000_000), pair("2d", "2d"));
    }
}
