//! Whether a Sync was made just now: it echoes what the leader's last answer asked for.
//!
//! A signature says who made a message, not when. Without the echo, a recording of an incarnation that is over would keep it
//! heard, and have leases granted that are waited for.

use crate::id::Challenge;

/// The challenge that one incarnation has to echo next. One is outstanding at a time, so it costs the same however often an
/// incarnation asks, and whatever is replayed.
///
/// It changes only when it is echoed. So a lost answer costs one more round trip: the next Sync has no effect, and its answer
/// has the challenge that was lost. A Sync that is doubled, late or recorded echoes one that was used. A leader that has just
/// taken over has none outstanding, so no Sync that was made for an earlier leader has an effect on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Challenged(Option<Challenge>);

/// What a Sync is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answered {
    /// It was made after the last answer. If not, it has no effect.
    pub is_proven: bool,
    /// What the next Sync has to echo.
    pub next: Challenge,
}

impl Challenged {
    /// Takes in what a Sync echoes. `drawn` is unpredictable, and is used if a new challenge is needed.
    pub fn answer(&mut self, echo: Option<Challenge>, drawn: Challenge) -> Answered {
        let is_proven = self.is_answered_by(echo);
        let next = self.0.filter(|_| !is_proven).unwrap_or(drawn);
        self.0 = Some(next);
        Answered { is_proven, next }
    }

    /// A Sync has an effect only if it echoes the outstanding challenge.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ChallengeEchoed, true))]
    fn is_answered_by(&self, echo: Option<Challenge>) -> bool {
        self.0.is_some() && self.0 == echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(number: u64) -> Challenge {
        Challenge::new(number).unwrap()
    }

    fn proven(next: u64) -> Answered {
        Answered { is_proven: true, next: challenge(next) }
    }

    fn unproven(next: u64) -> Answered {
        Answered { is_proven: false, next: challenge(next) }
    }

    #[test]
    fn each_challenge_is_echoed_once() {
        let mut outstanding = Challenged::default();
        assert_eq!(outstanding.answer(None, challenge(1)), unproven(1));
        assert_eq!(outstanding.answer(Some(challenge(1)), challenge(2)), proven(2));
        assert_eq!(outstanding.answer(Some(challenge(1)), challenge(3)), unproven(2), "doubled, or a recording");
        assert_eq!(outstanding.answer(Some(challenge(2)), challenge(4)), proven(4));
    }

    #[test]
    fn a_lost_answer_costs_one_round_trip_however_often_recordings_come() {
        let mut outstanding = Challenged::default();
        outstanding.answer(None, challenge(1));
        outstanding.answer(Some(challenge(1)), challenge(2));
        // The answer with 2 is lost. Its sender knows 1.
        for drawn in 10..100 {
            assert_eq!(outstanding.answer(Some(challenge(1)), challenge(drawn)), unproven(2));
            assert_eq!(outstanding.answer(None, challenge(drawn)), unproven(2));
        }
        assert_eq!(outstanding.answer(Some(challenge(2)), challenge(100)), proven(100));
    }

    #[test]
    fn what_was_made_for_an_earlier_leader_has_no_effect() {
        let mut before = Challenged::default();
        before.answer(None, challenge(1));
        let mut successor = Challenged::default();
        assert_eq!(successor.answer(Some(challenge(1)), challenge(2)), unproven(2));
    }
}
