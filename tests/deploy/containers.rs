//! The image, and what runs it: Compose and Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    checked_by,
    files::{
        MEMORY, VERSION, at, dockerfile, document, documents, image_variables, list, names, number,
        relay_with, text, word,
    },
    pages::is_well,
};

/// Seconds that a stop may take, everywhere the same: 40 for calls and writes under way, the rest for the snapshot of a state
/// as large as it may be here, at ten megabytes each second.
pub(crate) const STOP_PATIENCE: u64 = 180;

/// What the image is started with, together with what it sets itself.
pub(crate) fn config(
    set: impl IntoIterator<Item = (String, String)>,
) -> (dormouse_relay::config::Config, BTreeMap<String, String>) {
    let mut variables = image_variables();
    variables.extend(set);
    let env = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    (relay_with(env).unwrap_or_else(|error| panic!("{error}")), variables)
}

/// Rows and their copy while a snapshot is made, queues and readers that are behind: all of it fits.
pub(crate) fn assert_fits(config: &dormouse_relay::config::Config) {
    let streams = config.watchers_max as u64 * (4 << 20);
    let rows = config.limits.bytes_max.expect("the default is for a larger machine");
    let (queue, cache) = (2 * config.queue_bytes_max, 128 << 20);
    assert!(2 * rows + streams + queue + cache <= MEMORY, "{rows} bytes of rows, {streams} of streams");
}

#[test]
fn the_image_holds_the_relay_and_nothing_that_is_not_needed() {
    let instructions = dockerfile();
    let last = |name: &str| instructions.iter().rfind(|it| it.0 == name).map(|it| it.1.as_str());
    assert_eq!(last("FROM"), Some("scratch"));
    let user = last("USER").and_then(|user| user.split_once(':')).expect("user and group");
    assert!([user.0, user.1].iter().all(|id| id.parse::<u32>().is_ok_and(|id| id >= 1_000)), "{user:?}");
    assert_eq!(last("ENTRYPOINT"), Some("[\"/usr/local/bin/dormouse-relay\"]"));
    assert_eq!(last("HEALTHCHECK"), None, "there is no program in the image that asks the admin port");
    let build = last("RUN").expect("a build");
    for part in
        ["+crt-static", "--locked", "-p dormouse-relay --bin dormouse-relay", "--bin dormouse;", "INTERP"]
    {
        assert!(build.contains(part), "{part}");
    }
    let (config, variables) = config([]);
    assert_eq!(last("VOLUME"), Some(variables["DORMOUSE_DATA_DIR"].as_str()));
    assert!(config.listen.ip().is_loopback(), "who publishes a port says so");
    assert_eq!(
        last("EXPOSE"),
        Some(format!("{} {}", config.listen.port(), config.admin_listen.port()).as_str())
    );
}

#[test]
fn the_image_is_built_from_the_whole_workspace() {
    let ignored = text("deploy/Dockerfile.dockerignore");
    let kept: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let workspace = text("Cargo.toml");
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members = members.trim_matches(['[', ']']).split(", ").map(|it| it.trim_matches('"'));
    assert_eq!(kept, members.chain(["Cargo.toml", "Cargo.lock"]).collect());

    // Newer than what the packages ask for, and of the same Debian as its C library was tried with.
    let stated = workspace.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    let minor =
        |version: &str| version.trim_matches('"').split('.').nth(1).and_then(|it| it.parse::<u32>().ok());
    let base = dockerfile().into_iter().find(|it| it.0 == "FROM").expect("a base").1;
    let toolchain = base.strip_prefix("rust:").and_then(|it| it.split('-').next()).expect("a toolchain");
    assert!(minor(toolchain) >= minor(stated), "{toolchain} is older than {stated}");
}

/// The variables of a service.
pub(crate) fn compose_variables(service: &Value) -> Vec<(String, String)> {
    let set = at(service, "/environment").as_object().expect("a mapping");
    // Compose turns numbers and switches into text in ways of its own, so all of them have to be text already.
    set.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect()
}

