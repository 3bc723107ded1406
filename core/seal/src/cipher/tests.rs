use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use super::*;
use crate::key::SealingKey;

/// A generator whose seed is printed, and taken from `ROTACAST_SEED` to replay.
fn seeded() -> StdRng {
    let seed = match std::env::var("ROTACAST_SEED") {
        Ok(text) => text.parse().expect("ROTACAST_SEED is a whole number"),
        Err(_) => rand::random(),
    };
    eprintln!("seed: ROTACAST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn drawn(rng: &mut StdRng) -> SealingKey {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut bytes[..]);
    SealingKey::from_bytes(bytes)
}

fn keys(key: &SealingKey) -> SealingKeys {
    SealingKeys::new(vec![key.clone()])
}

fn broadcasters(key: &SealingKey) -> Reader {
    Reader { name: ReaderName::Broadcasters, key: key.public().clone() }
}

fn service(name: &str, key: &SealingKey) -> Reader {
    Reader { name: ReaderName::Service(name.parse().unwrap()), key: key.public().clone() }
}

fn set(readers: &[Reader]) -> ReaderSet {
    ReaderSet::new(readers.iter().cloned())
}

struct Names {
    cluster: ClusterName,
    secret: SecretName,
}

impl Names {
    fn new(cluster: &str, secret: &str) -> Self {
        Self { cluster: cluster.parse().unwrap(), secret: secret.parse().unwrap() }
    }

    fn place(&self, version: u64) -> Place<'_> {
        Place { cluster: &self.cluster, secret: &self.secret, version: Version::new(version).unwrap() }
    }
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

fn decoded(stored: &SecretValue) -> Sealed {
    Sealed::decode(stored.expose()).unwrap().expect("it is sealed")
}

#[test]
fn every_reader_opens_what_was_sealed_for_it_and_no_one_else_does() {
    let mut rng = seeded();
    for _ in 0..50 {
        let names = Names::new("prod", "payments/db");
        let place = names.place(rng.random_range(1..1_000));
        let (own, other) = (drawn(&mut rng), drawn(&mut rng));
        let services: Vec<SealingKey> = (0..rng.random_range(0..4)).map(|_| drawn(&mut rng)).collect();
        let mut readers = vec![broadcasters(&own)];
        readers.extend(services.iter().map(|key| service("payments-api", key)));
        let mut bytes = vec![0; rng.random_range(1..3_000)];
        rng.fill_bytes(&mut bytes);
        let plain = SecretValue::new(bytes);
        let stored = seal(place, &plain, &set(&readers), &mut |bytes| rng.fill_bytes(bytes)).encode();
        assert!(Sealed::is_sealed(stored.expose()));
        let sealed = decoded(&stored);
        for key in services.iter().chain([&own]) {
            assert!(open(place, &sealed, None, &keys(key)).unwrap() == plain);
        }
        let refused = open(place, &sealed, None, &keys(&other)).err().unwrap();
        let SealError::NoKey { sealed_for, at_hand } = &refused else { panic!("{refused}") };
        assert_eq!(sealed_for.len(), readers.len());
        assert_eq!(at_hand[..], [other.public().id().clone()]);
        let text = refused.to_string();
        assert!(text.contains(own.public().id().as_str()) && text.contains(other.public().id().as_str()), "{text}");
    }
}

#[test]
fn a_ciphertext_that_was_moved_opens_nowhere_else() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let key = drawn(&mut rng);
    let sealed = seal(names.place(7), &value("v"), &set(&[broadcasters(&key)]), &mut |bytes| rng.fill_bytes(bytes));
    assert!(open(names.place(7), &sealed, None, &keys(&key)).is_ok());
    let (cluster, secret) = (Names::new("test", "payments/db"), Names::new("prod", "payments/d"));
    for place in [names.place(8), cluster.place(7), secret.place(7)] {
        let refused = open(place, &sealed, None, &keys(&key)).err().unwrap();
        assert!(matches!(refused, SealError::DataKey { .. }), "{refused}");
        assert!(refused.to_string().contains("moved here from another secret"), "{refused}");
    }
    // Another version's ciphertext behind this one's data key.
    let mut other = seal(names.place(8), &value("w"), &set(&[broadcasters(&key)]), &mut |bytes| rng.fill_bytes(bytes));
    other.ciphertext.clone_from(&sealed.ciphertext);
    assert_eq!(open(names.place(8), &other, None, &keys(&key)).err().unwrap(), SealError::Ciphertext);
}

