//! How long leases are, per group. Checked once, when the relay starts.

use std::collections::HashMap;

use dormouse_proto::ids::Group;
use thiserror::Error;

use super::{Activity, Millis, guard};

/// The longest lease and the longest invocation that make sense; anything above it is a slip of units.
const LONGEST: Millis = Millis::from_secs(24 * 3600);

/// What a node that stops without having said that it sleeps is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndeclaredFreeze {
    /// It died: GONE after `suspect_grace`. For functions whose client always says when it sleeps.
    #[default]
    Deny,
    /// It may be frozen: GONE only after its asleep lease has passed as well.
    Allow,
}

/// The leases of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Lease of a contact inside an invocation. Three times the client's beat, so that two beats may be lost.
    pub awake: Millis,
    /// Lease of a node that said it sleeps, until its group's own gaps are known. Above the longest gap between two
    /// invocations that is normal.
    pub asleep: Millis,
    /// The learned lease is never shorter. Equal to `asleep` and `asleep_max`: nothing is learned.
    pub asleep_min: Millis,
    /// No asleep lease is longer: what a node that died asleep is believed to live at the most.
    pub asleep_max: Millis,
    /// Added to an invocation's own remaining time: what its last answer may take on the way.
    pub margin: Millis,
    /// How long a node that fell silent while awake stays SUSPECT before it is proposed GONE.
    pub suspect_grace: Millis,
    /// Whether silence without a declared sleep may be a freeze.
    pub undeclared_freeze: UndeclaredFreeze,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            awake: Millis::from_secs(3),
            asleep: Millis::from_secs(1_800),
            asleep_min: Millis::from_secs(30),
            asleep_max: Millis::from_secs(1_800),
            margin: Millis(500),
            suspect_grace: Millis::from_secs(5),
            undeclared_freeze: UndeclaredFreeze::default(),
        }
    }
}

/// Why the lease settings were refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LeaseSettingsError {
    /// The relay tells its own pauses only above a length, and could not keep a shorter lease honestly.
    #[error("{whose}: the awake lease is {awake}, but must be longer than {}", guard::PAUSE)]
    AwakeTooShort {
        /// The defaults or a group.
        whose: String,
        /// What was asked for.
        awake: Millis,
    },
    /// A node would lose time by saying that it sleeps.
    #[error("{whose}: the asleep lease is {asleep}, but must not be shorter than the awake lease, {awake}")]
    AsleepBelowAwake {
        /// The defaults or a group.
        whose: String,
        /// What was asked for.
        asleep: Millis,
        /// The awake lease.
        awake: Millis,
    },
    /// Bounds that leave nothing between them.
    #[error("{whose}: the learned asleep lease is at least {least}, but at most {most}")]
    NothingBetween {
        /// The defaults or a group.
        whose: String,
        /// The lower bound.
        least: Millis,
        /// The upper one.
        most: Millis,
    },
    /// A first lease that could never be learned.
    #[error("{whose}: the asleep lease is {asleep}, but must not be longer than the longest one, {longest}")]
    AsleepAboveLongest {
        /// The defaults or a group.
        whose: String,
        /// What was asked for.
        asleep: Millis,
        /// The longest one.
        longest: Millis,
    },
    /// A length beyond all reason.
    #[error("{whose}: {what} is {length}, but must be at most {LONGEST}")]
    TooLong {
        /// The defaults or a group.
        whose: String,
        /// Which setting.
        what: &'static str,
        /// What was asked for.
        length: Millis,
    },
    /// More groups with leases of their own than the table can number.
    #[error("{0} groups have leases of their own, but at most 65535 may")]
    TooManyGroups(usize),
}

impl LeaseSettings {
    fn check(&self, whose: &str) -> Result<(), LeaseSettingsError> {
        let whose = || whose.to_owned();
        let Self { awake, asleep, asleep_min, asleep_max, margin, suspect_grace, undeclared_freeze: _ } =
            *self;
        if awake <= guard::PAUSE {
            return Err(LeaseSettingsError::AwakeTooShort { whose: whose(), awake });
        }
        if asleep < awake {
            return Err(LeaseSettingsError::AsleepBelowAwake { whose: whose(), asleep, awake });
        }
        if asleep_min > asleep_max {
            return Err(LeaseSettingsError::NothingBetween {
                whose: whose(),
                least: asleep_min,
                most: asleep_max,
            });
        }
        if asleep > asleep_max {
            return Err(LeaseSettingsError::AsleepAboveLongest {
                whose: whose(),
                asleep,
                longest: asleep_max,
            });
        }
        let lengths = [
            ("the asleep lease", asleep),
            ("the longest asleep lease", asleep_max),
            ("the margin", margin),
            ("the grace", suspect_grace),
        ];
        match lengths.into_iter().find(|(_, length)| *length > LONGEST) {
            Some((what, length)) => Err(LeaseSettingsError::TooLong { whose: whose(), what, length }),
            None => Ok(()),
        }
    }

    /// The lease that a contact earns once its evidence was applied.
    pub fn when_applied(&self, activity: Activity) -> Millis {
        match activity {
            Activity::Awake { remaining, then_asleep: true } => self.awake_for(remaining) + self.asleep,
            Activity::Awake { remaining: Some(remaining), .. } => self.awake.min(remaining + self.margin),
            Activity::Awake { remaining: None, .. } => self.awake,
            Activity::Asleep => self.asleep,
        }
    }

