//! The API keys: the tables of the file, or the one that flags or environment name.
//!
//! A value in an entry's own table wins over `[limits]`, and so does the plan of its own: an entry
//! that names a plan takes both numbers of that plan unless it names a number itself.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use http::Uri;

use super::effective::Fields;
use super::file::{ApiKeyTable, Raw};
use super::mistakes::Origin;
use super::reader::{Reader, number, secret, secret_from_file};
use super::settings::{self, API_KEY_FIELDS, Kind, PER_DAY_KIND};
use super::{ApiKey, AuthStyle, Plan, links, values};
use crate::engine::{ApiKeyName, DayReset, Guard, Rate, Reserve};
use crate::secret::Secret;

/// The name of the API key that needs no file.
const DEFAULT_NAME: &str = "default";
/// What an owner is asked for when the configuration does not say.
const DEFAULT_SCOPES: &str = "contact_data campaign_data account_read offline_access";

impl Plan {
    /// As it is written in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Partner => "partner",
        }
    }

    /// Calls per second.
    ///
    /// # Panics
    /// Never; both numbers are above zero.
    #[must_use]
    pub fn rate(self) -> Rate {
        let calls = match self {
            Self::Standard => 4,
            Self::Partner => 10,
        };
        Rate::per_second(NonZeroU32::new(calls).expect("both numbers are above zero"))
    }

    /// Calls per day.
    #[must_use]
    pub const fn per_day(self) -> u64 {
        match self {
            Self::Standard => 10_000,
            Self::Partner => 250_000,
        }
    }
}

impl AuthStyle {
    /// As it is written in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Body => "body",
            Self::Public => "public",
        }
    }
}

/// What holds for an API key that does not say otherwise.
struct Limits {
    plan: Plan,
    rate: Option<Rate>,
    per_day: Option<u64>,
    guard: Guard,
    day_reset: DayReset,
    reserve: Reserve,
    token_url: Uri,
}

/// All API keys, and the same as text.
pub(super) fn read(reader: &mut Reader<'_>) -> (Vec<ApiKey>, Vec<Fields>) {
    let limits = Limits {
        plan: reader.value(&settings::PLAN, values::plan),
        rate: reader.optional(&settings::PER_SECOND, rate),
        per_day: reader.optional(&settings::PER_DAY, |text| number(PER_DAY_KIND, text)),
        guard: reader.value(&settings::GUARD, values::guard),
        day_reset: reader.value(&settings::DAY_RESET, values::time_of_day),
        reserve: reader.value(&settings::RESERVE, reserve),
        token_url: reader.value(&settings::TOKEN_URL, values::url),
    };
    let mut tables = std::mem::take(&mut reader.file.api_keys);
    let mut prefix = true;
    if let Some(table) = of_flags(reader, !tables.is_empty()) {
        tables = vec![table];
        prefix = false;
    }
    let mut keys: Vec<ApiKey> = Vec::new();
    let mut texts = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let path = if prefix { format!("api_keys[{index}].") } else { String::new() };
        let mut entry = Entry { reader, path, table };
        let (key, text) = entry.read(&limits);
        if let Some(key) = key {
            entry.check_new(&key, &keys);
            keys.push(key);
            texts.push(text);
        }
    }
    let told = reader.mistakes.list().iter().any(|mistake| mistake.key.starts_with("client_"));
    if tables.is_empty() && !told {
        let problem = "no API key is configured";
        let allowed = "--client-id for one, or [[api_keys]] in the file";
        reader.mistakes.add("api_keys", &Origin::Default, problem, allowed);
    }
    (keys, texts)
}

/// The table that `--client-id` and `--client-secret-file` stand for.
fn of_flags(reader: &mut Reader<'_>, file_has_keys: bool) -> Option<ApiKeyTable> {
    let id = reader.raw(&settings::CLIENT_ID);
    let secret = reader.raw(&settings::CLIENT_SECRET_FILE);
    let given: Vec<_> = [("client_id", &id), ("client_secret_file", &secret)]
        .into_iter()
        .filter_map(|(name, raw)| raw.clone().map(|raw| (name, raw)))
        .collect();
    if file_has_keys {
        for (name, raw) in given {
            let problem = "goes with a configuration without [[api_keys]]; the file has some";
            reader.mistakes.add(name, &raw.origin, problem, "one of the two");
        }
        return None;
    }
    if id.is_none() {
        let origin = secret?.origin;
        let allowed = "together with --client-id";
        reader.mistakes.add("client_secret_file", &origin, "has no client_id beside it", allowed);
        return None;
    }
    let mut fields: BTreeMap<_, _> = given.into_iter().collect();
    fields.insert("name", Raw { text: DEFAULT_NAME.into(), origin: Origin::Default });
    Some(ApiKeyTable { fields, origin: Origin::Default })
}

/// One table being read.
struct Entry<'e, 'r> {
    reader: &'e mut Reader<'r>,
    path: String,
    table: &'e ApiKeyTable,
}