#[test]
fn whatever_is_flipped_or_cut_is_refused_by_name() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let key = drawn(&mut rng);
    let plain = value("correct horse battery staple");
    let readers = [broadcasters(&key), service("payments-api", &drawn(&mut rng))];
    let stored = seal(names.place(1), &plain, &set(&readers), &mut |bytes| rng.fill_bytes(bytes)).encode();
    let attempt = |stored: &[u8]| match Sealed::decode(stored) {
        Ok(None) => None,
        Ok(Some(sealed)) => Some(open(names.place(1), &sealed, None, &keys(&key))),
        Err(problem) => Some(Err(problem)),
    };
    let magic = b"rotacast-sealed-".len();
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut changed = stored.expose().to_vec();
            changed[at] ^= 1 << bit;
            match attempt(&changed) {
                None => assert!(at < magic, "a change at {at} hides that it is sealed"),
                // Of a header, names and the other reader's data key say nothing to this one.
                Some(Ok(opened)) => assert!(opened == plain, "a change at {at} opens to something else"),
                Some(Err(problem)) => assert!(!problem.to_string().is_empty()),
            }
        }
    }
    let begins = stored.len() - plain.len() - 16;
    for at in begins..stored.len() {
        let mut changed = stored.expose().to_vec();
        changed[at] ^= 1;
        assert_eq!(attempt(&changed).unwrap().err().unwrap(), SealError::Ciphertext, "at {at}");
    }
    for length in magic..stored.len() {
        assert!(attempt(&stored.expose()[..length]).unwrap().is_err(), "cut to {length} bytes");
    }
}

#[test]
fn random_bytes_behind_the_magic_are_refused() {
    let mut rng = seeded();
    for _ in 0..2_000 {
        let mut bytes = b"rotacast-sealed-1\n".to_vec();
        let mut tail = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut tail);
        bytes.extend_from_slice(&tail);
        assert!(Sealed::decode(&bytes).is_err());
        assert!(AddedReaders::decode(&tail).is_err());
    }
}

#[test]
fn a_reader_that_is_added_later_opens_and_the_sealed_value_stays_as_it_is() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let (own, late) = (drawn(&mut rng), drawn(&mut rng));
    let sealed = seal(names.place(1), &value("v"), &set(&[broadcasters(&own)]), &mut |bytes| rng.fill_bytes(bytes));
    let before = sealed.encode();
    let readers = [broadcasters(&own), service("late", &late)];
    let added =
        add_readers(names.place(1), &sealed, None, &keys(&own), &set(&readers), &mut |bytes| rng.fill_bytes(bytes))
            .unwrap();
    let added = added.expect("one reader is new");
    let added = AddedReaders::decode(added.encode().expose()).unwrap();
    assert!(open(names.place(1), &sealed, Some(&added), &keys(&late)).unwrap() == value("v"));
    assert!(open(names.place(1), &sealed, Some(&added), &keys(&own)).unwrap() == value("v"));
    assert!(can_open(&sealed, Some(&added), &keys(&late)) && !can_open(&sealed, None, &keys(&late)));
    assert!(sealed.encode() == before);
    // Once more changes nothing.
    let again =
        add_readers(names.place(1), &sealed, Some(&added), &keys(&own), &set(&readers), &mut |_| unreachable!());
    assert!(again.unwrap().is_none());
    // What does not open is wrapped for no reader.
    let stranger = keys(&drawn(&mut rng));
    let refused = add_readers(names.place(1), &sealed, None, &stranger, &set(&readers), &mut |_| unreachable!());
    assert!(matches!(refused, Err(SealError::NoKey { .. })));
    let mut broken = decoded(&sealed.encode());
    broken.ciphertext[0] ^= 1;
    let refused = add_readers(names.place(1), &broken, None, &keys(&own), &set(&readers), &mut |_| unreachable!());
    assert_eq!(refused.err().unwrap(), SealError::Ciphertext);
}

