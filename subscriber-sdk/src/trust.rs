//! Whose word counts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rotacast_proto::{Envelope, EnvelopeError, KeyId, MAX_CLUSTER_KEYS, Renewed, VerifyingKey, WireMessage, read_file};
use rotacast_protocol::ClusterName;
use zeroize::Zeroizing;

/// The keys that the settings name.
enum Settings {
    Fixed(Arc<[VerifyingKey]>),
    /// Read again when a file changes: a key can be taken out while this process runs.
    Files(Renewed<Vec<Zeroizing<String>>, Arc<[VerifyingKey]>>),
}

/// The broadcasters' keys, and how many messages were refused.
pub(crate) struct Trust {
    settings: Settings,
    /// Trusted because the newest reply announced them, or was signed by them: a key that is not announced again is forgotten.
    announced: Mutex<Vec<VerifyingKey>>,
    refused: AtomicU64,
}

impl Trust {
    #[cfg(test)]
    pub(crate) fn new(keys: Vec<VerifyingKey>) -> Self {
        Self::of(Settings::Fixed(keys.into()))
    }

    /// These keys, and those in the files, one or more in each.
    ///
    /// # Errors
    /// Which file is none of public keys.
    pub(crate) fn read(keys: Vec<VerifyingKey>, files: Vec<PathBuf>) -> Result<Self, String> {
        if files.is_empty() {
            return Ok(Self::of(Settings::Fixed(keys.into())));
        }
        let named = files.clone();
        let read = move |patience| {
            let read = |file| read_file(file, patience).map_err(|problem| problem.to_string());
            named.iter().map(|file| read(file)).collect()
        };
        let make = move |_: &Vec<Zeroizing<String>>| {
            let mut all = keys.clone();
            for file in &files {
                all.extend(VerifyingKey::read_list(file).map_err(|problem| problem.to_string())?);
            }
            Ok(all.into())
        };
        Renewed::new("the broadcasters' public keys", read, make).map(|files| Self::of(Settings::Files(files)))
    }

    fn of(settings: Settings) -> Self {
        Self { settings, announced: Mutex::default(), refused: AtomicU64::new(0) }
    }

    fn settings(&self) -> Arc<[VerifyingKey]> {
        match &self.settings {
            Settings::Fixed(keys) => Arc::clone(keys),
            Settings::Files(files) => files.current(),
        }
    }

    fn announced(&self) -> MutexGuard<'_, Vec<VerifyingKey>> {
        // Whole after every call on it.
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a message signed by a trusted broadcaster; anything else is counted.
    pub(crate) fn open<M: WireMessage>(&self, cluster: &ClusterName, envelope: &Envelope) -> Result<M, EnvelopeError> {
        let (settings, announced) = (self.settings(), self.announced().clone());
        let result =
            M::open(envelope, cluster, |id, _| settings.iter().chain(&announced).find(|key| key.id().as_str() == id));
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// A reply that was opened, signed with the key of this id, announced keys.
    pub(crate) fn heard(&self, signer: &str, keys: Vec<VerifyingKey>) {
        let settings = self.settings();
        let mut announced = self.announced();
        announced.retain(|key| key.id().as_str() == signer);
        for key in keys {
            if !announced.contains(&key) {
                announced.push(key);
            }
        }
        announced.retain(|key| !settings.contains(key));
    }

    /// The ids of the keys that the settings name, and of those that were announced only.
    pub(crate) fn ids(&self) -> (Vec<KeyId>, Vec<KeyId>) {
        let ids = |keys: &[VerifyingKey]| {
            let mut ids: Vec<KeyId> = keys.iter().map(|key| key.id().clone()).collect();
            ids.sort();
            ids.dedup();
            ids.truncate(MAX_CLUSTER_KEYS);
            ids
        };
        (ids(&self.settings()), ids(&self.announced()))
    }

    /// Messages refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use rotacast_proto::SigningKey;
    use rotacast_protocol::message::SyncReply;
    use rotacast_protocol::{Epoch, Incarnation, InstanceKey, Nonce, ReportSequence};

    use super::*;

    fn reply(signer: &SigningKey) -> Envelope {
        let reply = SyncReply {
            key: InstanceKey::new("api".parse().unwrap(), "one".parse().unwrap(), Incarnation(1)),
            nonce: Nonce(1),
            epoch: Epoch(1),
            covered: ReportSequence(0),
            unregistered: false,
            unproven: false,
            challenge: None,
            secrets: [].into(),
        };
        reply.seal(signer, &"test".parse().unwrap(), "id", rotacast_protocol::WallTime(0))
    }

    fn trusts(trust: &Trust, signer: &SigningKey) -> bool {
        trust.open::<SyncReply>(&"test".parse().unwrap(), &reply(signer)).is_ok()
    }

    #[test]
    fn a_key_that_is_announced_counts_until_it_is_not_announced_again() {
        let (old, new, stranger) = (SigningKey::generate(), SigningKey::generate(), SigningKey::generate());
        let trust = Trust::new(vec![old.public().clone()]);
        let id = |key: &SigningKey| key.public().id().as_str().to_owned();
        assert!(trusts(&trust, &old) && !trusts(&trust, &new));
        trust.heard(&id(&old), vec![new.public().clone(), old.public().clone()]);
        assert!(trusts(&trust, &new) && !trusts(&trust, &stranger));
        assert_eq!(trust.ids(), (vec![old.public().id().clone()], vec![new.public().id().clone()]));
        // It signs now, and announces the one before.
        trust.heard(&id(&new), vec![old.public().clone()]);
        assert!(trusts(&trust, &new), "the key that signs stays");
        trust.heard(&id(&old), Vec::new());
        assert!(trusts(&trust, &old) && !trusts(&trust, &new));
    }

    #[test]
    fn a_key_that_is_taken_out_of_its_file_counts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trust");
        let (old, new) = (SigningKey::generate(), SigningKey::generate());
        let write = |keys: &[&SigningKey]| {
            let lines: Vec<String> = keys.iter().map(|key| key.public().to_text()).collect();
            std::fs::write(&file, lines.join("\n")).unwrap();
        };
        write(&[&old, &new]);
        let trust = Trust::read(Vec::new(), vec![file.clone()]).unwrap();
        assert!(trusts(&trust, &old) && trusts(&trust, &new));
        write(&[&new]);
        let Settings::Files(files) = &trust.settings else { panic!("it was read from a file") };
        files.look_now();
        assert!(!trusts(&trust, &old) && trusts(&trust, &new));
        // A file that cannot be used changes nothing.
        std::fs::write(&file, "nonsense").unwrap();
        files.look_now();
        assert!(trusts(&trust, &new));
        assert!(Trust::read(Vec::new(), vec![file.clone()]).is_err());
    }
}
