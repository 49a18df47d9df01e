//! Grants and their tokens: who may do what, and which refresh token is the good one.
//!
//! Rules, each from the documents of the real service or of the authorization server behind it:
//! - a rotating refresh token works once; showing a used one kills the grant's newest refresh token
//!   and all of its access tokens (reuse detection), except within a grace period that is zero
//!   unless set;
//! - a refresh token that nobody used for 180 days is dead; a code works once, for five minutes,
//!   with its verifier.
//!
//! Tokens are kept by their fingerprint only. Nothing here knows HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use sha2::{Digest as _, Sha256};

use crate::engine::{Mono, Now, Unix};

use super::account::account_uuid;
use super::device::Granted;
use super::log::fingerprint;
use super::options::Options;
use super::signer::{self, Claims};

/// What a tenant's owner is asked for, and what a tenant connected by the sandbox itself gets.
pub(super) const ALL_SCOPES: &str = "contact_data campaign_data account_read offline_access";
/// The scope without which no refresh token is given.
const OFFLINE: &str = "offline_access";
const CODE_LIFE: Duration = Duration::from_mins(5);
/// How long ago an access token that is to be expired from the start has ended.
const EXPIRED_SINCE: Duration = Duration::from_mins(1);

/// A set of tokens as the token endpoint gives it.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) scopes: Arc<str>,
}

/// The refresh token or code is used, expired, revoked or somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidGrant;

/// Whom a bearer token that the sandbox issued stands for.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) client_id: Arc<str>,
    pub(super) account: Arc<str>,
    pub(super) scopes: Arc<str>,
    /// Neither expired nor revoked.
    pub(super) good: bool,
}

/// What the owner of an account consented to, to be exchanged for tokens.
#[derive(Clone, Debug)]
pub(super) struct Consent {
    pub(super) client_id: Arc<str>,
    pub(super) account: Arc<str>,
    pub(super) scopes: Arc<str>,
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<String>,
}

/// Whether a new grant's access token is good or has ended already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    Expired,
}

/// All grants, codes and tokens.
#[derive(Debug, Default)]
pub(super) struct Grants {
    all: Vec<Grant>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
    codes: HashMap<String, (Consent, Mono)>,
}

#[derive(Debug)]
struct Grant {
    client_id: Arc<str>,
    account: Arc<str>,
    scopes: Arc<str>,
    /// Fingerprint of the refresh token that works.
    current: Option<String>,
    /// Fingerprint of the one before, for the grace period.
    previous: Option<String>,
    used_at: Unix,
    alive: bool,
}

#[derive(Debug)]
struct Refresh {
    grant: usize,
    used_at: Option<Mono>,
}

#[derive(Debug)]
struct Access {
    grant: usize,
    expires: u64,
}

impl Grants {
    /// A new grant, as if the account's owner had just consented.
    pub(super) fn connect(
        &mut self,
        client_id: &str,
        account: &str,
        freshness: Freshness,
        mint: &mut Mint<'_>,
    ) -> Issued {
        let grant = self.open(client_id.into(), account.into(), ALL_SCOPES.into(), mint.now);
        self.issue(grant, freshness, mint)
    }

    /// A code for `consent`.
    pub(super) fn code(&mut self, consent: Consent, mint: &mut Mint<'_>) -> String {
        let code = mint.token();
        self.codes.insert(fingerprint(&code), (consent, mint.now.mono));
        code
    }

    /// Exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
    pub(super) fn exchange(
        &mut self,
        client_id: &str,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
        mint: &mut Mint<'_>,
    ) -> Result<Issued, InvalidGrant> {
        let (consent, since) = self.codes.remove(&fingerprint(code)).ok_or(InvalidGrant)?;
        let proved = match (&consent.challenge, verifier) {
            (None, _) => true,
            (Some(challenge), Some(verifier)) => *challenge == challenge_of(verifier),
            (Some(_), None) => false,
        };
        let in_time = mint.now.mono.since(since) < CODE_LIFE;
        if !proved
            || !in_time
            || *consent.client_id != *client_id
            || consent.redirect_uri != redirect_uri
        {
            return Err(InvalidGrant);
        }
        let grant = self.open(consent.client_id, consent.account, consent.scopes, mint.now);
        Ok(self.issue(grant, Freshness::Fresh, mint))
    }

    /// Gives tokens for a consent that was given elsewhere.
    pub(super) fn consented(&mut self, granted: Granted, mint: &mut Mint<'_>) -> Issued {
        let grant = self.open(granted.client_id, granted.account, granted.scopes, mint.now);
        self.issue(grant, Freshness::Fresh, mint)
    }

