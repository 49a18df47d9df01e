//! The part of the suite that is about clients and their keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use ctct_proxy::engine::ClientName;
use ctct_proxy::secret::ClientKey;
use ctct_proxy::store::{Client, ClientKeys, PreviousKey, Store, StoreError, TenantScope};

use crate::support::{secs, tenant};

type Any = Arc<dyn Store>;

fn new_keys() -> ClientKeys {
    ClientKeys { current: ClientKey::generate().digest(), expires_at: None, previous: None }
}

fn client(name: &str, tenants: TenantScope) -> Client {
    Client {
        name: ClientName::new(name).expect("a valid name"),
        tenants,
        created_at: secs(7),
        keys: new_keys(),
        last_used_at: None,
    }
}

async fn only(store: &Any) -> Client {
    let mut clients = store.clients().await.expect("read");
    assert_eq!(clients.len(), 1);
    clients.remove(0)
}

pub(crate) async fn clients_are_unique_by_name_and_key(store: Any) {
    let some = TenantScope::Some(BTreeSet::from([tenant("acme"), tenant("bolt")]));
    let (crm, shop) = (client("crm", some.clone()), client("shop", TenantScope::All));
    store.add_client(shop.clone()).await.expect("added");
    store.add_client(crm.clone()).await.expect("added");
    store.add_client(crm.clone()).await.expect("a repeat is ok");
    let same_name = store.add_client(client("crm", TenantScope::All)).await;
    assert!(matches!(same_name, Err(StoreError::Exists { .. })), "{same_name:?}");
    let same_key = Client { keys: crm.keys, ..client("till", TenantScope::All) };
    let same_key = store.add_client(same_key).await;
    assert!(matches!(same_key, Err(StoreError::Exists { .. })), "{same_key:?}");
    let clients = store.clients().await.expect("read");
    let read: Vec<_> = clients.iter().map(|c| (c.name.as_str(), c.keys, &c.tenants)).collect();
    assert_eq!(read, [("crm", crm.keys, &some), ("shop", shop.keys, &TenantScope::All)]);
    assert_eq!(clients[0].created_at, secs(7));
    assert!(store.remove_client(&crm.name).await.expect("removed"));
    assert!(!store.remove_client(&crm.name).await.expect("nothing left to remove"));
    store.add_client(crm).await.expect("its name and key are free again");
}

pub(crate) async fn a_clients_keys_change_and_nothing_else_of_it(store: Any) {
    let some = TenantScope::Some(BTreeSet::from([tenant("acme")]));
    let first = client("crm", some.clone());
    store.add_client(first.clone()).await.expect("added");
    let previous = Some(PreviousKey { digest: first.keys.current, until: secs(50) });
    let keys = ClientKeys { expires_at: Some(secs(90)), previous, ..new_keys() };
    for repeat in 0..2 {
        let known = store.change_client_keys(&first.name, keys).await.expect("changed");
        assert!(known, "{repeat}");
    }
    let read = only(&store).await;
    assert_eq!((read.keys, read.tenants, read.created_at), (keys, some, secs(7)));
    let plain = new_keys();
    store.change_client_keys(&first.name, plain).await.expect("changed");
    assert_eq!(only(&store).await.keys, plain);
    let nobody = ClientName::new("nobody").expect("a valid name");
    assert!(!store.change_client_keys(&nobody, new_keys()).await.expect("answered"));
    let shop = client("shop", TenantScope::All);
    store.add_client(shop.clone()).await.expect("added");
    let taken = store.change_client_keys(&shop.name, plain).await;
    assert!(matches!(taken, Err(StoreError::Exists { .. })), "{taken:?}");
}

pub(crate) async fn a_client_that_expires_is_added_as_it_is(store: Any) {
    let keys = ClientKeys { expires_at: Some(secs(90)), ..new_keys() };
    store.add_client(Client { keys, ..client("crm", TenantScope::All) }).await.expect("added");
    assert_eq!(only(&store).await.keys, keys);
}

pub(crate) async fn the_later_use_of_a_client_stays(store: Any) {
    let crm = client("crm", TenantScope::All);
    store.add_client(crm.clone()).await.expect("added");
    assert_eq!(only(&store).await.last_used_at, None);
    let nobody = ClientName::new("nobody").expect("a valid name");
    store
        .record_client_use(&[(nobody, secs(9)), (crm.name.clone(), secs(9))])
        .await
        .expect("recorded");
    store.record_client_use(&[(crm.name, secs(8))]).await.expect("recorded");
    assert_eq!(only(&store).await.last_used_at, Some(secs(9)));
}
