//! What is shown of a configuration and of its mistakes, and that none of it is a secret.

use ctct_proxy::config::{Loaded, OnStoreLoss, StoreUrl, settings};
use ctct_proxy::secret::KeyRing;

use super::{Case, ONE_KEY};

#[test]
fn all_mistakes_are_listed_with_where_they_were_made() {
    let text = "\
[server]
listen = \"nowhere\"
max_body = \"ten\"
motd = \"x\"
[queue]
max_wait = 30
colour = 1
[tls]
[[api_keys]]
name = \"a b\"
per_day = 0
reserve = \"91%\"
[[api_keys]]
name = \"b\"
auth_style = \"body\"
client_id = \"\"
";
    let case = Case::file(text)
        .env("CTCT_PROXY_MAX_IN_FLIGHT", "0")
        .flag(&settings::UPSTREAM_URL, "https://api.cc.email/v3");
    let (mut places, text) = case.mistakes();
    places.sort();
    assert_eq!(
        places,
        [
            "api_keys[0].client_id (proxy.toml line 9)",
            "api_keys[0].name (proxy.toml line 10)",
            "api_keys[0].per_day (proxy.toml line 11)",
            "api_keys[0].reserve (proxy.toml line 12)",
            "api_keys[1].auth_style (proxy.toml line 15)",
            "api_keys[1].client_id (proxy.toml line 16)",
            "queue.colour (proxy.toml line 7)",
            "queue.max_wait (proxy.toml line 6)",
            "server.listen (proxy.toml line 2)",
            "server.max_body (proxy.toml line 3)",
            "server.motd (proxy.toml line 4)",
            "tls (proxy.toml line 8)",
            "upstream.max_in_flight (CTCT_PROXY_MAX_IN_FLIGHT)",
            "upstream.url (--upstream-url)",
        ]
    );
    assert!(text.starts_with("14 mistakes in the configuration\n"), "{text}");
    assert!(text.contains("\"30\" has no unit (ms, s, m, h, d); allowed: a duration"), "{text}");
    assert!(text.contains("allowed: max_wait, max_wait_limit, capacity, capacity_per_tenant"));
    assert!(text.contains("\"0%\" to \"90%\""), "{text}");
}

#[test]
fn no_mistake_shows_a_secret() {
    let texts = [
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret = \"hunter2\nhunter2\"\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret = \"hunter2\\nx\"\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret = hunter2\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret = [\"hunter2\"]\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_scret = \"hunter2\"\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret_file = \"hunter2\"\n",
        "[[api_keys]]\nname = \"a\"\nclient_id = \"i\"\nclient_secret_env = \"hunter2\"\n",
        "[store]\nurl = \"redis://:hunter2@host\"\n",
        "[upstream]\nurl = \"https://u:hunter2@host\"\n",
        "[admin]\ntoken_file = \"hunter2\"\n",
        "[admin]\ntoken_file = \"hunter2\n",
    ];
    for text in texts {
        let mistakes = Case::file(text).load().unwrap_err();
        assert!(!format!("{mistakes} {mistakes:?}").contains("hunter2"), "{mistakes}");
    }
}

#[test]
fn a_key_that_is_not_known_is_shown_as_the_file_has_it() {
    let text =
        format!("\"\" = 6\n{ONE_KEY}\"a.b\" = 1\n[server]\n\"two\\nlines\" = 1\nlissen = 1\n");
    let (places, _) = Case::file(&text).mistakes();
    let expected = [
        "\"\" (proxy.toml line 1)",
        "api_keys[0].\"a.b\" (proxy.toml line 5)",
        "server.lissen (proxy.toml line 8)",
        "server.\"two\\nlines\" (proxy.toml line 7)",
    ];
    assert_eq!(places, expected);
}

#[test]
fn what_check_prints_can_be_loaded_again_and_holds_no_secret() {
    let text = format!(
        "[limits]\nper_second = \"90/min\"\n[log]\nlevel = \"warn,ctct_proxy=debug\"\n\
         {ONE_KEY}client_secret = \"hunter2\"\nguard = \"1s 50ms\"\n"
    );
    let first = Case::file(&text).flag(&settings::QUEUE_CAPACITY, "5").load().unwrap();
    let printed = first.effective.to_string();
    assert!(printed.contains("client_secret = \"***\""), "{printed}");
    assert!(printed.contains("capacity = 5 # --queue-capacity"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    let again = Case::file(&printed).load().unwrap().config;
    // the two differ in the secret alone, and a secret's `Debug` shows nothing
    assert_eq!(format!("{again:?}"), format!("{:?}", first.config));
}

#[test]
fn a_redis_store_needs_a_key_file_and_its_password_is_never_shown() {
    let url = "redis://me:hunter2@db.example:6380/2?prefix=shop:";
    let case = Case::file(ONE_KEY).flag(&settings::STORE, url);
    let (places, text) = case.mistakes();
    assert_eq!(places, ["store.encryption_key_file (--store)"]);
    assert!(text.contains("--encryption-key-file") && text.contains("ctct-proxy keygen"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, KeyRing::generate().text().expose()).unwrap();
    let case = case.flag(&settings::ENCRYPTION_KEY_FILE, key.to_str().unwrap());
    let Loaded { config, effective } = case.load().unwrap();
    let StoreUrl::Redis(redis) = &config.store.url else { panic!("{:?}", config.store) };
    assert_eq!((redis.place().as_str(), redis.database), ("db.example:6380", 2));
    assert_eq!(config.store.on_loss, OnStoreLoss::Degraded);
    let shown = format!("{config:?} {effective}");
    assert!(shown.contains("redis://me:***@db.example:6380/2?prefix=shop%3A"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let text = Case::file(ONE_KEY).flag(&settings::STORE, "redis://h?password=hunter2");
    assert!(!text.mistakes().1.contains("hunter2"));
}