#[test]
fn compose_publishes_to_this_machine_alone() {
    let compose = document("deploy/compose.yaml");
    let relay = at(&compose, "/services/relay");
    let (config, variables) = config(compose_variables(relay));
    assert!(config.insecure && config.listen.ip().is_unspecified());
    let published: Vec<_> = list(relay, "/ports").iter().filter_map(Value::as_str).collect();
    assert_eq!(published, ["127.0.0.1:7400:7400", "127.0.0.1:7401:7401"]);
    assert_eq!((config.listen.port(), config.admin_listen.port()), (7_400, 7_401));

    let volumes: Vec<_> = list(relay, "/volumes").iter().filter_map(Value::as_str).collect();
    assert_eq!(volumes, [format!("data:{}", variables["DORMOUSE_DATA_DIR"])]);
    at(&compose, "/volumes/data");
    assert_eq!(word(relay, "/image"), format!("dormouse-relay:{VERSION}"));
    assert_eq!(word(relay, "/build/dockerfile"), "deploy/Dockerfile");
    assert_eq!(word(relay, "/healthcheck/test/1"), "dormouse", "the command line, which the image has");

    assert_fits(&config);
    assert_eq!((word(relay, "/mem_limit"), word(relay, "/memswap_limit")), ("4g", "4g"));
    assert_eq!(word(relay, "/stop_grace_period"), format!("{}m", STOP_PATIENCE / 60));
    assert_eq!((at(relay, "/read_only"), at(relay, "/init")), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(word(relay, "/cap_drop/0"), "ALL");
}

/// The only object of that kind and name.
fn object(kind: &str, name: &str) -> Value {
    let files = names("deploy/kubernetes");
    let mut found = files.iter().flat_map(|file| documents(file)).filter(|it| {
        word(it, "/kind") == kind && it.pointer("/metadata/name").and_then(Value::as_str) == Some(name)
    });
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "{kind} {name} stands there twice");
    object
}

fn container() -> Value {
    let set = object("StatefulSet", "dormouse");
    assert_eq!(list(&set, "/spec/template/spec/containers").len(), 1);
    at(&set, "/spec/template/spec/containers/0").clone()
}

fn ports() -> BTreeMap<String, u64> {
    let container = container();
    let ports = list(&container, "/ports").iter();
    ports.map(|port| (word(port, "/name").to_owned(), number(port, "/containerPort"))).collect()
}

#[test]
fn kubernetes_gets_every_file_and_this_release() {
    let kustomization = document("deploy/kubernetes/kustomization.yaml");
    let named: BTreeSet<String> =
        list(&kustomization, "/resources").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let files: BTreeSet<String> = names("deploy/kubernetes")
        .iter()
        .filter_map(|name| name.strip_prefix("deploy/kubernetes/"))
        .filter(|name| *name != "kustomization.yaml")
        .map(str::to_owned)
        .collect();
    assert_eq!(named, files);
    assert_eq!(word(&kustomization, "/images/0/name"), "dormouse-relay");
    assert_eq!(word(&kustomization, "/images/0/newTag"), VERSION);
    assert_eq!(word(&container(), "/image"), format!("dormouse-relay:{VERSION}"));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes");
    if let Some((well, said)) = checked_by("kubectl", &["kustomize", folder]) {
        assert!(well, "{said}");
    }
}

#[test]
fn the_relay_in_kubernetes_has_settings_that_it_takes() {
    let (set, container) = (object("StatefulSet", "dormouse"), container());
    let variables = list(&container, "/env")
        .iter()
        .map(|it| (word(it, "/name").to_owned(), word(it, "/value").to_owned()));
    let (config, variables) = config(variables);
    assert_eq!(ports()["grpc"], u64::from(config.listen.port()));
    assert_eq!(ports()["admin"], u64::from(config.admin_listen.port()));
    assert!(config.insecure, "what is open is called so");
    assert_fits(&config);
    for pointer in ["/resources/limits/memory", "/resources/requests/memory"] {
        assert_eq!(word(&container, pointer), format!("{}Gi", MEMORY >> 30));
    }
    assert_eq!(container.pointer("/resources/limits/cpu"), None, "a throttled relay stands still");

    assert_eq!(word(&container, "/volumeMounts/0/mountPath"), variables["DORMOUSE_DATA_DIR"]);
    let claim = word(&set, "/spec/volumeClaimTemplates/0/metadata/name");
    assert_eq!(word(&container, "/volumeMounts/0/name"), claim);
    assert_eq!(number(&set, "/spec/replicas"), 1, "a second relay would be a second log");
    assert_eq!(number(&set, "/spec/template/spec/terminationGracePeriodSeconds"), STOP_PATIENCE);
}

