//! `nats/` and `rabbitmq/`: brokers as Compose starts them, what they are configured with, and the relays beside them.

use std::{collections::BTreeSet, path::Path, process::Command};

use dormouse_relay::log::Durability;
use serde_json::Value;

use crate::{
    containers::{STOP_PATIENCE, assert_fits, compose_variables, config},
    files::{VERSION, at, document, list, text, word},
};

/// A compose file, and what the servers in it are worth.
struct Stack {
    file: &'static str,
    /// Their configuration, as it is called beside the compose file and where the image looks for it.
    settings: (&'static str, &'static str),
    image: &'static str,
    servers: &'static [&'static str],
    relays: &'static [&'static str],
    /// Where they keep the log.
    folder: &'static str,
    durability: Durability,
}

const STACKS: &[Stack] = &[
    Stack {
        file: "deploy/nats/compose.yaml",
        settings: ("nats.conf", "/etc/nats/nats.conf"),
        image: "nats:2.15-alpine",
        servers: &["nats"],
        relays: &["relay"],
        folder: "/data",
        durability: Durability::Fsync,
    },
    Stack {
        file: "deploy/nats/compose-cluster.yaml",
        settings: ("cluster.conf", "/etc/nats/cluster.conf"),
        image: "nats:2.15-alpine",
        servers: &["nats-1", "nats-2", "nats-3"],
        relays: &["relay-1", "relay-2"],
        folder: "/data",
        durability: Durability::Majority,
    },
    Stack {
        file: "deploy/rabbitmq/compose.yaml",
        settings: ("rabbitmq.conf", "/etc/rabbitmq/rabbitmq.conf"),
        image: "rabbitmq:4.4",
        servers: &["rabbitmq"],
        relays: &["relay"],
        folder: "/var/lib/rabbitmq",
        durability: Durability::PageCache,
    },
    Stack {
        file: "deploy/rabbitmq/compose-cluster.yaml",
        settings: ("cluster.conf", "/etc/rabbitmq/rabbitmq.conf"),
        image: "rabbitmq:4.4",
        servers: &["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"],
        relays: &["relay-1", "relay-2"],
        folder: "/var/lib/rabbitmq",
        durability: Durability::Majority,
    },
];

/// A text of a compose file as Compose would hand it on, `${NAME:?...}` filled in.
fn filled(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (name, after) = rest.split_once('}').unwrap_or_else(|| panic!("{text:?} does not end"));
    let (name, why) = name.split_once(":?").unwrap_or_else(|| panic!("{name} may be missing in silence"));
    assert!(name.ends_with("_PASSWORD") || name.ends_with("_COOKIE"), "{name}: {why}");
    format!("{before}secret{}", filled(after))
}

/// What a relay is started with: what it says itself over what it extends.
fn variables(relay: &Value) -> Vec<(String, String)> {
    assert_eq!(word(relay, "/extends/file"), "../relays.yaml");
    let base = document("deploy/relays.yaml");
    let mut variables =
        compose_variables(at(&base, &format!("/services/{}", word(relay, "/extends/service"))));
    variables.extend(compose_variables(relay).into_iter().map(|(name, value)| (name, filled(&value))));
    variables
}

/// The hosts and ports of an address, and what follows the first slash.
fn hosts_and_rest(address: &str) -> (Vec<&str>, &str) {
    let (_, behind) = address.rsplit_once('@').expect("credentials");
    let (hosts, rest) = behind.split_once('/').expect("a log");
    (hosts.split(',').collect(), rest)
}

