//! `kubernetes-relays/`: several relays on one log, and their way to a broker.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    checked_by,
    containers::{STOP_PATIENCE, assert_fits, config},
    files::{MEMORY, VERSION, at, document, documents, list, names, number, word},
    pages::is_well,
};

const FOLDER: &str = "deploy/kubernetes-relays";

/// What a broker is reached by: namespace, a label of its pods, its ports.
const BROKERS: &[(&str, (&str, &str), &[u64])] = &[
    ("nats", ("app.kubernetes.io/name", "nats"), &[4_222, 8_222]),
    ("rabbitmq", ("app.kubernetes.io/component", "rabbitmq"), &[5_672]),
];

/// The only object of that kind and name in the base.
fn object(kind: &str, name: &str) -> Value {
    let files = names(&format!("{FOLDER}/base"));
    let all = files.iter().flat_map(|file| documents(file));
    let named = |it: &Value| it.pointer("/metadata/name").and_then(Value::as_str) == Some(name);
    let found: Vec<Value> = all.filter(|it| word(it, "/kind") == kind && named(it)).collect();
    let [only] = found.as_slice() else { panic!("{} of {kind} {name}", found.len()) };
    only.clone()
}

fn container() -> Value {
    at(&object("Deployment", "dormouse"), "/spec/template/spec/containers/0").clone()
}

#[test]
fn every_file_is_part_of_what_is_applied() {
    for folder in ["base", "nats", "rabbitmq"] {
        let kustomization = document(&format!("{FOLDER}/{folder}/kustomization.yaml"));
        let named = list(&kustomization, "/resources").iter().filter_map(Value::as_str);
        let named: BTreeSet<String> = named.filter(|it| *it != "../base").map(str::to_owned).collect();
        let prefix = format!("{FOLDER}/{folder}/");
        let files: Vec<String> = names(&format!("{FOLDER}/{folder}"));
        let files = files.iter().filter_map(|name| name.strip_prefix(&prefix));
        assert_eq!(named, files.filter(|it| *it != "kustomization.yaml").map(str::to_owned).collect());
        let path = format!("{}/../{FOLDER}/{folder}", env!("CARGO_MANIFEST_DIR"));
        if let Some((well, said)) = checked_by("kubectl", &["kustomize", &path]) {
            assert!(well && said.contains(&format!("image: dormouse-relay:{VERSION}")), "{said}");
        }
    }
}

#[test]
fn the_relays_have_settings_that_they_take_and_no_folder() {
    let (deployment, container) = (object("Deployment", "dormouse"), container());
    let mut secret = None;
    let mut variables = Vec::new();
    for it in list(&container, "/env") {
        let name = word(it, "/name").to_owned();
        match it.pointer("/valueFrom/secretKeyRef") {
            Some(key) => {
                secret = Some((name.clone(), word(key, "/name").to_owned(), word(key, "/key").to_owned()));
                variables.push((name, "nats://user:secret@nats.nats:4222/fleet?replicas=3".to_owned()));
            }
            None => variables.push((name, word(it, "/value").to_owned())),
        }
    }
    let owned = |it: &str| it.to_owned();
    assert_eq!(secret, Some((owned("DORMOUSE_BROKER"), owned("dormouse-broker"), owned("address"))));
    let (config, _) = config(variables);
    assert_fits(&config);
    assert_eq!(config.durability, Some(dormouse_relay::log::Durability::Majority));
    for pointer in ["/resources/limits/memory", "/resources/requests/memory"] {
        assert_eq!(word(&container, pointer), format!("{}Gi", MEMORY >> 30));
    }
    assert!(container.pointer("/resources/limits/cpu").is_none(), "a throttled relay stands still");
    assert!(container.get("volumeMounts").is_none(), "the log is elsewhere");
    let ports: BTreeMap<&str, u64> = list(&container, "/ports")
        .iter()
        .map(|it| (word(it, "/name"), number(it, "/containerPort")))
        .collect();
    assert_eq!(ports["grpc"], u64::from(config.listen.port()));
    assert_eq!(ports["admin"], u64::from(config.admin_listen.port()));

    assert!(number(&deployment, "/spec/replicas") >= 2);
    assert_eq!(number(&deployment, "/spec/strategy/rollingUpdate/maxUnavailable"), 0, "first the new one");
    assert_eq!(number(&deployment, "/spec/template/spec/terminationGracePeriodSeconds"), STOP_PATIENCE);
}

#[test]
fn relays_without_a_broker_stay_in_the_service() {
    let container = container();
    for (probe, path) in
        [("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/livez")]
    {
        assert_eq!(word(&container, &format!("/{probe}/httpGet/path")), path, "{probe}");
        assert!(is_well(path), "{probe}: {path}");
        assert_eq!(word(&container, &format!("/{probe}/httpGet/port")), "admin", "{probe}");
    }
    let service = object("Service", "dormouse");
    assert!(service.pointer("/spec/publishNotReadyAddresses").is_none(), "a start reads the log first");
}

#[test]
fn all_objects_mean_the_same_pods() {
    let deployment = object("Deployment", "dormouse");
    let labels = at(&deployment, "/spec/template/metadata/labels");
    let spread = at(&deployment, "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels");
    let services = ["dormouse", "dormouse-admin"].map(|name| object("Service", name));
    let (policy, budget) = (object("NetworkPolicy", "dormouse"), object("PodDisruptionBudget", "dormouse"));
    for selector in [
        spread,
        at(&deployment, "/spec/selector/matchLabels"),
        at(&services[0], "/spec/selector"),
        at(&services[1], "/spec/selector"),
        at(&policy, "/spec/podSelector/matchLabels"),
        at(&budget, "/spec/selector/matchLabels"),
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!(number(&budget, "/spec/maxUnavailable"), 1);
    assert!(number(&deployment, "/spec/replicas") > number(&budget, "/spec/maxUnavailable"), "one stays");
}

#[test]
fn relays_reach_names_and_their_broker_and_nothing_else() {
    let base = object("NetworkPolicy", "dormouse");
    let [dns] = list(&base, "/spec/egress") else { panic!("{base:#}") };
    assert!(list(dns, "/ports").iter().all(|port| number(port, "/port") == 53), "{dns:#}");
    assert_eq!(word(dns, "/to/0/podSelector/matchLabels/k8s-app"), "kube-dns");
    for (namespace, (label, value), ports) in BROKERS {
        let policy = document(&format!("{FOLDER}/{namespace}/broker.yaml"));
        assert_eq!(list(&policy, "/spec/policyTypes"), ["Egress"], "what comes in is the base's affair");
        assert_eq!(at(&policy, "/spec/podSelector"), at(&base, "/spec/podSelector"));
        let [entry] = list(&policy, "/spec/egress") else { panic!("{policy:#}") };
        let [to] = list(entry, "/to") else { panic!("{entry:#}") };
        assert_eq!(at(to, "/namespaceSelector/matchLabels")["kubernetes.io/metadata.name"], *namespace);
        assert_eq!(at(to, "/podSelector/matchLabels")[*label], *value);
        let opened: Vec<u64> = list(entry, "/ports").iter().map(|it| number(it, "/port")).collect();
        assert_eq!(opened, *ports);
    }
}

#[test]
fn only_named_pods_reach_the_relays() {
    let one = documents("deploy/kubernetes/networkpolicy.yaml");
    let several = object("NetworkPolicy", "dormouse");
    assert_eq!(at(&several, "/spec/ingress"), at(&one[0], "/spec/ingress"), "the same as one relay");
}
