//! The configuration: who wins, and what is a mistake.
//!
//! `shown` is about what a person reads of it, `example` about the files that are given to users.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "config/example.rs"]
mod example;
#[path = "config/shown.rs"]
mod shown;

use std::collections::BTreeMap;
use std::time::Duration;

use ctct_proxy::config::settings;
use ctct_proxy::config::{
    self, AuthStyle, Loaded, LogFormat, Mistakes, Plan, ServeFlags, Sources, StoreUrl,
};
use ctct_proxy::engine::{DayReset, Guard};

const ONE_KEY: &str = "[[api_keys]]\nname = \"a\"\nclient_id = \"id-a\"\n";

#[derive(Default)]
struct Case {
    flags: ServeFlags,
    env: BTreeMap<String, String>,
    file: String,
}

impl Case {
    fn file(text: &str) -> Self {
        Self { file: text.to_owned(), ..Self::default() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, setting: &'static settings::Setting, value: &str) -> Self {
        self.flags = self.flags.with(setting, value);
        self
    }

    fn load(&self) -> Result<Loaded, Mistakes> {
        let env = |name: &str| self.env.get(name).cloned();
        let file = (!self.file.is_empty()).then_some(("proxy.toml", self.file.as_str()));
        config::load(&Sources { flags: &self.flags, env: &env, file })
    }

    fn config(&self) -> config::Config {
        self.load().unwrap().config
    }

    /// The mistakes as `key (origin)`, and all of their text.
    fn mistakes(&self) -> (Vec<String>, String) {
        let mistakes = self.load().unwrap_err();
        let places = mistakes.list().iter().map(|m| format!("{} ({})", m.key, m.origin)).collect();
        (places, mistakes.to_string())
    }
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let mut case = Case::file(&format!("[queue]\nmax_wait = \"7s\"\n{ONE_KEY}"));
    assert_eq!(Case::file(ONE_KEY).config().queue.max_wait, Duration::from_secs(30));
    assert_eq!(case.config().queue.max_wait, Duration::from_secs(7));
    case = case.env("CTCT_PROXY_MAX_WAIT", "8s");
    assert_eq!(case.config().queue.max_wait, Duration::from_secs(8));
    case = case.flag(&settings::MAX_WAIT, "9s");
    assert_eq!(case.config().queue.max_wait, Duration::from_secs(9));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let case = Case::file(ONE_KEY).env("CTCT_PROXY_LOG_FORMAT", "");
    assert_eq!(case.config().log.format, LogFormat::Text);
}

#[test]
fn one_client_id_is_enough() {
    let config = Case::default().flag(&settings::CLIENT_ID, "id").config();
    let key = &config.api_keys[0];
    assert_eq!(key.name.as_str(), "default");
    assert_eq!(key.auth_style, AuthStyle::Public);
    assert_eq!((key.rate.calls(), key.per_day), (4, 10_000));
    assert_eq!(key.token_url, "https://authz.constantcontact.com/oauth2/default/v1/token");
    assert_eq!(config.store.url, StoreUrl::Sqlite("ctct-proxy.db".into()));
    assert_eq!((config.server.max_body, config.server.replay_buffer), (10 << 20, 1 << 20));
}

#[test]
fn without_an_api_key_nothing_starts() {
    let (places, text) = Case::default().mistakes();
    assert_eq!(places, ["api_keys (default)"]);
    assert!(text.contains("--client-id"), "{text}");
}

#[test]
fn a_client_id_beside_api_keys_in_the_file_is_a_mistake() {
    let (places, _) = Case::file(ONE_KEY).env("CTCT_PROXY_CLIENT_ID", "id").mistakes();
    assert_eq!(places, ["client_id (CTCT_PROXY_CLIENT_ID)"]);
    let (places, _) = Case::default().flag(&settings::CLIENT_SECRET_FILE, "x").mistakes();
    assert_eq!(places, ["client_secret_file (--client-secret-file)"]);
}

#[test]
fn values_of_the_wrong_type_are_mistakes() {
    let text =
        format!("queue = 1\n[server]\nlisten = [1]\n[limits]\nday_reset = 00:00:00\n{ONE_KEY}");
    let (places, _) = Case::file(&text).mistakes();
    assert_eq!(places.len(), 3, "{places:?}");
    let (places, _) = Case::file("api_keys = 1").mistakes();
    assert_eq!(places[0], "api_keys (proxy.toml line 1)");
}

#[test]
fn syntax_errors_are_reported_alone() {
    let (places, _) =
        Case::file("[server]\nlisten =\nwhat\n[queue]\nmax_wait = \"1\"\nmax_wait = \"2\"\n")
            .mistakes();
    assert!(places.iter().all(|place| place.starts_with("TOML (proxy.toml line ")), "{places:?}");
    assert!(places.len() >= 2, "{places:?}");
}

#[test]
fn an_own_value_wins_over_limits_and_an_own_plan_brings_both_numbers() {
    let text = "\
[limits]
per_second = 2
per_day = 500
guard = \"60ms\"
[[api_keys]]
name = \"a\"
client_id = \"a\"
[[api_keys]]
name = \"b\"
client_id = \"b\"
plan = \"partner\"
per_day = 9
guard = \"auto\"
day_reset = \"01:00Z\"
reserve = \"25%\"
token_url = \"http://127.0.0.1:9/token\"
";
    let case = Case::file(text);
    let keys = case.config().api_keys;
    assert_eq!((keys[0].rate.calls(), keys[0].per_day), (2, 500));
    assert_eq!(keys[0].guard, Guard::Fixed(Duration::from_millis(60)));
    assert_eq!((keys[1].plan, keys[1].rate.calls(), keys[1].per_day), (Plan::Partner, 10, 9));
    assert_eq!(keys[1].guard, Guard::Auto);
    assert_eq!((keys[0].reserve.percent(), keys[1].reserve.percent()), (10, 25));
    assert_eq!(keys[1].day_reset, DayReset::new(Duration::from_hours(1)));
    assert_eq!(keys[1].token_url, "http://127.0.0.1:9/token");
    let keys = case.flag(&settings::PER_SECOND, "60/min").config().api_keys;
    assert_eq!((keys[0].rate.calls(), keys[1].rate.calls()), (1, 10));
}

#[test]
fn secrets_come_from_text_file_or_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "from file\r\n").unwrap();
    let text = format!(
        "[[api_keys]]\nname = \"a\"\nclient_id = \"a\"\nclient_secret = \"inline\"\n\
         [[api_keys]]\nname = \"b\"\nclient_id = \"b\"\nclient_secret_file = '{}'\n\
         [[api_keys]]\nname = \"c\"\nclient_id = \"c\"\nclient_secret_env = \"SECRET\"\n\
         auth_style = \"body\"\n",
        path.display()
    );
    let case = Case::file(&text).env("SECRET", "from env");
    let keys = case.config().api_keys;
    let secrets: Vec<_> =
        keys.iter().map(|key| key.client_secret.as_ref().unwrap().expose().as_str()).collect();
    assert_eq!(secrets, ["inline", "from file", "from env"]);
    let styles: Vec<_> = keys.iter().map(|key| key.auth_style).collect();
    assert_eq!(styles, [AuthStyle::Basic, AuthStyle::Basic, AuthStyle::Body]);

    std::fs::write(&path, "\n").unwrap();
    let (places, _) = Case { env: BTreeMap::new(), ..case }.mistakes();
    let at = |place: &str| places.iter().any(|p| p.starts_with(place));
    assert!(at("api_keys[1].client_secret_file") && at("api_keys[2].client_secret_env"));
}

