//! The vocabulary: every closed set of names is one enum, with one spelling for machines, one for people and one sentence
//! that says what it means. Logs, audit, metrics, JSON, the command line, the dashboard and `docs/glossary.md` take them from here.

use thiserror::Error;

/// Text that is no word of its set.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{found:?} is no {noun}; expected one of {expected}")]
pub struct UnknownWord {
    /// What it should have been.
    pub noun: &'static str,
    /// What was found, cut off after 64 characters.
    pub found: String,
    /// All words of the set.
    pub expected: String,
}

/// One word of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// For machines: snake_case.
    pub name: &'static str,
    /// For people.
    pub words: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

/// A set of words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WordSet {
    /// What each of them is, such as `phase`.
    pub noun: &'static str,
    /// The words, in their order.
    pub words: Vec<Word>,
}

/// Every set of words: what the glossary lists.
#[must_use]
pub fn vocabulary() -> Vec<WordSet> {
    use crate::coordinator::{Claim, CommandName, ConditionName, GuardStanding, OrderName, Overlay, Standing};
    use crate::message::{FailureKind, Stage};
    use crate::phase::{Outcome, Phase};
    use crate::record::{Cause, Doubt, Label, Origin, RetireStep, Unproven};
    use crate::status::Severity;
    vec![
        Phase::set(),
        Outcome::set(),
        Stage::set(),
        FailureKind::set(),
        Label::set(),
        Origin::set(),
        Doubt::set(),
        Cause::set(),
        RetireStep::set(),
        Unproven::set(),
        ConditionName::set(),
        Overlay::set(),
        Standing::set(),
        GuardStanding::set(),
        CommandName::set(),
        OrderName::set(),
        Severity::set(),
        Claim::set(),
    ]
}

/// The vocabulary as a script, for the dashboard: a constant for each set, such as `PHASE.draining.meaning`.
#[must_use]
pub fn script() -> String {
    use crate::coordinator::ConditionName;
    let mut script = String::from("// Written from the enums of rotacast-protocol.\n");
    for set in vocabulary() {
        // In their order, which a JSON map would not keep.
        let word = |it: &Word| {
            let (words, meaning) = (serde_json::json!(it.words), serde_json::json!(it.meaning));
            format!("{:?}:{{\"words\":{words},\"meaning\":{meaning}}}", it.name)
        };
        let words = set.words.iter().map(word).collect::<Vec<_>>().join(",");
        let name = set.noun.to_uppercase().replace(' ', "_");
        script += &format!("export const {name} = /** @type {{const}} */ ({{{words}}});\n");
    }
    let by_itself: Vec<_> = ConditionName::ALL.iter().filter(|it| it.passes_by_itself()).collect();
    let by_itself = serde_json::json!(by_itself);
    script += &format!("/** @type {{ReadonlySet<string>}} */\nexport const PASSES_BY_ITSELF = new Set({by_itself});\n");
    script
}

/// Declares a set: `Variant = "for_machines" / "for people": "What it means.",`; the spelling for people is left out where it is
/// the same.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident($noun:literal) {
            $($variant:ident = $text:literal $(/ $words:literal)?: $meaning:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)+
        }

        impl $name {
            /// What each of them is.
            pub const NOUN: &'static str = $noun;

            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The spellings for machines of all of them, in their order.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// The spelling for machines: snake_case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The spelling for people.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $crate::word::first(&[$($words,)? $text]),)+
                }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }

            /// All of them, for the glossary.
            #[must_use]
            pub fn set() -> $crate::word::WordSet {
                let word = |it: &Self| $crate::word::Word { name: it.as_str(), words: it.words(), meaning: it.meaning() };
                $crate::word::WordSet { noun: Self::NOUN, words: Self::ALL.iter().map(word).collect() }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::word::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().find(|it| it.as_str() == text).copied().ok_or_else(|| $crate::word::UnknownWord {
                    noun: Self::NOUN,
                    found: text.chars().take(64).collect(),
                    expected: Self::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use words;

/// The first of some texts.
pub(crate) const fn first(texts: &[&'static str]) -> &'static str {
    texts[0]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::phase::Phase;

    #[test]
    fn every_word_has_one_spelling_for_machines_one_for_people_and_a_sentence() {
        for set in vocabulary() {
            let names: BTreeSet<&str> = set.words.iter().map(|word| word.name).collect();
            assert_eq!(names.len(), set.words.len(), "{}: a name stands for two things", set.noun);
            for word in set.words {
                let snake = word.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                assert!(snake && !word.name.is_empty(), "{} {:?} is not snake_case", set.noun, word.name);
                assert!(!word.words.contains('_'), "{} {:?} reads {:?}", set.noun, word.name, word.words);
                assert!(word.meaning.ends_with('.'), "{} {:?}: {:?}", set.noun, word.name, word.meaning);
            }
        }
    }

    #[test]
    fn a_word_reads_back_as_text_and_as_json() {
        for phase in Phase::ALL {
            assert_eq!(phase.to_string().parse(), Ok(*phase));
            let json = serde_json::to_string(phase).unwrap();
            assert_eq!(json, format!("{:?}", phase.as_str()));
            assert_eq!(serde_json::from_str::<Phase>(&json).unwrap(), *phase);
        }
        let error = "RollingBack".parse::<Phase>().unwrap_err().to_string();
        assert!(error.starts_with("\"RollingBack\" is no phase; expected one of verifying, preparing"), "{error}");
    }
}
