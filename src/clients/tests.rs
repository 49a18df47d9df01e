//! Keys that end, are replaced and are used, on a virtual clock.

use futures_util::FutureExt as _;

use super::*;
use crate::engine::ClientName;
use crate::store::{MemoryStore, Missing, Revision};

const HOUR: Duration = Duration::from_secs(3_600);
const ALMOST_AN_HOUR: Duration = Duration::from_millis(3_599_999);
const MS: Duration = Duration::from_millis(1);

struct Bench {
    store: Arc<dyn Store>,
    clock: Clock,
    clients: Clients,
}

impl Bench {
    async fn open() -> Self {
        let clock = Clock::starting_at(Unix::from_secs(1_000_000));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::shared(clock.clone()));
        let clients = Clients::load(store.clone(), clock.clone()).await.unwrap();
        Self { store, clock, clients }
    }

    /// The clients as another start would find them.
    async fn again(&self) -> Clients {
        Clients::load(self.store.clone(), self.clock.clone()).await.unwrap()
    }

    async fn add(&self, name: &str, life: Option<Duration>) -> ClientKey {
        self.clients.add(named(name), TenantScope::All, life).await.unwrap().0
    }

    async fn rotate(&self, overlap: Duration, life: Option<Duration>) -> ClientKey {
        self.clients.rotate(&named("crm"), overlap, life).await.unwrap().unwrap().0
    }
}

fn named(name: &str) -> ClientName {
    ClientName::new(name).unwrap()
}

fn opens(clients: &Clients, key: &ClientKey) -> Result<String, KeyRefused> {
    clients.holder(key.expose()).map(|client| client.name.to_string())
}