impl Entry<'_, '_> {
    fn read(&mut self, limits: &Limits) -> (Option<ApiKey>, Fields) {
        let name =
            self.needed("name", |text| ApiKeyName::new(text).map_err(|_| "is no name".to_owned()));
        let client_id = self.needed("client_id", values::client_id);
        let (secret, secret_text) = self.secret();
        let auth_style = self.auth_style(secret_text.is_some());
        let own_plan = self.field("plan", values::plan);
        let own_rate = self.field("per_second", rate);
        let own_per_day = self.field("per_day", |text| number(PER_DAY_KIND, text));
        let plan = own_plan.unwrap_or(limits.plan);
        let shared = if own_plan.is_some() { (None, None) } else { (limits.rate, limits.per_day) };
        let rate = own_rate.or(shared.0).unwrap_or(plan.rate());
        let per_day = own_per_day.or(shared.1).unwrap_or(plan.per_day());
        let guard = self.field("guard", values::guard).unwrap_or(limits.guard);
        let day_reset = self.field("day_reset", values::time_of_day).unwrap_or(limits.day_reset);
        let reserve = self.field("reserve", reserve).unwrap_or(limits.reserve);
        let token_url =
            self.field("token_url", values::url).unwrap_or_else(|| limits.token_url.clone());
        let redirect_uri = self.field("redirect_uri", links::url_text);
        let scopes =
            self.field("scopes", links::scopes).unwrap_or_else(|| DEFAULT_SCOPES.to_owned());
        let pkce = self.field("pkce", values::switch).unwrap_or(true);
        if !pkce && auth_style == AuthStyle::Public {
            self.mistake("pkce", "is what a client without a secret proves itself with", "true");
        }
        let (Some(name), Some(client_id)) = (name, client_id) else {
            return (None, Fields::new());
        };
        let mut texts: Fields = vec![("name", name.to_string()), ("client_id", client_id.clone())];
        texts.extend(secret_text);
        texts.extend([
            ("auth_style", auth_style.as_str().to_owned()),
            ("plan", plan.as_str().to_owned()),
            ("per_second", rate.to_string()),
            ("per_day", per_day.to_string()),
            ("guard", values::guard_text(guard)),
            ("day_reset", values::time_of_day_text(day_reset)),
            ("reserve", reserve.to_string()),
            ("token_url", token_url.to_string()),
        ]);
        texts.extend(redirect_uri.clone().map(|uri| ("redirect_uri", uri)));
        texts.extend([("scopes", scopes.clone()), ("pkce", pkce.to_string())]);
        let client_secret = secret;
        let key = ApiKey {
            name,
            client_id,
            client_secret,
            auth_style,
            plan,
            rate,
            per_day,
            guard,
            day_reset,
            reserve,
            token_url,
            redirect_uri,
            scopes,
            pkce,
        };
        (Some(key), texts)
    }

    /// The secret, if there is one, and how it was given.
    fn secret(&mut self) -> (Option<Secret<String>>, Option<(&'static str, String)>) {
        let names = ["client_secret", "client_secret_file", "client_secret_env"];
        let given: Vec<_> =
            names.into_iter().filter(|name| self.table.fields.contains_key(name)).collect();
        let [name] = given.as_slice() else {
            if !given.is_empty() {
                let problem = format!("is given in {} ways: {}", given.len(), given.join(", "));
                self.mistake("client_secret", &problem, "one of them");
            }
            // several are a mistake already; which style goes with them need not be told
            let text = given.first().map(|name| (*name, String::new()));
            return (None, text);
        };
        let env = self.reader.env;
        let value = match *name {
            "client_secret" => self.field(name, secret),
            "client_secret_file" => self.field(name, |path| secret_from_file(path)),
            _ => self.field(name, |variable| {
                let text = env(variable).ok_or("the variable is not set")?;
                secret(&text).map_err(|problem| format!("the variable {problem}"))
            }),
        };
        let written = self.table.fields.get(name).map(|raw| raw.text.clone()).unwrap_or_default();
        let text = if *name == "client_secret" { "***".to_owned() } else { written };
        (value, Some((*name, text)))
    }

    fn auth_style(&mut self, has_secret: bool) -> AuthStyle {
        let fitting = if has_secret { AuthStyle::Basic } else { AuthStyle::Public };
        let Some(style) = self.field("auth_style", values::auth_style) else {
            return fitting;
        };
        if has_secret && style == AuthStyle::Public {
            self.mistake("auth_style", "public goes without a client secret", "basic or body");
        }
        if !has_secret && style != AuthStyle::Public {
            let problem = format!("{} needs a client secret", style.as_str());
            let allowed = "public, or one of client_secret_file, client_secret_env, client_secret";
            self.mistake("auth_style", &problem, allowed);
        }
        style
    }

    fn check_new(&mut self, key: &ApiKey, others: &[ApiKey]) {
        if others.iter().any(|other| other.name == key.name) {
            self.mistake("name", &format!("\"{}\" is taken", key.name), "a name of its own");
        }
        if let Some(other) = others.iter().find(|other| other.client_id == key.client_id) {
            // both would spend the one limit that the upstream has for them
            let problem = format!("is that of \"{}\" too", other.name);
            self.mistake("client_id", &problem, "a client_id of its own");
        }
    }

    fn needed<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.fields.contains_key(name) {
            self.mistake(name, "is missing", &kind_of(name).allowed());
        }
        self.field(name, parse)
    }

    fn field<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.table.fields.get(name)?;
        self.reader.parse(&format!("{}{name}", self.path), raw, kind_of(name), parse)
    }

    fn mistake(&mut self, name: &str, problem: &str, allowed: &str) {
        let origin = self.table.fields.get(name).map_or(&self.table.origin, |raw| &raw.origin);
        self.reader.mistakes.add(format!("{}{name}", self.path), origin, problem, allowed);
    }
}

fn kind_of(name: &str) -> Kind {
    let field = API_KEY_FIELDS.iter().find(|(known, _)| *known == name);
    field.map(|(_, kind)| *kind).expect("only fields of the table are read")
}

fn reserve(text: &str) -> Result<Reserve, String> {
    text.parse().map_err(|_| "is no such percentage".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|_| "is no rate".to_owned())
}
