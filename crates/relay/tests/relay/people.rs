//! Joining, links, accounts, the access record, and what may be set up twice.

use pouch_protocol::{
    AccessPage, Account, AccountRole, Accounts, JoinResponse, LinkSecret, Links, NewBundle, NewLink, NewRole,
    ProblemKind, RelayInfo, route,
};
use pouch_relay::{Clock as _, InitError, InitOptions, OpenError, Relay, init, new_owner_link};
use pouch_statement::{BundleId, LinkId, MailboxId};
use sqlx::Connection as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Draft, Person, World, beneath, sealed};

#[tokio::test]
async fn an_owner_joins_invites_and_is_seen() {
    let mut world = World::new().await;
    let info: RelayInfo = world.send(Draft::get(route::INFO)).await.json();
    assert_eq!(info.versions, [1]);
    let ada = world.owner("Ada").await;
    let secret = LinkSecret::random().unwrap();
    let link = world.new_link(&ada, &secret);
    world.by(&ada, Draft::post(route::LINKS, &link)).await.is_done();
    // The same again has no effect.
    world.by(&ada, Draft::post(route::LINKS, &link)).await.is_done();
    let open: Links = world.by(&ada, Draft::get(route::LINKS)).await.json();
    assert_eq!((open.links.len(), open.links[0].joiner.is_none()), (1, true));

    let bo = Person::new("Bo");
    let request = world.join_request(&bo, &secret, true);
    let joined: JoinResponse = world.send(Draft::post(route::JOIN, &request)).await.json();
    assert_eq!((joined.role, joined.inviter), (AccountRole::Member, Some(link.inviter.clone())));
    // The same request, byte for byte, gives the same answer.
    let again: JoinResponse = world.send(Draft::post(route::JOIN, &request)).await.json();
    assert_eq!(again.inviter, Some(link.inviter.clone()));
    let redeemed: Links = world.by(&ada, Draft::get(route::LINKS)).await.json();
    let joiner = redeemed.links[0].joiner.clone().unwrap();
    assert_eq!((joiner.card, Some(joiner.mac)), (request.card.clone(), request.mac));

    let account: Account = world.by(&bo, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.mailbox, account.role, account.used), (bo.mailbox, AccountRole::Member, 0));
    let all: Accounts = world.by(&ada, Draft::get(route::ACCOUNTS)).await.json();
    assert_eq!(all.accounts.iter().map(|a| a.mailbox).collect::<Vec<_>>(), [ada.mailbox, bo.mailbox]);
    assert_eq!(world.by(&bo, Draft::get(route::ACCOUNTS)).await.problem(), ProblemKind::Forbidden);

    // Only its maker can forget it; then it is spent for everybody.
    let path = route::link(link.link);
    assert_eq!(world.by(&bo, Draft::new("DELETE", &path)).await.problem(), ProblemKind::NotFound);
    world.by(&ada, Draft::new("DELETE", &path)).await.is_done();
    assert_eq!(world.send(Draft::post(route::JOIN, &request)).await.problem(), ProblemKind::LinkSpent);
    world.stop().await;
}

#[tokio::test]
async fn joining_asks_for_everything_that_it_must() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = Person::new("Bo");
    let secret = LinkSecret::random().unwrap();
    let link = world.new_link(&ada, &secret);
    world.by(&ada, Draft::post(route::LINKS, &link)).await.is_done();
    let good = world.join_request(&bo, &secret, true);
    let other = world.join_request(&Person::new("Eve"), &secret, true);
    let refused = [
        (world.join_request(&bo, &LinkSecret::random().unwrap(), true), ProblemKind::LinkSpent),
        (world.join_request(&bo, &secret, false), ProblemKind::BadRequest),
        (pouch_protocol::JoinRequest { card: other.card.clone(), ..good.clone() }, ProblemKind::BadRequest),
        (pouch_protocol::JoinRequest { device: other.device.clone(), ..good.clone() }, ProblemKind::BadRequest),
        (pouch_protocol::JoinRequest { admit: "x".repeat(64), ..good.clone() }, ProblemKind::BadRequest),
        (world.join_request(&ada, &secret, true), ProblemKind::Conflict),
    ];
    for (request, kind) in refused {
        assert_eq!(world.send(Draft::post(route::JOIN, &request)).await.problem(), kind, "{request:?}");
    }
    // None of them spent the link. Its time does.
    world.clock.forward(3600);
    assert_eq!(world.send(Draft::post(route::JOIN, &good)).await.problem(), ProblemKind::LinkSpent);
    // Somebody else's card is not put into a link.
    let forged = world.new_link(&bo, &LinkSecret::random().unwrap());
    assert_eq!(world.by(&ada, Draft::post(route::LINKS, &forged)).await.problem(), ProblemKind::BadRequest);
    let nobody = route::link(LinkId::random().unwrap());
    assert_eq!(world.by(&ada, Draft::new("DELETE", nobody)).await.problem(), ProblemKind::NotFound);
    world.stop().await;
}

