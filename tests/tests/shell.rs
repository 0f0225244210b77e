//! Completions and manual pages: made out of the definitions, for every verb.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use pouch_tests::{Party, Run, have, text};

/// The verbs below these, as the help lists them.
fn verbs(party: &Party, above: &[&str]) -> Vec<String> {
    let help = party.run(&[above, &["--help"]].concat()).ok().text();
    let (_, listed) =
        help.split_once(if above.is_empty() { "\nStart:\n" } else { "\nCommands:\n" }).unwrap_or_default();
    // Groups of them stand apart in the first list; a list below ends at the first empty line.
    let (listed, _) =
        listed.split_once(if above.is_empty() { "\nEverywhere:" } else { "\n\n" }).unwrap_or((listed, ""));
    let rows = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = rows.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

#[test]
fn completions_know_every_verb() {
    let root = tempfile::tempdir().unwrap();
    let party = Party::new(root.path(), "somebody");
    let verbs = verbs(&party, &[]);
    assert!(verbs.len() > 14 && verbs.iter().any(|verb| verb == "completions"), "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = party.run(&["completions", shell]).ok().text();
        for word in verbs.iter().map(String::as_str).chain(["--only", "--passphrase-file", "takedown"]) {
            let word = if shell == "fish" { word.trim_start_matches("--") } else { word };
            assert!(script.contains(word), "{word} for {shell}");
        }
        if shell == "bash" && have(&["bash"]) {
            let file = party.file("pouch.bash", &script);
            let ask =
                "source \"$1\"; COMP_WORDS=(pouch rec); COMP_CWORD=1; _pouch pouch rec pouch; echo \"${COMPREPLY[@]}\"";
            let ran = Run::of("bash").args(["--norc", "-c", ask, "bash", text(&file)]).end().ok();
            assert_eq!(ran.word(), "receive", "{ran}");
        }
    }
    party.run(&["completions", "cmd.exe"]).ends(2);
}

#[test]
fn every_verb_has_its_page() {
    let root = tempfile::tempdir().unwrap();
    let party = Party::new(root.path(), "somebody");
    let folder = party.desk().join("man");
    party.run(&["man", text(&folder)]).ends(3);
    fs::create_dir(&folder).unwrap();
    party.run(&["man", text(&folder)]).ok();
    let page = |name: &str| {
        let text = fs::read_to_string(folder.join(format!("{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(text.contains(".TH") && text.contains(".SH NAME"), "{name}");
        text
    };
    assert!(page("pouch").contains("Sealed, signed and receipted"));
    let mut below = 0;
    for verb in verbs(&party, &[]) {
        page(&format!("pouch-{verb}"));
        for name in verbs(&party, &[verb.as_str()]) {
            page(&format!("pouch-{verb}-{name}"));
            below += 1;
        }
    }
    assert!(below > 20, "{below}");
    assert!(page("pouch-receive").contains("only") && page("pouch-relay-takedown").contains("reason"));
    // Again, over what is there.
    party.run(&["man", text(&folder)]).ok();
}
