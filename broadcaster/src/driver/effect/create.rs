//! Makes the credential of a version, and tries it.

use rotacast_protocol::coordinator::Input;
use rotacast_protocol::record::{Origin, Rotation};
use rotacast_protocol::{Phase, Version};
use rotacast_provider::{Credential, LiveSessions, Trial, Verdict, judge_shape};
use rotacast_store::Published;
use tracing::warn;

use super::super::Environment;
use super::Effect;

impl Effect {
    /// The value is durable in the journal before the outside call, so that a lost answer leads to the same credential
    /// again; it gets its version key only once it is valid.
    pub(super) async fn create(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Environment { tree, .. } = &self.environment;
        let epoch = self.record.epoch;
        let provider = self.provider(version)?;
        let journalled = tree.read_journal(self.secret(), version).await?;
        if journalled.is_none() && self.credential(version).await?.is_some() {
            // It was published before an answer was lost, or another client has taken the number.
            return Ok(vec![Input::Created { version, origin: Origin::Managed }]);
        }
        let value = match journalled {
            Some(value) => value,
            None => tree.journal(self.secret(), version, provider.draw(self.secret(), version)?, epoch).await?,
        };
        let credential = Credential { secret: self.secret().clone(), version, value };
        self.must_lead()?;
        provider.create(&credential).await?;
        let origin = match tree.publish_journalled(self.secret(), version, epoch).await? {
            Published::Done(_) => Origin::Managed,
            // Nothing was journalled and nothing is stored: begin again.
            Published::Missing => anyhow::bail!("the journal entry of version {version} is gone"),
            Published::Taken => {
                // Another client wrote this version at the same moment. Its value stands; no instance has used ours.
                warn!(secret = %self.secret(), %version, "another client has written this version; using its value");
                let theirs: Vec<Credential> = self.credential(version).await?.into_iter().collect();
                provider.disable(&credential, &theirs, LiveSessions::ByPolicy).await?;
                provider.destroy(&credential, &theirs, LiveSessions::ByPolicy).await?;
                tree.clear_journal(self.secret(), version, epoch).await?;
                Origin::Watched
            }
        };
        Ok(vec![Input::Created { version, origin }])
    }

    pub(super) async fn test(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Some(credential) = self.credential(version).await? else {
            let reason = "its value is no longer in the store".to_owned();
            return Ok(vec![Input::VerifyFailed { version, reason }]);
        };
        let others = self.others(version).await?;
        let verdict = match self.is_only_followed(version) {
            true => judge_shape(&credential, &others),
            false => self.provider(version)?.test(&credential, &others, Trial::New).await?,
        };
        Ok(vec![match verdict {
            Verdict::Works => Input::Verified { version },
            Verdict::Rejected(reason) => Input::VerifyFailed { version, reason },
            // Its first test worked before the store lost history, and nothing says that it has ended.
            Verdict::Unusable(reason) if self.record.doubt(version).is_some() && !self.is_verified_first(version) => {
                anyhow::bail!("it cannot be tried whether version {version} still works: {reason}")
            }
            Verdict::Unusable(reason) => Input::VerifyFailed { version, reason },
        }])
    }

    /// Whether no test of the version is known to have worked: its rotation waits for the first one.
    fn is_verified_first(&self, version: Version) -> bool {
        let verifies = |rotation: &Rotation| rotation.new == version && rotation.phase == Phase::Verifying;
        self.record.rotation.as_ref().is_some_and(verifies)
    }
}