// attacks.md 44 and 61: of many who race for a one-time link exactly one wins.
#[tokio::test]
async fn attack_44_a_one_time_link_has_one_winner() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let secret = LinkSecret::random().unwrap();
    world.by(&ada, Draft::post(route::LINKS, &world.new_link(&ada, &secret))).await.is_done();
    let racers: Vec<_> = (0..12).map(|_| Person::new("Racer")).collect();
    let requests = racers.iter().map(|p| world.send(Draft::post(route::JOIN, &world.join_request(p, &secret, true))));
    let replies = futures_util::future::join_all(requests).await;
    let won = replies.iter().filter(|reply| reply.status == 200).count();
    let spent = replies.iter().filter(|r| r.status != 200 && r.problem() == ProblemKind::LinkSpent).count();
    assert_eq!((won, spent), (1, 11));
    let all: Accounts = world.by(&ada, Draft::get(route::ACCOUNTS)).await.json();
    assert_eq!(all.accounts.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn every_attempt_is_in_the_record_and_survives_a_restart() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, eve) = (world.member(&ada, "Bo").await, world.member(&ada, "Eve").await);
    let bundle = world.deliver(&bo, &[sealed(1, 100)], &[&ada], false).await;
    world.by(&eve, Draft::get(route::part(bundle, 0))).await.problem();
    for _ in 0..5 {
        world.send(Draft::get("/v1/nothing/%1b[31m")).await.problem();
        world.send(Draft::get(route::ACCOUNT).query("x=%00")).await.problem();
    }
    world.restart().await;
    let page: AccessPage = world.by(&bo, Draft::get(route::ACCESS)).await.json();
    // Bo sees what Eve tried on Bo's bundle, and nothing of Eve's own.
    let eves: Vec<_> = page.records.iter().filter(|r| r.account == Some(eve.mailbox)).collect();
    assert_eq!(eves.len(), 1);
    assert_eq!((eves[0].route.as_str(), eves[0].status, eves[0].bundle), (route::PART, 404, Some(bundle)));
    assert_eq!((eves[0].problem.as_deref(), eves[0].address.as_str()), (Some("not-found"), "127.0.0.1"));
    let all: AccessPage = world.by(&ada, Draft::get(route::ACCESS)).await.json();
    let counted = |route: &str| -> u64 {
        all.records.iter().filter(|r| r.account.is_none() && r.route == route).map(|r| r.count).sum()
    };
    assert_eq!((counted("unknown"), counted(route::ACCOUNT)), (5, 5));
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("31m") && !text.contains("%00") && !text.contains("nothing"));
    world.stop().await;
}

#[tokio::test]
async fn the_record_goes_on_where_a_page_ended() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    world.stop().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.data().join("ledger.sqlite"));
    let mut ledger = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    // Every second row is Bo's.
    let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1200)
                INSERT INTO access (time, account, address, method, route, status, problem, count)
                SELECT unixepoch(), CASE n % 2 WHEN 0 THEN $1 END, '192.0.2.1', 'GET', '/v1', 200, '', 1 FROM n";
    sqlx::query(rows).bind(bo.mailbox.as_bytes().as_slice()).execute(&mut ledger).await.unwrap();
    ledger.close().await.unwrap();
    world.start().await;
    for (person, least) in [(&ada, 1200), (&bo, 600)] {
        let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let draft = Draft::get(route::ACCESS);
            let draft = match after {
                Some(after) => draft.query(&format!("after={after}")),
                None => draft,
            };
            let page: AccessPage = world.by(person, draft).await.json();
            let ours = page.records.iter().filter(|record| record.address == "192.0.2.1");
            found.extend(ours.map(|record| record.seq));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
            assert_eq!(page.records.len(), 500);
        }
        assert_eq!((found.len(), pages), (least, least / 500 + 1));
        assert!(found.is_sorted_by(|newer, older| newer > older), "newest first, and none twice");
    }
    world.stop().await;
}

