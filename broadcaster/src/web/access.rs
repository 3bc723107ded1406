//! Who may look at the dashboard, and who may act there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use tokio::time::Instant;

use crate::operators::{Operators, SignedIn};
use crate::token::TokenDigest;
use crate::viewers::bearer;

/// How long a sign-in lasts: a shift, so that a screen that was left gives no orders the next day.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Most sign-ins remembered: far more than people on call. When they are used up, the oldest ends.
const MAX_SESSIONS: usize = 1024;
/// The cookie that carries a session over TLS; browsers take this name from this host over TLS only.
const SECURE_COOKIE: &str = "__Host-rotacast";
/// The same on loopback without TLS.
const COOKIE_NAME: &str = "rotacast-session";

/// Sign-ins that are in force. They are kept in memory only: a restart ends them all.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, (TokenDigest, Instant)>>);

impl Sessions {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, (TokenDigest, Instant)>> {
        // A map is whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs in with a token: the session's id, if the token is known.
    pub(super) fn begin(&self, operators: &Operators, text: &str, now: Instant) -> Option<String> {
        let digest = TokenDigest::of(text)?;
        operators.by_token(&digest)?;
        let id = hex::encode(rand::random::<[u8; 32]>());
        let mut sessions = self.map();
        sessions.retain(|_, (_, ends)| *ends > now);
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, (_, ends))| *ends).map(|(id, _)| id.clone());
            oldest.map(|id| sessions.remove(&id));
        }
        sessions.insert(id.clone(), (digest, now + SESSION));
        Some(id)
    }

    /// Signs out.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.map().remove(id);
        }
    }

    /// Who asks: by a session or, for programs, by the token itself. A token that is taken out of the configuration ends its
    /// sessions.
    pub(super) fn signed_in(&self, operators: &Operators, headers: &HeaderMap, now: Instant) -> Option<SignedIn> {
        let digest = match bearer(headers) {
            Some(digest) => digest?,
            None => {
                let (digest, ends) = *self.map().get(cookie(headers)?)?;
                (ends > now).then_some(digest)?
            }
        };
        operators.by_token(&digest)
    }
}

/// The session's id in the request's cookies.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| matches!(name, SECURE_COOKIE | COOKIE_NAME).then_some(value))
}

/// The cookie that begins (`Some`) or ends a session. No script can read it, and no other site can have it sent.
pub(super) fn set_cookie(session: Option<&str>, tls: bool) -> String {
    let (name, secure) = if tls { (SECURE_COOKIE, "; Secure") } else { (COOKIE_NAME, "") };
    let (value, age) = match session {
        Some(id) => (id, SESSION.as_secs()),
        None => ("", 0),
    };
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use axum::http::header::AUTHORIZATION;
    use rotacast_protocol::OperatorName;

    use super::*;
    use crate::operators::{Credential, Operator};
    use crate::token::Token;

    fn name(text: &str) -> OperatorName {
        OperatorName::new(text).unwrap()
    }

    fn operators(ada: &Token, grafana: &Token) -> Operators {
        let with = |token: &Token| Operator { tokens: vec![token.digest()], ..Operator::default() };
        Operators::new([(name("ada"), with(ada)), (name("grafana"), with(grafana))].into(), [].into())
    }

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_until_it_ends_runs_out_or_its_token_is_withdrawn() {
        let (operator, reader) = (Token::generate(), Token::generate());
        let known = operators(&operator, &reader);
        let sessions = Sessions::default();
        let now = Instant::now();
        assert_eq!(sessions.begin(&known, Token::generate().text(), now), None);
        let id = sessions.begin(&known, operator.text(), now).unwrap();
        let asked = headers(COOKIE, &format!("other=1; {COOKIE_NAME}={id}"));
        let ada = SignedIn { name: name("ada"), credential: Credential::Token(operator.digest()) };
        assert_eq!(sessions.signed_in(&known, &asked, now), Some(ada));
        assert_eq!(sessions.signed_in(&Operators::default(), &asked, now), None, "its token is withdrawn");
        assert_eq!(sessions.signed_in(&known, &asked, now + SESSION), None, "it has run out");
        assert_eq!(sessions.signed_in(&known, &headers(COOKIE, &format!("{COOKIE_NAME}=00")), now), None);
        sessions.end(&asked);
        assert_eq!(sessions.signed_in(&known, &asked, now), None, "it was ended");
    }

    #[tokio::test(start_paused = true)]
    async fn programs_show_their_token() {
        let (operator, reader) = (Token::generate(), Token::generate());
        let known = operators(&operator, &reader);
        let sessions = Sessions::default();
        let bearer = headers(AUTHORIZATION, &format!("Bearer {}", reader.text()));
        assert_eq!(sessions.signed_in(&known, &bearer, Instant::now()).unwrap().name, name("grafana"));
        let wrong = headers(AUTHORIZATION, "Bearer guess");
        assert_eq!(sessions.signed_in(&known, &wrong, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_bounded() {
        let (operator, reader) = (Token::generate(), Token::generate());
        let known = operators(&operator, &reader);
        let sessions = Sessions::default();
        let first = sessions.begin(&known, operator.text(), Instant::now()).unwrap();
        for _ in 0..MAX_SESSIONS {
            tokio::time::advance(Duration::from_millis(1)).await;
            sessions.begin(&known, operator.text(), Instant::now()).unwrap();
        }
        let asked = headers(COOKIE, &format!("{COOKIE_NAME}={first}"));
        assert_eq!(sessions.signed_in(&known, &asked, Instant::now()), None, "the oldest made room");
        assert_eq!(sessions.map().len(), MAX_SESSIONS);
    }

    #[test]
    fn over_tls_the_cookie_is_for_tls_only() {
        assert!(set_cookie(Some("id"), true).starts_with("__Host-rotacast=id; Path=/;"));
        assert!(set_cookie(Some("id"), true).ends_with("; Secure"));
        assert!(set_cookie(None, false).contains("Max-Age=0"));
        assert!(set_cookie(Some("id"), false).contains("HttpOnly; SameSite=Strict"));
    }
}
