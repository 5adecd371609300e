//! What a Reseed makes of the books: those of the lost tail, with the numbers of events and messages that the fold gave anew.

use dormouse_proto::ids::NodeId;
use dormouse_relay::state::{Fold, Pull};

use super::{books::Books, read};
use crate::{
    LOG, namespace,
    rows::{self, RowNo, Shown},
    violation::{Violation, ensure},
};

impl Books {
    pub(super) fn reseed(
        &mut self,
        lost: &Self,
        fold: &Fold,
        (safe, upto): (u64, u64),
    ) -> Result<(), Violation> {
        let before = std::mem::replace(self, lost.clone());
        let now = fold.revision().0;
        self.given_back.push((safe, upto, now));
        for it in &mut self.rows {
            // A relay that is behind, at what the log was left with, shows nothing of the tail.
            it.versions.retain(|version| version.0 <= safe);
            for dot in &mut it.dots {
                dot.since = if dot.since > safe { now } else { dot.since };
                dot.until = if dot.until > safe && dot.until < u64::MAX { now } else { dot.until };
            }
        }
        self.letters.end_later(safe, now);
        for row in 0..self.rows.len() {
            if let Some((Shown::Events(now), _)) = read(fold, self.space, row)? {
                let renumbered = self.rows[row].log.renumber(&now, safe);
                ensure(renumbered, || format!("G4: events have other numbers: {now:?}"))?;
            }
        }
        for node in self.letters.nodes() {
            let now = numbers_of_letters(fold, self.space, node);
            let renumbered = self.letters.renumber(node, &now, safe);
            ensure(renumbered, || format!("G4: messages have other numbers: {now:?}"))?;
        }
        self.letters.go_on_counting(&before.letters);
        self.measure(fold);
        let all: Vec<RowNo> = (0..rows::all().len()).collect();
        self.compare(fold, &all, now)
    }
}

fn numbers_of_letters(fold: &Fold, space: usize, node: NodeId) -> Vec<(u64, String)> {
    let pull = Pull { node: Some(node), max_bytes: 1 << 24, head: fold.revision(), ..Pull::default() };
    let chunk = fold.pull(LOG, namespace(space), &pull);
    let inbox = chunk.map(|chunk| chunk.inbox).unwrap_or_default();
    inbox.into_iter().map(|mail| (mail.revision.0, mail.message_id)).collect()
}

/// Whether these are the old numbers up to `safe`, and behind it others that rise where the old ones do and are equal where
/// they are.
pub(super) fn are_renumbered(old: &[u64], new: &[u64], safe: u64) -> bool {
    let pairs: Vec<_> = old.iter().zip(new).collect();
    let as_before = pairs.iter().all(|(old, new)| if **old <= safe { old == new } else { **new > safe });
    let in_order = pairs.windows(2).all(|two| two[0].0.cmp(two[1].0) == two[0].1.cmp(two[1].1));
    old.len() == new.len() && as_before && in_order
}
