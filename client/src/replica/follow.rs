//! Which collections a node follows. Known before the first wake, so that one round trip brings everything.

use dormouse_proto::ids::{Collection, InvalidName};

/// The followed collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    names: Vec<String>,
    all: bool,
    members: bool,
}

impl Follow {
    /// Every collection but the members'.
    pub const ALL: &'static str = "*";
    /// The names of all members of the namespace; their counts come with every answer anyway.
    pub const MEMBERS: &'static str = "@members";
    /// How many names may be listed.
    pub const MAX: usize = 64;

    /// Checks a list of collections; `*` and `@members` are among the names that it may hold.
    ///
    /// # Errors
    /// The first name that breaks its rule.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, InvalidName> {
        let mut follow = Self { names: Vec::new(), all: false, members: false };
        for name in names {
            match name.as_str() {
                Self::ALL => follow.all = true,
                Self::MEMBERS => follow.members = true,
                _ => drop(name.parse::<Collection>()?),
            }
            if !follow.names.contains(&name) {
                follow.names.push(name);
            }
        }
        Ok(follow)
    }

    /// Everything but the members' rows.
    pub fn everything() -> Self {
        Self { names: vec![Self::ALL.to_owned()], all: true, members: false }
    }

    /// Every collection but the members' is followed.
    pub const fn all(&self) -> bool {
        self.all
    }

    /// The collections that are followed by their own names, the members' left out.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().map(String::as_str);
        names.filter(|name| ![Self::ALL, Self::MEMBERS].contains(name))
    }

    /// Whether that very name is on the list.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.names.iter().any(|it| it == name)
    }

    /// Adds a name, which has been checked.
    pub(super) fn add(&mut self, name: &str) {
        self.all |= name == Self::ALL;
        self.members |= name == Self::MEMBERS;
        if !self.lists(name) {
            self.names.push(name.to_owned());
        }
    }

    /// Takes a name off the list. Whether it was on it.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let was_listed = self.lists(name);
        self.names.retain(|it| it != name);
        self.all &= name != Self::ALL;
        self.members &= name != Self::MEMBERS;
        was_listed
    }

    /// As a pull lists them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the members' rows are followed.
    pub const fn members(&self) -> bool {
        self.members
    }

    /// Whether rows of that collection arrive by themselves.
    pub fn covers(&self, collection: &str) -> bool {
        self.all || self.names.iter().any(|name| name == collection)
    }
}
