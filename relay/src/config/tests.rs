use super::*;
use crate::{
    liveness::{Millis, UndeclaredFreeze},
    state::Limits,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const EXAMPLE: &str = include_str!("../../../deploy/dormouse.toml");

fn from(env: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_sources(env, Some((Path::new("d.toml"), file)))
}

fn refusal(env: &[(&str, &str)], file: &str) -> String {
    from(env, file).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn with_nothing_set_the_relay_starts() -> Outcome {
    assert_eq!(Config::from_sources([], None)?, Config::default());
    Ok(())
}

#[test]
fn the_example_file_holds_every_setting_with_its_default() -> Outcome {
    assert_eq!(from(&[], EXAMPLE)?, Config::default());
    let table: toml::Table = EXAMPLE.parse()?;
    let connections = connections::CONNECTIONS.iter().map(|it| it.0);
    let names =
        keys::RELAY.iter().map(|it| it.0).chain(keys::LEASES.iter().map(|it| it.0)).chain(connections);
    for name in names {
        assert!(table.contains_key(name), "{name} is missing");
    }
    // A setting that is commented out has no blank after the sign.
    let all: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', '#']) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: toml::Table = all.parse()?;
    let all = from(&[], &all)?;
    assert_eq!((all.groups.len(), all.namespaces.len(), all.floors.len()), (1, 1, 1));
    // What is not set stays as the log has it, so the limits stand there commented out, each with its default.
    for (name, _) in keys::LIMITS {
        assert!(table.contains_key(*name), "{name} is missing");
    }
    assert!(Limits::default().satisfy(&all.limits), "{:?}", all.limits);
    Ok(())
}

#[test]
fn a_namespace_may_have_limits_of_its_own() -> Outcome {
    let config = from(&[("DORMOUSE_ROWS_MAX", "1000")], "[namespace.large]\nrows_max = 5000\n")?;
    assert_eq!(config.limits.rows_max, Some(1_000));
    let large: Namespace = "large".parse()?;
    assert_eq!(config.namespaces[&large].rows_max, Some(5_000));
    assert_eq!(
        refusal(&[], "[namespace.large]\nrow_max = 5000"),
        "namespace.large.row_max in d.toml is no setting of the relay; did you mean rows_max?"
    );
    assert!(refusal(&[], "[namespace.\"A\"]").contains("a namespace must be"));
    Ok(())
}

#[test]
fn a_floor_says_how_many_must_be_alive() -> Outcome {
    let file = "[floor.workers]\nnamespace = \"shop\"\nselector = \"zone in (a,b),!old\"\ngroup = \"ads\"\nby = \"zone\"\n\
                values = [\"a\", \"b\"]\nminimum = 2\nsettle_ms = 500\nwebhook = \"http://127.0.0.1:8080/refill?zone=1\"\n\
                [floor.any]\nminimum = 1";
    let floors = from(&[], file)?.floors;
    let workers = &floors["workers"];
    assert_eq!((workers.namespace.as_str(), workers.by.as_deref()), ("shop", Some("zone")));
    assert_eq!(workers.selector.to_string(), "zone in (a,b),!old");
    assert_eq!(workers.group, Some("ads".parse()?));
    assert_eq!(workers.values, ["a".to_owned(), "b".to_owned()].into());
    assert_eq!((workers.minimum, workers.settle), (2, Millis(500)));
    assert_eq!(
        workers.webhook.as_ref().map(ToString::to_string),
        Some("http://127.0.0.1:8080/refill?zone=1".into())
    );
    assert_eq!(floors["any"], FloorSettings { minimum: 1, ..FloorSettings::default() });
    Ok(())
}

#[test]
fn a_floor_that_makes_no_sense_is_refused_with_the_reason() {
    let refused = |settings: &str| refusal(&[], &format!("[floor.workers]\n{settings}"));
    assert_eq!(
        refused("minimum = 1\nsettel_ms = 5"),
        "floor.workers.settel_ms in d.toml is no setting of the relay; did you mean settle_ms?"
    );
    assert_eq!(
        refused("minimum = 1\nvalue = [\"a\"]"),
        "floor.workers.value in d.toml is no setting of the relay; did you mean values?"
    );
    assert_eq!(
        refused("minimum = 0"),
        "floor.workers.minimum in d.toml = \"0\": must be a whole number from 1 to 4294967296"
    );
    assert_eq!(refused("by = \"zone\""), "floor.workers in d.toml: a floor needs a minimum");
    assert_eq!(
        refused("minimum = 1\nvalues = [\"a\"]"),
        "floor.workers in d.toml: values are those of the tag that `by` names, and `by` is empty"
    );
    assert_eq!(
        refused("group = \"a b\""),
        "floor.workers.group in d.toml = \"a b\": must be 1-64 bytes of [A-Za-z0-9._-]"
    );
    assert_eq!(
        refused("selector = \"zone>a\""),
        "floor.workers.selector in d.toml = \"zone>a\": must be a label selector, like \"zone in (a,b),!old\": \">\": tags \
         are texts and have no order"
    );
    assert!(
        refused("values = [\"a\", 1]")
            .contains("floor.workers.values in d.toml = array: must be a list like")
    );
    assert!(
        refused("values = \"a\"").contains("floor.workers.values in d.toml = \"a\": must be a list like")
    );
    assert!(refused("by = \"a b\"").contains("must be the name of a tag"));
    assert!(
        refusal(&[], "[floor.\"a b\"]")
            .contains("floor.a b in d.toml: the name of a floor must be 1-64 bytes")
    );
    assert!(
        refusal(&[], "floor = 1").contains("floor in d.toml = integer: must be a table, like [floor.NAME]")
    );
}

#[test]
fn a_webhook_is_plain_http_and_its_address_is_not_printed() {
    let refused =
        |address: &str| refusal(&[], &format!("[floor.workers]\nminimum = 1\nwebhook = \"{address}\""));
    let tls = refused("https://refill/secret");
    assert!(tls.starts_with("floor.workers.webhook in d.toml = https://...: must be"), "{tls}");
    assert!(tls.contains("posted without TLS"), "{tls}");
    for address in ["ftp://refill", "http://", "http:///refill", "http://user:secret@refill/"] {
        let refused = refused(address);
        assert!(
            refused.contains("must be an address like http://127.0.0.1:8080/refill"),
            "{address}: {refused}"
        );
        assert!(!refused.contains("secret"), "{refused}");
    }
    assert_eq!(refused("http://[::1]/"), "accepted");
}

#[test]
fn the_environment_wins_over_the_file() -> Outcome {
    let file = "queue_max = 10\njoins_max = 5\nlog = \"debug\"\ninsecure = true\nbroker = \"embedded\"\n";
    let env = [
        ("DORMOUSE_QUEUE_MAX", "20"),
        ("DORMOUSE_DURABILITY", "fsync"),
        ("DORMOUSE_LISTEN", "[::]:7400"),
        ("DORMOUSE_LOG", ""),
        ("PATH", "/bin"),
    ];
    let config = from(&env, file)?;
    assert_eq!((config.queue_max, config.joins_max), (20, 5));
    assert_eq!(config.durability, Some(Durability::Fsync));
    assert_eq!(config.log, "debug", "an empty variable counts as not set");
    assert!(config.insecure && !config.listen.ip().is_loopback());
    assert_eq!(config.limits().get("queue_max"), Some(&20));
    Ok(())
}

#[test]
fn a_group_differs_from_the_defaults_that_hold_in_the_end() -> Outcome {
    let file =
        "awake_lease_ms = 4000\n[group.ads]\nasleep_lease_ms = 1800000\nundeclared_freeze = \"allow\"\n";
    let config = from(&[("DORMOUSE_AWAKE_LEASE_MS", "6000")], file)?;
    let policy = config.lease_policy()?;
    let ads = policy.of(&"ads".parse()?);
    assert_eq!((ads.awake, ads.asleep), (Millis(6_000), Millis::from_secs(1_800)));
    assert_eq!(ads.undeclared_freeze, UndeclaredFreeze::Allow);
    assert_eq!(policy.of(&"other".parse()?).asleep, Millis::from_secs(1_800));
    Ok(())
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_one() {
    assert_eq!(
        refusal(&[("DORMOUSE_LISTN", "x")], ""),
        "DORMOUSE_LISTN is no setting of the relay; did you mean DORMOUSE_LISTEN?"
    );
    assert_eq!(
        refusal(&[("DORMOUSE_listen", "x")], ""),
        "DORMOUSE_listen is no setting of the relay; did you mean DORMOUSE_LISTEN?"
    );
    assert_eq!(
        refusal(&[], "queue-max = 1"),
        "queue-max in d.toml is no setting of the relay; did you mean queue_max?"
    );
    assert_eq!(refusal(&[], "[watchers]\nmax = 1"), "watchers in d.toml is no setting of the relay");
    assert_eq!(
        refusal(&[], "[group.ads]\nqueue_max = 1"),
        "group.ads.queue_max in d.toml is no setting of the relay"
    );
}

#[test]
fn names_that_share_the_prefix_are_passed_over() {
    for name in [
        "URL",
        "TOKEN",
        "CA",
        "CLIENT_CERT",
        "CLIENT_KEY",
        "NAMESPACE",
        "GROUP",
        "TAGS",
        "COLLECTIONS",
        "BUDGET_MS",
        "CONFIG",
    ] {
        assert_eq!(refusal(&[(&format!("DORMOUSE_{name}"), "x")], ""), "accepted");
    }
}

#[test]
fn a_service_called_dormouse_does_not_keep_the_relay_from_starting() {
    let links = [
        ("DORMOUSE_SERVICE_HOST", "10.0.0.7"),
        ("DORMOUSE_SERVICE_PORT", "7400"),
        ("DORMOUSE_SERVICE_PORT_GRPC", "7400"),
        ("DORMOUSE_PORT", "tcp://10.0.0.7:7400"),
        ("DORMOUSE_PORT_7400_TCP", "tcp://10.0.0.7:7400"),
        ("DORMOUSE_RELAY_PORT_7400_TCP_ADDR", "10.0.0.7"),
    ];
    assert_eq!(refusal(&links, ""), "accepted");
    assert_ne!(refusal(&[("DORMOUSE_PORT", "7400")], ""), "accepted", "somebody wrote that");
}

#[test]
fn a_relay_that_everybody_reaches_must_be_asked_for() {
    let everywhere = ("DORMOUSE_LISTEN", "0.0.0.0:7400");
    let refused = refusal(&[everywhere], "");
    assert!(
        refused.contains("0.0.0.0:7400") && refused.contains("tls_cert, tls_key and tokens_file"),
        "{refused}"
    );
    assert_eq!(refusal(&[everywhere, ("DORMOUSE_INSECURE", "1")], ""), "accepted");
    assert_eq!(refusal(&[("DORMOUSE_LISTEN", "[::1]:7400")], ""), "accepted");
    let cert = ("DORMOUSE_TLS_CERT", "cert.pem");
    let key = ("DORMOUSE_TLS_KEY", "key.pem");
    let tokens = ("DORMOUSE_TOKENS_FILE", "tokens");
    assert_eq!(refusal(&[everywhere, cert, key], ""), refused, "whoever comes could do everything");
    assert_eq!(refusal(&[everywhere, tokens], ""), refused, "whoever listens could take the token");
    assert_eq!(refusal(&[everywhere, cert, key, tokens], ""), "accepted");
}

#[test]
fn what_is_open_is_called_so() -> Outcome {
    let exposed = |more: &[(&str, &str)]| {
        let env = [&[("DORMOUSE_LISTEN", "0.0.0.0:7400"), ("DORMOUSE_INSECURE", "1")], more].concat();
        from(&env, "").map(|config| config.exposed())
    };
    let tls = &[("DORMOUSE_TLS_CERT", "c"), ("DORMOUSE_TLS_KEY", "k")][..];
    let tokens = &[("DORMOUSE_TOKENS_FILE", "t")][..];
    assert!(exposed(&[])?.contains("neither TLS nor tokens"));
    assert!(exposed(tls)?.contains("no tokens"));
    assert!(exposed(tokens)?.contains("no TLS"));
    assert_eq!(exposed(&[tls, tokens].concat())?, "");
    assert_eq!(Config::default().exposed(), "", "nobody else reaches it");
    Ok(())
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    let (cert, key) = (("DORMOUSE_TLS_CERT", "c"), ("DORMOUSE_TLS_KEY", "k"));
    let client = ("DORMOUSE_TLS_CLIENT_CA", "ca");
    for alone in [cert, key] {
        assert!(refusal(&[alone], "").starts_with("tls_cert and tls_key belong together"));
    }
    assert!(refusal(&[client], "").starts_with("tls_client_ca asks callers for certificates"));
    assert_eq!(refusal(&[cert, key, client], ""), "accepted");
}

#[test]
fn a_value_outside_its_limits_is_refused_with_them() {
    assert_eq!(
        refusal(&[], "queue_max = 0"),
        "queue_max in d.toml = \"0\": must be a whole number from 1 to 1048576"
    );
    assert_eq!(
        refusal(&[], "watch_patience_ms = 99"),
        "watch_patience_ms in d.toml = \"99\": must be a whole number from 100 to 3600000"
    );
    assert_eq!(
        refusal(&[("DORMOUSE_QUEUE_BYTES_MAX", "1000")], ""),
        "DORMOUSE_QUEUE_BYTES_MAX = \"1000\": must be a whole number from 1048576 to 17179869184"
    );
    assert_eq!(
        refusal(&[], "log = [\"info\"]"),
        "log in d.toml = \"array\": must be a text, a whole number, true or false"
    );
    assert_eq!(
        refusal(&[], "asleep_lease_ms = 10"),
        "awake_lease_ms, asleep_lease_ms, asleep_lease_min_ms, asleep_lease_max_ms, lease_margin_ms, suspect_grace_ms: the default leases: the asleep lease is 10 ms, \
         but must not be shorter than the awake lease, 3000 ms"
    );
    assert_eq!(
        refusal(&[], "[group.\"a b\"]"),
        "group.a b in d.toml: a group must be 1-64 bytes of [A-Za-z0-9._-]"
    );
    assert!(refusal(&[], "queue_max = ").contains("d.toml: TOML parse error at line 1"));
    assert!(refusal(&[], "listen = \"127.0.0.1:7401\"").contains("both 127.0.0.1:7401"));
}

#[test]
fn a_broker_that_is_refused_is_named_without_its_password() {
    let refused = refusal(&[("DORMOUSE_BROKER", "amqp://user:secret@host/a/b")], "");
    assert!(
        refused.starts_with("DORMOUSE_BROKER = amqp://...: must be amqp://[user:password@]host"),
        "{refused}"
    );
    let refused = refusal(&[("DORMOUSE_BROKER", "nats://user:secret@host/a/b")], "");
    assert!(
        refused.starts_with("DORMOUSE_BROKER = nats://...: must be nats://[user:password@]host"),
        "{refused}"
    );
    assert_eq!(
        refusal(&[("DORMOUSE_BROKER", "redis")], ""),
        "DORMOUSE_BROKER = \"redis\": must be \"embedded\", nats://... or amqp://..."
    );
}

#[test]
fn a_broker_is_shown_without_its_password() {
    for (address, shown) in [
        ("nats://user:secret@host/fleet", "nats://host:4222/fleet"),
        ("amqp://user:secret@host/vhost?stream=fleet", "amqp://host:5672/vhost?stream=fleet"),
    ] {
        let env = [("DORMOUSE_BROKER".to_owned(), address.to_owned())];
        let config = Config::from_sources(env, None).expect("an address");
        assert_eq!(config.broker.to_string(), shown);
        assert!(!format!("{config:?}").contains("secret"));
    }
}