#[test]
fn a_secret_is_given_once_and_fits_its_style() {
    let key = |more: &str| Case::file(&format!("{ONE_KEY}{more}")).mistakes().0;
    let twice = key("client_secret = \"x\"\nclient_secret_env = \"Y\"\n");
    assert_eq!(twice, ["api_keys[0].client_secret (proxy.toml line 4)"]);
    let public = key("client_secret = \"x\"\nauth_style = \"public\"\n");
    assert_eq!(public, ["api_keys[0].auth_style (proxy.toml line 5)"]);
    assert_eq!(key("auth_style = \"basic\"\n"), ["api_keys[0].auth_style (proxy.toml line 4)"]);
}

#[test]
fn names_and_client_ids_are_unique() {
    let (places, _) = Case::file(&format!("{ONE_KEY}{ONE_KEY}")).mistakes();
    assert_eq!(
        places,
        ["api_keys[1].name (proxy.toml line 5)", "api_keys[1].client_id (proxy.toml line 6)"]
    );
}

#[test]
fn what_is_open_to_the_network_is_protected_or_confirmed() {
    let open = Case::file(ONE_KEY)
        .flag(&settings::LISTEN, "0.0.0.0:8080")
        .flag(&settings::ALLOW_ANONYMOUS, "true");
    assert_eq!(open.mistakes().0, ["server.allow_anonymous (--allow-anonymous)"]);
    assert!(open.flag(&settings::I_KNOW_THIS_IS_OPEN, "true").config().server.allow_anonymous);
    let loopback = Case::file(ONE_KEY).flag(&settings::ALLOW_ANONYMOUS, "true");
    assert!(loopback.config().server.allow_anonymous);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "s3cret\n").unwrap();
    let admin = Case::file(ONE_KEY).flag(&settings::ADMIN_LISTEN, "0.0.0.0:9090");
    assert_eq!(admin.mistakes().0, ["admin.token_file (default)"]);
    let admin = admin.flag(&settings::ADMIN_TOKEN_FILE, path.to_str().unwrap()).config().admin;
    assert_eq!(admin.token.unwrap().expose(), "s3cret");
}

