//! Maxima and minima.

use proptest::prelude::*;

use super::*;

#[test]
fn only_the_best_offer_is_kept() {
    let mut it = caught_up(5, vec![rows("a/n", Rows::Max { value: Some(7) })]);
    assert_eq!((it.max(&path("a/n")), it.min(&path("a/n"))), (Some(Some(7)), Some(None)));
    assert_eq!(replica().max(&path("a/n")), None, "nothing was heard yet");
    for offer in [3, 9, -4] {
        it.max_offer(&path("a/n"), offer).expect("fits");
        it.min_offer(&path("a/n"), offer).expect("fits");
    }
    for _ in 0..2 {
        assert_eq!((it.max(&path("a/n")), it.min(&path("a/n"))), (Some(Some(9)), Some(Some(-4))));
        it.seal(PushId(7));
    }
    let (push_no, deltas) = send(&mut it);
    let changes: Vec<_> = deltas.into_iter().map(|delta| delta.change).collect();
    assert_eq!(changes, [Change::Max(9), Change::Min(-4)]);
    it.absorb_ack(ack(push_no, 6, vec![rows("a/n", Rows::Max { value: Some(12) })]));
    assert_eq!((it.max(&path("a/n")), it.min(&path("a/n"))), (Some(Some(12)), Some(Some(-4))));
}

#[test]
fn offers_are_said_again_whatever_may_have_become_of_them_and_refused_for_lack_of_room() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.max_offer(&path("a/n"), 3).expect("fits");
    send(&mut it);
    send(&mut it);
    lease(&mut it, Admission::Forgotten, 2);
    assert_eq!(it.take_reports()[0].fate, message::Fate::Unknown { repeated: true });
    assert_eq!(only(&send(&mut it).1), &Change::Max(3));
    it.absorb_refusal(&refusal("QUOTA", Verdict::Quota, &[]));
    assert_eq!((it.max(&path("a/n")), it.take_reports().len()), (Some(None), 1));
}

proptest! {
    #[test]
    fn an_extreme_is_the_best_of_row_and_offers(
        row in any::<Option<i64>>(), sent in prop::collection::vec(any::<i64>(), 0..4), waiting in prop::collection::vec(any::<i64>(), 0..4),
    ) {
        let mut it = caught_up(5, vec![rows("a/n", Rows::Max { value: row }), rows("a/n", Rows::Min { value: row })]);
        for (nth, offers) in [&sent, &waiting].into_iter().enumerate() {
            for offer in offers {
                it.max_offer(&path("a/n"), *offer).expect("fits");
                it.min_offer(&path("a/n"), *offer).expect("fits");
            }
            if nth == 0 {
                it.seal(PushId(7));
            }
        }
        let all = || row.iter().chain(&sent).chain(&waiting).copied();
        prop_assert_eq!(it.max(&path("a/n")), Some(all().max()));
        prop_assert_eq!(it.min(&path("a/n")), Some(all().min()));
    }
}
