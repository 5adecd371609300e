//! Who may import whom, and other rules of the code that a compiler does not know.
//!
//! Each rule is a function from sources to complaints, so that it can be shown to fail: below, each is fed a source
//! that breaks it.

#[path = "rooms/source.rs"]
mod source;

use std::fs;

use source::{Named, Source, is_below, sources, top};

/// A room: files that may import the same things.
struct Room {
    /// A folder or a file; the longest one that fits a source is its room.
    place: &'static str,
    /// What may be imported, beside what lies in the room itself.
    may: &'static [&'static str],
    /// What may not, although it lies below something that may.
    never: &'static [&'static str],
}

const fn room(place: &'static str, may: &'static [&'static str], never: &'static [&'static str]) -> Room {
    Room { place, may, never }
}

/// Clocks, chance and the world outside: not for rooms that are functions of their arguments.
const NOT_PURE: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
];
/// What no room is kept from.
const ANY: &[&str] = &[];

/// From below to above. What stands higher up imports what stands further down, never the other way:
/// main, grpc, listener, doors, relay, admin, history, floors, keeper and sequencer, chronicle, access, liveness and log, state,
/// proto.
#[rustfmt::skip]
const ROOMS: &[Room] = &[
    // The contract.
    room("proto/src/lib.rs",           &["std"], NOT_PURE),
    room("proto/src/ids.rs",           &["std"], NOT_PURE),
    room("proto/src/traps.rs",         &["std"], NOT_PURE),
    room("proto/src/lattice",          &["std", "crate::ids"], NOT_PURE),
    room("proto/src/wire",             &["std", "bytes", "prost", "prost_types", "tonic", "tonic_prost"], NOT_PURE),
    room("proto/src/convert",          &["std", "prost", "crate::ids", "crate::lattice", "crate::wire"], NOT_PURE),
    room("proto/src/record",           &["std", "prost", "crate::ids", "crate::lattice", "crate::wire"], NOT_PURE),
    room("proto/src/rows.rs",          &["std", "prost", "prost_types", "crate::ids", "crate::lattice", "crate::wire"], NOT_PURE),
    room("proto/src/backup.rs",        &["std", "prost", "thiserror", "xxhash_rust", "crate::wire"], NOT_PURE),
    // The relay: pure rooms.
    room("relay/src/state",            &["std", "dormouse_proto", "foldhash", "compact_str", "xxhash_rust", "prost", "thiserror"], NOT_PURE),
    room("relay/src/liveness",         &["std", "dormouse_proto", "dashmap", "parking_lot", "foldhash", "thiserror"], NOT_PURE),
    // The relay: shells.
    room("relay/src/clock.rs",         &["std", "tracing", "crate::liveness"], &["std::fs", "std::net"]),
    room("relay/src/log",              &["std", "bytes", "parking_lot", "redb", "rustix", "thiserror", "tokio", "tracing", "xxhash_rust", "getrandom", "crate::clock"], &["tokio::net"]),
    room("relay/src/log/nats",         &["std", "async_nats", "axum", "bytes", "hyper_util", "parking_lot", "serde_json", "thiserror", "tokio", "tokio_stream", "tracing", "xxhash_rust", "getrandom", "crate::log"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net", "crate::log::embedded", "crate::log::memory", "crate::log::faults"]),
    room("relay/src/log/rabbitmq",     &["std", "lapin", "bytes", "parking_lot", "thiserror", "tokio", "tokio_stream", "tracing", "xxhash_rust", "getrandom", "crate::log"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net", "crate::log::embedded", "crate::log::memory", "crate::log::faults", "crate::log::nats"]),
    room("relay/src/metrics.rs",       &["std", "dormouse_proto", "prometheus_client"], NOT_PURE),
    room("relay/src/metrics",          &["std", "dormouse_proto", "prometheus_client", "crate::metrics"], NOT_PURE),
    room("relay/src/config.rs",        &["std", "dormouse_proto", "thiserror", "toml", "crate::liveness", "crate::log::Durability", "crate::log::nats::Address", "crate::log::rabbitmq"], &["std::time::Instant", "std::time::SystemTime"]),
    room("relay/src/config",           &["std", "dormouse_proto", "toml", "axum::http::Uri", "crate::config", "crate::liveness", "crate::selector"], &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::env"]),
    room("relay/src/selector.rs",      &["std"], NOT_PURE),
    room("relay/src/selector",         &["std", "crate::selector"], NOT_PURE),
    room("relay/src/telemetry.rs",     &["std", "thiserror", "tracing", "tracing_subscriber", "crate::config"], &["std::fs", "std::net"]),
    room("relay/src/telemetry",        &["std", "opentelemetry", "opentelemetry_otlp", "opentelemetry_sdk", "tracing", "tracing_opentelemetry", "tracing_subscriber", "crate::telemetry"], &["std::fs", "std::net"]),
    room("relay/src/sequencer",        &["std", "dormouse_proto", "bytes", "parking_lot", "thiserror", "tokio", "tracing", "getrandom", "xxhash_rust",
                                         "crate::clock", "crate::liveness", "crate::log", "crate::metrics", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net", "crate::log::embedded", "crate::log::nats", "crate::log::rabbitmq"]),
    room("relay/src/keeper.rs",        &["std", "dormouse_proto", "dashmap", "parking_lot", "tokio", "tracing", "crate::clock", "crate::liveness", "crate::log", "crate::metrics", "crate::sequencer", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/keeper",           &["std", "dormouse_proto", "crate::liveness"], NOT_PURE),
    room("relay/src/keeper/ending.rs", &["std", "dormouse_proto", "tokio", "tracing", "crate::keeper", "crate::liveness", "crate::log", "crate::sequencer", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/keeper/telling.rs", &["std", "dormouse_proto", "tokio", "tracing", "crate::keeper", "crate::liveness", "crate::sequencer"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/floors.rs",        &["std", "dormouse_proto", "parking_lot", "tokio", "tracing", "crate::clock", "crate::config", "crate::keeper", "crate::liveness", "crate::metrics", "crate::sequencer"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/floors",           &["std", "dormouse_proto", "axum", "hyper_util", "serde_json", "thiserror", "tokio", "tracing", "crate::config", "crate::floors", "crate::keeper", "crate::liveness", "crate::metrics", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/chronicle.rs",     &["std", "dormouse_proto", "parking_lot", "crate::state"], NOT_PURE),
    room("relay/src/chronicle",        &["std", "dormouse_proto", "bytes", "crate::state"], NOT_PURE),
    room("relay/src/access",           &["std", "dormouse_proto", "ring", "subtle", "thiserror"], NOT_PURE),
    room("relay/src/doors.rs",         &["std", "thiserror", "tokio", "crate::access", "crate::config", "crate::metrics"], &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "tokio::net"]),
    room("relay/src/doors",            &["std", "parking_lot", "tokio", "tokio_rustls", "tracing", "xxhash_rust", "crate::access", "crate::config", "crate::doors", "crate::metrics"], &["std::time::Instant", "std::time::SystemTime", "std::net", "tokio::net"]),
    room("relay/src/listener.rs",      &["std", "tokio", "tokio_rustls", "tracing", "crate::clock", "crate::config::ConnectionSettings", "crate::doors", "crate::metrics"], &["std::time::Instant", "std::time::SystemTime", "std::fs"]),
    room("relay/src/listener",         &["std", "parking_lot", "rustix::process", "tokio", "tokio_rustls", "tracing", "crate::listener"], &["std::time::Instant", "std::time::SystemTime", "std::fs"]),
    room("relay/src/listener/conduct.rs", &["std"], NOT_PURE),
    room("relay/src/listener/pace.rs", &["std", "crate::listener::conduct"], NOT_PURE),
    room("relay/src/error.rs",         &["std", "dormouse_proto", "thiserror", "crate::access::Role", "crate::sequencer", "crate::state"], NOT_PURE),
    room("relay/src/history.rs",       &["std", "dormouse_proto", "parking_lot", "crate::metrics"], NOT_PURE),
    room("relay/src/history",          &["std", "dormouse_proto", "crate::metrics", "crate::history"], NOT_PURE),
    room("relay/src/admin",            &["std", "axum", "serde_json", "tokio", "crate::admin", "crate::history", "crate::metrics"], &["std::time::Instant", "std::time::SystemTime", "std::fs"]),
    room("relay/src/admin.rs",         &["std", "axum", "tokio", "tracing", "crate::history", "crate::metrics"], &["std::time::Instant", "std::time::SystemTime", "std::fs"]),
    room("relay/src/relay.rs",         &["std", "dormouse_proto", "tokio", "tracing", "crate::admin", "crate::chronicle", "crate::clock", "crate::config", "crate::floors", "crate::history", "crate::keeper", "crate::liveness", "crate::log",
                                         "crate::metrics", "crate::sequencer", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "crate::log::embedded", "crate::log::nats", "crate::log::rabbitmq"]),
    room("relay/src/progress.rs",      &["std", "indicatif", "tokio", "tracing", "crate::log", "crate::sequencer"], &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net"]),
    room("relay/src/restore.rs",       &["std", "dormouse_proto", "bytes", "thiserror", "tokio", "crate::log", "crate::progress", "crate::sequencer", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::net", "tokio::net", "crate::log::embedded", "crate::log::nats", "crate::log::rabbitmq"]),
    room("relay/src/relay",            &["std", "dormouse_proto", "tokio", "crate::admin", "crate::history", "crate::log", "crate::metrics", "crate::relay", "crate::sequencer", "crate::state"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "std::net", "crate::log::embedded", "crate::log::nats", "crate::log::rabbitmq"]),
    room("relay/src/grpc",             &["std", "dormouse_proto", "axum", "base64", "bytes", "h2", "http", "http_body", "http_body_util", "hyper", "hyper_util", "parking_lot", "prost", "prost_reflect", "prost_types", "serde", "serde_json", "tokio", "tokio_stream", "tonic", "tonic_health",
                                         "tonic_reflection", "tonic_types", "tower", "tracing", "xxhash_rust", "getrandom",
                                         "crate::access", "crate::chronicle", "crate::clock", "crate::config", "crate::doors", "crate::error", "crate::floors", "crate::keeper", "crate::listener", "crate::liveness", "crate::log", "crate::metrics", "crate::relay", "crate::selector", "crate::sequencer", "crate::state", "crate::telemetry::otlp"],
                                       &["std::time::Instant", "std::time::SystemTime", "std::fs", "crate::log::embedded", "crate::log::nats", "crate::log::rabbitmq", "crate::log::memory", "crate::log::faults"]),
    room("relay/src/lib.rs",           &["std"], ANY),
    room("relay/src/main.rs",          &["std", "dormouse_relay", "mimalloc", "tokio", "tracing"], &["std::time::Instant", "std::time::SystemTime"]),
    // The client.
    room("client/src/replica",         &["std", "thiserror", "dormouse_proto::ids", "dormouse_proto::lattice", "dormouse_proto::traps"], NOT_PURE),
    room("client/src/bin",             &["std", "dormouse", "dormouse_proto", "clap", "getrandom", "indicatif", "ring", "rustix", "serde_json", "tokio", "tokio_stream", "crate"], ANY),
    room("client/src",                 &["std", "dormouse_proto", "getrandom", "parking_lot", "prost", "prost_types", "serde", "serde_json", "thiserror", "tokio", "tokio_stream", "tonic", "tonic_types", "crate"], ANY),
];

/// The only files that read a clock; a bench measures and is no room. The last two show people how long ago it was, and
/// how far two clocks are apart.
const CLOCK_ROOMS: &[&str] = &[
    "relay/src/clock.rs",
    "client/src/connection.rs",
    "client/src/bin/dormouse/members.rs",
    "client/src/bin/dormouse/doctor.rs",
];
/// A name that says nothing lets anything in.
const HEAPS: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"];
const FOLDERS: &[&str] = &["proto/src", "relay/src", "client/src"];

fn room_of<'a>(rooms: &'a [Room], file: &str) -> Option<&'a Room> {
    let fits = |room: &&Room| {
        file == room.place || file.strip_prefix(room.place).is_some_and(|it| it.starts_with('/'))
    };
    rooms.iter().filter(fits).max_by_key(|room| room.place.len())
}

/// The room's own modules: `crate::state` for `relay/src/state`.
fn own(room: &Room) -> String {
    let inside = room.place.split_once("src/").map_or("", |(_, inside)| inside);
    format!("crate::{}", inside.trim_end_matches(".rs").replace('/', "::"))
}

/// Crates whose names can begin a path, as written in code.
fn crates() -> Vec<String> {
    let own =
        ["std", "core", "alloc", "crate", "dormouse_relay", "dormouse_proto", "dormouse"].map(str::to_owned);
    dependencies(&manifest("Cargo.toml")).map(|(name, _)| name.replace('-', "_")).chain(own).collect()
}

fn imports_out_of_bounds(rooms: &[Room], crates: &[String], sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let Some(room) = room_of(rooms, &source.file) else {
            complaints.push(format!("{} is in no room", source.file));
            continue;
        };
        for named in source.paths.iter().filter(|it| from_a_crate(it, crates)) {
            if !may_import(room, named) {
                complaints.push(format!("{} may not import {}", source.file, named.path));
            }
        }
    }
    complaints
}

/// An import without a crate before it is of a module or an enum of the file itself, and goes with that.
fn from_a_crate(named: &Named, crates: &[String]) -> bool {
    let first = named.path.split("::").next().unwrap_or_default();
    crates.iter().any(|it| it == first)
}

fn may_import(room: &Room, named: &Named) -> bool {
    let path = named.path.trim_end_matches("::*");
    let allowed = room.may.iter().any(|above| is_below(path, above)) || is_below(path, &own(room));
    let denied = |never: &str| {
        // `use std::time` would let `time::Instant` in behind the back of this test.
        is_below(path, never) || (named.imported && is_below(never, path))
    };
    allowed && !room.never.iter().any(|never| denied(never))
}

fn clock_readers(rooms: &[&str], sources: &[Source]) -> Vec<String> {
    let clocks = ["Instant::now", "SystemTime::now", "UNIX_EPOCH::elapsed"];
    let reads = |source: &Source| {
        // Tokio's clock stands still in a test that says so; the machine's does not.
        let pausable = source.names("tokio::time::Instant");
        source.paths.iter().any(|named| {
            let read = clocks.iter().any(|clock| named.path.ends_with(clock));
            read && !(pausable && named.path == "Instant::now") && !named.path.starts_with("tokio::time")
        })
    };
    sources
        .iter()
        .filter(|source| !rooms.contains(&source.file.as_str()) && reads(source))
        .map(|source| format!("{} reads a clock; time is an argument", source.file))
        .collect()
}

fn status_builders(sources: &[Source]) -> Vec<String> {
    let answers = |file: &str| file.starts_with("relay/src/grpc/") || file.starts_with("proto/src/wire/");
    sources
        .iter()
        .filter(|source| !source.file.starts_with("client/") && !answers(&source.file))
        .filter(|source| ["tonic::Status", "tonic::Code", "tonic::*"].iter().any(|path| source.names(path)))
        .map(|source| format!("{} builds a Status; only relay/src/grpc does", source.file))
        .collect()
}

fn unnamed_heaps(sources: &[Source]) -> Vec<String> {
    let is_heap = |name: &str| HEAPS.contains(&name);
    let mut complaints = Vec::new();
    for source in sources {
        let places = source.file.trim_end_matches(".rs").split('/').map(str::to_owned);
        for name in places.chain(source.modules.clone()).filter(|name| is_heap(name)) {
            complaints.push(format!("{}: {name} names no job", source.file));
        }
    }
    complaints
}

fn manifest(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of a table of a manifest, without those that are only a comment.
fn table<'a>(manifest: &'a str, header: &str) -> impl Iterator<Item = &'a str> {
    let behind = manifest.lines().skip_while(move |line| line.trim() != header).skip(1).collect::<Vec<_>>();
    behind
        .into_iter()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

/// Each dependency of the workspace with the rest of its line.
fn dependencies(manifest: &str) -> impl Iterator<Item = (&str, &str)> {
    table(manifest, "[workspace.dependencies]").filter_map(|line| line.split_once(" = "))
}

fn dependencies_without_a_reason(manifest: &str) -> Vec<String> {
    let says_why = |rest: &str| rest.rsplit_once('#').is_some_and(|(_, why)| why.trim().len() > 3);
    dependencies(manifest)
        .filter(|(_, rest)| !says_why(rest))
        .map(|(name, _)| format!("{name} does not say what it saves us"))
        .collect()
}

fn members(manifest: &str) -> Vec<String> {
    let line = table(manifest, "[workspace]").find(|line| line.starts_with("members")).expect("members");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn inherits_lints(manifest: &str) -> bool {
    table(manifest, "[lints]").any(|line| line.replace(' ', "") == "workspace=true")
}

fn nothing_wrong(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_room_imports_only_what_its_line_names() {
    nothing_wrong(&imports_out_of_bounds(ROOMS, &crates(), &sources(FOLDERS)));
}

#[test]
fn only_the_clock_rooms_read_a_clock() {
    nothing_wrong(&clock_readers(
        CLOCK_ROOMS,
        &sources(&["proto/src", "relay/src", "client/src", "tests/world"]),
    ));
}

#[test]
fn domain_code_never_builds_a_status() {
    nothing_wrong(&status_builders(&sources(FOLDERS)));
}

#[test]
fn no_room_is_called_utils_or_manager() {
    nothing_wrong(&unnamed_heaps(&sources(&["proto", "relay", "client", "tests"])));
}

#[test]
fn every_dependency_says_why() {
    nothing_wrong(&dependencies_without_a_reason(&manifest("Cargo.toml")));
}

#[test]
fn every_package_inherits_the_workspace_lints() {
    let bare = |member: &String| !inherits_lints(&manifest(&format!("{member}/Cargo.toml")));
    nothing_wrong(&members(&manifest("Cargo.toml")).into_iter().filter(bare).collect::<Vec<_>>());
}

mod each_rule_can_fail {
    use super::*;

    fn complaints_about(file: &str, text: &str) -> Vec<String> {
        imports_out_of_bounds(ROOMS, &crates(), &[Source::read(file, text)])
    }

    #[test]
    fn an_import_of_a_room_above() {
        for (file, text) in [
            ("relay/src/state/push.rs", "use crate::sequencer::Sequencer;"),
            ("relay/src/state/push.rs", "use super::super::grpc;"),
            ("relay/src/log/mod.rs", "use crate::state::Fold;"),
            ("relay/src/liveness/table.rs", "fn a(_: crate::keeper::Keeper) {}"),
            ("relay/src/sequencer/mod.rs", "use crate::{grpc, state::Fold};"),
            ("relay/src/grpc/sync.rs", "use crate::log::embedded::Embedded;"),
            ("relay/src/sequencer/start.rs", "use crate::log::nats::Nats;"),
            ("relay/src/log/embedded/mod.rs", "use async_nats::Client;"),
            ("relay/src/log/nats/mod.rs", "use lapin::Connection;"),
            ("proto/src/lattice/set.rs", "use crate::wire::v1;"),
            ("client/src/replica/mod.rs", "use crate::connection::Connection;"),
            ("client/src/replica/mod.rs", "use dormouse_proto::wire::v1;"),
        ] {
            assert_eq!(complaints_about(file, text).len(), 1, "{file}: {text}");
        }
    }

    #[test]
    fn a_pure_room_that_reaches_out() {
        for text in [
            "use std::time::Instant;",
            "use std::time;",
            "use std::*;",
            "use std::{collections::BTreeMap, fs::File};",
            "fn a() { std::net::TcpListener::bind(\"\"); }",
            "use tokio::sync::mpsc;",
            "use redb::Database;",
            "fn a() { getrandom::fill(&mut []); }",
        ] {
            assert_eq!(complaints_about("relay/src/state/rows.rs", text).len(), 1, "{text}");
        }
        assert_eq!(complaints_about("relay/src/state/rows.rs", "use std::{fmt, time::Duration};"), [""; 0]);
    }

    #[test]
    fn a_file_without_a_room() {
        assert_eq!(complaints_about("relay/src/attic.rs", ""), ["relay/src/attic.rs is in no room"]);
    }

    #[test]
    fn a_room_that_reads_a_clock() {
        let readers = |file: &str, text: &str| clock_readers(CLOCK_ROOMS, &[Source::read(file, text)]).len();
        let text = "use std::time::Instant; fn a() { Instant::now(); }";
        assert_eq!(readers("relay/src/keeper.rs", text), 1);
        assert_eq!(readers("relay/src/keeper.rs", "fn a() { std::time::SystemTime::now(); }"), 1);
        assert_eq!(readers("relay/src/clock.rs", text), 0);
        assert_eq!(readers("relay/src/keeper.rs", "use tokio::time::Instant; fn a() { Instant::now(); }"), 0);
    }

    #[test]
    fn a_status_that_domain_code_builds() {
        let builders = |file: &str, text: &str| status_builders(&[Source::read(file, text)]).len();
        assert_eq!(builders("relay/src/error.rs", "use tonic::{Code, Status};"), 1);
        assert_eq!(builders("relay/src/keeper.rs", "fn a() { tonic::Status::internal(\"\"); }"), 1);
        assert_eq!(builders("relay/src/grpc/status.rs", "use tonic::Status;"), 0);
    }

    #[test]
    fn a_heap_without_a_name() {
        assert_eq!(unnamed_heaps(&[Source::read("relay/src/utils.rs", "")]).len(), 1);
        assert_eq!(unnamed_heaps(&[Source::read("relay/src/lease/manager.rs", "")]).len(), 1);
        assert_eq!(unnamed_heaps(&[Source::read("relay/src/lib.rs", "mod helpers;")]).len(), 1);
    }

    #[test]
    fn a_dependency_without_a_reason_and_a_package_without_lints() {
        let manifest =
            "[workspace.dependencies]\na = \"1\" # saves us an a\n# a heading\nb = \"2\"\n\n[other]\nc = 1\n";
        assert_eq!(dependencies_without_a_reason(manifest), ["b does not say what it saves us"]);
        assert!(inherits_lints("[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n"));
    }
}