    /// Gives new tokens for a refresh token, and kills the grant when the token was used before.
    pub(super) fn refresh(
        &mut self,
        client_id: &str,
        token: &str,
        mint: &mut Mint<'_>,
    ) -> Result<Issued, InvalidGrant> {
        let print = fingerprint(token);
        let shown = self.refresh.get_mut(&print).ok_or(InvalidGrant)?;
        let index = shown.grant;
        let grant = self.all.get_mut(index).ok_or(InvalidGrant)?;
        if *grant.client_id != *client_id || !grant.alive {
            return Err(InvalidGrant);
        }
        let dormant = mint.now.unix.since(grant.used_at) > mint.options.refresh_token_life;
        let in_grace = |used_at: Mono| {
            let grace = mint.options.reuse_grace;
            let is_previous = grant.previous.as_deref() == Some(print.as_str());
            is_previous && !grace.is_zero() && mint.now.mono.since(used_at) <= grace
        };
        if dormant || shown.used_at.is_some_and(|used_at| !in_grace(used_at)) {
            grant.alive = false;
            return Err(InvalidGrant);
        }
        grant.used_at = mint.now.unix;
        if mint.options.rotating {
            shown.used_at.get_or_insert(mint.now.mono);
            if let Some(replaced) = grant.current.take()
                && let Some(replaced) = self.refresh.get_mut(&replaced)
            {
                replaced.used_at.get_or_insert(mint.now.mono);
            }
            if let Some(grant) = self.all.get_mut(index) {
                grant.previous = Some(print);
            }
            return Ok(self.issue(index, Freshness::Fresh, mint));
        }
        let issued = self.issue_access(index, Freshness::Fresh, mint);
        Ok(Issued { refresh_token: Some(token.to_owned()), ..issued })
    }

    /// Whose token this is; none when the sandbox did not issue it.
    pub(super) fn bearer(&self, token: &str, now: Now) -> Option<Bearer> {
        let access = self.access.get(&fingerprint(token))?;
        let grant = self.all.get(access.grant)?;
        Some(Bearer {
            client_id: Arc::clone(&grant.client_id),
            account: Arc::clone(&grant.account),
            scopes: Arc::clone(&grant.scopes),
            good: grant.alive && now.unix.as_secs() < access.expires,
        })
    }

    /// The account that a refresh token or code was given for.
    pub(super) fn account_of(&self, token: &str) -> Option<Arc<str>> {
        let print = fingerprint(token);
        if let Some((consent, _)) = self.codes.get(&print) {
            return Some(Arc::clone(&consent.account));
        }
        let grant = self.all.get(self.refresh.get(&print)?.grant)?;
        Some(Arc::clone(&grant.account))
    }

    /// Kills every grant of an account, as its owner can; returns how many there were.
    pub(super) fn revoke(&mut self, account: &str) -> usize {
        let mut count = 0;
        for grant in self.all.iter_mut().filter(|grant| *grant.account == *account) {
            count += usize::from(grant.alive);
            grant.alive = false;
        }
        count
    }

    fn open(
        &mut self,
        client_id: Arc<str>,
        account: Arc<str>,
        scopes: Arc<str>,
        now: Now,
    ) -> usize {
        let used_at = now.unix;
        let (current, previous) = (None, None);
        self.all.push(Grant {
            client_id,
            account,
            scopes,
            current,
            previous,
            used_at,
            alive: true,
        });
        self.all.len() - 1
    }

    fn issue(&mut self, index: usize, freshness: Freshness, mint: &mut Mint<'_>) -> Issued {
        let mut issued = self.issue_access(index, freshness, mint);
        if issued.scopes.split(' ').any(|scope| scope == OFFLINE) {
            let token = mint.token();
            let print = fingerprint(&token);
            self.refresh.insert(print.clone(), Refresh { grant: index, used_at: None });
            self.all[index].current = Some(print);
            issued.refresh_token = Some(token);
        }
        issued
    }

    fn issue_access(&mut self, index: usize, freshness: Freshness, mint: &mut Mint<'_>) -> Issued {
        let grant = &self.all[index];
        let life = mint.options.access_token_life;
        let issued = match freshness {
            Freshness::Fresh => mint.now.unix,
            Freshness::Expired => mint.now.unix.minus(life).minus(EXPIRED_SINCE),
        };
        let expires = issued.plus(life).as_secs();
        let access_token = signer::sign(&Claims {
            client_id: &grant.client_id,
            account: &grant.account,
            account_uuid: &account_uuid(&grant.account),
            scopes: &grant.scopes,
            issued: issued.as_secs(),
            expires,
            id: &mint.token(),
        });
        let scopes = Arc::clone(&grant.scopes);
        self.access.insert(fingerprint(&access_token), Access { grant: index, expires });
        Issued { access_token, refresh_token: None, scopes }
    }
}

/// What it takes to make tokens.
#[derive(Debug)]
pub(super) struct Mint<'a> {
    pub(super) options: &'a Options,
    pub(super) rng: &'a mut SmallRng,
    pub(super) now: Now,
}

impl Mint<'_> {
    /// 43 characters of chance, as long as the real refresh tokens.
    pub(super) fn token(&mut self) -> String {
        let bytes: [u8; 32] = self.rng.random();
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}
