//! Whether a partition is still the log that was read: records of it, to be found again.
//!
//! librdkafka goes on silently where a topic was deleted and made anew with more messages than the old one had. So a record
//! that was read is read once more now and then. It is one from before the last such look, never one that came since: that
//! may be of the new log already.
//!
//! Compaction removes records too, but never the newest of a key. So a record whose key has a newer one may be gone, and
//! another one that was there at the last look takes its place.

use std::time::{Duration, Instant};

/// Records to fall back on: each is the newest of its key.
const KEPT: usize = 8;

/// A record, to know it again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Mark {
    pub(super) offset: i64,
    /// Of everything in it.
    pub(super) print: u64,
    /// Of its key.
    pub(super) key: u64,
    /// It forgets its key, and is forgotten itself.
    pub(super) is_tombstone: bool,
}

/// What was read of one partition.
pub(super) struct Tail {
    /// The newest record at the last look. The next look seeks it first.
    known: Mark,
    /// Compaction may have removed it since.
    may_be_gone: bool,
    /// The newest record.
    last: Mark,
    /// Records from before the last look that compaction leaves alone, the newest at the end.
    standing: Vec<Mark>,
    /// The same since the last look.
    recent: Vec<Mark>,
    look: Option<Look>,
}

struct Look {
    target: Mark,
    since: Instant,
}

/// What a record, or the end, says about a look.
#[derive(PartialEq, Debug)]
pub(super) enum Seen {
    /// Nothing: no look is under way, or what is sought comes later.
    Nothing,
    /// The log is the one that was read.
    Same,
    /// What was sought may have been compacted away. Read from this offset: another record is sought there.
    Elsewhere(i64),
    /// It is another log.
    Another,
}

impl Tail {
    pub(super) fn new(first: Mark) -> Self {
        let mut tail = Self {
            known: first,
            may_be_gone: first.is_tombstone,
            last: first,
            standing: Vec::new(),
            recent: Vec::new(),
            look: None,
        };
        tail.newer(first);
        tail
    }

    /// Takes a record beyond all that were read.
    pub(super) fn newer(&mut self, mark: Mark) {
        if mark.offset > self.known.offset && mark.key == self.known.key {
            self.may_be_gone = true;
        }
        self.last = mark;
        self.standing.retain(|other| other.key != mark.key);
        self.recent.retain(|other| other.key != mark.key);
        if !mark.is_tombstone {
            self.recent.push(mark);
            keep_newest(&mut self.recent);
        }
    }

    /// Begins a look, at this offset.
    pub(super) fn look(&mut self) -> i64 {
        self.look = Some(Look { target: self.known, since: Instant::now() });
        self.known.offset
    }

    pub(super) fn is_looking(&self) -> bool {
        self.look.is_some()
    }

    /// For how long it has been looking.
    pub(super) fn looking_for(&self) -> Duration {
        self.look.as_ref().map_or(Duration::ZERO, |look| look.since.elapsed())
    }

    /// Takes any record that is read.
    pub(super) fn seen(&mut self, mark: Mark) -> Seen {
        match &self.look {
            None => Seen::Nothing,
            Some(look) if mark == look.target => {
                self.look = None;
                (self.known, self.may_be_gone) = (self.last, self.last.is_tombstone);
                self.standing.append(&mut self.recent);
                keep_newest(&mut self.standing);
                Seen::Same
            }
            Some(look) if mark.offset < look.target.offset => Seen::Nothing,
            Some(look) if mark.offset == look.target.offset => Seen::Another,
            Some(_) => self.missing(),
        }
    }

    /// Takes the end of the partition.
    pub(super) fn end(&mut self) -> Seen {
        if self.is_looking() { self.missing() } else { Seen::Nothing }
    }

    /// What is sought is not there.
    fn missing(&mut self) -> Seen {
        let next = self.standing.last().copied().unwrap_or(self.last);
        match &mut self.look {
            Some(look) if look.target == self.known && self.may_be_gone && next != self.known => {
                look.target = next;
                Seen::Elsewhere(next.offset)
            }
            _ => Seen::Another,
        }
    }
}

