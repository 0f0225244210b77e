//! What breaks on the way: settings, connections, the server.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

fn open(runtime: &tokio::runtime::Runtime, url: String) -> std::result::Result<(), LedgerOpenError> {
    runtime.block_on(async {
        let database = PostgresDatabase::open(&url, None, 2).await?;
        database.close().await;
        Ok(())
    })
}

#[test]
fn settings_that_lose_what_was_acknowledged_are_refused() {
    let Some(mut postgres) = Postgres::start(&["fsync=off", "full_page_writes=off", "synchronous_commit=off"]) else {
        return;
    };
    let runtime = runtime();
    for (setting, next) in [("fsync", "fsync=on"), ("full_page_writes", "full_page_writes=on")] {
        match open(&runtime, postgres.url("postgres")).unwrap_err() {
            LedgerOpenError::Setting { name, found, .. } if name == setting && found == "off" => {}
            other => panic!("{other}"),
        }
        postgres.stop();
        postgres.set(next);
        postgres.serve();
    }
    // This one is the session's own, whatever server, database and role say.
    postgres.sql("postgres", "ALTER ROLE postgres SET synchronous_commit = local");
    open(&runtime, postgres.url("postgres")).unwrap();
    postgres.sql("postgres", "ALTER ROLE postgres SET default_transaction_read_only = on");
    let error = open(&runtime, postgres.url("postgres")).unwrap_err();
    assert!(matches!(error, LedgerOpenError::Setting { name: "transaction_read_only", .. }), "{error}");
    postgres.sql("postgres", "SET default_transaction_read_only = off; ALTER ROLE postgres RESET ALL");
    let latin = "SET default_transaction_read_only = off; \
                 CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    postgres.sql("postgres", latin);
    let error = open(&runtime, postgres.url("latin")).unwrap_err();
    assert!(matches!(error, LedgerOpenError::Setting { name: "server_encoding", .. }), "{error}");
    let error = open(&runtime, postgres.url("nothing")).unwrap_err();
    assert!(error.to_string().contains("\"nothing\" does not exist"), "{error}");
    postgres.stop();
    let error = open(&runtime, postgres.url("postgres")).unwrap_err();
    assert!(matches!(error, LedgerOpenError::Sql(_)), "{error}");
}

/// Works of a group share the commit, and only that: refusals and failures among them are theirs alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_fails_takes_none_of_its_group_along() {
    let world = World::sqlite().await;
    let (ada, _) = world.owner().await;
    let now = world.now;
    let works = (0..200).map(|n| {
        let node = Arc::clone(&world.nodes[0]);
        tokio::spawn(async move {
            match n % 4 {
                0 => {
                    // Breaks a constraint after it has written something.
                    let broken = node.write((), |conn, ()| {
                        Box::pin(async move {
                            query("UPDATE account SET used = used + 1").execute(conn).await?;
                            query("UPDATE account SET used = -1").execute(conn).await
                        })
                    });
                    assert!(matches!(broken.await, Err(LedgerError::Sql(_))));
                }
                1 => {
                    let panics = node.write((), move |conn, ()| {
                        Box::pin(async move {
                            query("UPDATE account SET used = used + 1").execute(conn).await?;
                            if n > 0 { panic!("a test made this work panic") } else { Ok(()) }
                        })
                    });
                    assert!(matches!(panics.await, Err(LedgerError::Damaged(_))));
                }
                2 => {
                    let late = NewBundle {
                        bundle: BundleId::random().unwrap(),
                        expires: now,
                        burn: false,
                        recipients: vec![],
                    };
                    refused(node.begin_bundle(once(ada), late, limits(), now).await, ProblemKind::BadRequest);
                }
                _ => {
                    let new = NewBundle {
                        bundle: BundleId::random().unwrap(),
                        expires: now.plus(9),
                        burn: false,
                        recipients: vec![],
                    };
                    node.begin_bundle(once(ada), new, limits(), now).await.unwrap();
                }
            }
        })
    });
    join_all(works.collect::<Vec<_>>()).await.into_iter().for_each(|outcome| outcome.unwrap());
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM bundle").await, 50);
    assert_eq!(world.count("SELECT COUNT(*) AS n FROM nonce").await, 100);
    world.check_sums().await;
}

/// A full disk in the middle of a group: nothing of it is acknowledged, and afterwards it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_ledger_refuses_and_recovers() {
    let world = World::sqlite().await;
    let (ada, _) = world.owner().await;
    let bundle = world.begin(ada, false).await;
    let limit = async |pages: &'static str| {
        world.a().write((), move |conn, ()| Box::pin(async move { query(pages).fetch_all(conn).await.map(drop) })).await
    };
    let large = Limits { account_bytes: 1 << 30, total_bytes: 1 << 30, ..limits() };
    let put = |n: u32| {
        let node = Arc::clone(&world.nodes[0]);
        let (slot, name, now) = (slot(bundle, Some(n), 1), BlobName::random().unwrap(), world.now);
        tokio::spawn(async move { (name, node.begin_object(ada.account, &slot, name, large, now).await.map(drop)) })
    };
    limit("PRAGMA max_page_count = 60").await.unwrap();
    let outcomes = join_all((0..2000).map(put)).await;
    let (mut full, mut stored) = (0, 0);
    for outcome in outcomes {
        let (name, outcome) = outcome.unwrap();
        let there = world.a().has_blob(name).await.unwrap();
        assert_eq!(there, outcome.is_ok(), "{outcome:?}");
        match outcome {
            Ok(()) => stored += 1,
            Err(error) => {
                assert_eq!(error.cause(), Cause::Full, "{error:?}");
                full += 1;
            }
        }
    }
    assert!(full > 0 && stored > 0, "{full} {stored}");
    limit("PRAGMA max_page_count = 1000000").await.unwrap();
    put(3000).await.unwrap().1.unwrap();
    world.check_sums().await;
}

