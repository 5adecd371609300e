//! What waits to be pushed: one entry per collection, key and type, the oldest first.
//!
//! Bounded in bytes. A write that would exceed the bound is refused with an error that says so; nothing is ever
//! dropped here.

use std::collections::HashMap;

use dormouse_proto::lattice::Type;

use super::{
    Path,
    intent::{AnyIntent, Intent, Room, each},
};

/// What was said of one collection, key and type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saying {
    pub(super) path: Path,
    pub(super) intent: AnyIntent,
}

impl Saying {
    /// An upper bound of the names' share of the encoding.
    fn name_bytes(path: &Path) -> usize {
        24 + path.collection.as_str().len() + path.key.as_str().len()
    }

    fn bytes(&self) -> usize {
        Self::name_bytes(&self.path) + each!(&self.intent, it => it.bytes())
    }

    fn rows(&self) -> usize {
        each!(&self.intent, it => it.rows())
    }
}

/// Sayings in order, found by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Sayings {
    list: Vec<Saying>,
    places: HashMap<Path, Vec<(Type, usize)>>,
    bytes: usize,
}

impl Sayings {
    pub(super) fn from_list(list: Vec<Saying>) -> Self {
        let mut all = Self {
            bytes: list.iter().map(Saying::bytes).sum(),
            list,
            places: HashMap::new(),
        };
        all.number();
        all
    }

    pub(super) fn into_list(self) -> Vec<Saying> {
        self.list
    }

    pub(super) fn list(&self) -> &[Saying] {
        &self.list
    }

    /// An upper bound of their encoding.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn rows(&self) -> usize {
        self.list.iter().map(Saying::rows).sum()
    }

    fn place(&self, path: &Path, kind: Type) -> Option<usize> {
        let places = self.places.get(path)?;
        places.iter().find(|(of, _)| *of == kind).map(|(_, place)| *place)
    }

    pub(super) fn get<I: Intent>(&self, path: &Path) -> Option<&I> {
        let place = self.place(path, I::KIND)?;
        I::of(&self.list[place].intent)
    }

    /// By how many bytes saying that too makes this larger.
    pub(super) fn growth(&self, path: &Path, later: &AnyIntent) -> usize {
        match self.place(path, later.kind()) {
            Some(place) => self.list[place].intent.growth(later),
            None => Saying::name_bytes(path) + each!(later, it => it.bytes()),
        }
    }

    /// Says something more, after all that was said.
    pub(super) fn say(&mut self, path: &Path, later: AnyIntent) {
        if let Some(place) = self.place(path, later.kind()) {
            let saying = &mut self.list[place];
            self.bytes -= saying.bytes();
            saying.intent.then(later);
            self.bytes += saying.bytes();
            return;
        }
        let place = (later.kind(), self.list.len());
        self.places.entry(path.clone()).or_default().push(place);
        self.list.push(Saying {
            path: path.clone(),
            intent: later,
        });
        self.bytes += self.list.last().map_or(0, Saying::bytes);
    }

    /// Puts in front what was said before all of this.
    pub(super) fn put_back(&mut self, earlier: Vec<Saying>) {
        let mut all = Self::from_list(earlier);
        for saying in std::mem::take(&mut self.list) {
            all.say(&saying.path, saying.intent);
        }
        *self = all;
    }

    /// Takes out what fits into one push, the oldest first.
    pub(super) fn split(&mut self) -> Vec<Saying> {
        let mut room = Room::PUSH;
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for mut saying in std::mem::take(&mut self.list) {
            if room.take(0, Saying::name_bytes(&saying.path))
                && let Some(intent) = saying.intent.split(&mut room)
            {
                let path = saying.path.clone();
                taken.push(Saying { path, intent });
            }
            if !each!(&saying.intent, it => it.is_empty()) {
                rest.push(saying);
            }
        }
        *self = Self::from_list(rest);
        taken
    }

    /// Changes every entry and drops those that have nothing left to say.
    pub(super) fn change_each(&mut self, mut change: impl FnMut(&mut Saying)) {
        let mut list = std::mem::take(&mut self.list);
        list.iter_mut().for_each(&mut change);
        list.retain(|saying| !each!(&saying.intent, it => it.is_empty()));
        *self = Self::from_list(list);
    }

    fn number(&mut self) {
        self.places.clear();
        for (place, saying) in self.list.iter().enumerate() {
            let entry = self.places.entry(saying.path.clone()).or_default();
            entry.push((saying.intent.kind(), place));
        }
    }
}