#[test]
fn relays_of_a_stack_ask_for_what_its_servers_give() {
    for stack in STACKS {
        let compose = document(stack.file);
        for relay in stack.relays {
            let relay = at(&compose, &format!("/services/{relay}"));
            let variables = variables(relay);
            let address = &variables.iter().rfind(|it| it.0 == "DORMOUSE_BROKER").expect("a broker").1;
            let (hosts, rest) = hosts_and_rest(address);
            let port = if address.starts_with("amqp") { 5_672 } else { 4_222 };
            let servers: Vec<_> = stack.servers.iter().map(|it| format!("{it}:{port}")).collect();
            assert_eq!(hosts, servers, "{}", stack.file);
            assert_eq!(rest.contains("replicas=3"), stack.servers.len() == 3, "{}: {rest}", stack.file);
            assert!(rest.contains("fleet"), "{rest}");
            let retention_mb =
                rest.split("retention_mb=").nth(1).and_then(|it| it.split('&').next()?.parse::<u64>().ok());
            let (config, _) = config(variables.clone());
            assert_eq!(config.durability, Some(stack.durability), "{}", stack.file);
            assert_fits(&config);
            // A snapshot may have a fifth of what `RabbitMQ` keeps.
            let rows = config.limits.bytes_max.expect("set");
            assert!(retention_mb.is_none_or(|kept| (kept << 20) / 5 >= rows), "{rest}: {rows} bytes of rows");
            assert_eq!(retention_mb.is_some(), port == 5_672);
        }
    }
}

#[test]
fn a_stack_has_its_servers_and_relays_and_publishes_to_this_machine_alone() {
    for stack in STACKS {
        let compose = document(stack.file);
        let services = at(&compose, "/services").as_object().expect("services");
        let named: BTreeSet<&str> = stack.servers.iter().chain(stack.relays).copied().collect();
        assert_eq!(services.keys().map(String::as_str).collect::<BTreeSet<_>>(), named, "{}", stack.file);
        assert_eq!(at(&compose, "/networks/broker/internal"), true, "{}", stack.file);
        let mut published = BTreeSet::new();
        for relay in stack.relays {
            let relay = &services[*relay];
            for port in list(relay, "/ports").iter().filter_map(Value::as_str) {
                assert!(port.starts_with("127.0.0.1:") && published.insert(port), "{}: {port}", stack.file);
                assert!(port.ends_with(":7400") || port.ends_with(":7401"), "{port}");
            }
            for server in stack.servers {
                let condition = word(relay, &format!("/depends_on/{server}/condition"));
                assert_eq!(condition, "service_healthy", "{}", stack.file);
            }
        }
        assert_eq!(published.len(), 2 * stack.relays.len());
        for server in stack.servers {
            assert!(services[*server].get("ports").is_none(), "{}: {server} is published", stack.file);
            assert_eq!(list(&services[*server], "/networks"), ["broker"]);
        }
    }
}

#[test]
fn each_server_of_a_stack_keeps_its_own_copy_and_reads_its_settings() {
    for stack in STACKS {
        let compose = document(stack.file);
        let (beside, inside) = stack.settings;
        let folder = Path::new(stack.file).parent().and_then(Path::to_str).expect("a folder");
        assert!(!text(&format!("{folder}/{beside}")).is_empty());
        let mut volumes = BTreeSet::new();
        for name in stack.servers {
            let server = at(&compose, &format!("/services/{name}"));
            assert_eq!(word(server, "/image"), stack.image);
            let mounted: Vec<&str> = list(server, "/volumes").iter().filter_map(Value::as_str).collect();
            let [settings, data] = mounted.as_slice() else { panic!("{name}: {mounted:?}") };
            assert_eq!(*settings, format!("./{beside}:{inside}:ro"));
            let (volume, at_folder) = data.split_once(':').expect("a volume");
            assert_eq!(at_folder, stack.folder);
            at(&compose, &format!("/volumes/{volume}"));
            assert!(volumes.insert(volume.to_owned()), "{name}: two servers in one folder");
            assert_eq!(word(server, "/mem_limit"), word(server, "/memswap_limit"));
            assert_eq!(word(server, "/restart"), "unless-stopped");
            assert!(!list(server, "/healthcheck/test").is_empty());
            if stack.image.starts_with("rabbitmq") {
                assert_eq!(word(server, "/hostname"), *name, "its folder is called after it");
            } else {
                assert_eq!(word(server, "/command/1"), inside);
            }
            for (_, value) in compose_variables(server) {
                assert!(!filled(&value).is_empty());
            }
        }
    }
}