#[tokio::test]
async fn set_up_once_served_once_private_under_any_umask() {
    let mut world = World::new().await;
    let options = InitOptions {
        data: world.data(),
        origin: world.config.origin.clone(),
        listen: world.address,
        certificate: None,
        ledger: None,
        ledger_password_file: None,
    };
    assert!(matches!(init(options.clone()).await, Err(InitError::Initialised(_))));
    let full = InitOptions { data: world.folder.path().to_owned(), ..options };
    assert!(matches!(init(full).await, Err(InitError::NotEmpty(_))));
    assert!(matches!(Relay::open(world.config.clone()).await, Err(OpenError::Locked(_))));
    assert!(matches!(new_owner_link(&world.config).await, Err(InitError::Locked(_))));
    // A new owner's link takes the place of the first one, until an owner joined.
    let lost = world.owner_link.take().unwrap();
    world.stop().await;
    world.owner_link = Some(new_owner_link(&world.config).await.unwrap());
    world.start().await;
    let late = world.join_request(&Person::new("Late"), &lost.secret, false);
    assert_eq!(world.send(Draft::post(route::JOIN, &late)).await.problem(), ProblemKind::LinkSpent);
    let ada = world.owner("Ada").await;
    world.deliver(&ada, &[sealed(1, 100)], &[&ada], false).await;
    world.stop().await;
    assert!(matches!(new_owner_link(&world.config).await, Err(InitError::OwnerJoined)));
    // attacks.md 60
    for path in beneath(world.data()) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

// attacks.md 41 and 59: what lets somebody in stands nowhere in the relay's files.
#[tokio::test]
async fn attack_41_59_no_secret_is_stored() {
    let mut world = World::new().await;
    let owners = world.owner_link.as_ref().unwrap().secret.admit();
    let ada = world.owner("Ada").await;
    let secret = LinkSecret::random().unwrap();
    world.by(&ada, Draft::post(route::LINKS, &world.new_link(&ada, &secret))).await.is_done();
    let bo = Person::new("Bo");
    let request = world.join_request(&bo, &secret, true);
    assert_eq!(world.send(Draft::post(route::JOIN, &request)).await.status, 200);
    world.stop().await;
    let mut needles: Vec<Vec<u8>> = vec![request.admit.clone().into_bytes()];
    needles.extend([secret.admit(), secret.card_key(), owners].map(|key| key.to_vec()));
    let files: Vec<_> = beneath(world.data()).into_iter().filter(|path| !path.is_dir()).collect();
    assert!(files.len() >= 6);
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_slice());
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_suspended_account_is_refused_and_recorded_and_its_mailbox_takes_on() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let before = world.deliver(&bo, &[sealed(1, 100)], &[&cy], false).await;
    let suspend = |person: &Person| Draft::new("POST", route::suspend(person.mailbox));
    let restore = |person: &Person| Draft::new("POST", route::restore(person.mailbox));
    // For the owner alone, and not against the last one.
    assert_eq!(world.by(&cy, suspend(&bo)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&bo, restore(&bo)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&ada, suspend(&ada)).await.problem(), ProblemKind::Conflict);
    assert_eq!(world.by(&ada, suspend(&Person::new("Dee"))).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.by(&ada, Draft::new("POST", "/v1/accounts/x/suspend")).await.problem(), ProblemKind::NotFound);
    world.by(&ada, suspend(&bo)).await.is_done();
    world.by(&ada, suspend(&bo)).await.is_done();
    let requests = [
        Draft::get(route::ACCOUNT),
        Draft::get(route::INBOX).query("wait=60"),
        Draft::get(route::part(before, 0)),
        Draft::new("DELETE", route::bundle(before)),
        Draft::part(before, 0, &sealed(1, 1000)),
        Draft::post(route::LINKS, &world.new_link(&bo, &LinkSecret::random().unwrap())),
        restore(&bo),
    ];
    for draft in &requests {
        let reply = world.by(&bo, draft.clone()).await;
        assert_eq!((reply.status, reply.problem()), (403, ProblemKind::Suspended), "{draft:?}");
    }
    let record: AccessPage = world.by(&ada, Draft::get(route::ACCESS)).await.json();
    let refused =
        |r: &&pouch_protocol::Access| r.account == Some(bo.mailbox) && r.problem.as_deref() == Some("suspended");
    assert_eq!(record.records.iter().filter(refused).count(), requests.len());
    let did =
        |r: &&pouch_protocol::Access| r.account == Some(ada.mailbox) && r.route == route::SUSPEND && r.status == 204;
    assert_eq!(record.records.iter().filter(did).count(), 2);
    // What it sent is still received, and what is sent to it waits.
    assert_eq!(world.by(&cy, Draft::new("POST", route::release(before))).await.status, 200);
    let after = world.deliver(&cy, &[sealed(2, 100)], &[&bo], false).await;
    let all: Accounts = world.by(&ada, Draft::get(route::ACCOUNTS)).await.json();
    let who: Vec<_> = all.accounts.iter().filter(|a| a.suspended.is_some()).map(|a| a.mailbox).collect();
    assert_eq!(who, [bo.mailbox]);
    world.restart().await;
    assert_eq!(world.by(&bo, Draft::get(route::INBOX)).await.problem(), ProblemKind::Suspended);
    world.by(&ada, restore(&bo)).await.is_done();
    let inbox: pouch_protocol::Inbox = world.by(&bo, Draft::get(route::INBOX)).await.json();
    assert_eq!(inbox.items.iter().map(|item| item.bundle).collect::<Vec<_>>(), [after]);
    world.stop().await;
}