#[test]
fn a_removed_reader_keeps_what_it_could_open_and_opens_no_newer_version() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let (own, removed) = (drawn(&mut rng), drawn(&mut rng));
    let both = [broadcasters(&own), service("removed", &removed)];
    let old = seal(names.place(1), &value("old"), &set(&both), &mut |bytes| rng.fill_bytes(bytes));
    let new = seal(names.place(2), &value("new"), &set(&both[..1]), &mut |bytes| rng.fill_bytes(bytes));
    // Wrapping anew is no answer: the old wrapped key still opens the old ciphertext.
    assert!(open(names.place(1), &old, None, &keys(&removed)).unwrap() == value("old"));
    let refused = open(names.place(2), &new, None, &keys(&removed)).err().unwrap();
    assert!(matches!(refused, SealError::NoKey { .. }), "{refused}");
}

#[test]
fn with_two_keys_the_first_is_sealed_for_and_both_open() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let (old, new) = (drawn(&mut rng), drawn(&mut rng));
    let by_old = seal(names.place(1), &value("v"), &set(&[broadcasters(&old)]), &mut |bytes| rng.fill_bytes(bytes));
    let both = SealingKeys::new(vec![new.clone(), old.clone()]);
    let reader = Reader { name: ReaderName::Broadcasters, key: both.first().unwrap().public().clone() };
    let by_new =
        seal(names.place(2), &value("w"), &set(std::slice::from_ref(&reader)), &mut |bytes| rng.fill_bytes(bytes));
    assert!(open(names.place(1), &by_old, None, &both).is_ok() && open(names.place(2), &by_new, None, &both).is_ok());
    assert!(open(names.place(2), &by_new, None, &keys(&old)).is_err());
    let added =
        add_readers(names.place(1), &by_old, None, &both, &set(&[reader]), &mut |bytes| rng.fill_bytes(bytes)).unwrap();
    assert!(open(names.place(1), &by_old, added.as_ref(), &keys(&new)).unwrap() == value("v"));
}

