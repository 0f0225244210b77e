//! What one transaction takes, when there is much to do.

use super::*;

impl World {
    /// Runs a statement many times, each with a number and 16 bytes of it, in one transaction.
    async fn many(&self, count: u64, sql: &'static str) {
        let work = self.a().write((), move |conn, ()| {
            Box::pin(async move {
                for n in 1..=count {
                    query(sql).bind(int(n)).bind(u128::from(n).to_be_bytes().as_slice()).execute(conn).await?;
                }
                Ok(())
            })
        });
        work.await.unwrap();
    }
}

pub(super) async fn records_are_pruned_in_steps(world: &World) {
    world.many(2500, "INSERT INTO nonce (account, nonce, expires) VALUES ($1, $2, 5)").await;
    let row = |n| AccessRow {
        time: crate::clock::at(n),
        account: None,
        address: "192.0.2.1".to_owned(),
        method: "GET",
        route: "/".to_owned(),
        bundle: None,
        status: 200,
        problem: None,
        count: 1,
    };
    world.a().record(Arc::new((0..1500).map(row).collect())).await.unwrap();
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        steps.push(world.b().prune(500, crate::clock::at(1600)).await.unwrap());
    }
    // Nonces at once, of the records those that are 500 seconds old.
    assert_eq!(steps, [1000 + 1000, 1000 + 101, 500, 0]);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM access WHERE time > 1100").await, 399);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM access").await, 399);
}

pub(super) async fn bundles_are_ended_in_steps_of_objects(world: &World) {
    let (ada, _) = world.owner().await;
    for _ in 0..5 {
        world.begin(ada, false).await;
    }
    // 400 objects each.
    world
        .many(2000, "INSERT INTO blob (name, account, bundle, length, state) VALUES ($2, 1, 1 + $1 % 5, 1, 'stored')")
        .await;
    world
        .many(2000, "INSERT INTO object (bundle, number, length, digest, blob) VALUES (1 + $1 % 5, $1, 1, $2, $2)")
        .await;
    world.repair_sums().await;
    let end = world.now.plus(7 * 86_400);
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        steps.push(world.b().end_overdue(end).await.unwrap());
    }
    assert_eq!(steps, [3, 2, 0]);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM object").await, 0);
}

pub(super) async fn sums_are_compared_in_pages(world: &World) {
    let (ada, _) = world.owner().await;
    let made = "INSERT INTO bundle (id, sender, state, created, touched, expires, burn, size)
                VALUES ($2, 1, 'pending', 1, 1, $1 + 1000000000000, 0, 7)";
    world.many(600, made).await;
    let (wrong, next) = world.b().wrong_sums(Summed::NOTHING).await.unwrap();
    assert_eq!(wrong.len(), 500);
    let (wrong, _) = world.a().wrong_sums(next.unwrap()).await.unwrap();
    assert_eq!(wrong.len(), 100);
    // Of the account its bytes and its bundles.
    assert_eq!(world.wrong_sums().await.len(), 600 + 2);
    world.repair_sums().await;
    assert_eq!((world.used(ada).await, world.count("SELECT bundles AS n FROM account").await), (0, 600));
}
