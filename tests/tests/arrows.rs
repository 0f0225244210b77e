//! What may depend on what (docs/architecture.md), read from `cargo metadata`; and the rules for the code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pouch_tests::{Run, files_beneath, text, workspace};
use serde_json::Value;

/// Every crate of ours, and those of ours that it may link.
const ARROWS: [(&str, &[&str]); 7] = [
    ("pouch-statement", &[]),
    ("pouch-log", &[]),
    ("pouch-core", &["pouch-statement"]),
    ("pouch-protocol", &["pouch-statement"]),
    ("pouch-client", &["pouch-core", "pouch-log", "pouch-protocol", "pouch-statement"]),
    ("pouch-relay", &["pouch-log", "pouch-protocol", "pouch-statement"]),
    ("pouch", &["pouch-client", "pouch-core", "pouch-protocol", "pouch-relay", "pouch-statement"]),
];
/// What could open something, or keep something closed for whom it should not.
const CAN_OPEN: [&str; 8] = ["pouch-core", "pouch-client", "age", "age-core", "rage", "hpke", "ml-kem", "x25519-dalek"];
const ASYNC: [&str; 4] = ["tokio", "axum", "hyper", "reqwest"];

fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let words = ["metadata", "--format-version", "1", "--offline", "--locked"];
        let ran = Run::of(env!("CARGO")).args(words).dir(workspace()).end().ok();
        serde_json::from_slice(&ran.out).unwrap()
    })
}

fn strings<'a>(rows: &'a Value, member: &str) -> BTreeSet<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[member].as_str().unwrap()).collect()
}

/// The packages in `crates/`.
fn crates() -> Vec<&'static Value> {
    let folder = fs::canonicalize(workspace().join("crates")).unwrap();
    let all = metadata()["packages"].as_array().unwrap().iter();
    all.filter(|p| Path::new(p["manifest_path"].as_str().unwrap()).starts_with(&folder)).collect()
}

/// Names of everything that a package links, by any way; only what its tests need is left out.
fn links(name: &str) -> BTreeSet<&'static str> {
    let nodes: BTreeMap<&str, &Value> = metadata()["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let names: BTreeMap<&str, &str> = metadata()["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let first = crates().into_iter().find(|p| p["name"] == name).unwrap()["id"].as_str().unwrap();
    let (mut seen, mut todo) = (BTreeSet::new(), vec![first]);
    while let Some(id) = todo.pop() {
        for dep in nodes[id]["deps"].as_array().unwrap() {
            let linked = dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            let id = dep["pkg"].as_str().unwrap();
            if linked && seen.insert(id) {
                todo.push(id);
            }
        }
    }
    seen.into_iter().map(|id| names[id]).collect()
}

#[test]
fn every_crate_has_its_arrows_and_no_other() {
    let names: BTreeSet<&str> = crates().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ARROWS.iter().map(|(name, _)| *name).collect(), "a crate appears here with its arrows");
    for package in crates() {
        let name = package["name"].as_str().unwrap();
        let allowed: BTreeSet<&str> = ARROWS.iter().find(|(of, _)| *of == name).unwrap().1.iter().copied().collect();
        let all = package["dependencies"].as_array().unwrap();
        let mine: BTreeSet<&str> = all
            .iter()
            .filter(|d| d["kind"].is_null() && !d["path"].is_null())
            .map(|d| d["name"].as_str().unwrap())
            .collect();
        let wrong: Vec<_> = mine.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
        // Not by another way either.
        let linked: BTreeSet<&str> = links(name).into_iter().filter(|n| names.contains(n)).collect();
        let reachable: BTreeSet<&str> = allowed.iter().flat_map(|n| std::iter::once(*n).chain(links(n))).collect();
        assert!(linked.is_subset(&reachable), "{name} links {linked:?}");
    }
}

#[test]
fn nothing_that_the_relay_links_can_open_anything() {
    let linked = links("pouch-relay");
    assert!(linked.contains("axum") && linked.contains("pouch-protocol"), "the search finds what is there");
    let wrong: Vec<_> = CAN_OPEN.iter().filter(|name| linked.contains(**name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(links("pouch-core").contains("age"));
}

#[test]
fn only_client_relay_and_command_line_are_async() {
    for name in ["pouch-statement", "pouch-log", "pouch-core", "pouch-protocol"] {
        let linked = links(name);
        let wrong: Vec<_> = ASYNC.iter().filter(|other| linked.contains(**other)).collect();
        assert!(wrong.is_empty(), "{name} links {wrong:?}");
    }
    assert!(links("pouch-log").iter().all(|name| !name.starts_with("pouch")));
    // Without its feature the program has no relay in it.
    let words =
        ["tree", "-p", "pouch", "--no-default-features", "-e", "normal", "--offline", "--locked", "--prefix", "none"];
    let tree = Run::of(env!("CARGO")).args(words).dir(workspace()).end().ok().text();
    assert!(tree.contains("pouch-client") && !tree.contains("pouch-relay") && !tree.contains("axum"), "{tree}");
}

#[test]
fn one_place_for_versions_and_lints() {
    let root = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let lints = root.split("[workspace.lints.rust]").nth(1).unwrap();
    assert!(lints.split("\n[").next().unwrap().contains("unsafe_code = \"forbid\""));
    for lint in ["unwrap_used", "panic", "todo", "unimplemented", "dbg_macro", "indexing_slicing"] {
        assert!(root.contains(&format!("\n{lint} = \"deny\"")), "{lint}");
    }
    for package in crates() {
        let path = package["manifest_path"].as_str().unwrap();
        let manifest = fs::read_to_string(path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{path} has its own lints");
        let versions: Vec<&str> = manifest.lines().filter(|line| line.contains("version = \"")).collect();
        assert!(versions.is_empty(), "{path}: {versions:?} belong into the workspace's manifest");
        assert_eq!(strings(&package["targets"], "edition").into_iter().collect::<Vec<_>>(), ["2024"], "{path}");
    }
}

/// Sources of the crates without tests, benches and examples.
fn sources() -> Vec<PathBuf> {
    let beneath =
        |folder: &Path| files_beneath(folder).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let all: Vec<PathBuf> = crates()
        .iter()
        .flat_map(|p| {
            beneath(&Path::new(p["manifest_path"].as_str().unwrap()).with_file_name("src")).collect::<Vec<_>>()
        })
        .collect();
    assert!(all.len() > 80, "{}", all.len());
    all
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|path| (fs::read_to_string(path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > 500)
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["TODO", "FIXME", "XXX", "HACK", "todo!", "unimplemented!", "dbg!", "#[ignore"];
    let mut found = Vec::new();
    for path in sources() {
        let source = fs::read_to_string(&path).unwrap();
        found.extend(words.iter().filter(|w| source.contains(**w)).map(|w| format!("{w} in {}", text(&path))));
        assert!(!source.contains("allow(unsafe_code"), "{}", path.display());
        // In front of the tests of a file nothing may end the program.
        let code = source.split("#[cfg(test)]").next().unwrap();
        let is_tests = |path: &Path| path.file_stem().is_some_and(|stem| stem == "tests");
        let tests = is_tests(&path) || path.parent().is_some_and(is_tests);
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        if !tests && lines.clone().any(|line| line.contains(".unwrap()") || line.contains("panic!(")) {
            found.push(format!("unwrap or panic in {}", path.display()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
