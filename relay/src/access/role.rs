//! The table of roles and methods.

use std::{fmt, str::FromStr};

/// What a token may do in its namespace. Each role may do all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads and watches: dashboards, people who look.
    Reader,
    /// Also writes, and may be a member: functions, and back ends of the same application.
    Node,
    /// Also ends the membership of others and, where it is good in all namespaces, takes backups: operators.
    Admin,
}

impl Role {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Node, Self::Admin];

    /// As the tokens file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Node => "node",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or(())
    }
}

/// What a call asks for, as far as its path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Whether the relay serves: load balancers ask it, and have no token.
    Health,
    /// What the services look like.
    Reflection,
    /// `Mailbox/Sync`: a member's own cycle.
    Sync,
    /// `Mailbox/Read`.
    Read,
    /// `Mailbox/Write`.
    Write,
    /// `Mailbox/Watch`.
    Watch,
    /// `Mailbox/Send`.
    Send,
    /// `Membership/ListMembers`.
    ListMembers,
    /// `Membership/GetMember`.
    GetMember,
    /// `Membership/CountMembers`.
    CountMembers,
    /// `Membership/ExplainMember`.
    ExplainMember,
    /// `Membership/WatchMembers`.
    WatchMembers,
    /// `Membership/EvictMember`.
    EvictMember,
    /// `Membership/GetRelay`.
    GetRelay,
    /// `Operations/Backup`: everything in every namespace.
    Backup,
    /// A path of no service that is known here. Nothing answers there, or something that forgot to join this table.
    Unknown,
}

impl Method {
    /// The method at a path such as `/dormouse.v1.Mailbox/Sync`.
    pub fn at(path: &str) -> Self {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return Self::Unknown;
        };
        match (service, method) {
            ("grpc.health.v1.Health", _) => Self::Health,
            ("grpc.reflection.v1.ServerReflection", _) => Self::Reflection,
            ("dormouse.v1.Mailbox", "Sync") => Self::Sync,
            ("dormouse.v1.Mailbox", "Read") => Self::Read,
            ("dormouse.v1.Mailbox", "Write") => Self::Write,
            ("dormouse.v1.Mailbox", "Watch") => Self::Watch,
            ("dormouse.v1.Mailbox", "Send") => Self::Send,
            ("dormouse.v1.Membership", "ListMembers") => Self::ListMembers,
            ("dormouse.v1.Membership", "GetMember") => Self::GetMember,
            ("dormouse.v1.Membership", "CountMembers") => Self::CountMembers,
            ("dormouse.v1.Membership", "ExplainMember") => Self::ExplainMember,
            ("dormouse.v1.Membership", "WatchMembers") => Self::WatchMembers,
            ("dormouse.v1.Membership", "EvictMember") => Self::EvictMember,
            ("dormouse.v1.Membership", "GetRelay") => Self::GetRelay,
            ("dormouse.v1.Operations", "Backup") => Self::Backup,
            _ => Self::Unknown,
        }
    }

    /// Whether it is answered without a token.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Health)
    }

    /// The least role that may call it. No `_` arm: a new method must choose.
    const fn needs(self) -> Role {
        match self {
            Self::Health
            | Self::Reflection
            | Self::GetRelay
            | Self::Read
            | Self::Watch
            | Self::ListMembers
            | Self::GetMember
            | Self::CountMembers
            | Self::ExplainMember
            | Self::WatchMembers => Role::Reader,
            // A node could say all of Write's deltas in a push, so nothing is gained by refusing it the other way.
            Self::Sync | Self::Write | Self::Send => Role::Node,
            Self::EvictMember | Self::Backup | Self::Unknown => Role::Admin,
        }
    }
}

/// Whether a token of that role may call that method, in its own namespace.
pub fn may(role: Role, method: Method) -> bool {
    role >= method.needs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_its_line_says() {
        let line = |path: &str| Role::ALL.map(|role| may(role, Method::at(path)));
        for (path, expected) in [
            ("/dormouse.v1.Mailbox/Read", [true, true, true]),
            ("/dormouse.v1.Mailbox/Watch", [true, true, true]),
            ("/dormouse.v1.Membership/ListMembers", [true, true, true]),
            ("/dormouse.v1.Membership/GetRelay", [true, true, true]),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [true, true, true]),
            ("/dormouse.v1.Mailbox/Sync", [false, true, true]),
            ("/dormouse.v1.Mailbox/Write", [false, true, true]),
            ("/dormouse.v1.Mailbox/Send", [false, true, true]),
            ("/dormouse.v1.Membership/EvictMember", [false, false, true]),
            ("/dormouse.v1.Operations/Backup", [false, false, true]),
        ] {
            assert_eq!(line(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_in_no_table_is_for_admins_and_only_health_is_open() {
        for path in ["", "/", "Mailbox/Sync", "/dormouse.v1.Mailbox/Purge", "/dormouse.v1.Mailbox/sync", "//"]
        {
            let method = Method::at(path);
            assert!(!may(Role::Node, method) && !method.is_open(), "{path}");
        }
        assert!(Method::at("/grpc.health.v1.Health/Check").is_open());
        assert!(!Method::at("/grpc.health.v1.HealthX/Check").is_open());
    }
}
