//! Sealing and opening.

use std::convert::Infallible;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hpke::aead::ChaCha20Poly1305 as HpkeCipher;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use rand_core::{TryCryptoRng, TryRng};
use rotacast_proto::SecretValue;
use rotacast_protocol::{ClusterName, SecretName, Version};
use zeroize::Zeroizing;

use crate::error::SealError;
use crate::format::{AddedReaders, MAX_READERS, Sealed, WrappedKey};
use crate::key::{ReaderName, SealingKeys, SealingPublicKey};

pub(crate) type Kem = X25519HkdfSha256;

/// What the ciphertext of a value is bound to, before the place's own fields.
const VALUE: &[u8] = b"rotacast sealed value 1";
/// What a wrapped data key is bound to.
const DATA_KEY: &[u8] = b"rotacast data key 1";

/// Where a value belongs: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Of which cluster.
    pub cluster: &'a ClusterName,
    /// Of which secret.
    pub secret: &'a SecretName,
    /// Which version.
    pub version: Version,
}

impl Place<'_> {
    /// Each part with its length in front, so that no two places are the same bytes.
    fn bound(&self, what: &[u8]) -> Vec<u8> {
        let mut bytes = what.to_vec();
        for part in [self.cluster.as_str(), self.secret.as_str()] {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&self.version.get().to_be_bytes());
        bytes
    }
}

/// Whom a value is sealed for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Who it is.
    pub name: ReaderName,
    /// Its key.
    pub key: SealingPublicKey,
}

/// Whom a value is sealed for: each key once, and at most [`MAX_READERS`] of them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ReaderSet {
    readers: Vec<Reader>,
    left_out: Vec<ReaderName>,
}

impl ReaderSet {
    /// The broadcasters come first, the others in the order given. Readers that share a key share what is wrapped for it.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Reader>) -> Self {
        let mut all: Vec<Reader> = all.into_iter().collect();
        // A stable sort: the same readers are left out of each version.
        all.sort_by_key(|reader| reader.name != ReaderName::Broadcasters);
        let mut distinct: Vec<Reader> = Vec::new();
        for reader in all {
            if !distinct.iter().any(|known| known.key == reader.key) {
                distinct.push(reader);
            }
        }
        let beyond = distinct.split_off(distinct.len().min(MAX_READERS));
        Self { readers: distinct, left_out: beyond.into_iter().map(|reader| reader.name).collect() }
    }

    /// Those that values are sealed for.
    #[must_use]
    pub fn readers(&self) -> &[Reader] {
        &self.readers
    }

    /// Those beyond [`MAX_READERS`]: they get values from broadcasters alone.
    #[must_use]
    pub fn left_out(&self) -> &[ReaderName] {
        &self.left_out
    }

    /// The broadcasters alone.
    #[must_use]
    pub fn broadcasters(mut self) -> Self {
        self.readers.retain(|reader| reader.name == ReaderName::Broadcasters);
        self.left_out.clear();
        self
    }
}