#[test]
fn what_a_later_version_wrote_survives_and_a_newer_format_is_refused() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let key = drawn(&mut rng);
    let sealed = seal(names.place(1), &value("v"), &set(&[broadcasters(&key)]), &mut |bytes| rng.fill_bytes(bytes));
    let text = String::from_utf8_lossy(sealed.encode().expose()).into_owned();
    let header = text.lines().nth(1).unwrap().replacen('{', r#"{"later":[1],"#, 1);
    let mut bytes = format!("rotacast-sealed-1\n{header}\n").into_bytes();
    bytes.extend_from_slice(&sealed.ciphertext);
    let read = decoded(&SecretValue::new(bytes));
    assert!(open(names.place(1), &read, None, &keys(&key)).is_ok());
    assert!(String::from_utf8_lossy(read.encode().expose()).contains(r#""later":[1]"#));

    let added = AddedReaders::decode(br#"{"format":1,"readers":[],"later":{"a":1}}"#).unwrap();
    let readers = [service("late", &key)];
    let own = broadcasters(&key);
    let other = seal(names.place(1), &value("v"), &set(&[own]), &mut |bytes| rng.fill_bytes(bytes));
    assert!(
        add_readers(names.place(1), &other, Some(&added), &keys(&key), &set(&readers), &mut |_| ()).unwrap().is_none()
    );
    assert!(String::from_utf8_lossy(added.encode().expose()).contains(r#""later":{"a":1}"#));

    let newer = Sealed::decode(b"rotacast-sealed-2\nwhatever").err().unwrap();
    assert_eq!(newer, SealError::Format { found: 2, expected: 1 });
    assert_eq!(AddedReaders::decode(br#"{"format":9}"#).err().unwrap(), SealError::Format { found: 9, expected: 1 });
}

#[test]
fn the_most_readers_with_the_longest_names_stay_within_the_overhead() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let key = drawn(&mut rng);
    let longest = "s".repeat(128);
    let mut readers = vec![broadcasters(&key)];
    readers.extend((0..MAX_READERS + 2).map(|_| service(&longest, &drawn(&mut rng))));
    let plain = value("v");
    // More of them are left out by name: the value is sealed all the same.
    let all = set(&readers);
    assert_eq!((all.readers().len(), all.left_out().len()), (MAX_READERS, 3));
    let stored = seal(names.place(1), &plain, &all, &mut |bytes| rng.fill_bytes(bytes)).encode();
    let overhead = stored.len() - plain.len();
    assert!(overhead <= crate::format::MAX_OVERHEAD, "{overhead}");
    assert!(open(names.place(1), &decoded(&stored), None, &keys(&key)).unwrap() == plain);
}

#[test]
fn the_broadcasters_are_never_left_out_and_a_key_that_is_shared_counts_once() {
    let mut rng = seeded();
    let (own, shared) = (drawn(&mut rng), drawn(&mut rng));
    let mut readers: Vec<Reader> = (0..MAX_READERS).map(|_| service("a", &drawn(&mut rng))).collect();
    readers.extend([service("b", &shared), service("c", &shared), service("d", &own), broadcasters(&own)]);
    let all = set(&readers);
    assert_eq!(all.readers()[0], broadcasters(&own));
    assert_eq!(all.left_out().len(), 2, "{:?}", all.left_out());
    assert_eq!(all.broadcasters().readers(), [broadcasters(&own)]);
}

#[test]
fn readers_that_come_and_go_never_use_up_the_room_for_those_that_are_there() {
    let mut rng = seeded();
    let names = Names::new("prod", "payments/db");
    let place = names.place(1);
    let own = drawn(&mut rng);
    let sealed = seal(place, &value("v"), &set(&[broadcasters(&own)]), &mut |bytes| rng.fill_bytes(bytes));
    let (mut added, mut all) = (None::<AddedReaders>, 0);
    for _ in 0..4 {
        // Every service replaces its key.
        let services: Vec<SealingKey> = (1..MAX_READERS).map(|_| drawn(&mut rng)).collect();
        let mut readers = vec![broadcasters(&own)];
        readers.extend(services.iter().map(|key| service("api", key)));
        let next = add_readers(place, &sealed, added.as_ref(), &keys(&own), &set(&readers), &mut |bytes| {
            rng.fill_bytes(bytes)
        });
        let next = AddedReaders::decode(next.unwrap().unwrap().encode().expose()).unwrap();
        assert!(services.iter().all(|key| open(place, &sealed, Some(&next), &keys(key)).is_ok()));
        all += services.len() as u64;
        assert_eq!(next.readers().len() as u64 + next.made_way(), all, "none is forgotten without being counted");
        added = Some(next);
    }
    // The broadcasters' own new key has room as well.
    let new = drawn(&mut rng);
    let both = SealingKeys::new(vec![new.clone(), own.clone()]);
    let reader = set(&[broadcasters(&new)]);
    let next = add_readers(place, &sealed, added.as_ref(), &both, &reader, &mut |bytes| rng.fill_bytes(bytes));
    assert!(open(place, &sealed, next.unwrap().as_ref(), &keys(&new)).is_ok());
}

#[test]
fn a_public_key_of_low_order_is_no_key() {
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let text = format!("rotacast-sealing-public-1:{}", BASE64.encode(point));
        let refused = SealingPublicKey::parse(&text).err().unwrap().to_string();
        assert!(refused.contains("low order"), "{refused}");
    }
}
