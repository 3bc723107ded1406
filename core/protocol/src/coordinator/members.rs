//! The members that a leader knows of one secret: found by key at a cost that does not grow, and listed by name.

#![expect(clippy::disallowed_types, reason = "the hash map is never iterated, so its order shows nowhere")]

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

use super::member::{Member, Reports};
use crate::id::{Incarnation, InstanceKey, KeyParts};
use crate::time::Instant;

/// A member's place, for as long as it is known. Says nothing about the member, so it is no part of a state's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct MemberId(pub(super) u32);

impl MemberId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Keys the hashes with what instances do not know, so that they cannot choose keys which collide.
#[derive(Clone, Debug)]
struct Keyed(u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[derive(Clone, Debug)]
pub(super) struct Members {
    places: Vec<Option<Member>>,
    vacant: Vec<MemberId>,
    by_key: HashMap<InstanceKey, MemberId, Keyed>,
    by_name: Sorted,
    pub(super) reports: Reports,
}

impl Members {
    /// No members yet, for a term that began at a reading of the leader's clock.
    pub(super) fn new(since: Instant) -> Self {
        Self {
            places: Vec::new(),
            vacant: Vec::new(),
            by_key: HashMap::with_hasher(Keyed(since.as_nanos())),
            by_name: Sorted::default(),
            reports: Reports::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn id(&self, key: &InstanceKey) -> Option<MemberId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.places.get(id.index())?.as_ref()
    }

    /// A member, with the reports that all share.
    pub(super) fn get_mut(&mut self, id: MemberId) -> Option<(&mut Member, &mut Reports)> {
        Some((self.places.get_mut(id.index())?.as_mut()?, &mut self.reports))
    }

    pub(super) fn find(&self, key: &InstanceKey) -> Option<&Member> {
        self.get(self.id(key)?)
    }

    /// All, sorted by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_name.ids().filter_map(|id| self.get(id))
    }

    /// All, in no order that means anything: faster.
    pub(super) fn unordered(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        (0..).map(MemberId).zip(&self.places).filter_map(|(id, member)| Some((id, member.as_ref()?)))
    }

    /// All incarnations of the name in a key, oldest number first.
    pub(super) fn incarnations(&self, key: &InstanceKey) -> impl Iterator<Item = (MemberId, &Member)> {
        let KeyParts { service, instance, .. } = &**key;
        let first = (service, instance, Incarnation(0));
        let before =
            |id| self.get(id).is_some_and(|it| (&it.key.service, &it.key.instance, it.key.incarnation) < first);
        let place = self.by_name.place(before);
        let from = self.by_name.from(place).filter_map(|id| Some((id, self.get(id)?)));
        from.take_while(move |(_, it)| (&it.key.service, &it.key.instance) == (service, instance))
    }

    /// Adds one that is not known yet.
    pub(super) fn insert(&mut self, member: Member) -> MemberId {
        let key = member.key.clone();
        let id = self.vacant.pop().unwrap_or_else(|| {
            // An eighth at a time: a million members would else take the room of two.
            if self.places.len() == self.places.capacity() {
                self.places.reserve_exact(self.places.len() / 8 + 1);
            }
            self.places.push(None);
            MemberId(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
        });
        self.places[id.index()] = Some(member);
        let places = &self.places;
        let before = |id: MemberId| places[id.index()].as_ref().is_some_and(|it| it.key < key);
        self.by_name.insert(id, before);
        self.by_key.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: MemberId) {
        let places = &self.places;
        let Some(key) = places.get(id.index()).and_then(|it| it.as_ref()).map(|it| it.key.clone()) else { return };
        let before = |id: MemberId| places[id.index()].as_ref().is_some_and(|it| it.key < key);
        self.by_name.remove(id, before);
        self.by_key.remove(&key);
        self.places[id.index()] = None;
        self.vacant.push(id);
    }

    /// Changes every member, in no order that means anything.
    pub(super) fn for_each_mut(&mut self, change: impl FnMut(&mut Member)) {
        self.places.iter_mut().flatten().for_each(change);
    }
}

impl Hash for Members {
    /// Who they are, whatever the order in which they came.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|member| member.hash(state));
    }
}

/// Most ids in one run of [`Sorted`].
const RUN: usize = 128;

/// Ids in the order of their members' keys, in runs that are cheap to move: four bytes an id and little more.
#[derive(Clone, Default, Debug)]
struct Sorted(Vec<Vec<MemberId>>);

impl Sorted {
    fn ids(&self) -> impl Iterator<Item = MemberId> {
        self.0.iter().flatten().copied()
    }

    /// The run and the place in it of the first id that is not before what is looked for.
    fn place(&self, before: impl Fn(MemberId) -> bool) -> (usize, usize) {
        let run = self.0.partition_point(|run| run.last().is_some_and(|last| before(*last)));
        (run, self.0.get(run).map_or(0, |run| run.partition_point(|id| before(*id))))
    }

    /// From a place on.
    fn from(&self, (run, place): (usize, usize)) -> impl Iterator<Item = MemberId> {
        self.0[run..].iter().flatten().copied().skip(place)
    }

    fn insert(&mut self, id: MemberId, before: impl Fn(MemberId) -> bool) {
        let (run, place) = self.place(before);
        let Some(full) = self.0.get_mut(run) else {
            // After all others.
            match self.0.last_mut() {
                Some(last) if last.len() < RUN => last.push(id),
                _ => self.0.push(vec![id]),
            }
            return;
        };
        full.insert(place, id);
        if full.len() > RUN {
            let behind = full.split_off(RUN / 2);
            full.shrink_to_fit();
            self.0.insert(run + 1, behind);
        }
    }

    fn remove(&mut self, id: MemberId, before: impl Fn(MemberId) -> bool) {
        let (run, place) = self.place(before);
        let Some(ids) = self.0.get_mut(run) else { return };
        debug_assert_eq!(ids.get(place), Some(&id));
        ids.remove(place);
        if ids.is_empty() {
            self.0.remove(run);
        }
    }
}