    /// The lease that may be promised before the log knows of the contact: never above the awake lease, because
    /// another relay that takes over grants at least that much.
    pub fn at_once(&self, activity: Activity) -> Millis {
        self.when_applied(activity).min(self.awake)
    }

    /// The same with what was learned: another asleep lease, and awake leases of this many percent.
    #[must_use]
    pub(super) fn with(&self, asleep: Millis, percent: u32) -> Self {
        let awake = Millis(self.awake.0.saturating_mul(u64::from(percent)) / 100);
        Self { awake, asleep: asleep.max(awake), ..*self }
    }

    /// How long a node that sends no second call is taken to be awake.
    pub(super) fn awake_for(&self, remaining: Option<Millis>) -> Millis {
        remaining.unwrap_or(self.awake).min(LONGEST)
    }
}

/// The lease settings of all groups: defaults, and the groups that differ.
#[derive(Clone, Debug)]
pub struct LeasePolicy {
    /// The defaults first, then one for each group that differs.
    settings: Vec<LeaseSettings>,
    groups: HashMap<Group, u16>,
}

impl LeasePolicy {
    /// Checks all of it, and says what is wrong with which group.
    pub fn new(
        defaults: LeaseSettings,
        groups: impl IntoIterator<Item = (Group, LeaseSettings)>,
    ) -> Result<Self, LeaseSettingsError> {
        defaults.check("the default leases")?;
        let mut policy = Self { settings: vec![defaults], groups: HashMap::new() };
        for (group, settings) in groups {
            settings.check(&format!("the leases of group {group}"))?;
            let number = u16::try_from(policy.settings.len())
                .map_err(|_| LeaseSettingsError::TooManyGroups(policy.settings.len()))?;
            policy.settings.push(settings);
            policy.groups.insert(group, number);
        }
        Ok(policy)
    }

    /// The settings that hold for a group.
    pub fn of(&self, group: &Group) -> &LeaseSettings {
        self.numbered(self.number(group))
    }

    /// The longest awake lease of all groups: how long a restarted relay listens before it ends anybody.
    pub fn longest_awake(&self) -> Millis {
        self.settings.iter().map(|settings| settings.awake).max().unwrap_or_default()
    }

    pub(super) fn number(&self, group: &Group) -> u16 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    pub(super) fn numbered(&self, number: u16) -> &LeaseSettings {
        &self.settings[usize::from(number)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: LeaseSettings) -> String {
        LeasePolicy::new(settings, []).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_the_limit() {
        let usual = LeaseSettings::default();
        assert_eq!(refusal(usual), "accepted");
        assert_eq!(
            refusal(LeaseSettings { awake: Millis(0), ..usual }),
            "the default leases: the awake lease is 0 ms, but must be longer than 250 ms"
        );
        assert_eq!(
            refusal(LeaseSettings { asleep: Millis(2_999), ..usual }),
            "the default leases: the asleep lease is 2999 ms, but must not be shorter than the awake lease, 3000 ms"
        );
        assert_eq!(
            refusal(LeaseSettings { asleep_max: Millis::from_secs(600), ..usual }),
            "the default leases: the asleep lease is 1800000 ms, but must not be longer than the longest one, 600000 ms"
        );
        assert_eq!(
            refusal(LeaseSettings { asleep_min: Millis::from_secs(1_801), ..usual }),
            "the default leases: the learned asleep lease is at least 1801000 ms, but at most 1800000 ms"
        );
        assert_eq!(
            refusal(LeaseSettings { margin: Millis::from_secs(90_000), ..usual }),
            "the default leases: the margin is 90000000 ms, but must be at most 86400000 ms"
        );
    }

    #[test]
    fn a_group_may_differ_and_is_named_when_it_is_wrong() -> Result<(), Box<dyn std::error::Error>> {
        let ads: Group = "ads".parse()?;
        let usual = LeaseSettings::default();
        let patient = LeaseSettings { asleep: Millis::from_secs(1_800), ..usual };
        let policy = LeasePolicy::new(usual, [(ads.clone(), patient)])?;
        assert_eq!(policy.of(&ads), &patient);
        assert_eq!(policy.of(&"other".parse()?), &usual);
        let hasty = LeaseSettings { awake: Millis(250), ..usual };
        let refused = LeasePolicy::new(usual, [(ads, hasty)]).map_err(|error| error.to_string()).err();
        assert_eq!(
            refused.as_deref(),
            Some("the leases of group ads: the awake lease is 250 ms, but must be longer than 250 ms")
        );
        Ok(())
    }

    #[test]
    fn an_invocation_bounds_its_own_lease() {
        let settings = LeaseSettings::default();
        let awake = |remaining, then_asleep| Activity::Awake { remaining, then_asleep };
        assert_eq!(settings.when_applied(awake(None, false)), Millis(3_000));
        assert_eq!(settings.when_applied(awake(Some(Millis(100)), false)), Millis(600));
        assert_eq!(settings.when_applied(awake(Some(Millis(60_000)), false)), Millis(3_000));
        assert_eq!(settings.when_applied(awake(Some(Millis(100)), true)), Millis(1_800_100));
        assert_eq!(settings.when_applied(awake(None, true)), Millis(1_803_000));
        assert_eq!(settings.at_once(awake(None, true)), Millis(3_000));
        assert_eq!(settings.at_once(Activity::Asleep), Millis(3_000));
        assert_eq!(settings.at_once(awake(Some(Millis(100)), false)), Millis(600));
    }
}