#[test]
fn two_listeners_do_not_share_a_port() {
    let pair = |listen: &str, admin: &str| {
        Case::file(ONE_KEY)
            .flag(&settings::LISTEN, listen)
            .flag(&settings::ADMIN_LISTEN, admin)
            .load()
            .is_ok()
    };
    assert!(!pair("127.0.0.1:8080", "127.0.0.1:8080"));
    assert!(!pair("0.0.0.0:8080", "127.0.0.1:8080"));
    assert!(!pair("[::]:8080", "127.0.0.1:8080"));
    assert!(pair("127.0.0.1:0", "127.0.0.1:0"));
    assert!(pair("127.0.0.1:8080", "[::1]:8080"));
}

#[test]
fn a_default_gives_way_to_a_lower_limit_but_a_given_value_does_not() {
    let low = Case::file(ONE_KEY)
        .flag(&settings::MAX_WAIT_LIMIT, "10s")
        .flag(&settings::QUEUE_CAPACITY, "5")
        .flag(&settings::MAX_BODY, "1KiB");
    let config = low.config();
    assert_eq!(config.queue.max_wait, Duration::from_secs(10));
    assert_eq!(config.queue.capacity_per_tenant, 5);
    assert_eq!(config.server.replay_buffer, 1_024);
    let given = low
        .flag(&settings::MAX_WAIT, "11s")
        .flag(&settings::QUEUE_CAPACITY_PER_TENANT, "6")
        .flag(&settings::REPLAY_BUFFER, "2KiB");
    assert_eq!(
        given.mistakes().0,
        [
            "server.replay_buffer (--replay-buffer)",
            "queue.max_wait (--max-wait)",
            "queue.capacity_per_tenant (--queue-capacity-per-tenant)"
        ]
    );
}

#[test]
fn a_limit_that_cannot_be_read_is_one_mistake() {
    let case = Case::file(ONE_KEY)
        .flag(&settings::MAX_WAIT, "20m")
        .flag(&settings::MAX_WAIT_LIMIT, "long");
    assert_eq!(case.mistakes().0, ["queue.max_wait_limit (--max-wait-limit)"]);
}

#[test]
fn named_files_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "short").unwrap();
    let name = path.to_str().unwrap();
    let case = Case::file(ONE_KEY)
        .flag(&settings::ENCRYPTION_KEY_FILE, name)
        .flag(&settings::UPSTREAM_CA_FILE, name);
    assert_eq!(case.mistakes().0.len(), 2);
    std::fs::write(&path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let store = Case::file(ONE_KEY).flag(&settings::ENCRYPTION_KEY_FILE, name).config().store;
    assert_eq!(store.encryption_key_file, Some(path));
}

#[test]
fn a_journal_beside_a_store_that_has_its_own_is_a_mistake() {
    let case = Case::file(ONE_KEY)
        .flag(&settings::REFRESH_JOURNAL, "a.refreshes")
        .flag(&settings::ON_STORE_LOSS, "open");
    let (places, _) = case.mistakes();
    let journal = "store.refresh_journal (--refresh-journal)";
    assert_eq!(places, ["store.on_loss (--on-store-loss)", journal]);
}
