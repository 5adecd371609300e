//! Pushes and pulls by namespace. Callers make up the names, so the first [`SHOWN`] are counted by name and the rest under
//! [`OTHER`].

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use dormouse_proto::ids::Namespace;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::groups::{OTHER, SHOWN};

type ByNamespace = Family<[(&'static str, String); 1], Counter>;

#[derive(Clone, Debug)]
struct Counters {
    pushes: Counter,
    pulls: Counter,
}

/// The counters of the namespaces that were asked for.
#[derive(Debug)]
pub(super) struct PerNamespace {
    pushes: ByNamespace,
    pulls: ByNamespace,
    /// Found without making a label of the name.
    known: RwLock<HashMap<Namespace, Counters>>,
    other: Counters,
}

impl PerNamespace {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let (pushes, pulls) = (ByNamespace::default(), ByNamespace::default());
        registry.register(
            "namespace_pushes",
            "Pushes to a namespace, whatever became of them",
            pushes.clone(),
        );
        registry.register("namespace_pulls", "Pulls of nodes from a namespace", pulls.clone());
        let other = counters(&pushes, &pulls, OTHER);
        Self { pushes, pulls, known: RwLock::default(), other }
    }

    pub(super) fn pushed(&self, namespace: &Namespace) {
        self.count(namespace, |counters| &counters.pushes);
    }

    pub(super) fn pulled(&self, namespace: &Namespace) {
        self.count(namespace, |counters| &counters.pulls);
    }

    fn count(&self, namespace: &Namespace, which: fn(&Counters) -> &Counter) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.len() == SHOWN || known.contains_key(namespace) {
            which(known.get(namespace).unwrap_or(&self.other)).inc();
            return;
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have come between the two looks.
        if known.len() < SHOWN {
            let new = || counters(&self.pushes, &self.pulls, namespace.as_str());
            which(known.entry(namespace.clone()).or_insert_with(new)).inc();
        } else {
            which(known.get(namespace).unwrap_or(&self.other)).inc();
        }
    }
}

fn counters(pushes: &ByNamespace, pulls: &ByNamespace, name: &str) -> Counters {
    let labels = [("namespace", name.to_owned())];
    Counters { pushes: pushes.get_or_create_owned(&labels), pulls: pulls.get_or_create_owned(&labels) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Gauges, Metrics, PushResult};

    #[test]
    fn the_first_namespaces_are_counted_by_name_and_the_rest_together() {
        let metrics = Metrics::default();
        for nth in 0..SHOWN + 3 {
            let namespace = Namespace::try_from(format!("n{nth}")).expect("a valid name");
            metrics.pushed(&namespace, PushResult::Bound, 1);
            metrics.pushed(&namespace, PushResult::Duplicate, 1);
            metrics.caught_up(&namespace, Some(Duration::from_secs(2)));
        }
        let page = metrics.encode(&Gauges::default()).unwrap_or_default();
        for line in [
            r#"dormouse_namespace_pushes_total{namespace="n0"} 2"#,
            r#"dormouse_namespace_pulls_total{namespace="n199"} 1"#,
            r#"dormouse_namespace_pushes_total{namespace="other"} 6"#,
            r#"dormouse_namespace_pulls_total{namespace="other"} 3"#,
            r#"dormouse_backlog_age_seconds_bucket{le="4.0"} 203"#,
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
        }
        assert_eq!(
            page.lines().filter(|it| it.starts_with("dormouse_namespace_pushes_total{")).count(),
            SHOWN + 1
        );
    }
}