fn keep_newest(marks: &mut Vec<Mark>) {
    let surplus = marks.len().saturating_sub(KEPT);
    marks.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: i64, key: u64) -> Mark {
        Mark { offset, print: 1000 + u64::try_from(offset).unwrap(), key, is_tombstone: false }
    }

    /// Everything up to these was there at a look.
    fn looked(marks: &[Mark]) -> Tail {
        let (first, rest) = marks.split_first().unwrap();
        let mut tail = Tail::new(*first);
        rest.iter().for_each(|mark| tail.newer(*mark));
        tail.look();
        assert_eq!(tail.seen(*first), Seen::Same);
        tail
    }

    #[test]
    fn a_record_that_is_found_again_says_that_the_log_is_the_same() {
        let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
        assert_eq!(tail.seen(mark(4, 1)), Seen::Nothing, "no look is under way");
        assert_eq!(tail.look(), 2);
        assert_eq!(tail.seen(mark(2, 2)), Seen::Same);
        assert!(!tail.is_looking());
    }

    #[test]
    fn another_record_in_its_place_is_of_another_log() {
        let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
        // Also where its key has a newer one: compaction moves no record.
        tail.newer(mark(4, 2));
        tail.look();
        assert_eq!(tail.seen(Mark { print: 7, ..mark(2, 2) }), Seen::Another);
    }

    #[test]
    fn a_record_whose_key_has_no_newer_one_is_never_compacted_away() {
        let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
        tail.newer(mark(4, 1));
        tail.look();
        assert_eq!(tail.seen(mark(4, 1)), Seen::Another);
        let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
        tail.look();
        assert_eq!(tail.end(), Seen::Another);
    }

    #[test]
    fn where_a_record_was_compacted_away_another_one_from_before_the_last_look_is_sought() {
        let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
        tail.newer(mark(4, 2));
        assert_eq!(tail.look(), 2);
        assert_eq!(tail.seen(mark(4, 2)), Seen::Elsewhere(0));
        assert_eq!(tail.seen(mark(0, 1)), Seen::Same);
        // The new log has a record at its place, or none.
        for found in [Mark { print: 7, ..mark(0, 1) }, mark(4, 2)] {
            let mut tail = looked(&[mark(0, 1), mark(2, 2)]);
            tail.newer(mark(4, 2));
            tail.look();
            assert_eq!(tail.seen(mark(4, 2)), Seen::Elsewhere(0));
            assert_eq!(tail.seen(found), Seen::Another);
        }
    }

    #[test]
    fn a_single_key_that_is_written_and_compacted_all_the_time_is_the_same_log() {
        let mut tail = looked(&[mark(0, 1)]);
        for offset in (2..40).step_by(2) {
            tail.newer(mark(offset, 1));
            assert_eq!(tail.look(), offset - 2);
            assert_eq!(tail.seen(mark(offset, 1)), Seen::Elsewhere(offset));
            assert_eq!(tail.seen(mark(offset, 1)), Seen::Same);
        }
        // At its end as well.
        tail.newer(mark(40, 1));
        tail.look();
        assert_eq!(tail.end(), Seen::Elsewhere(40));
        assert_eq!(tail.end(), Seen::Another);
    }

    #[test]
    fn a_tombstone_may_go_at_any_time() {
        let mut tail = looked(&[mark(0, 1), mark(2, 2), Mark { is_tombstone: true, ..mark(4, 3) }]);
        tail.look();
        assert_eq!(tail.end(), Seen::Elsewhere(2));
        assert_eq!(tail.seen(mark(2, 2)), Seen::Same);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut tail = Tail::new(mark(0, 0));
        for offset in 1..100 {
            tail.newer(mark(offset, offset.unsigned_abs()));
        }
        tail.look();
        assert_eq!(tail.seen(mark(0, 0)), Seen::Same);
        assert_eq!((tail.standing.len(), tail.recent.len()), (KEPT, 0));
    }
}