async fn pass(span: Duration) {
    tokio::time::advance(span).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_works_until_it_expires_and_not_a_moment_longer() {
    let bench = Bench::open().await;
    let (short, ever) = (bench.add("crm", Some(HOUR)).await, bench.add("shop", None).await);
    pass(ALMOST_AN_HOUR).await;
    assert_eq!(opens(&bench.clients, &short), Ok("crm".into()));
    pass(MS).await;
    for clients in [&bench.clients, &bench.again().await] {
        assert_eq!(opens(clients, &short), Err(KeyRefused::Expired));
        assert_eq!(opens(clients, &ever), Ok("shop".into()));
        assert_eq!(opens(clients, &ClientKey::generate()), Err(KeyRefused::Unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_key_works_beside_the_new_one_for_the_overlap() {
    let bench = Bench::open().await;
    let old = bench.add("crm", None).await;
    let new = bench.rotate(HOUR, Some(3 * HOUR)).await;
    pass(ALMOST_AN_HOUR).await;
    for clients in [&bench.clients, &bench.again().await] {
        assert_eq!(opens(clients, &old), Ok("crm".into()));
        assert_eq!(opens(clients, &new), Ok("crm".into()));
    }
    pass(MS).await;
    for clients in [&bench.clients, &bench.again().await] {
        assert_eq!(opens(clients, &old), Err(KeyRefused::Expired));
        assert_eq!(opens(clients, &new), Ok("crm".into()));
    }
    pass(2 * HOUR).await;
    assert_eq!(opens(&bench.clients, &new), Err(KeyRefused::Expired));
}

#[tokio::test(start_paused = true)]
async fn without_overlap_the_old_key_ends_at_once_and_only_one_old_key_is_left() {
    let bench = Bench::open().await;
    let first = bench.add("crm", None).await;
    let second = bench.rotate(Duration::ZERO, None).await;
    assert_eq!(opens(&bench.clients, &first), Err(KeyRefused::Unknown));
    let third = bench.rotate(HOUR, None).await;
    let fourth = bench.rotate(HOUR, None).await;
    assert_eq!(opens(&bench.clients, &second), Err(KeyRefused::Unknown));
    assert_eq!(opens(&bench.clients, &third), Ok("crm".into()));
    assert_eq!(opens(&bench.clients, &fourth), Ok("crm".into()));
    assert!(bench.clients.remove(&named("crm")).await.unwrap());
    for key in [third, fourth] {
        assert_eq!(opens(&bench.clients, &key), Err(KeyRefused::Unknown));
    }
    assert!(bench.clients.rotate(&named("crm"), HOUR, None).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rotation_does_not_lengthen_the_life_of_the_old_key() {
    let bench = Bench::open().await;
    let old = bench.add("crm", Some(HOUR)).await;
    bench.rotate(5 * HOUR, None).await;
    pass(HOUR).await;
    assert_eq!(opens(&bench.clients, &old), Err(KeyRefused::Expired));
}

#[tokio::test(start_paused = true)]
async fn the_last_use_is_known_at_once_and_after_a_restart_once_written() {
    let bench = Bench::open().await;
    let key = bench.add("crm", None).await;
    let last = |clients: &Clients| clients.list()[0].last_used_at.map(Unix::as_secs);
    bench.clients.record_use().await;
    assert_eq!(last(&bench.clients), None);
    pass(HOUR).await;
    opens(&bench.clients, &key).unwrap();
    assert_eq!(last(&bench.clients), Some(1_003_600));
    assert_eq!(last(&bench.again().await), None);
    bench.clients.record_use().await;
    assert_eq!(last(&bench.again().await), Some(1_003_600));
    pass(HOUR).await;
    let new = bench.rotate(HOUR, None).await;
    assert_eq!(last(&bench.clients), Some(1_003_600), "a rotation is no use");
    opens(&bench.clients, &new).unwrap();
    bench.clients.record_use().await;
    assert_eq!(last(&bench.again().await), Some(1_007_200));
}

#[tokio::test(start_paused = true)]
async fn what_another_instance_changes_is_taken_over_and_uses_are_kept() {
    let bench = Bench::open().await;
    let (first, gone) = (bench.add("crm", None).await, bench.add("shop", None).await);
    let other = bench.again().await;
    let used = other.holder(first.expose()).unwrap();
    assert_eq!(used.name.as_str(), "crm");
    let second = bench.rotate(Duration::ZERO, None).await;
    assert!(bench.clients.remove(&named("shop")).await.unwrap());
    let third = bench.add("erp", None).await;
    other.reread(|_| Missing::AsTold { known: Revision(0) }).await.unwrap();
    assert_eq!(opens(&other, &first), Err(KeyRefused::Unknown));
    assert_eq!(opens(&other, &gone), Err(KeyRefused::Unknown));
    assert_eq!(opens(&other, &second), Ok("crm".into()));
    assert_eq!(opens(&other, &third), Ok("erp".into()));
    let names: Vec<_> = other.list().iter().map(|client| client.name.to_string()).collect();
    assert_eq!(names, ["crm", "erp"]);
    assert_eq!(other.list()[0].last_used_at, Some(bench.clock.now().unix));
    assert!(other.named("shop").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_another_restores_between_two_questions_is_not_taken_for_removed() {
    let bench = Bench::open().await;
    let key = bench.add("crm", None).await;
    let client = bench.store.clients().await.unwrap().remove(0);
    bench.store.remove_client(&named("crm")).await.unwrap();
    let restoring = |_: &ClientName| {
        // the clients have been read, and the history has not
        bench.store.add_client(client.clone()).now_or_never().expect("at once").unwrap();
        Missing::AsTold { known: Revision(0) }
    };
    bench.clients.reread(restoring).await.unwrap();
    assert_eq!(opens(&bench.clients, &key), Ok("crm".into()));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_changed_elsewhere_is_the_one_before_the_next() {
    let clock = Clock::starting_at(Unix::from_secs(1_000_000));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::shared(clock.clone()));
    let one = Clients::load(store.clone(), clock.clone()).await.unwrap();
    let other = Clients::load(store.clone(), clock.clone()).await.unwrap();
    one.add(named("crm"), TenantScope::All, None).await.unwrap();
    let (second, _) = other.rotate(&named("crm"), HOUR, None).await.unwrap().expect("known");
    let (third, _) = one.rotate(&named("crm"), HOUR, None).await.unwrap().expect("known");
    assert_eq!(opens(&one, &second), Ok("crm".into()), "for an hour more");
    assert_eq!(opens(&one, &third), Ok("crm".into()));
}