#[tokio::test]
async fn a_contractor_may_receive_and_reply_and_nothing_else() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.contractor(&ada, "Cy").await);
    let account: Account = world.by(&cy, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!(account.role, AccountRole::Contractor);
    // Receives from anybody, and replies.
    let sent = world.deliver(&bo, &[sealed(1, 100)], &[&cy], false).await;
    assert_eq!(world.by(&cy, Draft::new("POST", route::release(sent))).await.status, 200);
    world.deliver(&cy, &[sealed(2, 100)], &[&ada, &bo], false).await;
    // To others: refused at the beginning, where they are named, and else with the envelope.
    let dee = world.contractor(&bo, "Dee").await;
    let new = |to: &Person| NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.clock.now().plus(1000),
        burn: false,
        recipients: vec![to.mailbox],
    };
    let begun = world.by(&cy, Draft::post(route::BUNDLES, &new(&dee))).await;
    assert_eq!((begun.status, begun.problem()), (403, ProblemKind::Forbidden));
    let bundle = world.begin(&cy, false).await;
    for mailbox in [dee.mailbox, MailboxId::random().unwrap()] {
        let put = world.by(&cy, Draft::put(route::envelope(bundle, mailbox), sealed(3, 100))).await;
        assert_eq!((put.status, put.problem()), (403, ProblemKind::Forbidden));
    }
    // Invites nobody, and a member invites no member; nobody makes an owner.
    let link = |by: &Person, role| NewLink { role, ..world.new_link(by, &LinkSecret::random().unwrap()) };
    for (by, role, kind) in [
        (&cy, AccountRole::Contractor, ProblemKind::Forbidden),
        (&cy, AccountRole::Member, ProblemKind::Forbidden),
        (&bo, AccountRole::Member, ProblemKind::Forbidden),
        (&ada, AccountRole::Owner, ProblemKind::BadRequest),
    ] {
        assert_eq!(world.by(by, Draft::post(route::LINKS, &link(by, role))).await.problem(), kind, "{role:?}");
    }
    let mine = link(&bo, AccountRole::Contractor);
    world.by(&bo, Draft::post(route::LINKS, &mine)).await.is_done();
    let links: Links = world.by(&bo, Draft::get(route::LINKS)).await.json();
    assert!(links.links.iter().any(|l| l.link == mine.link && l.role == AccountRole::Contractor));
    // The owner says otherwise, and nobody else can.
    let role = |role| Draft::post(route::role(cy.mailbox), &NewRole { role });
    assert_eq!(world.by(&cy, role(AccountRole::Member)).await.problem(), ProblemKind::Forbidden);
    assert_eq!(world.by(&ada, role(AccountRole::Owner)).await.problem(), ProblemKind::BadRequest);
    world.by(&ada, role(AccountRole::Member)).await.is_done();
    world.by(&cy, Draft::post(route::BUNDLES, &new(&dee))).await.is_done();
    world.by(&ada, role(AccountRole::Contractor)).await.is_done();
    assert_eq!(world.by(&cy, Draft::post(route::BUNDLES, &new(&dee))).await.problem(), ProblemKind::Forbidden);
    let all: AccessPage = world.by(&ada, Draft::get(route::ACCESS)).await.json();
    let changed: Vec<_> = all.records.iter().filter(|r| r.route == route::ROLE).map(|r| r.status).collect();
    assert_eq!(changed, [204, 204, 400, 403]);
    world.stop().await;
}
