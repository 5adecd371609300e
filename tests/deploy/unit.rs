//! `dormouse.service`: what systemd makes of it, and that it starts this relay.

use std::fs;

use crate::{
    checked_by,
    files::{relay_with, text},
};

/// Every name that the unit may use, so that a slip is found where there is no systemd: systemd itself passes over what it
/// does not know, and a lock that is misspelt is no lock.
const KNOWN: &[&str] = &[
    "After",
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "ConfigurationDirectory",
    "Description",
    "DevicePolicy",
    "DynamicUser",
    "Environment",
    "EnvironmentFile",
    "ExecStart",
    "IPAddressAllow",
    "IPAddressDeny",
    "KeyringMode",
    "LimitCORE",
    "LimitNOFILE",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "MemorySwapMax",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "RemoveIPC",
    "Restart",
    "RestartSec",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "StartLimitBurst",
    "StartLimitIntervalSec",
    "StateDirectory",
    "StateDirectoryMode",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TimeoutStopSec",
    "Type",
    "UMask",
    "WantedBy",
    "Wants",
    "WorkingDirectory",
];

/// The lines of the unit: section, name, value.
fn lines(unit: &str) -> Vec<(&str, &str, &str)> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(begins) = line.strip_prefix('[') {
            section = begins.trim_end_matches(']');
        } else {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} sets nothing"));
            lines.push((section, name, value));
        }
    }
    lines
}

/// All values of a name in `[Service]`.
fn service<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    lines(unit).into_iter().filter(|line| (line.0, line.1) == ("Service", name)).map(|line| line.2).collect()
}

#[test]
fn the_unit_sets_what_systemd_knows() {
    let unit = text("deploy/dormouse.service");
    for (section, name, _) in lines(&unit) {
        assert!(["Unit", "Service", "Install"].contains(&section), "[{section}]");
        assert!(KNOWN.contains(&name), "{name} in [{section}]");
    }
}

#[test]
fn the_unit_is_locked() {
    let unit = text("deploy/dormouse.service");
    for (name, value) in [
        ("DynamicUser", "yes"),
        ("StateDirectory", "dormouse"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("MemoryDenyWriteExecute", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6"),
        ("IPAddressDeny", "any"),
        ("IPAddressAllow", "localhost"),
        ("Restart", "on-failure"),
    ] {
        assert_eq!(service(&unit, name), [value], "{name}");
    }
    assert_eq!(service(&unit, "SystemCallFilter"), ["@system-service", "~@privileged @resources"]);
    let descriptors: Vec<u64> =
        service(&unit, "LimitNOFILE").iter().filter_map(|it| it.parse().ok()).collect();
    assert_eq!(descriptors, [1 << 20]);
}

#[test]
fn the_unit_starts_this_relay_and_waits_for_its_stop() {
    let unit = text("deploy/dormouse.service");
    assert_eq!(service(&unit, "ExecStart"), ["/usr/local/bin/dormouse-relay"]);
    let manifest = text("relay/Cargo.toml");
    assert!(manifest.contains("[[bin]]\nname = \"dormouse-relay\"\n"), "the program has another name");
    let patience: Vec<u64> =
        service(&unit, "TimeoutStopSec").iter().filter_map(|it| it.parse().ok()).collect();
    assert_eq!(patience, [super::containers::STOP_PATIENCE]);

    let set = service(&unit, "Environment");
    let set: Vec<(&str, &str)> = set.iter().filter_map(|it| it.split_once('=')).collect();
    let config = relay_with(set).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        config.data_dir.to_str(),
        Some("/var/lib/dormouse"),
        "StateDirectory, and nothing else, may be written"
    );
    assert!(config.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dormouse.service");
    // Whether the program is installed is another question.
    let unit = text("deploy/dormouse.service").replace("=/usr/local/bin/dormouse-relay", "=/bin/true");
    fs::write(&path, unit).expect("written");
    let path = path.to_str().expect("text");
    if let Some((well, said)) =
        checked_by("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", path])
    {
        assert!(well && said.trim().is_empty(), "{said}");
    }
    // What is still open, from 0.0 to 10.0: 1.5 at the most.
    if let Some((well, said)) =
        checked_by("systemd-analyze", &["security", "--offline=true", "--threshold=15", path])
    {
        assert!(well, "{said}");
    }
}

/// The unit as systemd sees it with a drop-in, which comes last and wins.
fn with_drop_in(folder: &str) -> String {
    text("deploy/dormouse.service") + "\n" + &text(&format!("deploy/{folder}/systemd.conf"))
}

#[test]
fn a_drop_in_lets_the_relay_reach_its_broker_and_never_gives_it_up() {
    for folder in ["nats", "rabbitmq"] {
        let unit = with_drop_in(folder);
        for (section, name, _) in lines(&unit) {
            assert!(["Unit", "Service", "Install"].contains(&section), "{folder}: [{section}]");
            assert!(KNOWN.contains(&name), "{folder}: {name} in [{section}]");
        }
        let last = |section, name| lines(&unit).into_iter().rfind(|it| (it.0, it.1) == (section, name));
        assert_eq!(last("Unit", "StartLimitIntervalSec").map(|it| it.2), Some("0"));
        // A relay whose log has lost what it had applied ends with 1, and begins anew.
        assert_eq!(last("Service", "Restart").map(|it| it.2), Some("on-failure"));
        assert_eq!(last("Service", "Environment").map(|it| it.2), Some("DORMOUSE_DURABILITY=majority"));
        let reached = service(&unit, "IPAddressAllow");
        assert_eq!(
            reached,
            ["localhost", "192.0.2.11 192.0.2.12 192.0.2.13"],
            "of documentation, to be changed"
        );
        assert_eq!(service(&unit, "IPAddressDeny"), ["any"]);
    }
}

#[test]
fn the_addresses_in_drop_ins_are_addresses() {
    let words = |folder: &str| {
        let text = text(&format!("deploy/{folder}/systemd.conf"));
        let found =
            text.lines().find_map(|line| line.strip_prefix("#   DORMOUSE_BROKER=").map(str::to_owned));
        found.expect("an example")
    };
    for folder in ["nats", "rabbitmq"] {
        let outcome = relay_with([("DORMOUSE_BROKER", words(folder).as_str())]);
        assert!(outcome.is_ok(), "{folder}: {outcome:?}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_drop_ins() {
    for broker in ["nats", "rabbitmq"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dormouse.service");
        let drop_ins = folder.path().join("dormouse.service.d");
        fs::create_dir(&drop_ins).expect("a folder");
        let unit = text("deploy/dormouse.service").replace("=/usr/local/bin/dormouse-relay", "=/bin/true");
        fs::write(&path, unit).expect("written");
        fs::write(drop_ins.join("broker.conf"), text(&format!("deploy/{broker}/systemd.conf")))
            .expect("written");
        let path = path.to_str().expect("text");
        if let Some((well, said)) =
            checked_by("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", path])
        {
            assert!(well && said.trim().is_empty(), "{broker}: {said}");
        }
    }
}