#[test]
fn probes_ask_for_pages_that_are_there() {
    let container = container();
    for (probe, path) in
        [("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        let asked = word(&container, &format!("/{probe}/httpGet/path"));
        assert_eq!(asked, path, "{probe}");
        assert!(is_well(asked), "{probe}: {asked}");
        assert_eq!(word(&container, &format!("/{probe}/httpGet/port")), "admin", "{probe}");
    }
}

#[test]
fn the_pod_may_do_nothing_but_serve() {
    let (set, container) = (object("StatefulSet", "dormouse"), container());
    let pod = at(&set, "/spec/template/spec");
    let user = dockerfile().into_iter().find(|it| it.0 == "USER").expect("a user").1;
    let ids = ["runAsUser", "runAsGroup"].map(|id| number(pod, &format!("/securityContext/{id}")));
    assert_eq!(format!("{}:{}", ids[0], ids[1]), user);
    assert_eq!(number(pod, "/securityContext/fsGroup"), ids[1], "the volume is written by the relay's group");
    assert_eq!(at(pod, "/securityContext/runAsNonRoot"), true);
    assert_eq!(word(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault");
    assert_eq!(at(pod, "/automountServiceAccountToken"), false);
    assert_eq!(at(&container, "/securityContext/allowPrivilegeEscalation"), false);
    assert_eq!(at(&container, "/securityContext/readOnlyRootFilesystem"), true);
    assert_eq!(word(&container, "/securityContext/capabilities/drop/0"), "ALL");
}

#[test]
fn everything_in_kubernetes_means_the_same_pods_and_ports() {
    let set = object("StatefulSet", "dormouse");
    let labels = at(&set, "/spec/template/metadata/labels");
    let (services, ports) = (["dormouse", "dormouse-admin"].map(|name| object("Service", name)), ports());
    let (policy, budget) = (object("NetworkPolicy", "dormouse"), object("PodDisruptionBudget", "dormouse"));
    let selectors = [
        at(&set, "/spec/selector/matchLabels"),
        at(&services[0], "/spec/selector"),
        at(&services[1], "/spec/selector"),
        at(&policy, "/spec/podSelector/matchLabels"),
        at(&budget, "/spec/selector/matchLabels"),
    ];
    assert!(selectors.iter().all(|it| *it == labels), "{selectors:#?}");
    for (service, port) in services.iter().zip(["grpc", "admin"]) {
        assert_eq!(word(service, "/spec/ports/0/targetPort"), port);
        assert_eq!(number(service, "/spec/ports/0/port"), ports[port]);
    }
    assert_eq!(word(&services[1], "/spec/clusterIP"), "None");
    assert_eq!(word(&set, "/spec/serviceName"), word(&services[1], "/metadata/name"));
}

#[test]
fn only_named_pods_get_through_to_a_relay_that_asks_nobody() {
    let policy = object("NetworkPolicy", "dormouse");
    assert_eq!(list(&policy, "/spec/policyTypes"), ["Ingress", "Egress"]);
    assert!(list(&policy, "/spec/egress").is_empty(), "the embedded log calls nobody");
    let entries = list(&policy, "/spec/ingress");
    let opened: Vec<&str> = entries.iter().map(|entry| word(entry, "/ports/0/port")).collect();
    assert_eq!(opened, ["grpc", "admin"]);
    for entry in entries {
        assert_eq!(list(entry, "/ports").len(), 1);
        // An entry without `from`, or with an empty one, would let everybody in.
        assert_eq!(list(entry, "/from").len(), 1);
        let labels = at(entry, "/from/0/podSelector/matchLabels").as_object().expect("labels");
        assert!(!labels.is_empty(), "{entry:#}");
    }
}
