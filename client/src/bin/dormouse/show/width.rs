//! How much room a text takes on a terminal.
//!
//! An estimate from the blocks of Unicode: East Asian letters and pictures take two columns, marks above and below
//! another letter none. Where a terminal disagrees, a column of a table is shifted and nothing worse.

/// First and last of letters that take two columns.
const WIDE: &[(u32, u32)] = &[
    (0x1100, 0x115f),
    (0x2e80, 0x303e),
    (0x3041, 0xa4cf),
    (0xa960, 0xa97f),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
    (0xffe0, 0xffe6),
    (0x1f300, 0x1f64f),
    (0x1f680, 0x1f6ff),
    (0x1f900, 0x1faff),
    (0x20000, 0x3fffd),
];

/// First and last of letters that stand above, below or between others.
const MARKS: &[(u32, u32)] = &[
    (0x0300, 0x036f),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x200b, 0x200d),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
    (0xfeff, 0xfeff),
];

/// What would move the cursor or turn the rest of the line around. A name or a tag may not do either.
fn is_command(it: char) -> bool {
    it.is_control()
        || matches!(it, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn of_char(it: char) -> usize {
    let is_in =
        |blocks: &[(u32, u32)]| blocks.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(it)));
    match it {
        ' '..='~' => 1,
        _ if is_in(MARKS) => 0,
        _ if is_in(WIDE) => 2,
        _ => 1,
    }
}

/// The columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(of_char).sum()
}

/// A text that takes at most so many columns: what is too long ends in `…`, and no letter is cut in two. Letters that
/// would steer the terminal are replaced.
pub(crate) fn cut(text: &str, at_most: usize) -> String {
    let fits = columns(text) <= at_most;
    let room = if fits { at_most } else { at_most.saturating_sub(1) };
    let mut taken = 0;
    let shown = text.chars().map(|it| if is_command(it) { '\u{fffd}' } else { it }).take_while(|it| {
        taken += of_char(*it);
        taken <= room
    });
    let mut shown: String = shown.collect();
    if !fits && at_most > 0 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters_and_never_in_one() {
        assert_eq!(cut("zone-a", 6), "zone-a");
        assert_eq!(cut("zone-a", 5), "zone…");
        assert_eq!(
            (columns("東京"), cut("東京", 4), cut("東京", 3), cut("東京", 2)),
            (4, "東京".into(), "東…".into(), "…".into())
        );
        assert_eq!(cut("e\u{301}tude", 3), "e\u{301}t…");
        assert_eq!((cut("ab", 1), cut("ab", 0)), ("…".into(), String::new()));
    }

    #[test]
    fn whatever_is_cut_takes_no_more_than_it_may() {
        let text = "a東e\u{301}🐁 ﾃｽﾄ\u{200d}z";
        for at_most in 0..=columns(text) {
            assert!(columns(&cut(text, at_most)) <= at_most, "{at_most}");
        }
        assert_eq!(cut(text, columns(text)), text);
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(cut("a\u{1b}[2J\u{202e}b", 10), "a\u{fffd}[2J\u{fffd}b");
    }
}
