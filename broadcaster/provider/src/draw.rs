//! Random text for credentials.

use rand::seq::IndexedRandom as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// Least entropy of a drawn value, in bits: out of reach of guessing even where its hash is known.
const MIN_ENTROPY_BITS: f64 = 96.0;

/// Longest drawn text: more adds no safety, and many systems cut passwords off far below.
const MAX_LENGTH: usize = 1024;

/// A length and an alphabet that cannot be drawn from safely.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAlphabet {
    /// A character outside what every system takes in a password.
    #[error("the alphabet has a character outside printable ASCII; expected '!' to '~'")]
    NotPrintable,
    /// A character that is there twice would be drawn twice as often.
    #[error("the alphabet has {0:?} twice; expected each character once")]
    Repeated(char),
    /// Longer than is of any use.
    #[error("length {0} is too long; expected at most 1024 characters")]
    TooLong(usize),
    /// Could be guessed.
    #[error("{length} characters out of {alphabet} give {bits} bits of entropy; expected at least 96: make it longer")]
    TooWeak {
        /// Characters drawn.
        length: usize,
        /// Characters drawn from.
        alphabet: usize,
        /// What that gives, rounded down.
        bits: usize,
    },
}

/// How to draw: so many characters out of an alphabet, each as likely as the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    length: usize,
    alphabet: Vec<u8>,
}

impl Draw {
    /// Letters and digits: safe in URLs, shells, DSNs and configuration files.
    pub const ALPHANUMERIC: &'static str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    /// Checks both.
    ///
    /// # Errors
    /// [`InvalidAlphabet`] when the result could be guessed or would not be taken as a password.
    pub fn new(length: usize, alphabet: &str) -> Result<Self, InvalidAlphabet> {
        let mut seen = [false; 128];
        for character in alphabet.chars() {
            if !character.is_ascii_graphic() {
                return Err(InvalidAlphabet::NotPrintable);
            }
            if std::mem::replace(&mut seen[character as usize], true) {
                return Err(InvalidAlphabet::Repeated(character));
            }
        }
        if length > MAX_LENGTH {
            return Err(InvalidAlphabet::TooLong(length));
        }
        // At most 1024 characters of at most 94: far inside what f64 counts exactly.
        #[allow(clippy::cast_precision_loss)]
        let bits = if alphabet.is_empty() { 0.0 } else { length as f64 * (alphabet.len() as f64).log2() };
        if bits < MIN_ENTROPY_BITS {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let bits = bits as usize;
            return Err(InvalidAlphabet::TooWeak { length, alphabet: alphabet.len(), bits });
        }
        Ok(Self { length, alphabet: alphabet.as_bytes().to_vec() })
    }

    /// Draws, from a generator seeded by the operating system.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let mut rng = rand::rng();
        // Reserved at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(self.length));
        for _ in 0..self.length {
            let byte = self.alphabet.choose(&mut rng).expect("an empty alphabet has no entropy, and is refused");
            text.push(char::from(*byte));
        }
        text
    }
}

impl Default for Draw {
    /// 40 letters and digits: 238 bits.
    fn default() -> Self {
        Self { length: 40, alphabet: Self::ALPHANUMERIC.as_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_guessed_is_refused() {
        assert!(matches!(Draw::new(16, Draw::ALPHANUMERIC), Err(InvalidAlphabet::TooWeak { bits: 95, .. })));
        assert!(Draw::new(17, Draw::ALPHANUMERIC).is_ok());
        assert!(matches!(Draw::new(1024, "a"), Err(InvalidAlphabet::TooWeak { bits: 0, .. })));
        assert!(matches!(Draw::new(40, ""), Err(InvalidAlphabet::TooWeak { .. })));
        assert_eq!(Draw::new(1025, "ab"), Err(InvalidAlphabet::TooLong(1025)));
        assert_eq!(Draw::new(200, "abca"), Err(InvalidAlphabet::Repeated('a')));
        assert_eq!(Draw::new(200, "ab c"), Err(InvalidAlphabet::NotPrintable));
        assert_eq!(Draw::new(200, "abé"), Err(InvalidAlphabet::NotPrintable));
    }

    #[test]
    fn every_draw_is_of_the_length_and_alphabet_and_new() {
        let draw = Draw::new(100, "01").unwrap();
        let (one, two) = (draw.text(), draw.text());
        assert_eq!(one.len(), 100);
        assert!(one.bytes().all(|byte| matches!(byte, b'0' | b'1')));
        assert_ne!(*one, *two);
    }
}
