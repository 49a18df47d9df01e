//! What is to be written, decided from what both stores hold.

use std::collections::BTreeMap;
use std::future::ready;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::contents::{Contents, client_differences, grant_differences, is_later, is_short};
use super::{Existing, LeftAlone, Report, Tally};
use crate::engine::{ApiKeyName, Day};
use crate::secret::ClientKeyDigest;
use crate::store::{Client, Grant, StoreError, WholeStore};

/// Things written at a time: a database syncs once for all of them.
const AT_ONCE: usize = 32;

/// What is missing in TO.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Grants, and the version that each replaces.
    grants: Vec<(&'a Grant, Option<u64>)>,
    /// Clients, and the key of the one that each replaces.
    clients: Vec<(&'a Client, Option<ClientKeyDigest>)>,
    held: Vec<&'a ApiKeyName>,
    days: Vec<(&'a ApiKeyName, &'a BTreeMap<Day, u64>)>,
}

/// What becomes of one thing that is in TO with other content.
enum Verdict {
    Overwrite,
    Leave(String),
}

impl<'a> Plan<'a> {
    /// What of `source` is missing in `there`.
    pub(super) fn of(
        source: &'a Contents,
        there: &'a Contents,
        existing: Existing,
    ) -> (Self, Report) {
        let (mut plan, mut report) = (Self::default(), Report::default());
        plan.add_grants(source, there, existing, &mut report);
        plan.add_clients(source, there, existing, &mut report);
        plan.held = source.held.difference(&there.held).collect();
        let copied = plan.held.len();
        report.held = Tally { copied, there: source.held.len() - copied, left_alone: 0 };
        let nothing = BTreeMap::new();
        for (api_key, days) in &source.days {
            let counted = there.days.get(api_key).unwrap_or(&nothing);
            let missing = days.iter().filter(|(day, total)| is_short(counted, **day, **total));
            let copied = missing.count();
            report.days.copied += copied;
            report.days.there += days.len() - copied;
            if copied > 0 {
                plan.days.push((api_key, days));
            }
        }
        (plan, report)
    }

    fn add_grants(
        &mut self,
        source: &'a Contents,
        there: &Contents,
        existing: Existing,
        report: &mut Report,
    ) {
        for grant in source.grants.values() {
            let Some(other) = there.grants.get(&grant.tenant) else {
                report.tenants.copied += 1;
                self.grants.push((grant, None));
                continue;
            };
            let differs = grant_differences(grant, other);
            if differs.is_empty() {
                report.tenants.there += 1;
                continue;
            }
            let verdict = if is_later(other, grant) {
                let why = "is in TO and was refreshed there since, so that the refresh token of \
                           FROM is spent; it is not overwritten";
                Verdict::Leave(why.to_owned())
            } else {
                verdict(existing, &differs)
            };
            match verdict {
                Verdict::Overwrite => {
                    report.tenants.copied += 1;
                    self.grants.push((grant, Some(other.version)));
                }
                Verdict::Leave(why) => {
                    report.tenants.left_alone += 1;
                    let what = format!("tenant {}", grant.tenant);
                    report.left_alone.push(LeftAlone { what, why });
                }
            }
        }
    }

    fn add_clients(
        &mut self,
        source: &'a Contents,
        there: &Contents,
        existing: Existing,
        report: &mut Report,
    ) {
        for client in source.clients.values() {
            let other = there.clients.get(&client.name);
            let differs = other.map(|other| client_differences(client, other));
            let holder = there.clients.values().find(|other| {
                other.name != client.name && other.keys.current == client.keys.current
            });
            let verdict = match (&differs, holder) {
                (Some(differs), _) if differs.is_empty() => {
                    report.clients.there += 1;
                    continue;
                }
                (_, Some(holder)) => {
                    Verdict::Leave(format!("has the key of client {} in TO", holder.name))
                }
                (Some(differs), None) => verdict(existing, differs),
                (None, None) => Verdict::Overwrite,
            };
            match verdict {
                Verdict::Overwrite => {
                    report.clients.copied += 1;
                    self.clients.push((client, other.map(|other| other.keys.current)));
                }
                Verdict::Leave(why) => {
                    report.clients.left_alone += 1;
                    let what = format!("client {}", client.name);
                    report.left_alone.push(LeftAlone { what, why });
                }
            }
        }
    }

    /// Writes what is missing; held API keys first, so that nothing that is held ever goes on.
    pub(super) async fn carry_out(&self, to: &dyn WholeStore) -> Result<(), StoreError> {
        for api_key in &self.held {
            to.pause_api_key(api_key, true).await?;
        }
        for (api_key, days) in &self.days {
            to.raise_days(api_key, days).await?;
        }
        let grants = self.grants.iter().map(|(grant, over)| to.write_grant(grant, *over));
        let writing = stream::iter(grants).buffer_unordered(AT_ONCE);
        writing.try_for_each(|_| ready(Ok(()))).await?;
        let clients = self.clients.iter().map(|(client, over)| to.write_client(client, *over));
        let writing = stream::iter(clients).buffer_unordered(AT_ONCE);
        writing.try_for_each(|()| ready(Ok(()))).await
    }
}

fn verdict(existing: Existing, differs: &[&str]) -> Verdict {
    match existing {
        Existing::Overwritten => Verdict::Overwrite,
        Existing::Kept => Verdict::Leave(format!(
            "is in TO with other content ({}); --overwrite replaces it",
            differs.join(", ")
        )),
    }
}
