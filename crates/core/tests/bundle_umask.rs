//! attacks.md 60, in a process of its own: the umask belongs to the whole process.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bundle_support::*;
use pouch_core::bundle::*;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

// attacks.md 60: under any umask staging is private; what is published has what the umask leaves.
#[test]
fn attack_60_staging_is_private_under_any_umask() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    std::fs::create_dir_all(source.join("d/e")).unwrap();
    // Over the border of the first part, so that a file stands half written between two parts.
    std::fs::write(source.join("d/e/large"), vec![1; FIRST_PART_SIZE as usize + 10]).unwrap();
    std::fs::write(source.join("d/run"), "x").unwrap();
    make_executable(&source.join("d/run"));
    let carried = world.seal_paths(&[source]);
    assert_eq!(carried.parts.len(), 2);
    for umask in [0o000, 0o022, 0o027, 0o077, 0o277, 0o777] {
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let into = home.path().join(format!("in{umask:o}"));
        let staging = Staging::new(&into).unwrap();
        let private = staging.private_path();
        assert_eq!(mode(&private), 0o700);
        let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
        receiver.accept(0, &carried.parts[0]).unwrap();
        for (path, wanted) in [("", 0o700), ("d", 0o700), ("d/e", 0o700), ("d/e/large", 0o600)] {
            assert_eq!(mode(&private.join(path)), wanted, "{path} under {umask:o}");
        }
        receiver.accept(1, &carried.parts[1]).unwrap();
        let staged = receiver.finish().unwrap();
        assert_eq!(mode(&private), 0o700, "private until published");
        staged.publish().unwrap();
        assert_eq!(mode(&into), 0o777 & !umask);
        if umask & 0o500 == 0 {
            assert_eq!(mode(&into.join("d")), 0o777 & !umask);
            assert_eq!(mode(&into.join("d/run")), 0o777 & !umask);
            assert_eq!(mode(&into.join("d/e/large")), 0o666 & !umask);
        }
        // A .pouch file stays private whatever the umask.
        let file = home.path().join(format!("{umask:o}.pouch"));
        carried.write_pouch(&file);
        assert_eq!(mode(&file), 0o600);
        rustix::process::umask(before);
    }

    // A folder with a default ACL, where the system does not look at the umask (acl(5)): what the umask takes is taken all the
    // same, from files as from folders.
    let parent = home.path().join("acl");
    std::fs::create_dir(&parent).unwrap();
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat();
    let nobody = u32::MAX;
    // The owner, user 1234, the group, the mask, all others: everything.
    let acl = [(0x01, nobody), (0x02, 1234), (0x04, nobody), (0x10, nobody), (0x20, nobody)];
    let acl: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(acl.into_iter().flat_map(|(t, i)| entry(t, i))).collect();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&parent, "system.posix_acl_default", &acl, flags) {
        println!("skipped: {} has no ACLs: {error}", parent.display());
        return;
    }
    for umask in [0o022, 0o077] {
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let into = parent.join(format!("in{umask:o}"));
        let receiver = world.open(&carried).unwrap().receive(Staging::new(&into).unwrap()).unwrap();
        for (number, sealed) in (0..).zip(&carried.parts) {
            receiver.accept(number, sealed).unwrap();
        }
        receiver.finish().unwrap().publish().unwrap();
        for (path, wanted) in [("", 0o777), ("d", 0o777), ("d/run", 0o777), ("d/e/large", 0o666)] {
            assert_eq!(mode(&into.join(path)), wanted & !umask, "{path} under {umask:o}");
        }
        rustix::process::umask(before);
    }
}