/// Sessions are cut and the server dies and comes back while two nodes put objects: what was acknowledged is there, what
/// was refused is not, and what is unsure is one or the other; the counters agree.
#[test]
fn postgres_dies_under_load() {
    let Some(mut postgres) = Postgres::start(&SETTINGS) else { return };
    let runtime = runtime();
    let (world, ada, bundle) = runtime.block_on(async {
        let world = World::postgres(&postgres, "dies").await;
        let (ada, _) = world.owner().await;
        let bundle = world.begin(ada, false).await;
        (world, ada, bundle)
    });
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    // What is replaced takes room, and nothing sweeps here.
    let wide = Limits { account_bytes: 1 << 40, total_bytes: 1 << 40, ..limits() };
    let load: Vec<_> = (0..8)
        .map(|n| {
            let (node, now) = (Arc::clone(&world.nodes[n % 2]), world.now);
            let (over, count) = (Arc::clone(&over), Arc::clone(&count));
            runtime.spawn(async move {
                let mut outcomes = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let (slot, name) = (slot(bundle, Some(n as u32), 10), BlobName::random().unwrap());
                    let begun = node.begin_object(ada.account, &slot, name, wide, now).await;
                    if begun.is_ok() {
                        let finished = node.finish_object(ada.account, &slot, name, now).await;
                        outcomes.push((name, slot.digest, finished));
                    } else if let Err(error) = begun {
                        assert_eq!(error.cause(), Cause::Passing, "{error:?}");
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
                (n as u32, outcomes)
            })
        })
        .collect();
    let more = |than: u32| {
        let begun = std::time::Instant::now();
        while count.load(Ordering::SeqCst) < than {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for round in 1..=6 {
        more(count.load(Ordering::SeqCst) + 60);
        if round % 2 == 0 {
            postgres.stop();
            postgres.serve();
        } else {
            let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                          WHERE datname = 'dies' AND pid <> pg_backend_pid()";
            postgres.sql("postgres", others);
        }
    }
    more(count.load(Ordering::SeqCst) + 60);
    over.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        let (mut sure, mut unsure) = (0, 0);
        for task in load {
            let (number, outcomes) = task.await.unwrap();
            let there = world.a().object(ada.account, bundle, Some(number), world.now).await.unwrap();
            // The last one that was acknowledged, or one after it of which nothing is known.
            let last = outcomes.iter().rposition(|(.., outcome)| outcome.is_ok()).unwrap();
            let found = outcomes.iter().position(|(name, ..)| *name == there.blob).unwrap();
            assert!(found >= last, "acknowledged and lost: {number}");
            assert_eq!(there.digest, outcomes[found].1);
            for (_, _, outcome) in &outcomes {
                match outcome {
                    Ok(_) => sure += 1,
                    Err(error) => {
                        assert_eq!(error.cause(), Cause::Passing, "{error:?}");
                        unsure += 1;
                    }
                }
            }
        }
        eprintln!("acknowledged {sure}, broken off {unsure}, lost 0");
        world.check_sums().await;
        world.close().await;
    });
}

#[test]
fn codes_of_one_database_are_not_taken_for_the_others() {
    for (code, cause) in [
        ("13", Some(Cause::Full)),
        ("5", Some(Cause::Passing)),
        // SQLITE_BUSY_SNAPSHOT; SQLITE_IOERR_WRITE
        ("517", Some(Cause::Passing)),
        ("778", None),
        // disk_full; insufficient_privilege, whose low byte is SQLite's 5, and one with 13; serialization_failure
        ("53100", Some(Cause::Full)),
        ("42501", None),
        ("08461", None),
        ("40001", None),
        ("2200H", None),
    ] {
        assert_eq!(cause_of(code), cause, "{code}");
    }
}

/// A pooler may give each transaction another session than the one that was set up.
#[test]
fn a_commit_is_synchronous_whatever_its_session_says() {
    let Some(postgres) = Postgres::start(&SETTINGS) else { return };
    runtime().block_on(async {
        let database = PostgresDatabase::open(&postgres.url("postgres"), None, 1).await.unwrap();
        let ledger = Ledger { database: Box::new(database) };
        let show = "SELECT current_setting('synchronous_commit') || ' ' || current_setting('lock_timeout') AS said";
        for (session, expected) in [("off", "on 10s"), ("local", "on 10s"), ("remote_apply", "remote_apply 10s")] {
            {
                let mut conn = ledger.look().await.unwrap();
                query("SELECT set_config('synchronous_commit', $1, false), set_config('lock_timeout', '0', false)")
                    .bind(session)
                    .execute(&mut conn)
                    .await
                    .unwrap();
            }
            let work = ledger.write((), move |conn, ()| {
                Box::pin(async move { query(show).fetch_one(conn).await?.get::<String>("said") })
            });
            assert_eq!(work.await.unwrap(), expected, "{session}");
            let after: String =
                query(show).fetch_one(&mut ledger.look().await.unwrap()).await.unwrap().get("said").unwrap();
            assert_eq!(after, format!("{session} 0"), "it is the same session");
        }
        ledger.close().await;
    });
}
