use proptest::prelude::*;

use super::*;

fn tags(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn matches(selector: &str, of: &[(&str, &str)]) -> bool {
    Selector::parse(selector).is_ok_and(|selector| selector.matches(&tags(of)))
}

fn refusal(selector: &str) -> String {
    Selector::parse(selector).map_or_else(|error| error, |selector| format!("{selector:?}"))
}

#[test]
fn a_selector_means_what_it_means_to_kubernetes() {
    let node = [("zone", "a"), ("stage", "prod"), ("canary", "")];
    for selector in [
        "",
        "  ",
        "zone=a",
        "zone == a",
        "zone in (a,b),stage!=test,canary,!old",
        "zone in ( b , a )",
        "stage notin(test)",
        "canary=",
        "canary in ()",
        "canary in (x,)",
        "absent!=x",
        "absent notin (x)",
        "absent!=",
        "!in",
        "canary=,zone=a",
    ] {
        assert!(matches(selector, &node), "{selector}");
    }
    for selector in [
        "zone=b",
        "zone!=a",
        "zone in (b,c)",
        "zone notin (a)",
        "!zone",
        "absent",
        "absent=",
        "absent in (x)",
        "zone=a,old",
    ] {
        assert!(Selector::parse(selector).is_ok() && !matches(selector, &node), "{selector}");
    }
    assert!(
        matches("in in (in,notin),notin", &[("in", "in"), ("notin", "x")]),
        "the operators are words like others"
    );
    assert!(
        matches("host=10.0.0.1:80", &[("host", "10.0.0.1:80")]),
        "values are freer than those of Kubernetes"
    );
}

#[test]
fn a_selector_that_is_none_is_refused_with_the_place() {
    for (selector, refused) in [
        ("zone=a,", "the end where a key was expected"),
        (",zone", "\",\" where a key was expected"),
        ("zone in a", "\"a\" where \"(\" was expected"),
        ("zone in (a b)", "\"b\" where \")\" was expected"),
        ("zone in (a", "the end where \")\" was expected"),
        ("zone a", "\"a\" where one of =, ==, !=, in, notin was expected"),
        ("!zone=a", "\"=\" where \",\" or the end was expected"),
        ("zone=a=b", "\"=\" where \",\" or the end was expected"),
        ("age>3", "\">\": tags are texts and have no order"),
        ("größe=1", "\"größe\" is no key: those are of [A-Za-z0-9._/-]"),
    ] {
        assert_eq!(refusal(selector), refused, "{selector}");
    }
    let terms = |number: usize| vec!["a"; number].join(",");
    assert!(Selector::parse(&terms(16)).is_ok());
    assert_eq!(refusal(&terms(17)), "more than 16 terms");
    assert!(refusal(&"é".repeat(100_000)).len() < 200);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just("in".to_owned()), Just("notin".to_owned()), "[A-Za-z0-9._/-]{1,8}"]
}

fn values() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set(prop_oneof![Just(String::new()), word(), "[^ \t\r\n=!(),<>]{1,4}"], 1..4)
}

fn selector() -> impl Strategy<Value = Selector> {
    let test = prop_oneof![
        values().prop_map(Test::In),
        values().prop_map(Test::NotIn),
        Just(Test::Exists),
        Just(Test::Absent)
    ];
    let term = (word(), test).prop_map(|(key, test)| Term { key, test });
    prop::collection::vec(term, 0..=Selector::TERMS).prop_map(|terms| Selector { terms })
}

proptest! {
    #[test]
    fn a_selector_reads_back_as_it_was_written(selector in selector()) {
        prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn any_text_is_a_selector_that_reads_back_or_none(text in prop_oneof![any::<String>(), "[a-c!=(), <>in]{0,20}"]) {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