#[test]
fn the_relay_that_stacks_extend_is_the_one_of_the_embedded_log_without_a_folder() {
    let embedded = document("deploy/compose.yaml");
    let base = document("deploy/relays.yaml");
    let (embedded, base) = (at(&embedded, "/services/relay"), at(&base, "/services/relay"));
    for same in [
        "/image",
        "/build",
        "/init",
        "/healthcheck",
        "/restart",
        "/stop_grace_period",
        "/mem_limit",
        "/memswap_limit",
        "/pids_limit",
        "/ulimits",
        "/read_only",
        "/cap_drop",
        "/security_opt",
        "/logging",
    ] {
        assert_eq!(at(base, same), at(embedded, same), "{same}");
    }
    assert_eq!(word(base, "/image"), format!("dormouse-relay:{VERSION}"));
    assert_eq!(word(base, "/stop_grace_period"), format!("{}m", STOP_PATIENCE / 60));
    assert!(base.get("volumes").is_none() && base.get("ports").is_none());
    assert_eq!(list(base, "/networks"), ["relay", "broker"]);
}

/// What the server in `target/brokers` says of a configuration. `None`: it is not there, which is said.
fn nats_says(folder: &str, file: &str) -> Option<(bool, String)> {
    let exe = std::env::current_exe().expect("a test has an executable");
    let target = exe.ancestors().nth(3).expect("it lies in target/PROFILE/deps");
    let program = target.join("brokers").join(folder).join("nats-server");
    if !program.is_file() {
        assert!(std::env::var_os("REQUIRE_BROKERS").is_none(), "{} is missing", program.display());
        eprintln!("SKIPPED: needs {}; tests/brokers/install puts it there", program.display());
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let output = Command::new(program)
        .env("NATS_NAME", "nats-2")
        .env("NATS_PASSWORD", "secret")
        .args(["-t", "-c"])
        .arg(path)
        .output()
        .expect("the server runs");
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn a_current_nats_takes_its_settings_and_debians_has_no_sync_interval() {
    for file in ["deploy/nats/nats.conf", "deploy/nats/cluster.conf"] {
        if let Some((well, said)) = nats_says("nats-current", file) {
            assert!(well, "{file}: {said}");
        }
        if let Some((well, said)) = nats_says("nats-debian", file) {
            assert!(!well && said.contains("unknown field \"sync_interval\""), "{file}: {said}");
        }
    }
}

#[test]
fn nats_is_set_up_to_sync_and_to_say_so() {
    for file in ["deploy/nats/nats.conf", "deploy/nats/cluster.conf"] {
        let lines: Vec<String> = text(file).lines().map(|line| line.trim().to_owned()).collect();
        for line in [
            "sync_interval: always",
            "http: \"0.0.0.0:8222\"",
            "max_payload: 3MB",
            "password: $NATS_PASSWORD",
        ] {
            assert_eq!(lines.iter().filter(|it| *it == line).count(), 1, "{file}: {line}");
        }
    }
    let cluster = text("deploy/nats/cluster.conf");
    for server in ["nats-1", "nats-2", "nats-3"] {
        assert!(cluster.contains(&format!("\"nats://{server}:6222\"")), "{server}");
    }
}

/// Every key that a configuration of `RabbitMQ` here may have, but for the numbered ones: the server refuses to start on a slip.
const RABBITMQ_KEYS: &[&str] = &[
    "cluster_formation.peer_discovery_backend",
    "cluster_name",
    "cluster_partition_handling",
    "disk_free_limit.absolute",
    "listeners.tcp.default",
    "log.console",
    "log.console.level",
    "vm_memory_high_watermark.absolute",
];

#[test]
fn the_servers_of_a_rabbitmq_cluster_look_for_each_other() {
    let mut nodes = Vec::new();
    for file in ["deploy/rabbitmq/rabbitmq.conf", "deploy/rabbitmq/cluster.conf"] {
        let text = text(file);
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (key, value) in lines.map(|line| line.split_once(" = ").expect("a key and a value")) {
            match key.strip_prefix("cluster_formation.classic_config.nodes.") {
                Some(_) => nodes.push(value.to_owned()),
                None => assert!(RABBITMQ_KEYS.contains(&key), "{file}: {key}"),
            }
        }
    }
    assert_eq!(nodes, ["rabbit@rabbitmq-1", "rabbit@rabbitmq-2", "rabbit@rabbitmq-3"]);
}
