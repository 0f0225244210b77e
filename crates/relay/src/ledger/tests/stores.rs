//! The ledger's store is the one that it gave its id to.

use tempfile::TempDir;

use super::*;
use crate::blob::tests::{bucket, content, data_folder, put_as};
use crate::blob::{Blobs, StoreId};
use crate::clock::{Clock, at};
use crate::store::{StoreIdError, settle};

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.now
    }
}

/// A test's clock that is some seconds ahead.
struct Ahead(u64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        at(1_800_000_000 + self.0)
    }
}

type Store = (TempDir, Blobs);

impl World {
    async fn takes(&self, store: &Store) -> std::result::Result<StoreId, StoreIdError> {
        settle(self.b(), &store.1, self, false).await
    }

    async fn is_bound(&self) -> bool {
        self.a().store().await.unwrap().1
    }

    /// As if it had just migrated.
    async fn unbind(&self) {
        let unbind = self.a().write((), |conn, ()| Box::pin(query("UPDATE store SET bound = 0").execute(conn)));
        assert_eq!(unbind.await.unwrap(), 1);
    }
}

pub(super) async fn a_folder_is_one_ledgers(world: &World) {
    is_one_ledgers(world, [data_folder(), data_folder(), data_folder()]).await;
}

pub(super) async fn a_bucket_is_one_ledgers(world: &World) {
    let (Some(a), Some(b), Some(c)) = (bucket().await, bucket().await, bucket().await) else { return };
    is_one_ledgers(world, [a, b, c]).await;
}

async fn is_one_ledgers(world: &World, [own, other, third]: [Store; 3]) {
    // The first one that it meets is its own, by whichever node.
    assert!(!world.is_bound().await);
    let id = settle(world.a(), &own.1, world, false).await.unwrap();
    assert!(world.is_bound().await);
    assert_eq!(own.1.id().await.unwrap(), Some(id));
    assert_eq!(world.takes(&own).await.unwrap(), id);
    // Another one has no id, and gets none.
    let absent = world.takes(&other).await.unwrap_err();
    assert!(matches!(&absent, StoreIdError::Absent { ours } if *ours == id.to_string()), "{absent}");
    assert_eq!(other.1.id().await.unwrap(), None);
    // Or that of another ledger.
    let theirs = StoreId::from_bytes([7; 16]);
    other.1.set_id(theirs).await.unwrap();
    let refused = world.takes(&other).await.unwrap_err().to_string();
    assert!(refused.contains(&id.to_string()) && refused.contains(&theirs.to_string()), "{refused}");
    // A ledger that has no store yet takes no other ledger's, and stays as free as it was.
    world.unbind().await;
    assert!(matches!(world.takes(&other).await, Err(StoreIdError::Other { .. })));
    assert!(!world.is_bound().await);
    // One whose objects are elsewhere, neither.
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let name = world.put(ada, slot(bundle, Some(0), 1000)).await;
    assert!(matches!(world.takes(&third).await, Err(StoreIdError::Empty { looked: 1 })));
    assert_eq!((world.is_bound().await, third.1.id().await.unwrap()), (false, None));
    // An older one adopts where its objects are.
    put_as(&third.1, name, &content(1, 1000)).await;
    assert_eq!(world.takes(&third).await.unwrap(), id);
    // An operator who lost the blobs says so, whatever is there.
    assert!(matches!(world.takes(&other).await, Err(StoreIdError::Other { .. })));
    assert_eq!(settle(world.a(), &other.1, world, true).await.unwrap(), id);
    assert_eq!((world.takes(&other).await.unwrap(), other.1.id().await.unwrap()), (id, Some(id)));
}

pub(super) async fn nodes_with_folders_of_their_own_are_not_one_relay(world: &World) {
    let (here, there) = (data_folder(), data_folder());
    let (a, b) = (settle(world.a(), &here.1, world, false), settle(world.b(), &there.1, world, false));
    // Where there can be but one node, they come one after the other.
    let (a, b) = if world.a().is_exclusive() { (a.await, b.await) } else { tokio::join!(a, b) };
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let (mine, refused) = if a.is_ok() { (&here, &there) } else { (&there, &here) };
    world.takes(mine).await.unwrap();
    assert!(matches!(world.takes(refused).await, Err(StoreIdError::Absent { .. })));
    assert_eq!(refused.1.id().await.unwrap(), None);
    // What died while it gave its id away is in nobody's way for long.
    world.unbind().await;
    assert!(world.a().claim_store(world.now).await.unwrap().is_some());
    if !world.a().is_exclusive() {
        assert!(matches!(world.takes(mine).await, Err(StoreIdError::Claimed)));
        let soon = settle(world.b(), &mine.1, &Ahead(CLAIM_SECONDS - 1), false).await;
        assert!(matches!(soon, Err(StoreIdError::Claimed)));
    }
    settle(world.b(), &mine.1, &Ahead(CLAIM_SECONDS), false).await.unwrap();
}