/// Randomness that the caller gives, as `hpke` takes it.
struct Given<'a>(&'a mut dyn FnMut(&mut [u8]));

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        (self.0)(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        (self.0)(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        (self.0)(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

/// Seals a value for these readers. `random` fills its argument with bytes that no one can predict, other ones each time.
pub fn seal(place: Place<'_>, value: &SecretValue, readers: &ReaderSet, random: &mut dyn FnMut(&mut [u8])) -> Sealed {
    let mut data_key = Zeroizing::new([0; 32]);
    random(&mut data_key[..]);
    let mut nonce = [0; 12];
    random(&mut nonce);
    let wrapped = readers.readers.iter().map(|reader| wrap(place, &data_key, reader, random)).collect();
    let payload = Payload { msg: value.expose(), aad: &place.bound(VALUE) };
    let ciphertext = cipher(&data_key)
        .encrypt(&Nonce::from(nonce), payload)
        .expect("the cipher takes up to 256 GiB, and a value is far shorter");
    Sealed::new(nonce, wrapped, ciphertext)
}

/// Opens a value with whichever of the keys it was sealed for, or was wrapped for later.
///
/// # Errors
/// [`SealError::NoKey`], [`SealError::DataKey`], [`SealError::Ciphertext`].
pub fn open(
    place: Place<'_>,
    sealed: &Sealed,
    added: Option<&AddedReaders>,
    keys: &SealingKeys,
) -> Result<SecretValue, SealError> {
    open_with(place, sealed, added, keys).map(|(value, _)| value)
}

/// Whether the data key is wrapped for one of these keys, here or among the readers added later.
#[must_use]
pub fn can_open(sealed: &Sealed, added: Option<&AddedReaders>, keys: &SealingKeys) -> bool {
    all(sealed, added).any(|wrapped| keys.iter().any(|key| wrapped.is_for(key.public().id())))
}

/// Wraps the data key for the readers that cannot open the value yet. `None`: all of them can. The value is opened first: what
/// does not open is wrapped for no reader. If there is no room, entries that are neither for one of the readers nor for one of the
/// keys make way, the oldest first: they are counted, so it stays known that there were more.
///
/// # Errors
/// As [`open`].
pub fn add_readers(
    place: Place<'_>,
    sealed: &Sealed,
    added: Option<&AddedReaders>,
    keys: &SealingKeys,
    readers: &ReaderSet,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Option<AddedReaders>, SealError> {
    let is_new = |reader: &&Reader| !all(sealed, added).any(|wrapped| wrapped.is_for(reader.key.id()));
    let new: Vec<&Reader> = readers.readers.iter().filter(is_new).collect();
    if new.is_empty() {
        return Ok(None);
    }
    let (_, data_key) = open_with(place, sealed, added, keys)?;
    let mut added = added.cloned().unwrap_or_default();
    added.make_room(new.len(), |wrapped| {
        let wanted = readers.readers.iter().any(|reader| wrapped.is_for(reader.key.id()));
        wanted || keys.iter().any(|key| wrapped.is_for(key.public().id()))
    });
    for reader in new {
        added.add(wrap(place, &data_key, reader, random));
    }
    Ok(Some(added))
}

fn all<'a>(sealed: &'a Sealed, added: Option<&'a AddedReaders>) -> impl Iterator<Item = &'a WrappedKey> {
    sealed.readers().iter().chain(added.into_iter().flat_map(AddedReaders::readers))
}

fn open_with(
    place: Place<'_>,
    sealed: &Sealed,
    added: Option<&AddedReaders>,
    keys: &SealingKeys,
) -> Result<(SecretValue, Zeroizing<[u8; 32]>), SealError> {
    let mut problem = None;
    for wrapped in all(sealed, added) {
        let Some(key) = keys.iter().find(|key| wrapped.is_for(key.public().id())) else { continue };
        let Some(data_key) = unwrap(place, wrapped, &key.private()) else {
            // Another one may be whole.
            problem = Some(SealError::DataKey { key: key.public().id().clone() });
            continue;
        };
        let payload = Payload { msg: &sealed.ciphertext, aad: &place.bound(VALUE) };
        match cipher(&data_key).decrypt(&Nonce::from(*sealed.nonce()), payload) {
            Ok(value) => return Ok((SecretValue::new(value), data_key)),
            Err(_) => problem = Some(SealError::Ciphertext),
        }
    }
    Err(problem.unwrap_or_else(|| {
        let sealed_for = all(sealed, added).filter_map(|wrapped| Some((wrapped.reader()?, wrapped.key()?)));
        let at_hand = keys.iter().map(|key| key.public().id().clone());
        SealError::NoKey { sealed_for: sealed_for.collect(), at_hand: at_hand.collect() }
    }))
}

fn cipher(data_key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*data_key))
}

/// Whether a data key can be wrapped for this key: not for a point of low order, with which every secret that is agreed on is the
/// same.
pub(crate) fn can_be_wrapped_for(key: &SealingPublicKey) -> bool {
    wrapped_for(key, &[], &[0; 32], &mut |bytes| bytes.fill(1)).is_ok()
}

fn wrap(place: Place<'_>, data_key: &[u8; 32], reader: &Reader, random: &mut dyn FnMut(&mut [u8])) -> WrappedKey {
    let (encapsulated, wrapped) = wrapped_for(&reader.key, &place.bound(DATA_KEY), data_key, random)
        .expect("no public sealing key is made without a look at whether it can be wrapped for");
    let wrapped = wrapped.try_into().expect("the cipher adds 16 bytes to the 32 of a data key");
    WrappedKey::new(&reader.name, reader.key.id(), encapsulated.to_bytes().into(), wrapped)
}

fn wrapped_for(
    key: &SealingPublicKey,
    bound: &[u8],
    data_key: &[u8; 32],
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<(<Kem as hpke::Kem>::EncappedKey, Vec<u8>), hpke::HpkeError> {
    let (mode, mut random) = (OpModeS::Base, Given(random));
    hpke::single_shot_seal_with_rng::<HpkeCipher, HkdfSha256, Kem>(
        &mode,
        &key.public(),
        bound,
        data_key,
        &[],
        &mut random,
    )
}

fn unwrap(
    place: Place<'_>,
    wrapped: &WrappedKey,
    private: &<Kem as hpke::Kem>::PrivateKey,
) -> Option<Zeroizing<[u8; 32]>> {
    let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&wrapped.encapsulated.0).ok()?;
    let opened = hpke::single_shot_open::<HpkeCipher, HkdfSha256, Kem>(
        &OpModeR::Base,
        private,
        &encapsulated,
        &place.bound(DATA_KEY),
        &wrapped.wrapped.0,
        &[],
    );
    let opened = Zeroizing::new(opened.ok()?);
    let mut data_key = Zeroizing::new([0; 32]);
    if opened.len() != data_key.len() {
        return None;
    }
    data_key.copy_from_slice(&opened);
    Some(data_key)
}

#[cfg(test)]
mod tests;
